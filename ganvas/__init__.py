"""ganvas: image-to-image translation on PyTorch."""
