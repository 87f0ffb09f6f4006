"""Digits: from the MLP GAN to the DCGAN (Goodfellow et al. 2014; Mirza and Osindero 2014; Radford et al. 2016)."""
