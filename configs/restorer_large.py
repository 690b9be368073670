"""The localising restorer of configs/restorer.py, full size: for a GPU.

python main.py --config=configs/restorer_large.py:bottle --config.data.root=DIR --workdir=W
"""

from ml_collections import ConfigDict

from configs import restorer


def get_config(category: str = "bottle") -> ConfigDict:
    """256 px, SDC-CCM of configs/ssae.py without folds, a wider head, batch 32, 5,000 steps."""
    config = restorer.get_config(category)
    if category == "demo":
        return config
    config.name = "restorer, large"
    config.data.image_size = 256
    config.autoencoder.update(fold=1, features=(64, 128, 256), convolutions=2, blocks=4, branch=64)
    config.head.features = (64, 128)
    config.training.update(num_steps=5000, batch_size=32, averaging=0.999)
    config.training.schedule.update(peak_value=2e-3, warmup_steps=250)
    config.score.smoothing = 2.0
    return config
