"""The tables of a comparison, from runs measured on their test images.

A column is a metric under the name that the reader sees. Average precision and F1 mean nothing
without what chance gives, so that the tables always hold it in the column beside theirs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.windows import clip_slices
from evaluation import bootstrap
from evaluation.metrics import LIMIT, METRICS, Metric
from evaluation.results import Predictions, Run, config_key
from evaluation.threshold import COVERAGE
from report.page import Interval, Spread, Table


class Column(NamedTuple):
    """A metric as the comparison shows it."""

    heading: str
    kind: str  # 'image', 'pixel', or 'own', the section of results.json
    name: str  # its key there, and in what `bootstrap.curve_metrics` gives
    chance: bool = False  # of the test set, not of a run


# These two are not in results.json, but computed from scores.csv.
F1 = Column("best F1 (upper bound)", "image", "best_f1")
F1_ALL = Column("F1 if all are called defective", "image", "f1_if_all", chance=True)


def columns_of(runs: Iterable[Run]) -> list[Column]:
    """All metrics, those of the image scores first, with F1, then what runs have of their own."""
    rows = [Column(_heading(row), row.kind, row.name, row.chance) for row in METRICS]
    image = [row for row in rows if row.kind == "image"]
    pixel = [row for row in rows if row.kind == "pixel"]
    names = dict.fromkeys(name for run in runs for name in run.results.get("own", {}))
    own = [Column(name.replace("_", " "), "own", name) for name in names]
    return [*image, F1, F1_ALL, *pixel, *own]


def _heading(row: Metric) -> str:
    return f"{row.label} up to {LIMIT:g}" if row.name == "au_pro" else row.label


_INTERVAL = (
    f"Each number with its {COVERAGE:.0%} interval from {bootstrap.RESAMPLES:,} bootstrap"
    " resamples of the test images (good and defective ones apart, the same resamples for every"
    " run). Training is not repeated: the interval says what other test images would change, not"
    " what another seed would."
)
_UPPER = (
    "Best F1 takes its threshold from the test labels themselves: an upper bound, which no "
    "threshold chosen beforehand can be expected to reach. Average precision of chance is the "
    "prevalence."
)


_FRAMES = (
    "The images are frames of clips: neighbouring frames are nearly alike, so that whole clips are "
    "drawn, those with an abnormal frame and those without apart."
)


class Measured(NamedTuple):
    """A run with its metrics."""

    run: Run
    label: str  # of its method
    values: Mapping[Column, float | None]  # None where the metric does not exist
    bounds: Mapping[Column, tuple[float, float]]  # where there is an interval


def measure(
    run: Run, label: str, predictions: Predictions, masks: Sequence[np.ndarray | None]
) -> Measured:
    """The metrics of results.json, F1, and the intervals of all of them.

    Args:
      run: one run.
      label: what to call its method.
      predictions: those of the run.
      masks: N of bool [h, w], all False for a good image; None if missing.
    """
    columns = columns_of([run])
    values = {column: run.results[column.kind].get(column.name) for column in columns}
    bounds: dict[Column, tuple[float, float]] = {}
    weights = _resamples(run)
    if run.results["image"]["auroc"] is not None:
        counts = bootstrap.image_counts(run.labels, run.scores)
        itself = bootstrap.curve_metrics(counts, np.ones((1, run.labels.size)))
        share = float(run.labels.mean())
        values |= {F1: float(itself["best_f1"][0]), F1_ALL: 2 * share / (1 + share)}
        bounds |= _bounds("image", columns, counts, weights)
    given = [mask for mask in masks if mask is not None]
    if run.results["pixel"]["auroc"] is not None and len(given) == len(masks):
        size = run.config["evaluation"]["pixel_size"]
        counts = bootstrap.pixel_counts(given, list(predictions.maps), size)
        bounds |= _bounds("pixel", columns, counts, weights)
    return Measured(run, label, values, bounds)


def _resamples(run: Run) -> np.ndarray:
    """Of the test images; of clips, whole ones."""
    if "frames" not in run.results:
        return bootstrap.resamples(run.labels)
    return bootstrap.clip_resamples(run.labels, [*clip_slices(run.paths).values()])


def _bounds(
    kind: str, columns: Iterable[Column], counts: bootstrap.Counts, weights: np.ndarray
) -> dict[Column, tuple[float, float]]:
    again = bootstrap.curve_metrics(counts, weights)
    return {
        column: bootstrap.interval(again[column.name])
        for column in columns
        if column.kind == kind and column.name in again
    }


def runs_table(measured: Iterable[Measured]) -> Table:
    """What is compared: where it lies and what it took."""
    header = ["workdir", "method", "category", "seed", "image size", "training steps", "devices"]
    rows = []
    for run, label, *_ in measured:
        steps = [f"{stage} {count}" for stage, count in run.results.get("steps", {}).items()]
        counts = Counter(run.results.get("devices", []))
        devices = [f"{count} x {device}" for device, count in counts.items()]
        size = run.config["data"]["image_size"]
        rows.append([run.workdir, label, run.category, run.seed, size, steps or None, devices])
    return Table("Runs", header, rows)


def metrics_table(category: str, measured: Sequence[Measured]) -> Table:
    """All metrics of one category, a row per run."""
    columns = _columns(measured)
    rows = [
        [
            one.label,
            *(_with_bounds(one, column) for column in columns),
            one.run.results.get("seconds_per_image"),
            one.run.seed,
        ]
        for one in measured
    ]
    header = ["method", *_headings(columns), "seconds per image", "seed"]
    first = measured[0].run.labels
    about = f"{int((first == 0).sum())} good and {int(first.sum())} defective test images. "
    notes = [_UPPER, _resolution(measured), *_reasons(measured)]
    if any("frames" in one.run.results for one in measured):
        notes.append(_FRAMES)
    return Table(f"{category}: metrics", header, rows, about + _INTERVAL, notes)


def _with_bounds(one: Measured, column: Column) -> float | Interval | None:
    value = one.values.get(column)
    if value is None or column not in one.bounds:
        return value
    return Interval(value, *one.bounds[column])


def _resolution(measured: Iterable[Measured]) -> str:
    sizes = {one.run.results["pixel"]["resolution"]: one for one in measured}
    named = ", ".join(f"{size} ({one.label})" for size, one in sizes.items())
    if len(sizes) > 1:
        return f"Pixel numbers and AU-PRO do not compare: maps and masks are brought to {named}."
    return f"Pixel numbers and AU-PRO: maps and masks are brought to {next(iter(sizes))}."


def _reasons(measured: Iterable[Measured]) -> list[str]:
    """Why numbers are missing, each reason once."""
    missing: dict[str, None] = {}
    for one in measured:
        for kind in ("image", "pixel"):
            entry = one.run.results[kind]
            if entry["auroc"] is None:
                reason = entry.get("reason", "no reason was recorded")
                missing[f"There are no {kind} metrics: {reason}."] = None
    return list(missing)


def defects_table(category: str, measured: Sequence[Measured]) -> Table:
    """Image AUROC per defect type, a row per run."""
    counts: dict[str, int] = {}
    for one in measured:
        for defect, entry in one.run.results["per_defect"].items():
            counts.setdefault(defect, entry.get("count"))
    rows = [
        [
            one.label,
            one.run.seed,
            *(one.run.results["per_defect"].get(name, {}).get("auroc") for name in counts),
        ]
        for one in measured
    ]
    header = ["method", "seed", *(f"{name} ({count})" for name, count in counts.items())]
    about = "Each defect type, with its number of images, against all good images."
    title = f"{category}: image AUROC by defect type"
    return Table(title, header, rows if counts else [], about)


def seeds_table(measured: Sequence[Measured]) -> Table:
    """Mean and standard deviation of runs that differ in their seed alone; no rows without any."""
    columns = _columns(measured)
    rows = []
    for group in _grouped(measured, lambda one: (one.run.category, config_key(one.run))):
        if len(group) > 1:
            label = ", ".join(dict.fromkeys(one.label for one in group))
            seeds = sorted(one.run.seed for one in group)
            cells = [_spread(group, column) for column in columns]
            rows.append([group[0].run.category, label, seeds, *cells])
    about = "Mean ± sample standard deviation over runs that share a config but for the seed."
    header = ["category", "method", "seeds", *_headings(columns)]
    return Table("Over seeds", header, rows, about, [_UPPER])


def _columns(measured: Iterable[Measured]) -> list[Column]:
    return columns_of(one.run for one in measured)


def _headings(columns: Iterable[Column]) -> list[str]:
    return [column.heading for column in columns]


def _grouped(
    measured: Iterable[Measured], key: Callable[[Measured], object]
) -> list[list[Measured]]:
    groups: dict[object, list[Measured]] = {}
    for one in measured:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def _mean(values: Sequence[float | None]) -> float | None:
    """None if any is missing: the mean of the others would be of something else."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if len(numbers) == len(values) else None


def _spread(group: Sequence[Measured], column: Column) -> float | Spread | None:
    values = [one.values.get(column) for one in group]
    mean = _mean(values)
    if mean is None or column.chance:
        return mean
    return Spread(mean, float(np.std(np.array(values, float), ddof=1)))


def categories_table(measured: Sequence[Measured]) -> Table:
    """Mean over categories per method; no rows if there is one category."""
    columns = _columns(measured)
    total = len({one.run.category for one in measured})
    rows = []
    for mine in _grouped(measured, lambda one: one.label):
        parts = _grouped(mine, lambda one: one.run.category)
        count = f"all {total}" if len(parts) == total else f"{len(parts)} of {total} categories"
        cells = [
            _mean([_mean([one.values.get(column) for one in part]) for part in parts])
            for column in columns
        ]
        rows.append([mine[0].label, count, *cells])
    about = "Mean over categories, each with the same weight and after the mean over its seeds."
    notes = ["Means over different categories do not compare.", _UPPER]
    header = ["method", "categories", *_headings(columns)]
    return Table("Mean over categories", header, rows if total > 1 else [], about, notes)
