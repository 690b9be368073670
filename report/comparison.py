"""Compares finished runs on one page: metrics with intervals, curves, the same images side by side.

Several runs of one category share its `N` test images; categories stand apart, and only their
means come together. The page is one file, for it is sent around.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from data.decoded import Images
from engine.sources import changes
from evaluation.results import SCORES_FILE, Predictions, Run, config_key, read_predictions, read_run
from report import figures, page, sheets
from report.comparison_tables import (
    Measured,
    categories_table,
    defects_table,
    measure,
    metrics_table,
    runs_table,
    seeds_table,
)
from storage.files import as_text, write_json, write_text

COMPARISON_PAGE = "compare.html"
_CHOICE = (
    "Chosen by a rule, not by hand: the images of each defect type are ranked by score within each "
    "run and the ranks averaged over the runs; shown are the median image and the lowest-ranked, "
    "so hardest, one (of the good images the median and the highest-ranked). Above, the image and "
    "its mask; below, what each run made of it: its reconstruction and its anomaly map. Each run's "
    "maps have their own colour scale, from 0 to a top that held-out normal images set: compare "
    "where maps are bright, not how bright they are."
)


class _Part(NamedTuple):
    """A category: its runs, tables and figures."""

    measured: Sequence[Measured]
    tables: Sequence[page.Table]
    sections: Sequence[page.Section]


def write_comparison(
    workdirs: Sequence[str], load_test: Callable[[Run], Images], output: str
) -> str:
    """Writes compare.html, compare.md and compare.json into `output`; returns the Markdown.

    Args:
      workdirs: two or more finished runs, of one category or of several.
      load_test: gives the test images of a run; called once per category, with
        the run of the largest images.
      output: a folder; made if need be.

    Raises:
      ValueError: a run is not finished, damaged, given twice, or on other test images than another
        run of its category; nothing is written.
    """
    runs = [read_run(workdir) for workdir in workdirs]
    require_comparable(runs)
    groups = by_category(runs)
    parts = [_category(mine, load_test) for mine in groups.values()]
    measured = [one for part in parts for one in part.measured]
    overall = [categories_table(measured), seeds_table(measured)]
    tables = [*overall, *(table for part in parts for table in part.tables), runs_table(measured)]
    title = f"Comparison: {', '.join(groups)}"
    markdown = page.markdown_document(title, tables)
    content = {"title": title, "tables": [page.to_json(table) for table in tables if table.rows]}
    os.makedirs(output, exist_ok=True)
    html = page.render_page(
        "comparison.html", title=title, overall=overall, parts=parts, runs=tables[-1]
    )
    write_text(os.path.join(output, COMPARISON_PAGE), html)
    write_text(os.path.join(output, "compare.md"), markdown)
    write_json(os.path.join(output, "compare.json"), content)
    return markdown


def _category(runs: Sequence[Run], load_test: Callable[[Run], Images]) -> _Part:
    """Measures and draws the runs of one category; the maps of one at a time are in memory."""
    category = runs[0].category
    test = load_test(max(runs, key=lambda run: run.config["data"]["image_size"]))
    _check_images(runs[0], test)
    labels = method_labels(runs)
    names = [
        label if labels.count(label) == 1 else f"{label}, seed {run.seed}"
        for label, run in zip(labels, runs, strict=True)
    ]
    chosen = choose(runs[0].defects, [run.scores for run in runs])
    measured = []
    outputs = []
    for run, label, name in zip(runs, labels, names, strict=True):
        predictions = read_predictions(run)
        measured.append(measure(run, label, predictions, test.masks))
        outputs.append([_outputs(name, run, predictions, places) for places in chosen.values()])
    scores = {name: run.scores for name, run in zip(names, runs, strict=True)}
    sections = [
        *_curves(category, runs[0].labels, scores),
        _pictures(category, test, chosen, [*zip(*outputs, strict=True)]),
    ]
    tables = [metrics_table(category, measured), defects_table(category, measured)]
    return _Part(measured, tables, sections)


def _check_images(run: Run, test: Images) -> None:
    paths = [as_text(path) for path in test.paths]
    if paths == list(run.paths):
        return
    pairs = zip([*paths, None], [*run.paths, None], strict=False)
    here, then = next((here, then) for here, then in pairs if here != then)
    raise ValueError(
        f"{run.workdir}: the test images of {run.category} have changed since {SCORES_FILE} was "
        f"written ({len(paths)} and {len(run.paths)} images, first different: {here!r} and "
        f"{then!r}): put them back, or run --mode=evaluate on every workdir of it"
    )


def choose(defects: Sequence[str], scores: Sequence[np.ndarray]) -> dict[str, list[int]]:
    """The images to show of each defect type, by name, 'good' last: the median and the hardest.

    The hardest is the one of the lowest mean rank over the runs, for 'good' of the highest.

    Args:
      defects: N of 'good' or the defect's type.
      scores: for each run float [N].

    Returns:
      {defect: places in the test set}, two or, where median and hardest are one image, one.
    """
    names = np.asarray(defects, dtype=object)
    chosen = {}
    for defect in sorted(set(defects), key=lambda name: (name == "good", name)):
        mine = np.flatnonzero(names == defect)
        ranks = np.mean([rankdata(values[mine]) for values in scores], axis=0)
        order = mine[np.argsort(-ranks if defect == "good" else ranks, kind="stable")]
        chosen[defect] = list(dict.fromkeys([int(order[order.size // 2]), int(order[0])]))
    return chosen


def _outputs(
    name: str, run: Run, predictions: Predictions, places: Sequence[int]
) -> sheets.Outputs:
    """Copies of what the run made of the images at `places`, so that the rest can go."""
    reconstructions = predictions.reconstructions
    return sheets.Outputs(
        name=name,
        map_max=predictions.map_max,
        scores=[float(run.scores[i]) for i in places],
        maps=[predictions.maps[i].copy() for i in places],
        reconstructions=[
            None if reconstructions is None else reconstructions[i].copy() for i in places
        ],
    )


def _curves(
    category: str, labels: np.ndarray, scores: Mapping[str, np.ndarray]
) -> list[page.Section]:
    """Without both classes there are no curves, without images no histogram."""
    curves: list[page.Embedded] = []
    spread: list[page.Embedded] = []
    if 0 < labels.sum() < labels.size:
        png = figures.png(figures.curves(labels, scores))
        curves.append(page.embedded(png, "All runs on the same images."))
    if labels.size:
        png = figures.png(figures.histograms(labels, scores))
        spread.append(page.embedded(png, "Image scores; each run has a scale of its own."))
    return [
        page.Section(f"{category}: curves", curves),
        page.Section(f"{category}: image scores", spread),
    ]


def _pictures(
    category: str,
    test: Images,
    chosen: Mapping[str, Sequence[int]],
    outputs: Sequence[Sequence[sheets.Outputs]],
) -> page.Section:
    """A picture per defect type; `outputs` holds for each of them what every run made of it."""
    drawn = []
    for (defect, places), runs in zip(chosen.items(), outputs, strict=True):
        extreme = "highest-ranked" if defect == "good" else "hardest"
        examples = [
            sheets.Example(f"{defect}: {which}", test.images[i], test.masks[i])
            for which, i in zip(("median", extreme), places, strict=False)
        ]
        files = " and ".join(test.paths[i] for i in places)
        caption = f"{defect}: the median and the {extreme} image by mean rank, {files}."
        png = figures.png(sheets.side_by_side(examples, runs))
        drawn.append(page.embedded(png, caption))
    return page.Section(f"{category}: the same images, run by run", drawn, _CHOICE)


def by_category(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each category; both in the order of `runs`."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.category, []).append(run)
    return groups


def require_comparable(runs: Sequence[Run]) -> None:
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
    if what := changes(first.sources.all(), other.sources.all()):
        return f"from the former to the latter {what}"
    rows = [zip(run.paths, run.defects, run.labels.tolist(), strict=True) for run in (first, other)]
    for place, (mine, theirs) in enumerate(itertools.zip_longest(*rows), start=1):
        if mine != theirs:
            counts = f"{len(first.paths)} and {len(other.paths)} images in {SCORES_FILE}"
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
