"""DevNet from scratch: a network that learns from a few labelled defective images (2108.00462).

python main.py --config=configs/few_shot.py:bottle --config.data.root=DIR --workdir=W

Ten defective test images, of all kinds as evenly as can be, are labelled and not tested with. Half
of what is learnt as defective is corruptions of good images, so that it also works without a label:

    another number            --config.data.labelled=5
    photos of your own        --config.data.labelled=FOLDER
    all of one kind           --config.data.labelled_kind=contamination
    no label at all           --config.data.labelled=0
    labels alone              --config.training.loss.corrupted=0
    the paper's reference     --config.training.loss.reference_draws=5000

The loss is the paper's, the network is not: the paper's begins with weights of ImageNet. Sizes and
schedule are ours (docs/methods/few_shot.md). configs/meliad.py is another loss on the same network,
configs/few_shot_encoder.py begins with a self-supervised run. `:demo` draws its own data and takes
about a minute.
"""

from ml_collections import ConfigDict

from configs import augmentation, base


def get_config(category: str = "bottle") -> ConfigDict:
    """128 px, ten labelled images, 600 steps of 8 good and 8 defective images, AdamW 1e-3."""
    allowed = augmentation.of(category)
    config = base.get_config(category)
    config.name = "DevNet"
    config.method = dict(fn="few_shot_jax:build")
    config.data.image_size = 128
    config.data.update(flip=allowed.flip, rotation=allowed.rotation, labelled="10", crop=0)
    config.trunk = dict(
        fn="few_shot_jax.models:ResidualTrunk",
        fold=4,  # pixels along each side that become channels first
        features=(32, 64),  # of each level; the image is halved between two
        blocks=2,  # of each level
    )
    config.head = dict(
        fn="few_shot_jax.models:DeviationHead",
        top=0.1,  # share of the places whose mean is the image's score
    )
    config.scorer = dict(
        fn="few_shot_jax.models:PlaceScorer",
        scales=2,  # the image, and the image at half its size
    )
    config.corruption = dict(
        fn="ae_jax.corruption:mixture",
        corruptions=dict(
            patches=dict(fn="ae_jax.corruption:patches", clean=0.0),
            seamless=dict(fn="ae_jax.corruption:seamless", clean=0.0),
        ),
        weights=dict(patches=0.5, seamless=0.5),
        textures="",  # folder of images to take content from besides
    )
    config.training = dict(
        epochs=0,
        samples=0,
        num_steps=600,
        batch_size=8,  # of good images, and of defective ones
        loss=dict(
            fn="few_shot_jax.losses:deviation_loss",
            corrupted=0.5,  # share of corruptions among the defective ones
            margin=5.0,  # standard deviations of the reference
            reference_draws=0,  # of N(0, 1) a step; 0: its mean 0 and deviation 1 as they are
            lighting=0.1,  # by how much light changes from image to image
        ),
        optimizer=dict(fn="optax:adamw", weight_decay=1e-4),
        schedule=dict(init_value=0.0, peak_value=1e-3, warmup_steps=30, end_value=0.0),
        clip=1.0,  # largest norm of all gradients together
    )
    config.score = dict(
        fn="few_shot_jax.score:places",
        smoothing=4.0,  # pixels of an image of 256
    )
    config.every = dict(log=20, save=200, pictures=200)
    if category == "demo":
        config.data.update(image_size=64, labelled="5")
        config.trunk.update(fold=2, features=(16, 32, 64), blocks=1)
        config.training.num_steps = 500
    return config
