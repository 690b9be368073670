"""The convolutional autoencoder with the original settings.

python main.py --config=configs/ae.py:bottle --config.data.root=DIR --workdir=W

The original settings are size, flip, range, batch, learning rate, epochs and latent length, but
name no layers; these are our reconstruction: six 4x4 convolutions of stride 2 with batch
normalisation and LeakyReLU 0.2, of 32, 64, 128, 256, 512, 512 channels, a dense layer to 1024, and
their mirror, which ends in tanh. Nor do they say how the decoder upsamples:
docs/methods/autoencoder.md says why it is nearest-neighbour upsampling with 3x3 convolutions here.
`:demo` draws its own data and ends within 3 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(category: str = "bottle") -> ConfigDict:
    """256 px, latent 1024, batch 70, Adam 1e-3, 300 epochs, squared error."""
    config = base.get_config(category)
    config.name = "convolutional AE"
    config.method = dict(fn="ae_jax:build")
    config.data.image_size = 256
    config.data.crop = 0  # side of the random crops that are trained on; 0: whole images
    config.autoencoder = dict(
        fn="ae_jax.models:ConvolutionalAutoencoder",
        latent=1024,
        features=(32, 64, 128, 256, 512, 512),
        transposed=False,  # 4x4 transposed convolutions instead of upsampling
        sspcab=False,  # an SSPCAB block before the last layer
    )
    config.training = dict(
        epochs=300,
        samples=0,  # draws that make an epoch; 0: as many as there are training images
        num_steps=0,  # if not 0, overrules the epochs
        batch_size=70,
        # or :ssim; latent_norm_weight is that of targeted collapse (arXiv 2306.12627)
        loss=dict(fn="ae_jax.losses:l2", latent_norm_weight=0.0, sspcab_weight=0.1),
        optimizer=dict(fn="optax:adam", learning_rate=1e-3),
    )
    config.score = dict(
        fn="ae_jax.score:mean_squared",
        stride=32,  # pixels from window to window, where images are larger than the network's
        smoothing=0.0,  # pixels
        normalise="none",  # or, by --mode=tune, 'pixel'
    )
    # What --mode=tune chooses among, by held-out normal images with made-up defects.
    config.tuning = dict(
        normalise=("none", "pixel"),  # of the map: as it is, over what is usual at each place
        draws=1,  # of defects, for each image
    )
    config.every = dict(log=20, save=100, pictures=100)  # steps

    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels, features and steps."""
    config.data.image_size = 64
    config.autoencoder.update(latent=64, features=(32, 64, 64, 64))
    config.training.update(num_steps=800, batch_size=32)
