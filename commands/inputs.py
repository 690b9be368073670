"""The images that a config names: where they lie, their splits, and the batches they come in."""

import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from commands.settings import require_legal
from data import clip_demo, clips, demo, labelled, pipeline, sampling, scan, textures
from data.images import MOST_PIXELS, Reading
from data.windows import Windows
from engine import batches, hosts
from engine.brightness import training_brightness, with_correction
from engine.make import make
from engine.method import Method, first_line, require_score
from engine.sources import Sources
from engine.workdir import Facts

_MANY = 10**6  # training images: as good as any number to know what networks can be built


def located(config: ConfigDict, workdir: str) -> FrozenConfigDict:
    """The config with absolute folders of images; those of the category 'demo' in the workdir.

    So a workdir's config says where the images lie, wherever a later command is given.

    Raises:
      ValueError: a field holds what it may not (commands/settings.py), or the workdir, unless it is
        '', lies among the images.
    """
    require_legal(config)
    settings = ConfigDict(config.to_dict())
    if settings.data.category == "demo":
        settings.data.root = settings.data.prepared = os.path.join(workdir, "data")
    settings.data.root = os.path.abspath(os.path.expanduser(settings.data.root))
    if folder := defects_of(settings).folder:
        settings.data.labelled = os.path.abspath(folder)
    if settings.data.folder:
        settings.data.folder = os.path.abspath(os.path.expanduser(settings.data.folder))
    if workdir:
        refuse_inside(settings, workdir, "workdir")
    return FrozenConfigDict(settings)


def refuse_inside(config: ConfigDict, folder: str, flag: str) -> None:
    """Raises ValueError where `folder`, which `flag` names, lies among the images that are read.

    What is written there would be among the images of the next run.
    """
    data = config.data
    where = data.folder or os.path.join(data.root, data.category)
    read = [] if data.category == "demo" else [where]
    read += filter(
        None, [config.get("corruption", {}).get("textures", ""), defects_of(config).folder]
    )
    for place in read:
        if is_inside(folder, place):
            raise ValueError(
                f"--{flag}={folder} lies in {place}, of which all images are read: choose a folder "
                "outside of it"
            )


