"""Pictures in and out, data sets, augmentation, resumable order."""
