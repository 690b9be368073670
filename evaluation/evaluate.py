"""Scores a test set and says how well it went.

Memory does not grow with the number of images, but for a few kB of each: images are read, and maps
and reconstructions lie in temporary files, until they are looked at.
"""

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from data.decoded import Images
from engine import VERSION, parallel
from engine.log import read_metrics
from evaluation import clips, metrics, official, threshold
from evaluation.false_alarms import calibrate_marks
from evaluation.metrics import OwnMetric
from evaluation.misses import LabelledDefects, Misses, cheapest, judged, ranks_of
from evaluation.quality import qualities
from evaluation.results import Evaluation, scored_images
from evaluation.scoring import Scorer, score_to_disk, scores
from evaluation.threshold import Threshold

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def evaluate_test_set(
    scorer: Scorer,
    test: Images,
    calibration: Images,
    workdir: str,
    *,
    batches: Callable[[Any, int], Iterable[np.ndarray]],
    batch_size: int,
    about: Mapping[str, Any],
    network: Mapping[str, Any],
    false_alarm_rate: float,
    false_regions: float,
    pixel_size: int,
    smoothing: float | None = None,
    own: Mapping[str, OwnMetric],
    official_metrics: bool = False,
    labelled: LabelledDefects | None = None,
) -> Evaluation:
    """Scores the calibration and the test images, sets the threshold, and takes all metrics.

    Args:
      scorer: of images in [-1, 1].
      test: the test set, which may be empty.
      calibration: good images that training has not seen; they alone set the threshold and the
        maps' colours.
      workdir: the run's folder, from which steps and seconds are read; temporary files lie there.
      batches: (images, most in a batch) -> batches of them, float32 [B, H, W, 3] in [-1, 1].
      batch_size: so many images are scored at a time.
      about: what results.json says first, such as method, category and counts.
      network: which networks and score these are, for threshold.json.
      false_alarm_rate: for the threshold, in (0, 1).
      false_regions: expected to be marked in a good image, above 0.
      pixel_size: pixel metrics are taken at this height and width; 0: at each mask's own size.
      smoothing: of clips, whose frames the images are: frames over which scores are smoothed for
        the metrics that say so (evaluation/clips.py); None: the images belong to no clips.
      own: further metrics by name, as `metrics.own_metrics` gives them.
      official_metrics: whether to take what MVTec AD's script will say, too.
      labelled: defective images that are not tested with; the threshold may be chosen by them.

    Raises:
      ValueError: fewer than two good images are held out, a rate that is none, or a score is not
        finite.
    """
    if smoothing is None:
        threshold.require_count(count := len(calibration.images), count)
    normal = score_to_disk(scorer, batches(calibration.images, batch_size), batch_size, workdir)
    if smoothing is None:
        calibrated = _image_threshold(
            scorer, normal, labelled, false_alarm_rate, false_regions, batches, batch_size
        )
        calibrated = calibrated._replace(quality=qualities(calibration.images))
    else:
        calibrated = clips.calibrate_clips(
            calibration.paths, normal.image, normal.map, false_alarm_rate
        )
        pictures = scored_images(calibration, normal).images
        quality = clips.clip_qualities(calibration.paths, pictures)
        calibrated = calibrated._replace(quality=quality)
    # Without test images there are none of everything, and the metrics say why they are absent.
    score = jax.tree.map(itemgetter(slice(0)), normal)
    start = time.perf_counter()  # the scorer was compiled for the calibration images
    if len(test.images):
        score = score_to_disk(scorer, batches(test.images, batch_size), batch_size, workdir)
    seconds = time.perf_counter() - start
    history = read_metrics(workdir)
    results = {
        **about,
        **_metrics(test, score, pixel_size, workdir),
        **(_by_label(test, score.image, labelled) if labelled else {}),
        "threshold": _threshold_content(calibrated, network),
        "at_threshold": _rates(calibrated, test, score.image),
        "steps": {line["stage"]: line["step"] for line in history},
        "seconds": {line["stage"]: round(line["seconds"], 1) for line in history},
        "seconds_per_image": seconds / len(test.images) if len(test.images) else None,
        "versions": versions(),
        "devices": parallel.device_names(),
    }
    if smoothing is not None and len(test.images):
        limit = calibrated.threshold
        results["frames"] = clips.frames_content(
            test.paths, test.labels, score.image, score.terms, smoothing, limit
        )
    scored, normal = scored_images(test, score), scored_images(calibration, normal)
    if own:
        results["own"] = metrics.own_values(
            own, scored.labels, np.asarray(scored.scores), scored.maps, scored.masks
        )
    if official_metrics:
        results["official"] = official.official_metrics(
            test.masks, test.labels, score.map, test.sizes, folder=workdir
        )
    return Evaluation(results, scored, normal, calibrated, history)


