"""A localising restorer: the self-supervised autoencoder with a head that says where.

python main.py --config=configs/restorer.py:bottle --config.data.root=DIR --workdir=W

DRAFT of issue 16: its settings are not chosen yet.
"""

from ml_collections import ConfigDict

from configs import ssae_small


def get_config(category: str = "bottle") -> ConfigDict:
    """128 px, batch 8, SDC-CCM of 16, 32, 64 features and a head on folded pixels."""
    config = ssae_small.get_config(category)
    config.name = "restorer"
    config.head = dict(fn="ae_jax.head:Head", fold=4, features=(32, 64))
    config.corruption = dict(
        fn="ae_jax.corruption:mixture",
        corruptions=dict(
            patches=dict(fn="ae_jax.corruption:patches"),
            seamless=dict(fn="ae_jax.corruption:seamless"),
        ),
        weights=dict(patches=0.5, seamless=0.5),
        textures="",
    )
    config.training.num_steps = 2000
    config.training.averaging = 0.995
    config.training.schedule.update(peak_value=4e-3, warmup_steps=50)
    config.training.loss.update(lighting=0.1, head_weight=0.1, graded=True)
    config.score.update(map="product", smoothing=2.0)
    del config.tuning.corruption  # evaluation/made_up.py: other defects than training's
    config.tuning.update(maps=("residual", "head", "product"), corrupted_weights=(), draws=1)
    return config
