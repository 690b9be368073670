"""The autoencoder of Bergmann et al. 2019 (arXiv 1807.02011) with squared error: AE-L2.

python main.py --config=configs/ae_l2.py:bottle --config.data.root=DIR --workdir=W

Their table 1 with 100 latents at 128 px, Adam 2e-4 with weight decay 1e-5 (decoupled), batch 128,
200 epochs of 10,000 samples; images in [-1, 1], where theirs are in [0, 1]. Objects are resized to
128 px. Textures are resized to 512 px, trained on in random crops of 128 px and scored in windows
of 128 px every 32 px, whose overlaps are averaged. Samples differ by flips (and crops) alone, where
theirs are rotated as well. `:demo` draws its own data and ends within 3 minutes on 2 CPU cores.

An own category is an object; an own texture is `--config.data.image_size=512
--config.data.crop=128`.
"""

from ml_collections import ConfigDict

from configs import ae

_TEXTURES = ("carpet", "grid", "leather", "tile", "wood")


def get_config(category: str = "bottle") -> ConfigDict:
    """128 px, latent 100, batch 128, AdamW 2e-4, 200 epochs of 10,000 samples, squared error."""
    config = ae.get_config(category)
    config.name = "AE-L2"
    config.data.update(image_size=128, crop=0)
    if category in _TEXTURES:
        config.data.update(image_size=512, crop=128)
    config.autoencoder = dict(
        fn="ae_jax.models:BergmannAutoencoder",
        latent=100,
        sspcab=False,  # an SSPCAB block before the last layer
    )
    config.training.update(epochs=200, samples=10_000, batch_size=128)
    config.training.optimizer = dict(fn="optax:adamw", learning_rate=2e-4, weight_decay=1e-5)
    config.score.fn = "ae_jax.score:max_squared"
    config.every = dict(log=20, save=200, pictures=200)
    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels and steps, and larger ones."""
    config.data.image_size = 64
    config.training.update(num_steps=1000, batch_size=32)
    config.training.optimizer.learning_rate = 1e-3
