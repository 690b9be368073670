"""Scores a test set with a finished workdir, and writes what came out into it.

Memory does not grow with the number of images, but for a few kB of each: images are read, and maps
and reconstructions lie in temporary files, until they are looked at.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging

from engine import metrics, official, parallel, report, threshold
from engine.logs import read_metrics
from engine.scoring import Scorer, score_to_disk
from engine.spill import Stack, write_npz
from engine.threshold import Threshold

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


class LabelledImages(Protocol):
    """Test images in one order, with what is known of them."""

    @property
    def images(self) -> Stack:
        """Images as uint8 [N, H, W, 3]."""

    @property
    def paths(self) -> Sequence[str]:
        """N paths, as the reader knows them."""

    @property
    def defects(self) -> Sequence[str]:
        """N of 'good' or the defect's name."""

    @property
    def labels(self) -> np.ndarray:
        """Integers [N], 1 = defective."""

    @property
    def sizes(self) -> np.ndarray:
        """Integers [N, 2], height and width of the files."""

    @property
    def masks(self) -> Sequence[np.ndarray | None]:
        """N of bool [h, w], or None where a mask is missing; or none at all."""


def evaluate(
    scorer: Scorer,
    test: LabelledImages,
    held_out: LabelledImages,
    workdir: str,
    *,
    batches: Callable[[Any, int], Iterable[np.ndarray]],
    batch_size: int,
    about: Mapping[str, Any],
    network: Mapping[str, Any],
    false_alarm_rate: float,
    pixel_size: int,
    save_maps: bool = False,
) -> dict[str, Any]:
    """Writes threshold.json, results.json, scores.csv, predictions.npz and report/.

    `predictions.npz` has the anomaly maps, float32 [N, H, W], the reconstructions, uint8
    [N, H, W, 3], where the method makes some, both in the order of scores.csv, and `map_max`, the
    top of the maps' colour scale.

    Args:
      scorer: of images in [-1, 1].
      test: the test set, which may be empty.
      held_out: good images that training has not seen; they alone set the threshold and the maps'
        colours.
      workdir: the run's folder, from which steps and seconds are read.
      batches: (images, most in a batch) -> batches of them, float32 [B, H, W, 3] in [-1, 1].
      batch_size: so many images are scored at a time.
      about: what results.json says first, such as method, category and counts.
      network: which networks and score these are, for threshold.json.
      false_alarm_rate: for the threshold, in (0, 1).
      pixel_size: pixel metrics are taken at this height and width; 0: at each mask's own size.
      save_maps: whether to write maps/ for the official evaluation.

    Returns:
      What results.json holds.

    Raises:
      ValueError: fewer than two good images are held out, a rate that is none, or a score is not
        finite.
    """
    threshold.check_count(len(held_out.images))
    normal = score_to_disk(scorer, batches(held_out.images, batch_size), batch_size, workdir)
    found = threshold.calibrate(normal.image, normal.map, false_alarm_rate)
    # Without test images there are none of everything, and the metrics say why they are absent.
    score = jax.tree.map(itemgetter(slice(0)), normal)
    start = time.perf_counter()  # the scorer was compiled for the held-out images
    if len(test.images):
        score = score_to_disk(scorer, batches(test.images, batch_size), batch_size, workdir)
    seconds = time.perf_counter() - start
    history = read_metrics(workdir)
    results = {
        **about,
        **_metrics(test, score, pixel_size, workdir),
        "threshold": _told(found, network),
        "at_threshold": threshold.rates(found, test.labels, test.defects, score.image),
        "steps": {line["stage"]: line["step"] for line in history},
        "seconds": {line["stage"]: round(line["seconds"], 1) for line in history},
        "seconds_per_image": seconds / len(test.images) if len(test.images) else None,
        "versions": versions(),
        "devices": parallel.device_names(),
    }
    if save_maps:
        results["official"] = official.scores(
            test.masks, test.labels, score.map, test.sizes, folder=workdir
        )
    if parallel.is_main():
        if save_maps:
            _write_maps(workdir, about["category"], test, score.map)
        threshold.write(workdir, found, network)
        _write(workdir, _scored(test, score), _scored(held_out, normal), results, history, found)
    return results


