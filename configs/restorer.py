"""A localising restorer: an autoencoder that restores, and a head that says where, for CPUs.

python main.py --config=configs/restorer.py:bottle --config.data.root=DIR --workdir=W

The self-supervised autoencoder of configs/ssae.py, its pixels folded 4x4 into channels, and beside
it a head on pixels folded alike (ae_jax/head.py); both learn together, from images of which one
half holds foreign patches and the other parts of other images, pasted without a seam. One setting
for all products; only which may be mirrored or turned is known of each (configs/augmentation.py).
What was chosen on what is in docs/methods/restorer.md. Each part can be switched off:

    no head                   --config.training.loss.head_weight=0 --config.score.map=residual
    the head alone (NSA)      --config.autoencoder.fn= --config.score.map=head
    foreign patches alone     --config.corruption.weights.seamless=0
    labels 0 and 1            --config.training.loss.graded=False
    one light                 --config.training.loss.lighting=0
    each photo's brightness corrected    --config.data.brightness=True

configs/restorer_head.py gives a finished run of configs/ssae_small.py such a head, and
configs/restorer_large.py is for a GPU. `:demo` draws its own data and ends within 2 minutes on 2
CPU cores.
"""

from ml_collections import ConfigDict

from configs import ssae_small


def get_config(category: str = "bottle") -> ConfigDict:
    """128 px, batch 8, 7,000 steps of Adam 4e-3; the root of the residual times the head."""
    config = ssae_small.get_config(category)
    config.name = "restorer"
    config.autoencoder.update(fold=4, features=(24, 48, 64), convolutions=1, blocks=2, branch=16)
    config.head = dict(
        fn="ae_jax.head:Head",
        fold=4,  # pixels along each side that become channels first
        features=(32, 64),  # there, and at half that resolution
    )
    config.corruption = dict(
        fn="ae_jax.corruption:mixture",
        corruptions=dict(
            patches=dict(fn="ae_jax.corruption:patches"),
            seamless=dict(fn="ae_jax.corruption:seamless"),
        ),
        weights=dict(patches=0.5, seamless=0.5),
        textures="",
    )
    config.training.update(num_steps=7000, averaging=0.995)
    config.training.schedule.update(peak_value=4e-3, warmup_steps=50)
    config.training.loss.update(
        lighting=0.1,  # by how much light changes from image to image; 0: not at all
        head_weight=0.1,  # of the head's cross-entropy
        graded=True,  # labels by what can be seen; False: 1 wherever something was replaced
    )
    config.score.update(map="product", smoothing=1.0, image_score="top", top=0.01)
    del config.tuning.corruption  # evaluation/made_up.py: other defects than training's
    config.tuning.update(
        maps=("residual", "head", "product"),
        corrupted_weights=(),
        smoothing=(1.0, 2.0, 4.0),
        draws=1,
    )
    if category == "demo":
        config.data.image_size = 64
        config.autoencoder.update(features=(16, 32), branch=8)
        config.training.num_steps = 250
    return config
