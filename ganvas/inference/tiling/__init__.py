"""Translation of huge images in overlapping tiles."""
