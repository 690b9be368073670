"""A network that takes noise and defects out of images, and repairs as much as each image needs.

Yao, Liu, Yin, Yan, Hong, Zuo, "GLAD: Towards Better Reconstruction with Global and Local Adaptive
Diffusion Models for Unsupervised Anomaly Detection", ECCV 2024, arXiv 2406.07487.
"""

from diffusion_jax.method import build

__all__ = ["build"]
