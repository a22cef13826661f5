"""Marigold: a latent-diffusion model as a depth estimator (arXiv 2312.02145, 2505.09358)."""
