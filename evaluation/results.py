"""What an evaluation leaves in a workdir: written, read back, and which workdirs may be compared.

`N` test images in the order of scores.csv, `H` x `W` pixels as the method sees them. Scores and
maps: higher = more anomalous.
"""

import csv
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from data.decoded import Images
from data.windows import Windows
from engine.sources import SOURCES_FILE, Sources, read_sources
from engine.workdir import Facts, read_facts
from evaluation.metrics import METRICS
from evaluation.threshold import Threshold, write_threshold
from storage.files import as_text, write_json, write_npz, write_text
from storage.outputs import CONFIG_FILE
from storage.rows import Stack

RESULTS_FILE = "results.json"
SCORES_FILE = "scores.csv"
PREDICTIONS_FILE = "predictions.npz"
_COLUMNS = ("path", "defect", "label", "score")
_IN_CONFIG = ("name", "seed", "evaluation.pixel_size", "data.category", "data.image_size")
_IN_RESULTS = ("per_defect", "pixel.resolution", *(f"{row.kind}.{row.name}" for row in METRICS))
# What of a config does not make it another one: the seed, the category and its images, where they
# lie, how a run is watched and judged. The image size and the split do make another one.
_FREE = ("seed", "evaluation", "every")
_FREE_DATA = ("category", "root", "prepared", "resident")


class Scored(NamedTuple):
    """The test images and what a method said about them, in one order."""

    paths: Sequence[str]  # N, as the reader knows the images
    defects: Sequence[str]  # N, 'good' or the defect's type
    labels: np.ndarray  # int [N], 1 = defective
    images: Stack  # uint8 [N, H, W, 3]
    masks: Sequence[np.ndarray | None]  # N of bool [h, w], all False for good; None: missing
    scores: np.ndarray  # float [N]
    terms: Mapping[str, np.ndarray]  # the parts of the score: float [N] each
    maps: Stack  # float32 [N, H, W]
    reconstructions: Stack | None  # uint8 [N, H, W, 3]


def write_scores(
    path: str,
    *,
    paths: Sequence[str],
    defects: Sequence[str],
    labels: np.ndarray,
    scores: np.ndarray,
    terms: Mapping[str, np.ndarray],
) -> None:
    """Writes one row per image: path, defect, label, score, then the terms of the score.

    Numbers are written so that reading them gives the same bits. A path or defect that a
    spreadsheet would take for a formula gets an apostrophe in front.

    Raises:
      ValueError: the columns differ in length; nothing is written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "defect", "label", "score", *terms])
    numbers = [scores, *terms.values()]
    for name, defect, label, *values in zip(paths, defects, labels, *numbers, strict=True):
        row = [repr(float(value)) for value in values]
        writer.writerow([as_text(name), as_text(defect), int(label), *row])
    content = text.getvalue()
    # By the byte order mark a spreadsheet knows that umlauts are UTF-8.
    write_text(path, content if content.isascii() else f"\ufeff{content}")


class Evaluation(NamedTuple):
    """What came out of an evaluation."""

    results: dict[str, Any]  # what results.json holds
    scored: Scored  # the test set
    calibration: Scored  # the good images that set the threshold
    threshold: Threshold
    history: list[dict[str, Any]]  # the lines of metrics.jsonl


def scored_images(images: Images, score: Any) -> Scored:
    """The images beside their scores; training images have no masks."""
    masks = images.masks if len(images.masks) else [None] * len(images.images)
    pictures = images.images
    if isinstance(pictures, Windows):
        pictures = pictures.shown()
    return Scored(
        paths=images.paths,
        defects=images.defects,
        labels=images.labels,
        images=pictures,
        masks=masks,
        scores=score.image,
        terms=score.terms,
        maps=score.map,
        reconstructions=score.reconstruction,
    )


def write_results(workdir: str, evaluation: Evaluation, network: Mapping[str, Any]) -> None:
    """Writes threshold.json, scores.csv, results.json and predictions.npz into `workdir`.

    `network` says which networks and score these are.
    """
    scored = evaluation.scored
    write_threshold(workdir, evaluation.threshold, network)
    write_scores(
        os.path.join(workdir, SCORES_FILE),
        paths=scored.paths,
        defects=scored.defects,
        labels=scored.labels,
        scores=scored.scores,
        terms=scored.terms,
    )
    write_json(os.path.join(workdir, RESULTS_FILE), evaluation.results)
    arrays: dict[str, Any] = {
        "maps": scored.maps,
        "map_max": np.float32(evaluation.threshold.map_max),
    }
    if scored.reconstructions is not None:
        arrays["reconstructions"] = scored.reconstructions
    write_npz(os.path.join(workdir, PREDICTIONS_FILE), arrays)


class Run(NamedTuple):
    """A finished workdir without its maps."""

    workdir: str
    name: str  # of the method
    category: str
    seed: int
    config: Mapping[str, Any]
    facts: Facts  # of its data
    sources: Sources  # its images
    results: Mapping[str, Any]  # as evaluation.evaluate.evaluate returns them
    paths: Sequence[str]  # N, as scores.csv has them
    defects: Sequence[str]  # N, likewise
    labels: np.ndarray  # int [N], 1 = defective
    scores: np.ndarray  # float64 [N], finite


class Predictions(NamedTuple):
    """What a run says of every pixel; large, so that one run's at a time is in memory."""

    maps: np.ndarray  # float32 [N, H, W], finite
    reconstructions: np.ndarray | None  # uint8 [N, H, W, 3]; None where the method makes none
    map_max: float  # > 0, the top of the maps' colour scale


