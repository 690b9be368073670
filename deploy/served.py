"""What a service decides with, from a workdir or an exported folder, and one photo at a time."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from data.images import MOST_PIXELS, Reading
from data.photos import of_pixels
from deploy import forms
from deploy.export import CARD
from deploy.prediction import decide_on
from engine.method import Score
from engine.workdir import read_config, read_facts
from evaluation.threshold import THRESHOLD_FILE, Threshold, read_threshold_file
from storage.files import SUMS, sha256

_AGAIN = "export again"


class ServedModel(NamedTuple):
    """A scoring function with its threshold."""

    name: str  # of the method and of what it has learnt
    scorer: Callable[[np.ndarray], Score]  # of uint8 [B, S, S, 3], for any B
    threshold: Threshold
    image_size: int
    reading: Reading
    card: str  # Markdown, for people
    digests: Mapping[str, str]  # SHA-256 by file


def read_export(folder: str) -> ServedModel:
    """The model of a folder that --mode=export wrote, its StableHLO on this machine's device.

    Raises:
      ValueError, OSError: a file is missing or is not what was written.
    """
    where = Path(folder)
    if not (where / SUMS).is_file():
        raise FileNotFoundError(
            f"{where / SUMS} does not exist: name a folder that --mode=export wrote in --model"
        )
    digests = {}
    for line in (where / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (where / name).is_file() or sha256(where / name) != digest:
            raise ValueError(f"{where / name} does not match {SUMS}: {_AGAIN}")
        digests[name] = digest
    missing = {forms.STABLEHLO, forms.WEIGHTS, THRESHOLD_FILE, CARD} - digests.keys()
    if missing:
        raise ValueError(f"{where / SUMS} names no {min(missing)}: {_AGAIN}")
    config, facts = read_config(folder), read_facts(folder)
    if "clips" in config:
        raise ValueError(
            f"{folder} decides on clips, and --mode=serve on images: use its README.md"
        )
    threshold, _ = read_threshold_file(str(where / THRESHOLD_FILE), _AGAIN)
    if threshold.clip_frames:
        raise ValueError(f"{folder} decides on clips, and an image is no clip: name another export")
    form = forms.read_stablehlo(where)

    def scorer(pixels: np.ndarray) -> Score:
        score, values, *_ = map(jnp.asarray, form(pixels))
        return Score(score, values)

    data = config["data"]
    return ServedModel(
        name=f"{config['name']}: {data['category']}",
        scorer=scorer,
        threshold=threshold,
        image_size=data["image_size"],
        reading=Reading(facts.white_level, data.get("max_pixels", MOST_PIXELS)),
        card=(where / CARD).read_text(encoding="utf-8"),
        digests=digests,
    )


def model_digest(model: ServedModel) -> str:
    """By which a journal knows that the promise is still the one that it watches."""
    threshold = model.threshold
    what = threshold.threshold, threshold.calibration_scores, threshold.quality
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def compile_sizes(model: ServedModel, sizes: tuple[int, ...]) -> None:
    """Decides on a black image in batches of each size, so that none waits for a compiler later."""
    side = model.image_size
    black = of_pixels(np.zeros((max(side, 8), max(side, 8), 3), np.uint8), side)
    for size in sizes:
        decide_on(model.scorer, [black], model.threshold, size)
