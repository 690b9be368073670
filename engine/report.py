"""What is written after training and scoring: scores.csv, JSON files, a report of pictures.

`N` test images of `H` x `W` pixels. Scores and anomaly maps are floats, higher = more anomalous.
The report is for two readers, a researcher and an engineer who may show it to a customer.
"""

import csv
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from engine import figures, page
from engine.logs import PREVIEW, duration, write_text

EXAMPLES = 6
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so

Draw = Callable[..., None]
Pictures = dict[str, str]  # file name -> what the picture shows
_HEADINGS = ("AUROC", "average precision", "prevalence")
_PRO = ("AU-PRO", "up to a false-positive rate of")


class Scored(NamedTuple):
    """The test images and what a method said about them, in one order."""

    paths: Sequence[str]  # N, as the reader knows the images
    defects: Sequence[str]  # N, 'good' or the defect's type
    labels: np.ndarray  # int [N], 1 = defective
    images: np.ndarray  # uint8 [N, H, W, 3]
    masks: Sequence[np.ndarray | None]  # N of bool [h, w], all False for good; None: missing
    scores: np.ndarray  # float [N]
    terms: Mapping[str, np.ndarray]  # the parts of the score: float [N] each
    maps: np.ndarray  # float32 [N, H, W]
    reconstructions: np.ndarray | None  # float32 [N, H, W, 3] in [-1, 1]


