"""The self-supervised autoencoder of configs/ssae.py at 128 px, narrow enough for CPUs.

Smaller batches and a larger learning rate than the full network's, because steps are few: chosen by
the held-out errors that training logs (docs/methods/self_supervised.md), on normal images alone.

python main.py --config=configs/ssae_small.py:bottle --config.data.root=DIR --workdir=W
"""

from ml_collections import ConfigDict

from configs import ssae


def get_config(category: str = "bottle") -> ConfigDict:
    """128 px, SDC-CCM of 16, 32, 64 features, batch 8, 6,000 steps of Adam 5e-3."""
    config = ssae.get_config(category)
    if category == "demo":
        return config
    config.name = "self-supervised AE, small"
    config.data.image_size = 128
    config.autoencoder.update(features=(16, 32, 64), convolutions=1, blocks=2, branch=16)
    config.training.update(num_steps=6000, batch_size=8, averaging=0.99)
    config.training.schedule.update(peak_value=5e-3, warmup_steps=50)
    config.score.smoothing = 2.0
    config.every = dict(log=20, save=200, pictures=200)
    return config
