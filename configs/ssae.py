"""The self-supervised autoencoder of Bauer, Nakajima, Müller (arXiv 2206.11723), full size.

python main.py --config=configs/ssae.py:bottle --config.data.root=DIR --workdir=W

SDC-CCM, 16.5 million parameters, at 256 px; for a GPU (configs/ssae_small.py is for CPUs). Of the
paper's settings only dilation rates, modules, loss and corruption are known to us; sizes, schedule,
batch and steps are defaults of this project (shared/reference/autoencoders.md, 1.3 to 1.6 say which
is which). Other networks and losses are overrides:

    SDC-AE                    --config.autoencoder.skips=False
    plain mean squared error  --config.training.loss.per_region=False
    Noise & Pattern           --config.training.loss.noise=0.1
    512 px                    --config.data.image_size=512
    random crops of 256 px    --config.data.image_size=512 --config.data.crop=256
    bfloat16 convolutions     --config.autoencoder.dtype=bfloat16
    DTD or other textures     --config.corruption.textures=DIR

Which categories are mirrored or turned is in configs/augmentation.py. `--mode=tune` chooses the
weight of the loss and the score's smoothing and rule on made-up defects. `:demo` draws its own data
and ends within 4 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import ae, augmentation


def get_config(category: str = "bottle") -> ConfigDict:
    """256 px, SDC-CCM, batch 32, 10,000 steps of Adam with a cosine schedule from 1e-3 to 1e-5."""
    allowed = augmentation.of(category)
    config = ae.get_config(category)
    config.name = "self-supervised AE"
    config.method.fn = "ae_jax.self_supervised:build"
    config.data.update(flip=allowed.flip, rotation=allowed.rotation)
    config.autoencoder = dict(
        fn="ae_jax.dilated:DilatedAutoencoder",
        features=(64, 128, 256),  # of each level; after each the image is halved
        convolutions=2,  # of each level on the way down
        blocks=4,  # of dilated convolutions
        branch=64,  # features of each dilation
        dilations=(1, 2, 4, 8, 16, 32),
        skips=True,  # convex combination modules: SDC-CCM; without, SDC-AE
        dtype="float32",  # of the convolutions
        fold=1,  # pixels along each side that become channels first
    )
    config.corruption = dict(
        fn="ae_jax.corruption:patches",
        max_patches=4,
        side=(0.1, 0.5),  # of a patch, as a share of the image's
        opacity=(0.3, 1.0),
        clean=0.15,  # share of the images that stay as they are
        textures="",  # folder of images to take content from besides
    )
    config.training = dict(
        epochs=0,
        samples=0,
        num_steps=10_000,
        batch_size=32,
        loss=dict(
            fn="ae_jax.losses:self_supervised",
            corrupted_weight=0.5,  # lambda
            per_region=True,  # False: plain mean squared error
            noise=0.0,  # standard deviation, of input and target alike
        ),
        optimizer=dict(fn="optax:adam"),
        schedule=dict(init_value=0.0, peak_value=1e-3, warmup_steps=500, end_value=1e-5),
        clip=1.0,  # largest norm of all gradients together
        averaging=0.999,  # of the weights that score
    )
    config.score = dict(
        fn="ae_jax.score:restored",
        smoothing=4.0,  # pixels
        image_score="max",  # or 'top', 'sum'
        top=0.01,  # share of the pixels whose mean 'top' is
    )
    # What --mode=tune chooses among, by held-out normal images with made-up defects.
    config.tuning = dict(
        corrupted_weights=(0.1, 0.9),  # besides training.loss's; a network is trained for each
        smoothing=(0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
        tops=(0.001, 0.01, 0.05),
        normalise=("none", "pixel"),  # of the map: as it is, over what is usual at each place
        draws=8,  # of defects, for each image
        corruption=dict(
            fn="ae_jax.corruption:patches",
            max_patches=1,
            side=(0.05, 0.25),
            opacity=(0.1, 0.6),
            clean=0.0,
        ),
    )
    config.every = dict(log=50, save=500, pictures=500)
    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels, features and steps."""
    config.data.image_size = 64
    config.autoencoder.update(features=(16, 32, 32), convolutions=1, blocks=2, branch=8)
    config.training.update(num_steps=600, batch_size=8, averaging=0.99)
    config.training.schedule.update(peak_value=5e-3, warmup_steps=30)
    config.score.smoothing = 1.0
    config.every = dict(log=20, save=200, pictures=200)
