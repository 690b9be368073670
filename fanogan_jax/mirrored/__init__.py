"""AMA, the adversarial mirrored autoencoder: Somepalli, Wu, Balaji, Vinzamuri, Feizi, "Unsupervised

anomaly detection with adversarial mirrored autoencoders", UAI 2021, arXiv 2003.10713. A critic that
sees an image beside its reconstruction takes the place of the reconstruction error.
"""

from fanogan_jax.mirrored.method import build

__all__ = ["build"]