def is_inside(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether `path` is `folder`, or lies below it, symlinks followed."""
    inner, outer = (os.path.realpath(os.path.expanduser(each)) for each in (path, folder))
    return os.path.commonpath([inner, outer]) == outer


def load(config: ConfigDict, facts: Facts | None = None) -> pipeline.Splits:
    """The images of a `located` config; those of the category 'demo' are generated first."""
    with hosts.main_first("images"):
        if config.data.category == "demo":
            (clip_demo.generate_clips if of_clips(config) else demo.generate_demo)(config.data.root)
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
    if of_clips(config):
        return clips.load_clips(
            config.data.category,
            config.data.root,
            clip_settings(config, Reading(white_level or None, _max_pixels(config))),
            calibration=config.data.calibration,
            seed=config.seed,
            data_dir=config.data.prepared,
            folder=config.data.folder,
            test=test,
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
        defects=defects_of(config),
    )


def of_clips(config: ConfigDict) -> bool:
    """Whether the config's images are windows of clips."""
    return "clips" in config


def refuse_clips(config: ConfigDict, mode: str) -> None:
    """Raises ValueError where a run is of clips, and the mode decides on single images."""
    if of_clips(config):
        raise ValueError(
            f"{mode} is for images, and {config.name} is a method for clips: --mode=predict "
            "decides on clips, and --mode=evaluate sets the threshold"
        )


def clip_settings(config: ConfigDict, reading: Reading) -> clips.ClipSettings:
    """How the config reads and cuts clips.

    Raises:
      ValueError: it asks for what is done to images alone.
    """
    data, section = config.data, config.clips
    for name in ("rotation", "brightness", "labelled"):
        if data.get(name):
            raise ValueError(f"data.{name}={data[name]} is for images: leave it out for clips")
    if not data.resident:
        raise ValueError(
            "data.resident=False is for images: the frames of clips stay on the device"
        )
    span = (section.frames - 1) * max(section.strides) + 1
    return clips.ClipSettings((data.image_size, data.width), section.frames, span, reading)


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """[H, W, C] of what a network of the config scores."""
    side = config.data.image_size
    return (side, config.data.width, config.clips.frames) if of_clips(config) else (side, side, 3)


def defects_of(config: ConfigDict) -> labelled.Asked:
    """Which defective images are labelled.

    Raises:
      ValueError: as `labelled.asked`.
    """
    data = config.data  # runs of earlier versions have no such fields
    return labelled.asked(data.get("labelled", ""), data.get("labelled_kind", ""))


def reading_of(config: ConfigDict, facts: Facts) -> Reading:
    """How a trained run reads the files of new images."""
    return Reading(facts.white_level, _max_pixels(config))


def _max_pixels(config: ConfigDict) -> int:
    return config.data.get("max_pixels", MOST_PIXELS)  # runs of earlier versions have none


def facts_of(config: ConfigDict, splits: pipeline.Splits) -> Facts:
    """What a run is bound to besides its config."""
    light = training_brightness(np.asarray(splits.train.images)) if config.data.brightness else None
    few = splits.labelled
    return Facts(
        num_train=len(splits.train.images),
        digest=scan.digest(splits.train.paths, splits.train.sums),
        brightness=light,
        white_level=splits.white_level,
        labelled_digest=None if few is None else scan.digest(few.paths, few.sums),
    )


def sources_of(splits: pipeline.Splits) -> Sources:
    """Which files the images come from."""
    parts = splits.train, splits.calibration, splits.test, *filter(None, [splits.labelled])
    return Sources(*(dict(zip(part.paths, part.sums, strict=True)) for part in parts))


def method_of(config: ConfigDict, facts: Facts, *textures: np.ndarray) -> Method:
    """The method that the config describes, for the images that the facts are of.

    Raises:
      ValueError: as the method; or the config lacks what the method reads of it.
    """
    try:
        method = make(config.method, config, facts.num_train, *textures)
    except (AttributeError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(
            f"{config.method.fn} cannot be built by this config ({reason}): begin with one of the "
            "files in configs/ that names it"
        ) from error
    return method if facts.brightness is None else with_correction(method, facts.brightness)


def require_method(config: ConfigDict, num_train: int = _MANY) -> None:
    """Raises ValueError for what is wrong with networks and score, before an image is read."""
    if "members" in config:
        raise ValueError(
            "an ensemble is not trained: python main.py --mode=evaluate "
            "--config=configs/ensemble.py makes one of two finished runs"
        )
    method = method_of(config, Facts(num_train, ""))
    try:
        require_score(method, image_shape(config))
    except ValueError:
        raise
    except Exception as error:  # a score may be the user's own, and raise anything
        raise ValueError(
            f"the score of this config raises {type(error).__name__} ({first_line(error)}): mend it"
        ) from error


def augmentation(config: ConfigDict) -> dict[str, Any]:
    """How training images are cut, mirrored and turned: the keywords of `pipeline.train_draws`."""
    crop = config.data.get("crop", 0)  # there are methods that see whole images alone
    return {"flip": config.data.flip, "crop": crop, "rotation": config.data.rotation}


def training_batches(
    config: ConfigDict, images: Any, few: np.ndarray | None = None
) -> batches.Batches:
    """Training batches, gathered on the device where the config allows and the images fit.

    Of `images`, and for the stages that learn from labelled images of `few` beside them.
    """
    if isinstance(images, Windows):
        draws = sampling.draws(len(images), flip=config.data.flip)
        return batches.windowed(images.frames, images.starts, draws, length=images.length)
    images = np.asarray(images)
    options = augmentation(config)
    draws = pipeline.train_draws(images, **options)
    count = 0 if few is None else len(few)
    pixels = images if few is None else np.concatenate([images, few])
    labelled_draws = pipeline.labelled_train_draws(pixels, count, **options)
    streams = [pipeline.train_images(pixels, each) for each in (draws, labelled_draws)]
    crop = options["crop"]
    if not config.data.resident:
        source = batches.streamed(streams[0], crop=crop)
    else:
        source = batches.resident_if_it_fits(pixels, draws, streams[0], crop=crop)
    # What is grouped is resident: draws alone are sent.
    return source._replace(labelled=labelled_draws if source.grouped else streams[1])


def load_textures(config: ConfigDict, reading: Reading) -> list[np.ndarray]:
    """The user's pictures, where the config names a folder of them: what training needs besides."""
    folder = config.get("corruption", {}).get("textures", "")
    return [textures.read_textures(folder, config.data.image_size, reading)] if folder else []
