"""Images in and out, datasets, augmentation, resumable order."""