def read_run(workdir: str | os.PathLike[str]) -> Run:
    """Reads config.json, results.json and scores.csv; predictions.npz must be there too.

    Raises:
      ValueError: a file is missing or damaged; the message says which and what makes it.
    """
    workdir = os.fspath(workdir)
    for file in (CONFIG_FILE, RESULTS_FILE, SCORES_FILE, PREDICTIONS_FILE):
        if not os.path.isfile(os.path.join(workdir, file)):
            raise ValueError(f"{os.path.join(workdir, file)} is missing: {_remedy(workdir, file)}")
    config = _read_json(workdir, CONFIG_FILE, _IN_CONFIG)
    results = _read_json(workdir, RESULTS_FILE, _IN_RESULTS)
    paths, defects, labels, scores = _read_scores(workdir)
    data = config["data"]
    sources = read_sources(workdir)
    if sources is None:
        path = os.path.join(workdir, SOURCES_FILE)
        raise ValueError(f"{path} is missing: {_remedy(workdir, SOURCES_FILE)}")
    return Run(
        workdir=workdir,
        name=str(config["name"]),
        category=str(data["category"]),
        seed=config["seed"],
        config=config,
        facts=read_facts(workdir),
        sources=sources,
        results=results,
        paths=paths,
        defects=defects,
        labels=np.array(labels, int),
        scores=np.array(scores, float),
    )


def _remedy(workdir: str, file: str) -> str:
    if file == CONFIG_FILE:
        return "the folder holds no trained run; `python main.py --config=... --workdir=...` trains"
    return f"`python main.py --mode=evaluate --workdir={workdir}` writes it"


def _damaged(workdir: str, file: str, what: object) -> NoReturn:
    path = os.path.join(workdir, file)
    raise ValueError(f"{path} is damaged ({what}): {_remedy(workdir, file)}")


def _read_json(workdir: str, file: str, names: Iterable[str]) -> dict[str, Any]:
    """The object in the file, which must have the dotted `names`."""
    with open(os.path.join(workdir, file), encoding="utf-8") as lines:
        try:
            content: dict[str, Any] = json.load(
                lines, parse_constant=lambda name: _damaged(workdir, file, name)
            )
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            _damaged(workdir, file, f"no JSON: {error}")
    for name in names:
        value = content
        for key in name.split("."):
            if not isinstance(value, dict) or key not in value:
                _damaged(workdir, file, f"it has no {name}")
            value = value[key]
    return content


def _read_scores(workdir: str) -> tuple[list[str], list[str], list[int], list[float]]:
    path = os.path.join(workdir, SCORES_FILE)
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            header, *rows = [*csv.reader(file)] or [[]]
        except csv.Error as error:
            _damaged(workdir, SCORES_FILE, error)
    if tuple(header[:4]) != _COLUMNS:
        _damaged(workdir, SCORES_FILE, f"its columns do not begin with {', '.join(_COLUMNS)}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header) or row[2] not in ("0", "1") or not _is_finite(row[3]):
            _damaged(workdir, SCORES_FILE, f"image {number} has no label 0 or 1 or no finite score")
    paths, defects = [row[0] for row in rows], [row[1] for row in rows]
    return paths, defects, [int(row[2]) for row in rows], [float(row[3]) for row in rows]


def _is_finite(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def read_predictions(run: Run) -> Predictions:
    """The maps of a run.

    Raises:
      ValueError: predictions.npz is damaged, or does not belong to scores.csv.
    """
    try:
        # Opened here, since NumPy leaves the file open where it is no archive.
        with (
            open(os.path.join(run.workdir, PREDICTIONS_FILE), "rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            reconstructions = arrays.get("reconstructions", None)
            predictions = Predictions(arrays["maps"], reconstructions, float(arrays["map_max"]))
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _damaged(run.workdir, PREDICTIONS_FILE, error)
    count = len(run.paths)
    if (
        predictions.maps.ndim != 3
        or len(predictions.maps) != count
        or not np.isfinite(predictions.maps).all()
    ):
        _damaged(
            run.workdir,
            PREDICTIONS_FILE,
            f"{predictions.maps.shape} maps, {count} images in {SCORES_FILE}",
        )
    if reconstructions is not None and (
        reconstructions.dtype != np.uint8 or reconstructions.shape[3:] != (3,)
    ):
        _damaged(
            run.workdir,
            PREDICTIONS_FILE,
            f"reconstructions are {reconstructions.dtype} {reconstructions.shape}",
        )
    if reconstructions is not None and len(reconstructions) != count:
        _damaged(
            run.workdir,
            PREDICTIONS_FILE,
            f"{len(reconstructions)} reconstructions, {count} images in {SCORES_FILE}",
        )
    if not (np.isfinite(predictions.map_max) and predictions.map_max > 0):
        _damaged(run.workdir, PREDICTIONS_FILE, f"map_max is {predictions.map_max}")
    return predictions


def config_key(run: Run) -> str:
    """Equal for runs that share a config: for those that differ in seed, category or watching."""
    config = {name: value for name, value in run.config.items() if name not in _FREE}
    data = {name: value for name, value in config["data"].items() if name not in _FREE_DATA}
    return json.dumps(config | {"data": data}, sort_keys=True)
