"""What all configs share: which images there are, and how a run is judged and watched.

Settings alone: nothing writes into a config after main.py has read it. What is a fact of the data,
such as how many images are trained on, or was chosen by tuning, lies in files of its own.
"""

from ml_collections import ConfigDict


def get_config(category: str) -> ConfigDict:
    """The shared sections; a config adds its name, method, networks, training and score."""
    config = ConfigDict()
    config.seed = 0
    config.data = dict(
        category=category,
        root="~/tensorflow_datasets/downloads/manual/mvtec_ad",
        folder="",  # of good images, in place of root; see docs/data.md
        flip=True,  # training images, left to right
        rotation=0,  # turned by multiples of so many degrees, 90 or 180; 0: not
        brightness=False,  # each image's, corrected to that of the training images
        # The value of 16-bit images that is white, 255 to 65535; 0: found by the training images.
        white_level=0,
        max_pixels=2**30 // 12,  # of an image; a larger one is refused. See docs/data.md
        # Share of the training images held out; of the demo's 160 the 20 that its rate takes.
        calibration=0.125 if category == "demo" else 0.1,
        prepared="~/tensorflow_datasets",  # where the decoded copies go
        resident=True,  # on every device, where they fit; else streamed from the host
        # So many defective test images, or a folder of others, are labelled and not tested with.
        labelled="",
        labelled_kind="",  # of the test set, whose they all are; '': as evenly of all kinds
    )
    # The share of good parts that may be called defective; held-out good images set the threshold.
    config.threshold = dict(
        false_alarm_rate=0.05,
        false_regions=0.05,  # that are expected to be marked in a good image
        # With labelled defects: the threshold that costs least, where both costs are set.
        cost_of_miss=0.0,
        cost_of_false_alarm=0.0,
        defect_rate=0.01,  # share of parts that are defective, which the costs are weighed by
        # Judges misses by networks that are each trained without one labelled image.
        leave_one_out=False,
    )
    config.evaluation = dict(
        pixel_size=256,  # pixel metrics at 256 x 256; 0: at each mask's own size
        metrics="",  # own ones, 'module:function,...'; see docs/research/own.md
    )
    return config
