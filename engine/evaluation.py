"""Scores a test set with a finished workdir, and writes what came out into it."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging

from engine import metrics, parallel, report
from engine.logs import read_metrics, to_pixels
from engine.scoring import Scorer, score_all

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


class LabelledImages(Protocol):
    """Test images in one order, with what is known of them."""

    @property
    def images(self) -> np.ndarray:
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
    def masks(self) -> Sequence[np.ndarray | None]:
        """N of bool [h, w], or None where a mask is missing."""


def evaluate(
    scorer: Scorer,
    test: LabelledImages,
    test_batches: Iterable[np.ndarray],
    normal_batches: Iterable[np.ndarray],
    workdir: str,
    *,
    about: Mapping[str, Any],
    pixel_size: int,
    batch_size: int,
) -> dict[str, Any]:
    """Writes results.json, scores.csv, predictions.npz and report/; returns the results.

    `predictions.npz` has the anomaly maps, float32 [N, H, W], the reconstructions, uint8
    [N, H, W, 3], where the method makes some, both in the order of scores.csv, and `map_max`, the
    top of the maps' colour scale.

    Args:
      scorer: of images in [-1, 1].
      test: the test set.
      test_batches: its images, float32 [B, H, W, 3] in [-1, 1].
      normal_batches: likewise, held-out normal images; they alone set the colours of the maps.
      workdir: the run's folder, from which steps and seconds are read.
      about: what results.json says first, such as method, category and counts.
      pixel_size: pixel metrics are taken at this height and width; 0: at each mask's own size.
      batch_size: so many images are scored at a time, and no batch has more.

    Raises:
      ValueError: there is no normal image, or a score is not finite.
    """
    normal = score_all(scorer, normal_batches, batch_size)
    # Without test images there are none of everything, and the metrics say why they are absent.
    none = jax.tree.map(itemgetter(slice(0)), normal)
    start = time.perf_counter()  # the scorer was compiled for the normal images
    score = score_all(scorer, test_batches, batch_size) if len(test.images) else none
    seconds = time.perf_counter() - start
    history = read_metrics(workdir)
    results = {
        **about,
        **_metrics(test, score, pixel_size),
        "steps": {line["stage"]: line["step"] for line in history},
        "seconds": {line["stage"]: round(line["seconds"], 1) for line in history},
        "seconds_per_image": seconds / len(test.images) if len(test.images) else None,
        "versions": versions(),
        "devices": parallel.device_names(),
    }
    if parallel.is_main():
        _write(workdir, test, score, results, history, _map_max(np.asarray(normal.map)))
    return results


def _metrics(test: LabelledImages, score: Any, pixel_size: int) -> dict[str, Any]:
    terms = score.terms.items()
    return {
        "image": metrics.image_metrics(test.labels, score.image),
        "image_terms": {name: metrics.image_metrics(test.labels, term) for name, term in terms},
        "per_defect": metrics.per_defect(test.labels, test.defects, score.image),
        "pixel": metrics.pixel_metrics(test.masks, score.map, pixel_size, names=test.paths),
    }


def _map_max(maps: np.ndarray) -> float:
    """The top of the maps' colour scale: twice what all but 1 in 1,000 normal pixels reach.

    From normal images alone, so that the scale does not move with the images looked at, and a good
    part stays in its lower half.
    """
    return 2.0 * max(float(np.quantile(maps, 0.999)), 1e-6)


def _write(
    workdir: str,
    test: LabelledImages,
    score: Any,
    results: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    map_max: float,
) -> None:
    scored = report.Scored(
        paths=test.paths,
        defects=test.defects,
        labels=test.labels,
        images=test.images,
        masks=test.masks,
        scores=score.image,
        terms=score.terms,
        maps=score.map,
        reconstructions=score.reconstruction,
    )
    report.write_scores(
        os.path.join(workdir, "scores.csv"),
        paths=scored.paths,
        defects=scored.defects,
        labels=scored.labels,
        scores=scored.scores,
        terms=scored.terms,
    )
    report.write_json(os.path.join(workdir, "results.json"), results)
    _write_predictions(os.path.join(workdir, "predictions.npz"), score, map_max)
    folder = os.path.join(workdir, "report")
    report.write_report(folder, scored=scored, results=results, history=history, map_max=map_max)
    names = "results.json, scores.csv, predictions.npz and report/index.html"
    logging.info("Wrote %s into %s.", names, workdir)


def _write_predictions(path: str, score: Any, map_max: float) -> None:
    arrays = {"maps": score.map, "map_max": np.float32(map_max)}
    if score.reconstruction is not None:
        arrays["reconstructions"] = to_pixels(score.reconstruction)
    new = f"{path}.tmp"
    with open(new, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(new, path)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages}


def summary(results: Mapping[str, Any]) -> str:
    """One line: the metrics of the image scores and of the maps, or why there are none."""
    image, pixel = results["image"], results["pixel"]

    def shown(values, name, label):
        value = values[name]
        return f"no {label} ({values['reason']})" if value is None else f"{label} {value:.3f}"

    parts = [
        shown(image, "auroc", "image AUROC"),
        shown(image, "average_precision", "average precision"),
        shown(image, "prevalence", "prevalence"),
        shown(pixel, "auroc", "pixel AUROC"),
        shown(pixel, "au_pro", "AU-PRO"),
    ]
    return ", ".join(parts)
