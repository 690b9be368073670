"""Two finished runs as one: the larger of their scores, each as good parts' scores measure it.

python main.py --mode=evaluate --config=configs/ensemble.py --config.members.unsupervised=W1 \
    --config.members.few_shot=W2 --workdir=E

W1 is the workdir of a run that knows good parts alone, such as one of configs/restorer.py, W2 of
one of configs/few_shot.py; both of the same good images, seed and size. Images and labelled defects
are those of W2. Each score is standardised by its mean and deviation on the held-out good images,
and the larger one counts: what one of the two knows as a defect is found, and what nobody has
labelled is not lost. Nothing is trained, so `--mode=evaluate` alone makes E; predict, export and
compare take it as any run, as long as W1 and W2 are there.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(category: str = "bottle") -> ConfigDict:
    """Threshold and evaluation of configs/base.py; all else is that of the two runs."""
    config = base.get_config(category)
    config.name = "ensemble"
    config.data.image_size = 128
    config.method = dict(fn="")  # nothing is trained
    config.members = dict(unsupervised="", few_shot="")
    config.every = dict(log=20, save=0, pictures=0)
    return config
