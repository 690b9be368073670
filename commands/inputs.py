"""The images that a config names: where they lie, their splits, and the batches they come in."""

import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data import demo, pipeline, textures
from engine import batches, hosts


def load(config: ConfigDict, workdir: str) -> pipeline.Splits:
    """The images; those of the category 'demo' are generated into the workdir first."""
    place(config, workdir)
    with hosts.main_first("images"):
        if config.data.category == "demo":
            demo.generate_demo(config.data.root)
        return read(config)


def place(config: ConfigDict, workdir: str) -> None:
    """Makes the folders of the images absolute; that of the category 'demo' is in the workdir."""
    if config.data.category == "demo":
        config.data.root = config.data.prepared = os.path.join(workdir, "data")
    config.data.root = os.path.abspath(os.path.expanduser(config.data.root))
    if config.data.get("folder"):
        config.data.folder = os.path.abspath(os.path.expanduser(config.data.folder))


def read(config: ConfigDict, *, test: bool = True) -> pipeline.Splits:
    """The images, where `place` has been called; without `test`, no test file is opened."""
    return pipeline.load_splits(
        config.data.category,
        config.data.root,
        config.data.image_size,
        calibration=config.data.calibration,
        seed=config.seed,
        data_dir=config.data.prepared,
        test=test,
        folder=config.data.get("folder", ""),
    )


def augmentation(config: ConfigDict) -> dict[str, Any]:
    """How training images are cut, mirrored and turned: the keywords of `pipeline.train_draws`."""
    # Workdirs of older versions lack two of these; methods that see whole images, the crop.
    crop, rotation = config.data.get("crop", 0), config.data.get("rotation", 0)
    return {"flip": config.data.flip, "crop": crop, "rotation": rotation}


def training_batches(config: ConfigDict, images: np.ndarray) -> batches.Batches:
    """Training batches, gathered on the device where the config allows and the images fit."""
    # Workdirs of older versions do not say it.
    resident, options = config.data.get("resident", True), augmentation(config)
    draws = pipeline.train_draws(images, **options)
    streamed = pipeline.train_images(images, draws)
    if not resident:
        return batches.streamed(streamed, crop=options["crop"])
    return batches.resident_if_it_fits(images, draws, streamed, crop=options["crop"])


def load_textures(config: ConfigDict) -> list[np.ndarray]:
    """The user's pictures, where the config names a folder of them: what training needs besides."""
    folder = config.get("corruption", {}).get("textures", "")
    return [textures.read_textures(folder, config.data.image_size)] if folder else []
