"""GLAD of configs/glad.py at 64 px, small enough for two CPU cores.

python main.py --config=configs/glad_small.py:bottle --config.data.root=DIR --workdir=W
"""

from ml_collections import ConfigDict

from configs import glad


def get_config(category: str = "bottle") -> ConfigDict:
    """64 px, pixels folded 2x2, batch 16, 1,500 steps of Adam 2e-3."""
    config = glad.get_config(category)
    if category == "demo":
        return config
    config.name = "GLAD, small"
    config.data.image_size = 64
    config.denoiser.update(features=(16, 32, 64), fold=2)
    config.training.update(num_steps=1500, batch_size=16, averaging=0.99)
    config.training.schedule.update(peak_value=2e-3, warmup_steps=50)
    config.score.smoothing = 1.0
    config.tuning.update(starts=(40, 80), smoothing=(1.0, 2.0))
    config.every = dict(log=20, save=200, pictures=200)
    return config
