"""pix2pix: translation learned from pairs, a U-Net against a PatchGAN (Isola et al. 2017)."""
