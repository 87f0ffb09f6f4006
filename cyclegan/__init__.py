"""CycleGAN: translation learned without pairs, two generators and two discriminators (Zhu et al. 2017)."""
