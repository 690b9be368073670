"""The images that a config names: where they lie, their splits, and the batches they come in."""

import os

import numpy as np
from ml_collections import ConfigDict

from data import demo, pipeline, textures
from engine import batches


def load(config: ConfigDict, workdir: str) -> pipeline.Splits:
    """The images; those of the category 'demo' are generated into the workdir first."""
    place(config, workdir)
    if config.data.category == "demo":
        demo.generate(config.data.root)
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
    return pipeline.load(
        config.data.category,
        config.data.root,
        config.data.image_size,
        calibration=config.data.calibration,
        seed=config.seed,
        data_dir=config.data.prepared,
        test=test,
        folder=config.data.get("folder", ""),
    )


def training_batches(config: ConfigDict, images: np.ndarray) -> batches.Batches:
    """Training batches, gathered on the device where the config allows and the images fit."""
    # Workdirs of older versions say none of these; methods that see whole images no crop.
    resident, crop = config.data.get("resident", True), config.data.get("crop", 0)
    options = {"flip": config.data.flip, "crop": crop, "rotation": config.data.get("rotation", 0)}
    streamed = pipeline.train_batches(images, **options)
    if not resident:
        return batches.streamed(streamed)
    draws = pipeline.train_draws(images, **options)
    return batches.resident_if_it_fits(images, draws, streamed, crop=crop)


def load_textures(config: ConfigDict) -> list[np.ndarray]:
    """The user's pictures, where the config names a folder of them: what training needs besides."""
    folder = config.get("corruption", {}).get("textures", "")
    return [textures.load(folder, config.data.image_size)] if folder else []
