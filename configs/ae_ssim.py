"""The autoencoder of Bergmann et al. 2019 (arXiv 1807.02011) with structural similarity: AE-SSIM.

python main.py --config=configs/ae_ssim.py:bottle --config.data.root=DIR --workdir=W

As configs/ae_l2.py, but for the loss and the map, which are 1 - SSIM in Gaussian windows of 11 px
with the constants 0.01 and 0.03, as of images in [0, 1]; three channels, averaged. `:demo` draws
its own data and ends within 3 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae_l2


def get_config(category: str = "bottle") -> ConfigDict:
    """AE-L2 with the loss 1 - SSIM and the map 1 - SSIM."""
    config = ae_l2.get_config(category)
    config.name = "AE-SSIM"
    config.training.loss.fn = "ae_jax.losses:ssim"
    config.score.fn = "ae_jax.score:max_dssim"
    return config
