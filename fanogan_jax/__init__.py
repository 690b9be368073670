"""f-AnoGAN: Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth, "f-AnoGAN: Fast unsupervised

anomaly detection with generative adversarial networks", Medical Image Analysis 54 (2019) 30-44,
doi:10.1016/j.media.2019.01.010.
"""

from fanogan_jax.method import build

__all__ = ["build"]
