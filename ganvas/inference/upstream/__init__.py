"""Weights of pytorch-CycleGAN-and-pix2pix."""
