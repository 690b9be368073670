"""The images that a config names: where they lie, their splits, and the batches they come in."""

import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from data import demo, pipeline, textures
from data.images import MOST_PIXELS, Reading
from engine import batches, hosts
from engine.brightness import training_brightness, with_correction
from engine.make import make
from engine.method import Method
from engine.workdir import Facts


def located(config: ConfigDict, workdir: str) -> FrozenConfigDict:
    """The config with absolute folders of images; those of the category 'demo' in the workdir.

    So a workdir's config says where the images lie, wherever a later command is given.
    """
    settings = ConfigDict(config.to_dict())
    if settings.data.category == "demo":
        settings.data.root = settings.data.prepared = os.path.join(workdir, "data")
    settings.data.root = os.path.abspath(os.path.expanduser(settings.data.root))
    if settings.data.folder:
        settings.data.folder = os.path.abspath(os.path.expanduser(settings.data.folder))
    return FrozenConfigDict(settings)


def load(config: ConfigDict, facts: Facts | None = None) -> pipeline.Splits:
    """The images of a `located` config; those of the category 'demo' are generated first."""
    with hosts.main_first("images"):
        if config.data.category == "demo":
            demo.generate_demo(config.data.root)
        return read(config, facts)


def read(config: ConfigDict, facts: Facts | None = None, *, test: bool = True) -> pipeline.Splits:
    """The images of a `located` config; without `test`, no test file is opened.

    Those of a trained run, which has `facts`, are read as in training, whatever has been added.

    Raises:
      ValueError: as `pipeline.load_splits`; the config sets another white level than the run's.
    """
    white_level = config.data.get("white_level", 0)  # runs of earlier versions have none
    if facts and white_level not in (0, facts.white_level):
        raise ValueError(
            f"data.white_level {white_level} is not that of the run, {facts.white_level or 0}: "
            "train into another workdir"
        )
    return pipeline.load_splits(
        config.data.category,
        config.data.root,
        config.data.image_size,
        calibration=config.data.calibration,
        seed=config.seed,
        data_dir=config.data.prepared,
        test=test,
        folder=config.data.folder,
        white_level=facts.white_level if facts else white_level,
        max_pixels=_max_pixels(config),
    )


def reading_of(config: ConfigDict, facts: Facts) -> Reading:
    """How a trained run reads the files of new images."""
    return Reading(facts.white_level, _max_pixels(config))


def _max_pixels(config: ConfigDict) -> int:
    return config.data.get("max_pixels", MOST_PIXELS)  # runs of earlier versions have none


def facts_of(config: ConfigDict, splits: pipeline.Splits) -> Facts:
    """What a run is bound to besides its config."""
    light = training_brightness(np.asarray(splits.train.images)) if config.data.brightness else None
    return Facts(
        num_train=len(splits.train.images),
        digest=splits.digest,
        brightness=light,
        white_level=splits.white_level,
    )


def method_of(config: ConfigDict, facts: Facts, *textures: np.ndarray) -> Method:
    """The method that the config describes, for the images that the facts are of."""
    method = make(config.method, config, facts.num_train, *textures)
    return method if facts.brightness is None else with_correction(method, facts.brightness)


def augmentation(config: ConfigDict) -> dict[str, Any]:
    """How training images are cut, mirrored and turned: the keywords of `pipeline.train_draws`."""
    crop = config.data.get("crop", 0)  # there are methods that see whole images alone
    return {"flip": config.data.flip, "crop": crop, "rotation": config.data.rotation}


def training_batches(config: ConfigDict, images: np.ndarray) -> batches.Batches:
    """Training batches, gathered on the device where the config allows and the images fit."""
    options = augmentation(config)
    draws = pipeline.train_draws(images, **options)
    streamed = pipeline.train_images(images, draws)
    if not config.data.resident:
        return batches.streamed(streamed, crop=options["crop"])
    return batches.resident_if_it_fits(images, draws, streamed, crop=options["crop"])


def load_textures(config: ConfigDict, reading: Reading) -> list[np.ndarray]:
    """The user's pictures, where the config names a folder of them: what training needs besides."""
    folder = config.get("corruption", {}).get("textures", "")
    return [textures.read_textures(folder, config.data.image_size, reading)] if folder else []
