"""Autoencoders that learn to reconstruct normal images: the original one and its relatives.

Bergmann, Löwe, Fauser, Sattlegger, Steger, "Improving Unsupervised Defect Segmentation by Applying
Structural Similarity to Autoencoders", VISAPP 2019, arXiv 1807.02011.
"""

from ae_jax.method import build

__all__ = ["build"]