def write_json(path: str, value: Any) -> None:
    """Writes `value`, or raises ValueError and writes nothing if it holds NaN or infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


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
    write_text(path, text.getvalue())


def as_text(value: str) -> str:
    """A name as scores.csv has it: with an apostrophe in front where it begins as a formula."""
    return f"'{value}" if value.startswith(FORMULA) else value


def write_report(
    folder: str,
    *,
    scored: Scored,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    map_max: float,
) -> None:
    """Writes index.html and its pictures into `folder`: curves, histogram, examples per defect.

    A curve that needs both classes, or a history, is left out without, and the log says why.

    Args:
      folder: made if it is not there.
      scored: the test set; its scores and maps must be finite.
      results: method, category, counts {name: int}, image, image_terms {name: metrics}, per_defect,
        pixel (metrics as engine.metrics gives them), steps {stage: int}, seconds {stage: float},
        versions {package: str}, devices. What is missing is not shown.
      history: the lines of metrics.jsonl.
      map_max: the top of the one colour scale of all anomaly maps, > 0.

    Raises:
      ValueError: map_max is not a positive number.
    """
    if not (np.isfinite(map_max) and map_max > 0):
        raise ValueError(f"map_max={map_max}: the colour scale needs a positive number")
    os.makedirs(folder, exist_ok=True)
    subject = ", ".join(str(results[key]) for key in ("method", "category") if key in results)
    curves = _write_curves(folder, scored, history, subject)
    examples = _write_examples(folder, scored, map_max, subject)
    inputs = {
        name: f"what stage {name.removeprefix(PREVIEW).removesuffix('.png')} is trained on"
        for name in sorted(os.listdir(folder))
        if name.startswith(PREVIEW)
    }
    page_text = _page(results, subject, inputs, curves, examples)
    write_text(os.path.join(folder, "index.html"), page_text)


def _write_curves(
    folder: str, scored: Scored, history: Sequence[Mapping[str, Any]], subject: str
) -> Pictures:
    """Draws what there is to draw."""
    labels, scores = np.asarray(scored.labels), np.asarray(scored.scores)
    named = {"image score": scores, **scored.terms}
    shown: Pictures = {}

    def draw(name: str, heading: str, missing: str, figure: Draw, *args: Any) -> None:
        if missing:
            logging.warning("%s is not drawn: %s", name, missing)
        else:
            figure(os.path.join(folder, name), *args, f"{heading}: {subject}")
            shown[name] = heading

    both = 0 < labels.sum() < labels.size
    one_class = "" if both else "the test images are not of two classes, good and defective"
    draw("roc.png", "ROC curve", one_class, figures.roc, labels, named)
    heading = "Precision and recall"
    draw("precision_recall.png", heading, one_class, figures.precision_recall, labels, named)
    missing = "" if labels.size else "there are no test images"
    draw("histogram.png", "Image scores", missing, figures.histogram, labels, scores)
    missing = "" if history else "there is no training history"
    draw("training_curves.png", "Training", missing, figures.training_curves, history)
    return shown


def _write_examples(folder: str, scored: Scored, map_max: float, subject: str) -> Pictures:
    """Draws up to six images of each defect type and of good, evenly spaced by score."""
    defects = np.asarray(scored.defects, dtype=object)
    scores, made = np.asarray(scored.scores), scored.reconstructions
    shown: Pictures = {}
    for defect, safe in figures.safe_names(sorted(set(scored.defects))).items():
        ranked = np.flatnonzero(defects == defect)
        ranked = ranked[np.argsort(scores[ranked], kind="stable")]
        places = np.linspace(0, ranked.size - 1, min(EXAMPLES, ranked.size)).round().astype(int)
        name, chosen = f"defect_{safe}.png", ranked[places]
        spaced = f"{chosen.size} of {ranked.size} images, evenly spaced by score, lowest to highest"
        figures.examples(
            os.path.join(folder, name),
            images=scored.images[chosen],
            reconstructions=None if made is None else made[chosen],
            maps=scored.maps[chosen],
            masks=[scored.masks[i] for i in chosen],
            captions=[_caption(scored, i) for i in chosen],
            title=f"{subject}: {defect}",
            note=spaced,
            map_max=map_max,
        )
        shown[name] = f"{defect}: {spaced}"
    return shown


def _caption(scored: Scored, i: int) -> str:
    name = "/".join(scored.paths[i].replace(os.sep, "/").split("/")[-2:])
    return f"score {scored.scores[i]:.4g}     {name[-40:]}"


def _page(
    results: Mapping[str, Any],
    subject: str,
    inputs: Pictures,
    curves: Pictures,
    examples: Pictures,
) -> str:
    """The whole of index.html."""
    scores = {"image score": results.get("image", {}), **results.get("image_terms", {})}
    prevalence = {"prevalence": scores["image score"].get("prevalence")}
    scores = {name: prevalence | entry for name, entry in scores.items()}
    counts = [[name.replace("_", " "), n] for name, n in results.get("counts", {}).items()]
    maps = {entry["resolution"]: entry for entry in [results.get("pixel")] if entry}
    measured = ["auroc", "average_precision", "prevalence"]
    pixel = [*measured, "au_pro", "au_pro_limit"]
    made_with = {**results.get("versions", {}), "devices": results.get("devices", "not recorded")}
    training = [
        [stage, steps, duration(results.get("seconds", {}).get(stage, 0.0))]
        for stage, steps in results.get("steps", {}).items()
    ]
    body = [
        f"<h1>{page.escape(subject)}</h1>",
        _table("Images", ["", "number"], counts),
        _table("Image scores", ["score", *_HEADINGS], _rows(scores, measured)),
        _table(
            "Image scores by defect type, each against all good images",
            ["defect", *_HEADINGS, "images"],
            _rows(results.get("per_defect", {}), [*measured, "count"]),
        ),
        _table(
            "Anomaly maps, pixel by pixel", ["resolution", *_HEADINGS, *_PRO], _rows(maps, pixel)
        ),
        *_values("Score settings chosen on made-up defects", results.get("score", {})),
        *_values("Checks on held-out normal images", results.get("checks", {})),
        _figures("Trained on", inputs),
        _figures("Curves", curves),
        _figures("Examples", examples),
        _table("Training", ["stage", "steps", "time"], training),
        _table("Software and devices", ["", "version"], list(made_with.items())),
    ]
    return page.document(subject, body)


def _values(title: str, values: Mapping[str, Any]) -> list[str]:
    """A table of named values, where there are some."""
    rows = [
        [name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)]
        for name, value in values.items()
    ]
    return [_table(title, ["", "value"], rows)] if rows else []


def _rows(entries: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> list[list[str]]:
    """A row per entry; the reason why metrics are not available is told once in it."""
    rows = []
    for name, entry in entries.items():
        reason = f"not available: {entry.get('reason', 'no reason was recorded')}"
        absent = itertools.chain([reason], itertools.repeat(page.NONE))
        rows.append([name, *(_number(entry.get(key)) or next(absent) for key in keys)])
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    return page.to_html(page.Table(title, header, rows))


def _figures(title: str, pictures: Pictures) -> str:
    images = [f'<img src="{name}" alt="{page.escape(text)}">' for name, text in pictures.items()]
    return "\n".join([f"<h2>{page.escape(title)}</h2>", *images]) if images else ""
