"""Finished workdirs, read back, and which of them may be compared.

`N` test images in the order of scores.csv, `H` x `W` pixels as the method sees them. Scores and
maps: higher = more anomalous.
"""

import csv
import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

_CONFIG, _RESULTS, _SCORES, _MAPS = "config.json", "results.json", "scores.csv", "predictions.npz"
_COLUMNS = ("path", "defect", "label", "score")
_IN_CONFIG = (
    *("name", "seed", "evaluation.pixel_size"),
    *("data.category", "data.image_size", "data.digest"),
)
_METRICS = ("auroc", "average_precision", "prevalence")
_IN_RESULTS = (
    "per_defect",
    *(f"image.{name}" for name in _METRICS),
    *(f"pixel.{name}" for name in (*_METRICS, "au_pro", "resolution")),
)
# What of a config does not make it another one: the seed, the category and its images, where they
# lie, how a run is watched and judged. The image size and the split do make another one.
_FREE = ("seed", "evaluation", "every")
_FREE_DATA = ("category", "root", "prepared", "resident", "digest", "num_train")


class Run(NamedTuple):
    """A finished workdir without its maps."""

    workdir: str
    name: str  # of the method
    category: str
    seed: int
    config: Mapping[str, Any]
    results: Mapping[str, Any]  # as engine.evaluation.evaluate returns them
    paths: Sequence[str]  # N, as scores.csv has them
    defects: Sequence[str]  # N, likewise
    labels: np.ndarray  # int [N], 1 = defective
    scores: np.ndarray  # float64 [N], finite


class Predictions(NamedTuple):
    """What a run says of every pixel; large, so that one run's at a time is in memory."""

    maps: np.ndarray  # float32 [N, H, W], finite
    reconstructions: np.ndarray | None  # uint8 [N, H, W, 3]; None where the method makes none
    map_max: float  # > 0, the top of the maps' colour scale


def read_run(workdir: str) -> Run:
    """Reads config.json, results.json and scores.csv; predictions.npz must be there too.

    Raises:
      ValueError: a file is missing or damaged; the message says which and what makes it.
    """
    for file in (_CONFIG, _RESULTS, _SCORES, _MAPS):
        if not os.path.isfile(os.path.join(workdir, file)):
            raise ValueError(f"{os.path.join(workdir, file)} is missing: {_remedy(workdir, file)}")
    config = _read_json(workdir, _CONFIG, _IN_CONFIG)
    results = _read_json(workdir, _RESULTS, _IN_RESULTS)
    paths, defects, labels, scores = _read_scores(workdir)
    data = config["data"]
    return Run(
        workdir=workdir,
        name=str(config["name"]),
        category=str(data["category"]),
        seed=config["seed"],
        config=config,
        results=results,
        paths=paths,
        defects=defects,
        labels=np.array(labels, int),
        scores=np.array(scores, float),
    )


def _remedy(workdir: str, file: str) -> str:
    if file == _CONFIG:
        return "the folder holds no trained run; `python main.py --config=... --workdir=...` trains"
    return f"`python main.py --mode=evaluate --workdir={workdir}` writes it"


def _damaged(workdir: str, file: str, what: object) -> NoReturn:
    path = os.path.join(workdir, file)
    raise ValueError(f"{path} is damaged ({what}): {_remedy(workdir, file)}")


