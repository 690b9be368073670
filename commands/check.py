"""Says what a data set holds and how a config would use it, before anything is trained."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from commands import inputs
from commands.evaluate import require_judgement
from data import pipeline
from data.check import CALIBRATION, LABELLED, TRAINED, check_data
from data.clip_check import check_clips
from data.images import MOST_PIXELS, PLAIN, Reading, one_line
from data.labelled import samples_of
from engine import brightness
from engine.make import resolve
from engine.workdir import Facts
from evaluation import threshold
from evaluation.misses import labels_statement

_MANY, _FIRST = 10, 3  # of more problems than the former that are alike, so many are said


def check(config: ConfigDict, workdir: str) -> int:
    """Prints what there is, how each image would be used, and all that is wrong.

    Every image and mask is decoded. Nothing is written, and no device computes.

    Args:
      config: as for training.
      workdir: where the images of the category 'demo' lie; else it may be ''.

    Returns:
      How many problems there are that training would end with.

    Raises:
      ValueError, OSError: there is no such data set, or a folder cannot be listed.
    """
    config = inputs.located(config, workdir)
    problems, trained_on = [], 1
    if config.data.category == "demo" and not (workdir and os.path.isdir(config.data.root)):
        print("The images of 'demo' are made when a run starts: there are none to check.")
        asked = inputs.defects_of(config)
        labelled = len(samples_of(asked.folder)) if asked.folder else asked.number
    else:
        found, trained_on, labelled = _check_images(config)
        problems += found
    if config.data.brightness:
        print(brightness.correction(None))
    problems += (of_config := _config_problems(config, trained_on))
    if not of_config:
        problems += _label_problems(config, trained_on, labelled)
    problems = list(dict.fromkeys(problems))
    for problem in _first_of_each_kind(problems):
        print(f"problem: {problem}")
    print(
        f"{len(problems)} problem{'s' * (len(problems) > 1)}, with which no training begins."
        if problems
        else "No problem found."
    )
    return len(problems)


def _check_images(config: ConfigDict) -> tuple[list[str], int, int]:
    """Prints what `check_data` finds, but for the problems.

    Returns:
      The problems, how many images are trained on, at least one, and how many are labelled.
    """
    if inputs.of_clips(config):
        return _check_clips(config)
    report = check_data(
        config.data.category,
        config.data.root,
        config.data.image_size,
        calibration=config.data.calibration,
        seed=config.seed,
        folder=config.data.folder,
        white_level=config.data.get("white_level", 0),
        max_pixels=config.data.get("max_pixels", MOST_PIXELS),
        defects=inputs.defects_of(config),
    )
    for line in report.findings:
        print(line)
    count = sum(image.use == CALIBRATION for image in report.images)
    good = count + sum(image.use == TRAINED for image in report.images)
    warnings, problems = list(report.warnings), list(report.problems)
    try:
        rate = require_judgement(config).false_alarm_rate
        if shortfall := threshold.shortfall(rate, count, good):
            warnings.append(shortfall)
        else:
            lowest, asked = threshold.percent(1 / (count + 1)), threshold.percent(rate)
            print(
                f"{count} held-out images can guarantee a false-alarm rate of {lowest} or more; "
                f"{asked} is asked for."
            )
    except ValueError as error:
        problems.append(one_line(error))
    for warning in warnings:
        print(f"warning: {warning}")
    labelled = sum(image.use == LABELLED for image in report.images)
    labelled = labelled or inputs.defects_of(config).number  # too many, which is a problem
    return problems, max(good - count, 1), labelled


def _check_clips(config: ConfigDict) -> tuple[list[str], int, int]:
    """As `_check_images`, of clips: all are decoded, and whole ones held out."""
    settings = inputs.clip_settings(config, Reading(config.data.white_level or None))
    place = config.data.category, config.data.root, config.data.folder
    report = check_clips(*place, settings, config.data.calibration, config.seed)
    for line in report.findings:
        print(line)
    problems, warnings = list(report.problems), list(report.warnings)
    counts = Counter(image.use for image in report.images)
    held_out = counts[CALIBRATION]
    try:
        rate = require_judgement(config).false_alarm_rate
        good = held_out + counts[TRAINED]
        if shortfall := threshold.shortfall(rate, held_out, good, of="clips"):
            warnings.append(shortfall)
    except ValueError as error:
        problems.append(one_line(error))
    for warning in warnings:
        print(f"warning: {warning}")
    return problems, max(counts[TRAINED], 1), 0


def _first_of_each_kind(problems: Sequence[str]) -> Iterator[str]:
    """All, or three of those that differ in files and numbers alone, where these are many."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        words = [word for word in problem.split(" ") if "/" not in word]
        kinds[re.sub(r"\d+", "0", " ".join(words))].append(problem)
    for same in kinds.values():
        shown = same if len(same) <= _MANY else same[:_FIRST]
        yield from shown
        if len(same) > len(shown):
            yield f"and {len(same) - len(shown)} more such, {len(same)} in all"


def _config_problems(config: ConfigDict, trained_on: int) -> list[str]:
    """What else training would refuse, of `trained_on` images, so far as no device need compute."""
    blank = np.broadcast_to(np.uint8(0), (1, *inputs.image_shape(config)))
    attempts = [
        *(partial(resolve, name) for name in _named(config.to_dict())),
        partial(pipeline.train_draws, blank, **inputs.augmentation(config)),
        partial(inputs.load_textures, config, PLAIN),
        partial(inputs.require_method, config, trained_on),
    ]
    problems = []
    for attempt in attempts:
        try:
            attempt()
        except (ValueError, OSError) as error:
            problems.append(one_line(error))
    return list(dict.fromkeys(problems))


def _label_problems(config: ConfigDict, trained_on: int, labelled: int) -> list[str]:
    """Prints what so many labelled images allow, where there are any or the method wants some.

    Returns:
      What is wrong with how the run is to be judged, such as costs without labelled images.
    """
    learns = inputs.method_of(config, Facts(trained_on, "")).labelled
    try:
        judgement = require_judgement(config)
        judgement.costs_of(labelled, learns)
    except ValueError as error:
        return [one_line(error)]
    if labelled or learns:
        print(labels_statement(labelled, learns=learns, leave_one_out=judgement.leave_one_out))
    return []


def _named(section: dict[str, Any]) -> Iterator[str]:
    """What the sections of a config name to be called."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _named(value)
        elif key == "fn" and value:  # of an autoencoder there may be none
            yield value
