"""The page of one run: report/index.html, and its figures beside it.

`N` test images of `H` x `W` pixels. Scores and anomaly maps are floats, higher = more anomalous.
The page is for two readers, a researcher and an engineer who may show it to a customer. What it
shows of results.json is a table each; what is missing there is not shown.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from matplotlib.figure import Figure
from PIL import Image

from engine.log import duration, preview_file
from evaluation.false_alarms import Marks, marked_pixels
from evaluation.metrics import METRICS, Metric
from evaluation.results import Scored
from evaluation.threshold import Threshold, percent
from report import figures, gallery, page, sheets
from report.page import Section, Table
from report.summary import FRAME_AUROCS, errors
from storage.files import safe_names, whole, write_text

PAGE = "index.html"
EXAMPLES = 6
TRAINING = "training_curves.png"

Results = Mapping[str, Any]


def write_report(
    folder: str,
    *,
    scored: Scored,
    calibration: Scored,
    results: Results,
    history: Sequence[Mapping[str, Any]],
    threshold: Threshold,
    chains: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    over_time: Sequence[Section] = (),
) -> None:
    """Writes index.html, one self-contained page, into `folder`, and the pictures in it beside it.

    A curve that needs both classes, or a history, is left out without, and the log says why.

    Args:
      folder: made if it is not there.
      scored: the test set, which may be empty; its scores and maps must be finite.
      calibration: the good images that set the threshold; shown in place of an empty test set.
      results: method, category, counts {name: int}, image, image_terms {name: metrics}, per_defect,
        pixel (metrics as evaluation.metrics gives them), threshold and at_threshold (as
        evaluation.threshold's `content` and `rates`), score and checks {name: value}, steps
        {stage: int}, seconds {stage: float}, versions {package: str}, devices. What is missing is
        not shown.
      history: the lines of metrics.jsonl.
      threshold: between good and defective; its `map_max` is the top of the one colour scale of
        all anomaly maps.
      chains: what scoring does with some images, step by step: heading -> caption -> uint8
        [H, W, 3]; without, nothing is shown of it.
      over_time: sections about clips, in place of those that show each image on its own.

    Raises:
      ValueError: map_max is not a positive number.
    """
    if not (np.isfinite(threshold.map_max) and threshold.map_max > 0):
        raise ValueError(f"map_max={threshold.map_max}: the colour scale needs a positive number")
    os.makedirs(folder, exist_ok=True)
    subject = ", ".join(str(results[key]) for key in ("method", "category") if key in results)
    text = page.render_page(
        "run.html",
        title=subject,
        verdict=_verdict(results),
        promise=_promise(results),
        at_threshold=_errors_table(results),
        curves=_curves(folder, scored, calibration, threshold, subject),
        training=_training(folder, history, subject),
        mistakes=gallery.mistakes(scored, threshold) if len(scored.paths) and not over_time else [],
        scale=gallery.colour_scale(threshold.map_max),
        thumbnails=None if over_time else _thumbnails(scored, calibration, threshold),
        over_time=over_time,
        metrics=_metrics_tables(results),
        inputs=_inputs(folder, results),
        chains=_chains(folder, chains or {}),
        examples=None if over_time else _examples(folder, scored, threshold, subject),
        origin=_origin_tables(results),
    )
    write_text(os.path.join(folder, PAGE), text)


def _thumbnails(scored: Scored, calibration: Scored, threshold: Threshold) -> gallery.Thumbnails:
    """All test images, or, without any, the calibration images."""
    if len(scored.paths):
        title = "All test images, by score"
        about = (
            "Highest, so most anomalous, first. Beside each image, in colours, where its anomaly "
            "map is higher than that of any held-out good image."
        )
        return gallery.thumbnails(scored, threshold, title, about)
    about = (
        "There are no test images, so how often defects are missed is not known. These good images "
        "were not trained on, but they set the threshold: how many of them lie above it is no "
        "measure of false alarms."
    )
    return gallery.thumbnails(calibration, threshold, "The held-out good images, by score", about)


def _saved(folder: str, name: str, drawn: Figure | Image.Image, caption: str) -> page.Embedded:
    """What is drawn, as a file of the folder and as part of the page."""
    png = figures.png(drawn)
    with whole(os.path.join(folder, name)) as file:
        file.write(png)
    return page.embedded(png, caption)


def _curves(
    folder: str, scored: Scored, calibration: Scored, threshold: Threshold, subject: str
) -> Section:
    """Curves where there are both classes, and the histogram of the scores."""
    labels, scores = np.asarray(scored.labels), np.asarray(scored.scores)
    named = {"image score": scores, **scored.terms}
    drawn = []
    for name, heading, draw in (
        ("roc.png", "ROC curve", figures.roc),
        ("precision_recall.png", "Precision and recall", figures.precision_recall),
    ):
        if 0 < labels.sum() < labels.size:
            figure = draw(labels, named, f"{heading}: {subject}")
            drawn.append(_saved(folder, name, figure, heading))
    if labels.size and not drawn:
        logging.warning("No ROC curve is drawn: the test images are not of two classes.")
    heading = "Image scores"
    figure = figures.histogram(
        labels,
        scores,
        f"{heading}: {subject}",
        calibration=np.asarray(calibration.scores),
        threshold=threshold.threshold,
    )
    return Section("Curves", [*drawn, _saved(folder, "histogram.png", figure, heading)])


def _training(folder: str, history: Sequence[Mapping[str, Any]], subject: str) -> Section:
    if not history:
        logging.warning("%s is not drawn: %s", TRAINING, "there is no training history")
        return Section("Training curves", [])
    figure = figures.training_curves(history, f"Training: {subject}")
    return Section("Training curves", [_saved(folder, TRAINING, figure, "Training")])


def _inputs(folder: str, results: Results) -> Section:
    """What training has left in the folder: what each stage was trained on, where it was shown."""
    drawn = []
    for stage in sorted(results.get("steps", {})):
        path = os.path.join(folder, preview_file(stage))
        if os.path.exists(path):
            with open(path, "rb") as file:
                drawn.append(page.embedded(file.read(), f"what stage {stage} is trained on"))
    return Section("Trained on", drawn)


def _chains(folder: str, chains: Mapping[str, Mapping[str, np.ndarray]]) -> Section:
    title, caption = "How an image is repaired", "an image's way to what it is held against"
    drawn = [_saved(folder, "chains.png", sheets.strips(chains), caption)] if chains else []
    return Section(title, drawn)


def _examples(folder: str, scored: Scored, threshold: Threshold, subject: str) -> Section:
    """Draws up to six images of each defect type and of good, evenly spaced by score."""
    marks = threshold.marks
    defects = np.asarray(scored.defects, dtype=object)
    scores = np.asarray(scored.scores)
    reconstructions = scored.reconstructions
    drawn = []
    for defect, safe in safe_names(sorted(set(scored.defects))).items():
        ranked = np.flatnonzero(defects == defect)
        ranked = ranked[np.argsort(scores[ranked], kind="stable")]
        places = np.linspace(0, ranked.size - 1, min(EXAMPLES, ranked.size)).round().astype(int)
        chosen = ranked[places]
        spaced = f"{chosen.size} of {ranked.size} images, evenly spaced by score, lowest to highest"
        figure = sheets.examples(
            images=scored.images[chosen],
            reconstructions=None if reconstructions is None else reconstructions[chosen],
            maps=scored.maps[chosen],
            masks=[scored.masks[i] for i in chosen],
            marked=marks and [_marked(scored, i, marks) for i in chosen],
            captions=[_caption(scored, i) for i in chosen],
            title=f"{subject}: {defect}",
            note=spaced,
            map_max=threshold.map_max,
        )
        drawn.append(_saved(folder, f"defect_{safe}.png", figure, f"{defect}: {spaced}"))
    about = (
        "In colours over an anomaly map's image: where the map is higher than in any held-out good "
        "image, which is the line in the scale."
    )
    if marks:
        about += (
            " Marked is what is outlined in the image, as predict does it: by the number of false "
            "alarms, which also sees how large and where a region is, and not by that line."
        )
    return Section("Examples", drawn, about)


def _marked(scored: Scored, i: int, marks: Marks) -> np.ndarray:
    return marked_pixels(scored.maps[i], marks, scored.images[i].shape[:2])


def _caption(scored: Scored, i: int) -> str:
    name = "/".join(scored.paths[i].replace(os.sep, "/").split("/")[-2:])
    return f"score {scored.scores[i]:.4g}     {name[-40:]}"


def _verdict(results: Results) -> list[tuple[str, str]]:
    """The numbers that matter most, each with its meaning."""
    image, pixel = results.get("image", {}), results.get("pixel", {})
    threshold = results.get("threshold", {})
    rows = errors(results)
    tiles = []
    if image.get("auroc") is not None:
        tiles.append((f"{image['auroc']:.3f}", "image AUROC: 1 is perfect, 0.5 is chance"))
    if pixel.get("au_pro") is not None:
        limit = f"up to a false-positive rate of {pixel['au_pro_limit']:g}"
        tiles.append((f"{pixel['au_pro']:.3f}", f"AU-PRO of the anomaly maps, {limit}"))
    good = [row for row in rows if row.type == "good"]
    defects = [row for row in rows if row.type != "good"]
    for row in good:
        meaning = "good test parts called defective: false alarms"
        tiles.append((f"{row.wrong} of {row.images}", meaning))
    if defects:
        wrong = sum(row.wrong for row in defects)
        count = sum(row.images for row in defects)
        tiles.append((f"{wrong} of {count}", "defective test parts not called so: misses"))
    if threshold and not rows:
        tiles.append((f"{threshold['threshold']:.4g}", "threshold: defective is a score above it"))
        tiles.append((str(threshold["held_out"]), "held-out good images, which set the threshold"))
    if threshold:
        rate = percent(threshold["guaranteed_rate"])
        tiles.append((f"≤ {rate}", "of new good parts are expected to be called defective"))
    return tiles


class _Promise(NamedTuple):
    """What the threshold promises."""

    kept: bool
    headline: str
    statement: Sequence[str]


def _promise(results: Results) -> _Promise | None:
    if not (threshold := results.get("threshold")):
        return None
    kept = threshold["guaranteed"]
    word = "guaranteed under the conditions below" if kept else "NOT guaranteed"
    asked = percent(threshold["false_alarm_rate"])
    return _Promise(kept, f"{asked} false alarms: {word}", threshold["statement"])


def _errors_table(results: Results) -> Table:
    rows = []
    for row in errors(results):
        one, many = ("false alarm", "false alarms") if row.type == "good" else ("miss", "misses")
        wrong = f"{row.wrong} {one if row.wrong == 1 else many}"
        rate = f"{one.replace(' ', '-')} rate {row.rate}"
        rows.append([row.type, row.images, wrong, rate, row.interval])
    header = ["type", "images", "wrong", "rate", "95 % interval"]
    if results.get("frames"):
        header[1] = "clips"
    what = header[1]
    return Table(f"Test {what} at the threshold, by type", header, rows)


def _metrics_tables(results: Results) -> list[Table]:
    """Counts, metrics of scores and maps, what tuning chose, and checks."""
    image = {row.name: _heading(row) for row in METRICS if row.kind == "image"}
    pixel: dict[str, str] = {}
    for row in METRICS:
        if row.kind == "pixel":
            pixel[row.name] = _heading(row)
            if row.name == "au_pro":  # means nothing without its limit
                pixel["au_pro_limit"] = "up to a false-positive rate of"
    by_score = {"image score": results.get("image", {}), **results.get("image_terms", {})}
    # What is of the test set alone is the same for all terms of the score.
    chance = [row.name for row in METRICS if row.kind == "image" and row.chance]
    shared = {name: by_score["image score"].get(name) for name in chance}
    by_score = {name: shared | entry for name, entry in by_score.items()}
    maps = {entry["resolution"]: entry for entry in [results.get("pixel")] if entry}
    counts = [[name.replace("_", " "), n] for name, n in results.get("counts", {}).items()]
    counts += [[f"labelled: {kind}", n] for kind, n in results.get("labelled", {}).items()]
    return [
        *_frames_tables(results),
        Table("Images", ["", "number"], counts),
        _metrics_table("Image scores", "score", image, by_score),
        _metrics_table(
            "Image scores by defect type, each against all good images",
            "defect",
            image | {"count": "images"},
            results.get("per_defect", {}),
        ),
        _metrics_table(
            "Image scores of kinds of which images were labelled, and of others",
            "kinds",
            image | {"count": "images"},
            results.get("by_label", {}),
        ),
        _metrics_table("Anomaly maps, pixel by pixel", "resolution", pixel, maps),
        _values("Own metrics", results.get("own", {})),
        _values("Score settings chosen on made-up defects", results.get("score", {})),
        _values("Checks on held-out normal images", results.get("checks", {})),
    ]


def _frames_tables(results: Results) -> list[Table]:
    """Of clips: AUROCs of frames, each way of taking them, and the frames above the threshold."""
    if not (content := results.get("frames")):
        return []
    rows = [
        [name, *(values[key] for key in FRAME_AUROCS), values["left_out"]]
        for name, values in content["scores"].items()
    ]
    note = (
        "Micro: all frames of all clips in one curve, raw scores; the main figure. Macro: the mean "
        "over the clips that have normal and abnormal frames; the others are left out. Normalised: "
        "scores from 0 to 1 in each test clip, as papers have it; of live video that is not known. "
        f"Smoothed over {content['smoothing']:g} frames, in both directions or past ones alone."
    )
    header = ["score", *FRAME_AUROCS.values(), "clips left out of macro"]
    above = [
        [name, entry["frames"], entry["above"]]
        for name, entry in content["above_threshold"].items()
    ]
    return [
        Table("AUROC of frames", header, rows, notes=[note]),
        Table("Frames above the threshold", ["labelled", "frames", "above"], above),
    ]


def _heading(row: Metric) -> str:
    return row.label.removeprefix(f"{row.kind} ")


def _metrics_table(
    title: str, corner: str, headings: Mapping[str, str], entries: Mapping[str, Mapping[str, Any]]
) -> Table:
    """A row per entry; the reason why metrics are not available is told once in it."""
    rows = []
    for name, entry in entries.items():
        reason = f"not available: {entry.get('reason', 'no reason was recorded')}"
        absent = itertools.chain([reason], itertools.repeat(page.NONE))
        rows.append([name, *(_number(entry.get(key)) or next(absent) for key in headings)])
    return Table(title, [corner, *headings.values()], rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _values(title: str, values: Mapping[str, Any]) -> Table:
    rows = []
    for name, value in values.items():
        cell = f"{value:.4g}" if isinstance(value, float) else str(value)
        rows.append([name.replace("_", " "), page.NONE if value is None else cell])
    return Table(title, ["", "value"], rows)


def _origin_tables(results: Results) -> list[Table]:
    """Steps and seconds of training, and with what software on which devices."""
    training = [
        [stage, steps, duration(results.get("seconds", {}).get(stage, 0.0))]
        for stage, steps in results.get("steps", {}).items()
    ]
    software = {**results.get("versions", {}), "devices": results.get("devices", "not recorded")}
    return [
        Table("Training", ["stage", "steps", "time"], training),
        Table("Software and devices", ["", "version"], list(software.items())),
    ]