def _read_json(workdir: str, file: str, names: Iterable[str]) -> dict[str, Any]:
    """The object in the file, which must have the dotted `names`."""
    with open(os.path.join(workdir, file), encoding="utf-8") as lines:
        try:
            content = json.load(lines, parse_constant=lambda name: _damaged(workdir, file, name))
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
    path = os.path.join(workdir, _SCORES)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            header, *rows = [*csv.reader(file)] or [[]]
        except csv.Error as error:
            _damaged(workdir, _SCORES, error)
    if tuple(header[:4]) != _COLUMNS:
        _damaged(workdir, _SCORES, f"its columns do not begin with {', '.join(_COLUMNS)}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header) or row[2] not in ("0", "1") or not _is_finite(row[3]):
            _damaged(workdir, _SCORES, f"image {number} has no label 0 or 1 or no finite score")
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
            open(os.path.join(run.workdir, _MAPS), "rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            made = arrays["reconstructions"] if "reconstructions" in arrays else None
            found = Predictions(arrays["maps"], made, float(arrays["map_max"]))
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _damaged(run.workdir, _MAPS, error)
    count = len(run.paths)
    if found.maps.ndim != 3 or len(found.maps) != count or not np.isfinite(found.maps).all():
        _damaged(run.workdir, _MAPS, f"{found.maps.shape} maps, {count} images in scores.csv")
    if made is not None and (made.dtype != np.uint8 or made.shape[3:] != (3,)):
        _damaged(run.workdir, _MAPS, f"reconstructions are {made.dtype} {made.shape}")
    if made is not None and len(made) != count:
        _damaged(run.workdir, _MAPS, f"{len(made)} reconstructions, {count} images in scores.csv")
    if not (np.isfinite(found.map_max) and found.map_max > 0):
        _damaged(run.workdir, _MAPS, f"map_max is {found.map_max}")
    return found


def config_key(run: Run) -> str:
    """Equal for runs that share a config: for those that differ in seed, category or watching."""
    config = {name: value for name, value in run.config.items() if name not in _FREE}
    data = {name: value for name, value in config["data"].items() if name not in _FREE_DATA}
    return json.dumps(config | {"data": data}, sort_keys=True)


def by_category(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each category; both in the order of `runs`."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.category, []).append(run)
    return found


def check(runs: Sequence[Run]) -> None:
    """Raises ValueError unless these are two runs or more that may stand in one table."""
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} workdir to compare: name two or more, as --workdirs=W1,W2")
    folders: dict[str, Run] = {}
    for run in runs:
        if (other := folders.setdefault(os.path.realpath(run.workdir), run)) is not run:
            raise ValueError(f"{other.workdir} and {run.workdir} are one workdir: name it once")
    for category, (first, *others) in by_category(runs).items():
        for other in others:
            if what := _difference(first, other):
                raise ValueError(
                    f"{first.workdir} and {other.workdir} hold different test sets of {category}: "
                    f"{what}; compare runs of the same images"
                )
    same: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        key = (config_key(run), run.category, run.seed)
        if (other := same.setdefault(key, run)) is not run:
            raise ValueError(
                f"{other.workdir} and {run.workdir} have the same config, category "
                f"{run.category} and seed {run.seed}: leave one out"
            )


def _difference(first: Run, other: Run) -> str:
    """How the test sets of two runs differ, or ''."""
    digests = [str(run.config["data"]["digest"])[:12] for run in (first, other)]
    if first.config["data"]["digest"] != other.config["data"]["digest"]:
        return f"their files have the SHA-256 {digests[0]}... and {digests[1]}..."
    rows = [zip(run.paths, run.defects, run.labels.tolist(), strict=True) for run in (first, other)]
    for place, (mine, theirs) in enumerate(itertools.zip_longest(*rows), start=1):
        if mine != theirs:
            counts = f"{len(first.paths)} and {len(other.paths)} images in scores.csv"
            return f"{counts}, first different at image {place}: {_row(mine)} and {_row(theirs)}"
    return ""


def _row(row: tuple[str, str, int] | None) -> str:
    return f"{row[0]!r} ({row[1]!r}, label {row[2]})" if row else "none"


def method_labels(runs: Sequence[Run]) -> list[str]:
    """What to call the method of each run of one category.

    The name in its config; where other runs have that name with another config, the name of the
    workdir is added, in full if that of the folder alone does not tell them apart.
    """

    def label(run: Run) -> str:
        rivals = [other for other in runs if other.name == run.name]
        rivals = [other for other in rivals if config_key(other) != config_key(run)]
        base = _base(run)
        clash = any(_base(other) == base for other in rivals)
        return f"{run.name} ({run.workdir if clash else base})" if rivals else run.name

    return [label(run) for run in runs]


def _base(run: Run) -> str:
    return os.path.basename(os.path.abspath(run.workdir))
