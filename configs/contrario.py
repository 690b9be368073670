"""Patches compared with those of good images, by the number of false alarms: no gradient, no GPU.

python main.py --config=configs/contrario.py:grid --config.data.root=DIR --workdir=W

After Tailanian, Musé, Pardo 2021 (arXiv 2110.02407); docs/methods/contrario.md says what is theirs.
Three passes over the training images, seconds on a CPU. For textures: of an object that lies in its
place, nothing is known by place.

    no training images at all    --config.patches.reference=image

`:demo` draws its own data and takes 20 seconds of a CPU's time. Its parts are objects: all
scratches and stains are found, and hardly any of the other defects.
"""

from ml_collections import ConfigDict

from configs import augmentation, base


def get_config(category: str = "grid") -> ConfigDict:
    """128 px, patches of 7 px at three scales, windows of 7, 14 and 28 px, three levels."""
    allowed = augmentation.of(category)
    config = base.get_config(category)
    config.name = "a contrario"
    config.method = dict(fn="contrario_jax:build")
    config.data.image_size = 128
    config.data.update(flip=allowed.flip, rotation=allowed.rotation)
    config.patches = dict(
        reference="training",  # or 'image': the others of the same image
        side=7,  # pixels
        stride=2,  # between patches that the moments are of
        scales=(1, 2, 4),  # by how much images are made smaller
        floor=1e-5,  # of the eigenvalues, as a share of the largest
    )
    config.training = dict(epochs=1, num_steps=0, batch_size=8)
    config.score = dict(
        fn="contrario_jax.score:false_alarms",
        levels=(0.1, 0.01, 0.001),  # shares of good patches that lie above
        windows=(1, 2, 4),  # sides, in sides of a patch
    )
    config.every = dict(log=5, save=0, pictures=0)
    if category == "demo":
        config.data.image_size = 64
        config.patches.side = 5
    return config