def _rates(calibrated: Threshold, test: Images, scores: np.ndarray) -> dict[str, dict[str, Any]]:
    if calibrated.clip_frames:
        return clips.clip_rates(calibrated, test.paths, test.labels, test.defects, scores)
    return threshold.rates(calibrated, test.labels, test.defects, scores)


def _image_threshold(
    scorer: Scorer,
    normal: Any,
    labelled: LabelledDefects | None,
    rate: float,
    false_regions: float,
    batches: Callable[[Any, int], Iterable[np.ndarray]],
    batch_size: int,
) -> Threshold:
    """From the scores `normal` of calibration images, and perhaps from labelled defects."""
    count, ranks = len(normal.image), None
    if labelled and labelled.trained_on:
        ranks = labelled.left_out
    elif labelled:
        few = scores(scorer, batches(labelled.images.images, batch_size), batch_size)
        ranks = ranks_of(normal.image, np.concatenate([batch.image for batch in few])).tolist()
    point, asked = None, rate
    if labelled and labelled.costs and ranks is not None:
        point = cheapest(ranks, count, labelled.costs)
        rate = point / (count + 1)
    calibrated = threshold.calibrate(normal.image, normal.map, rate, point=point)
    marks = calibrate_marks(normal.map, false_regions, asked)
    point = point or threshold.operating_point(count, rate)
    misses = labelled and _misses(labelled, ranks, count, point)
    return calibrated._replace(marks=marks, misses=misses)


def _misses(labelled: LabelledDefects, ranks: Any, count: int, point: int) -> Misses:
    if ranks is None:
        return Misses(len(labelled.images.images), labelled.trained_on)
    return judged(labelled, ranks, count, point)


def _by_label(test: Images, image_scores: np.ndarray, labelled: LabelledDefects) -> dict[str, Any]:
    """How many of each kind are labelled, and metrics of the kinds that are, and that are not."""
    kinds = Counter(labelled.images.defects)
    is_good = test.labels == 0
    seen = np.array([defect in kinds for defect in test.defects], bool)
    parts = {"seen": seen | is_good, "unseen": ~seen | is_good}
    return {
        "labelled": dict(sorted(kinds.items())),
        "by_label": {
            name: {"count": int((part & ~is_good).sum())}
            | metrics.image_metrics(test.labels[part], image_scores[part])
            for name, part in parts.items()
        },
    }


def _metrics(test: Images, score: Any, pixel_size: int, workdir: str) -> dict[str, Any]:
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


def _threshold_content(calibrated: Threshold, network: Mapping[str, Any]) -> dict[str, Any]:
    """What results.json says of the threshold: all but the scores that it comes from."""
    content = threshold.content(calibrated, network)
    content["held_out"] = len(content.pop("calibration_scores"))
    del content["quality"]
    marks = content["marks"] or {}
    content["marks"] = {k: v for k, v in marks.items() if k != "background"}
    return content


def versions() -> dict[str, str]:
    """The versions of this project, of Python and of the packages that a result depends on."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"jaxomaly": VERSION, "python": platform.python_version(), **packages}
