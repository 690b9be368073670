"""f-AnoGAN: Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth, "f-AnoGAN: Fast unsupervised

anomaly detection with generative adversarial networks", Medical Image Analysis 54 (2019) 30-44,
doi:10.1016/j.media.2019.01.010. And AnoGAN, of the same first stage: Schlegl, Seeböck, Waldstein,
Schmidt-Erfurth, Langs, "Unsupervised anomaly detection with generative adversarial networks to
guide marker discovery", IPMI 2017, arXiv 1703.05921.
"""

from fanogan_jax.method import build, build_anogan

__all__ = ["build", "build_anogan"]
