"""After MeLIAD (2409.13602), an interpretation: pairs, attention and evidence for two classes.

python main.py --config=configs/meliad.py:bottle --config.data.root=DIR --workdir=W

The paper's code was not found, and of its text its abstract and a review alone could be read: what
is not there is ours, and no number of the paper may be held against it. Data, network and
corruptions are those of configs/few_shot.py; head and loss are others: each place has evidence for
the classes good and defective, which is the map, and the image's score is its mean under an
attention that is to be narrow; pairs of images of one class are to be near, others far. `:demo`
draws its own data and takes about a minute.
"""

from ml_collections import ConfigDict

from configs import few_shot


def get_config(category: str = "bottle") -> ConfigDict:
    """configs/few_shot.py with a metric head of 32 features, and its loss."""
    config = few_shot.get_config(category)
    config.name = "after MeLIAD"
    config.head = dict(
        fn="few_shot_jax.models:MetricHead",
        width=32,  # features of a place
        temperature=0.1,
        boundary=1.2,  # where the learnt distance between same and different begins
    )
    config.scorer.scales = 1
    config.training.loss = dict(
        fn="few_shot_jax.losses:metric_loss",
        corrupted=0.5,  # share of corruptions among the defective ones
        metric_weight=1.0,  # of pairs
        entropy_weight=0.05,  # of the attention's entropy
        margin=0.2,  # by how much pairs are to be on their side of the boundary
        lighting=0.1,  # by how much light changes from image to image
    )
    return config
