"""Dataset tools: check, convert, combine and preview folders of images."""
