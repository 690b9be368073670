"""From a trained workdir to decisions on new images, and to a folder that needs no code of ours."""

import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from commands import inputs
from commands.runs import Networks, networks, require_finished
from data import photos, sampling
from deploy import prediction
from deploy.export import export as export_forms
from deploy.export import require_new_folder
from deploy.prediction import Prediction
from engine import startup
from engine.method import Score
from engine.workdir import read_config
from evaluation import threshold
from evaluation.scoring import scorer_of
from evaluation.threshold import Threshold

_BATCH = 32


class _Detector(NamedTuple):
    """A finished workdir."""

    config: ConfigDict
    networks: Networks
    threshold: Threshold

    def scorer(self) -> Callable[[np.ndarray], Score]:
        """Of uint8 [B, S, S, 3]."""
        scorer = scorer_of(self.networks.method, self.networks.variables)
        return lambda pixels: scorer(sampling.scale(pixels))


def _restore(workdir: str) -> _Detector:
    config = ConfigDict(read_config(workdir))
    found = networks(config, workdir)
    require_finished(found.method, found.origin["step"], workdir)
    return _Detector(config, found, threshold.read_threshold(workdir, found.origin))


def restore_scorer(workdir: str) -> Callable[[str | os.PathLike | np.ndarray], Prediction]:
    """A function that decides on one image: the path of a file, or its pixels.

    It takes a path, or uint8 [H, W, 3] of any size, and returns a `Prediction` (engine/
    prediction.py): decision, score, threshold, p_value, region, map; it raises ValueError with the
    reason where the image cannot be read.

    Raises:
      ValueError, OSError: the workdir is not trained to its end or has no threshold.json.
    """
    detector = _restore(os.path.abspath(os.path.expanduser(workdir)))
    scorer, image_size = detector.scorer(), detector.config.data.image_size

    def score(image: str | os.PathLike | np.ndarray) -> Prediction:
        photo = (
            photos.of_pixels(image, image_size)
            if isinstance(image, np.ndarray)
            else photos.read_photo(os.fspath(image), image_size)
        )
        if photo.pixels is None:
            raise ValueError(f"{photo.path}: {photo.reason}")
        return prediction.predict(scorer, [photo], detector.threshold, 1)[0]

    return score


def predict(workdir: str, pattern: str, output: str) -> int:
    """Decides on the images that the file, folder or glob `pattern` names; the number unreadable.

    Writes rows and pictures into `output`, as deploy/prediction.py says.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """
    prediction.claim(output)
    startup.give_back_memory()
    detector = _restore(workdir)
    paths = photos.find(pattern)
    batch_size = min(_BATCH, len(paths))
    start = time.perf_counter()
    counts = prediction.predict_all(
        detector.scorer(),
        photos.stream_photos(paths, detector.config.data.image_size, batch_size),
        detector.threshold,
        output,
        batch_size=batch_size,
        total=len(paths),
    )
    rate = counts.total() / (time.perf_counter() - start)
    named = ", ".join(f"{counts[name]} {name}" for name in prediction.DECISIONS)
    print(f"{counts.total()} images: {named} ({rate:.3g} images/s)")
    print(f"Rows: {os.path.join(output, prediction.ROWS[0])}")
    return counts[prediction.UNREADABLE]


def export(workdir: str, output: str) -> None:
    """Writes the workdir's scoring function into the new folder `output`, as deploy/export.py says.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out; then there is no
        `output`.
    """
    require_new_folder(output)
    detector = _restore(workdir)
    config, found = detector.config, detector.networks
    splits = inputs.load(config, workdir)
    if splits.digest != config.data.digest:
        raise ValueError(
            f"the images of {config.data.category} have changed since training, and exported forms "
            "are tried on those that the threshold comes from: put them back"
        )
    with open(os.path.join(workdir, "results.json"), encoding="utf-8") as file:
        results = json.load(file)
    content = threshold.content(detector.threshold, found.origin)
    files = {threshold.THRESHOLD_FILE: content, "config.json": config.to_dict()}
    export_forms(
        found.method,
        found.variables,
        output,
        images=np.asarray(splits.calibration.images),
        score_threshold=detector.threshold.threshold,
        files={name: json.dumps(value, indent=2) + "\n" for name, value in files.items()},
        about=results,
        statement=content["statement"],
    )
    print(f"Exported: {output}")