def _metrics(test: LabelledImages, score: Any, pixel_size: int, workdir: str) -> dict[str, Any]:
    terms = score.terms.items()
    pixel = metrics.pixel_metrics(
        test.masks, score.map, pixel_size, names=test.paths, folder=workdir
    )
    return {
        "image": metrics.image_metrics(test.labels, score.image),
        "image_terms": {name: metrics.image_metrics(test.labels, term) for name, term in terms},
        "per_defect": metrics.per_defect(test.labels, test.defects, score.image),
        "pixel": pixel,
    }


def _told(found: Threshold, network: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says of the threshold: all but the scores that it comes from."""
    content = threshold.content(found, network)
    content["held_out"] = len(content.pop("calibration_scores"))
    return content


def _write_maps(workdir: str, category: str, test: LabelledImages, maps: Stack) -> None:
    folder = official.write_maps(
        workdir, category, paths=test.paths, defects=test.defects, maps=maps, sizes=test.sizes
    )
    logging.info("Wrote %d anomaly maps into %s.", len(maps), folder)
    for reason in official.unseen(test.paths, test.defects):
        logging.warning("The official script passes over %s.", reason)


def _scored(images: LabelledImages, score: Any) -> report.Scored:
    masks = images.masks if len(images.masks) else [None] * len(images.images)
    return report.Scored(
        paths=images.paths,
        defects=images.defects,
        labels=images.labels,
        images=images.images,
        masks=masks,
        scores=score.image,
        terms=score.terms,
        maps=score.map,
        reconstructions=score.reconstruction,
    )


def _write(
    workdir: str,
    scored: report.Scored,
    held_out: report.Scored,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    found: Threshold,
) -> None:
    report.write_scores(
        os.path.join(workdir, "scores.csv"),
        paths=scored.paths,
        defects=scored.defects,
        labels=scored.labels,
        scores=scored.scores,
        terms=scored.terms,
    )
    report.write_json(os.path.join(workdir, "results.json"), results)
    _write_predictions(os.path.join(workdir, "predictions.npz"), scored, found.map_max)
    report.write_report(
        os.path.join(workdir, "report"),
        scored=scored,
        held_out=held_out,
        results=results,
        history=history,
        threshold=found,
    )
    names = "threshold.json, results.json, scores.csv, predictions.npz and report/index.html"
    logging.info("Wrote %s into %s.", names, workdir)


def _write_predictions(path: str, scored: report.Scored, map_max: float) -> None:
    arrays: dict[str, Any] = {"maps": scored.maps, "map_max": np.float32(map_max)}
    if scored.reconstructions is not None:
        arrays["reconstructions"] = scored.reconstructions
    write_npz(path, arrays)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages}


def summary(results: Mapping[str, Any]) -> str:
    """A line of metrics of the image scores and of the maps, or why there are none, and the rest.

    The rest is what the threshold promises and, with test images, how often it is wrong.
    """
    image, pixel = results["image"], results["pixel"]

    def shown(values, name, label):
        value = values[name]
        return f"no {label} ({values['reason']})" if value is None else f"{label} {value:.3f}"

    metrics_line = ", ".join(
        [
            shown(image, "auroc", "image AUROC"),
            shown(image, "average_precision", "average precision"),
            shown(image, "prevalence", "prevalence"),
            shown(pixel, "auroc", "pixel AUROC"),
            shown(pixel, "au_pro", "AU-PRO"),
        ]
    )
    if image["prevalence"] is None:
        metrics_line = "no test images, so nothing is known of how often defects are missed"
    wrong = [_wrong(name, entry) for name, entry in results["at_threshold"].items()]
    judged = [f"With it, of the test images: {'; '.join(wrong)}."] if wrong else []
    return "\n".join([metrics_line, *results["threshold"]["statement"], *judged])


def _wrong(name: str, entry: Mapping[str, Any]) -> str:
    low, high = map(threshold.percent, entry["interval"])
    kind = "called defective" if name == "good" else "missed"
    return f"{entry['wrong']} of {entry['count']} {name} {kind} (95 % interval {low} to {high})"
