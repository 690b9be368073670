"""What small patches of good images are like, and windows that would hardly look so by chance.

Tailanian, Musé, Pardo, "A Multi-Scale A Contrario method for Unsupervised Image Anomaly Detection",
ICMLA 2021, arXiv 2110.02407.
"""

from contrario_jax.method import build

__all__ = ["build"]
