"""What is written after training and scoring: scores.csv, JSON files, a report of pictures.

`N` test images of `H` x `W` pixels. Scores and anomaly maps are floats, higher = more anomalous.
The report is for two readers, a researcher and an engineer who may show it to a customer.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from engine.log import PREVIEW
from evaluation.results import Scored
from evaluation.threshold import Threshold
from report import figures, gallery, page, report_tables
from storage.files import safe_names, write_text

PAGE = "index.html"
EXAMPLES = 6
TRAINING = "training_curves.png"

Draw = Callable[..., None]
Pictures = dict[str, str]  # file name -> what the picture shows


def write_report(
    folder: str,
    *,
    scored: Scored,
    held_out: Scored,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    threshold: Threshold,
) -> None:
    """Writes index.html, one self-contained page, into `folder`, and the pictures in it beside it.

    A curve that needs both classes, or a history, is left out without, and the log says why.

    Args:
      folder: made if it is not there.
      scored: the test set, which may be empty; its scores and maps must be finite.
      held_out: the good images that set the threshold; shown in place of an empty test set.
      results: method, category, counts {name: int}, image, image_terms {name: metrics}, per_defect,
        pixel (metrics as evaluation.metrics gives them), threshold and at_threshold (as
        evaluation.threshold's `content` and `rates`), score and checks {name: value}, steps
        {stage: int}, seconds {stage: float}, versions {package: str}, devices. What is missing is
        not shown.
      history: the lines of metrics.jsonl.
      threshold: between good and defective; its `map_max` is the top of the one colour scale of
        all anomaly maps.

    Raises:
      ValueError: map_max is not a positive number.
    """
    if not (np.isfinite(threshold.map_max) and threshold.map_max > 0):
        raise ValueError(f"map_max={threshold.map_max}: the colour scale needs a positive number")
    os.makedirs(folder, exist_ok=True)
    subject = ", ".join(str(results[key]) for key in ("method", "category") if key in results)
    curves = _write_curves(folder, scored, held_out, history, threshold, subject)
    training = {name: curves.pop(name) for name in [TRAINING] if name in curves}
    examples = _write_examples(folder, scored, threshold.map_max, subject)
    inputs = {
        name: f"what stage {name.removeprefix(PREVIEW).removesuffix('.png')} is trained on"
        for name in sorted(os.listdir(folder))
        if name.startswith(PREVIEW)
    }
    body = [
        f"<h1>{page.escape(subject)}</h1>",
        report_tables.verdict(results),
        *report_tables.promise(results),
        f'<div class="curves">{_section("Curves", folder, curves)}</div>',
        _section("Training curves", folder, training),
        *_images(scored, held_out, threshold),
        *report_tables.metrics(results),
        _section("Trained on", folder, inputs),
        _section("Examples", folder, examples),
        *report_tables.made(results),
    ]
    style = report_tables.STYLE + gallery.STYLE
    text = page.document(subject, body, width="66em", style=style, script=gallery.SCRIPT)
    write_text(os.path.join(folder, PAGE), text)


def _images(scored: Scored, held_out: Scored, threshold: Threshold) -> list[str]:
    """The mistakes and all test images, or, without any, the held-out images."""
    if len(scored.paths):
        title = "All test images, by score"
        about = (
            "Highest, so most anomalous, first. Beside each image, in colours, where its anomaly "
            "map is higher than that of any held-out good image."
        )
        return [
            *gallery.mistakes(scored, threshold),
            *gallery.thumbnails(scored, threshold, title, about),
        ]
    about = (
        "There are no test images, so how often defects are missed is not known. These good images "
        "were not trained on, but they set the threshold: how many of them lie above it is no "
        "measure of false alarms."
    )
    return gallery.thumbnails(held_out, threshold, "The held-out good images, by score", about)


def _write_curves(
    folder: str,
    scored: Scored,
    held_out: Scored,
    history: Sequence[Mapping[str, Any]],
    threshold: Threshold,
    subject: str,
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
    groups = (labels, scores, np.asarray(held_out.scores), threshold.threshold)
    draw("histogram.png", "Image scores", "", figures.histogram, *groups)
    missing = "" if history else "there is no training history"
    draw(TRAINING, "Training", missing, figures.training_curves, history)
    return shown


def _write_examples(folder: str, scored: Scored, map_max: float, subject: str) -> Pictures:
    """Draws up to six images of each defect type and of good, evenly spaced by score."""
    defects = np.asarray(scored.defects, dtype=object)
    scores, made = np.asarray(scored.scores), scored.reconstructions
    shown: Pictures = {}
    for defect, safe in safe_names(sorted(set(scored.defects))).items():
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


def _section(title: str, folder: str, pictures: Pictures) -> str:
    """The pictures as part of the page; '' without any."""
    drawn = []
    for name, caption in pictures.items():
        with open(os.path.join(folder, name), "rb") as file:
            drawn.append((file.read(), caption))
    return page.section(title, drawn)
