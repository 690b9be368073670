"""How well anomaly scores separate good from defective: per image, per defect type, per pixel.

Scores and anomaly maps are NumPy floats in any range, higher = more anomalous; labels are 1 for a
defective image and 0 for a good one. A metric that cannot be computed is None and comes with a
`reason` in words; no result is ever NaN. `N` images; masks and maps are `[h, w]` each, and the
mask of a good image is all False. None stands for the missing mask of a defective image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from engine.make import resolve
from evaluation import pixel_curve
from evaluation.maps import at_one_size
from storage.files import some_of
from storage.rows import Stack

LIMIT = 0.3
"""The false-positive rate up to which MVTec AD integrates PRO."""

MetricValues = dict[str, Any]
"""Name -> value, or None and a reason beside it."""

Mask = np.ndarray | None
"""Bool [h, w], True = defective; None where it is missing."""


class Metric(NamedTuple):
    """A metric of the image scores or of the anomaly maps, wherever metrics are shown."""

    kind: str  # 'image' or 'pixel', its section in results.json
    name: str  # its key there
    label: str  # what people read
    value: Callable[..., Any]  # image: of int labels [N], float scores [N]; pixel: Areas, Pixels
    in_summary: bool = False  # whether the line on the console has it
    chance: bool = False  # whether it is of the test set alone: what chance would give


METRICS = (
    Metric("image", "auroc", "image AUROC", roc_auc_score, in_summary=True),
    Metric("image", "average_precision", "average precision", average_precision_score, True),
    Metric("image", "prevalence", "prevalence", lambda labels, _: np.mean(labels), True, True),
    Metric("pixel", "auroc", "pixel AUROC", lambda areas, _: areas.auroc, in_summary=True),
    Metric(
        *("pixel", "average_precision", "pixel average precision"),
        lambda areas, _: areas.average_precision,
    ),
    Metric(
        *("pixel", "prevalence", "pixel prevalence"),
        lambda _, pixels: pixels.positives / (pixels.positives + pixels.negatives),
        chance=True,
    ),
    Metric("pixel", "au_pro", "AU-PRO", lambda areas, _: areas.au_pro, in_summary=True),
)
"""All metrics of the project: a row more is one more in results, console, page and model card."""


def _values(kind: str, *arguments: Any) -> MetricValues:
    return {row.name: float(row.value(*arguments)) for row in METRICS if row.kind == kind}


def _absent(kind: str, reason: str) -> MetricValues:
    return {row.name: None for row in METRICS if row.kind == kind} | {"reason": reason}


OwnMetric = Callable[[np.ndarray, np.ndarray, Stack, Sequence[Mask]], float | None]
"""Of labels, int [N], 1 = defective; scores, float [N]; maps, float32 [N, H, W], read from disk
when they are indexed; and N masks, bool [h, w] each, as large as the image's file: all False for a
good image, None where that of a defective one is missing, so of all of them where the data has no
masks. Returns a finite number, or None where it has no value."""


def own_metrics(names: str) -> dict[str, OwnMetric]:
    """The functions that `names`, 'module:function' with commas between, names, by their own names.

    Raises:
      ValueError: one names nothing, or what is not for a config to name (engine/make.py), or two
        have one name.
    """
    functions: dict[str, OwnMetric] = {}
    for full in filter(None, (part.strip() for part in names.split(","))):
        name = full.rpartition(":")[2]
        if name in functions:
            raise ValueError(f"evaluation.metrics={names!r} names two {name}: rename one")
        try:
            functions[name] = resolve(full)
        except ValueError as error:
            raise ValueError(f"evaluation.metrics: {error}") from error
        if not callable(functions[name]):
            raise ValueError(f"evaluation.metrics: {full!r} is no function: name one")
    return functions


def own_values(
    functions: Mapping[str, OwnMetric],
    labels: np.ndarray,
    scores: np.ndarray,
    maps: Stack,
    masks: Sequence[Mask],
) -> dict[str, float | None]:
    """What `own_metrics` give of a test set; None each where there are no test images.

    Raises:
      ValueError: one raises anything, or returns what is neither None nor a finite number.
    """
    if not labels.size:
        return dict.fromkeys(functions)
    return {name: _own(name, f, labels, scores, maps, masks) for name, f in functions.items()}


def _own(name: str, function: OwnMetric, *arguments: Any) -> float | None:
    try:
        value = function(*arguments)
        number = None if value is None else float(value)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(
            f"evaluation.metrics: {name} raised {type(error).__name__} ({error}): mend it, and "
            "evaluate again"
        ) from error
    if number is not None and not np.isfinite(number):
        raise ValueError(
            f"evaluation.metrics: {name} is {number}: let it return None where it has no value"
        )
    return number


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> MetricValues:
    """AUROC and average precision of the image scores, and the share of defective images.

    Args:
      labels: int [N], 1 = defective.
      scores: float [N].

    Returns:
      {'auroc', 'average_precision', 'prevalence'}, each in [0, 1]; where only one class is present
      the first two are None and 'reason' says why.

    Raises:
      ValueError: some scores are NaN or infinite, or labels and scores differ in number.

    >>> found = image_metrics(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.3, 0.9]))
    >>> found["auroc"], found["prevalence"]
    (0.75, 0.5)
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape}: both must be [N]")
    if broken := int((~np.isfinite(scores)).sum()):
        raise ValueError(f"{broken} of {scores.size} image scores are NaN or infinite")
    if reason := _one_class(labels):
        prevalence = float(labels.mean()) if labels.size else None
        return _absent("image", reason) | {"prevalence": prevalence}
    return _values("image", labels, scores)


def _one_class(labels: np.ndarray) -> str:
    if not labels.size:
        return "no test images"
    if not labels.any():
        return "no defective test images"
    return "no good test images" if labels.all() else ""


def per_defect(
    labels: np.ndarray, defects: Sequence[str], scores: np.ndarray
) -> dict[str, MetricValues]:
    """`image_metrics` of each defect type against all good images, with its number of images.

    Args:
      labels: int [N], 1 = defective.
      defects: N names; those of good images are not read.
      scores: float [N].

    Returns:
      {defect: {'auroc', 'average_precision', 'prevalence', 'count'}}, by name; 'count' is the
      number of images of the defect, the prevalence is theirs among them and all good images.

    Raises:
      ValueError: as `image_metrics`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    names = np.asarray(defects, dtype=object)

    def of(name: str) -> MetricValues:
        mine = (labels == 1) & (names == name)
        chosen = mine | (labels == 0)
        return image_metrics(labels[chosen], scores[chosen]) | {"count": int(mine.sum())}

    return {name: of(name) for name in sorted(set(names[labels == 1]))}


def pixel_metrics(
    masks: Sequence[Mask],
    maps: Iterable[np.ndarray],
    size: int = 0,
    *,
    names: Sequence[str] = (),
    folder: str | None = None,
) -> MetricValues:
    """AUROC, average precision and AU-PRO of the anomaly maps over all pixels of all test images.

    `prevalence` is the share of defective pixels. Numbers of different resolutions do not compare.
    Memory does not grow with the number of images: evaluation/pixel_curve.py.

    Args:
      masks: N of bool [h, w], all False for a good image; None if the image's mask is missing.
      maps: N of float [H, W], of which float32 is kept.
      size: masks are brought to size x size (nearest) and maps too (Pillow's bilinear, which
        averages when it shrinks); 0 brings the maps to the size of each mask.
      names: N names of the images, to say which masks are missing.
      folder: of the temporary files, 8 bytes a pixel; if None, the system's.

    Returns:
      {'auroc', 'average_precision', 'prevalence', 'au_pro', 'au_pro_limit', 'resolution'}; where
      the numbers do not exist they are None and 'reason' says why.

    Raises:
      ValueError: some map holds NaN or infinity, or masks and maps differ in number.
    """
    resolution = f"{size} x {size}" if size else "each mask's own size"
    extra = {"au_pro_limit": LIMIT, "resolution": resolution}
    if reason := _missing(masks, names):
        return _absent("pixel", reason) | extra
    present = (mask for mask in masks if mask is not None)
    pixels = pixel_curve.collect(at_one_size(present, maps, size), folder)
    if reason := _one_sided(pixels):
        return _absent("pixel", reason) | extra
    return _values("pixel", pixel_curve.areas(pixels, LIMIT), pixels) | extra


def au_pro(masks: Sequence[np.ndarray], maps: Sequence[np.ndarray], limit: float = LIMIT) -> float:
    """Area under the per-region overlap curve up to the false-positive rate `limit`, over `limit`.

    The official definition of MVTec AD (Bergmann et al., IJCV 2021, 10.1007/s11263-020-01400-4):
    regions are 8-connected components of the masks; PRO is the mean over all regions of the share
    of their pixels found; the false-positive rate counts all pixels outside regions, good images
    included. Equal scores are one threshold; the curve is linear in between.

    Args:
      masks: N of bool [h, w].
      maps: N of float [h, w], each as large as its mask.
      limit: in (0, 1].

    Returns:
      In [0, 1]; a constant map gives limit / 2.

    Raises:
      ValueError: no region, or no pixel outside regions; shapes differ; NaN or infinite values.
    """
    pixels = pixel_curve.collect(zip(masks, maps, strict=True))
    if reason := _one_sided(pixels):
        raise ValueError(reason)
    return pixel_curve.areas(pixels, limit).au_pro


def _one_sided(pixels: pixel_curve.Pixels) -> str:
    if not pixels.positives:
        return "no defective pixels: no defective test images, or too small at this resolution"
    return "" if pixels.negatives else "no good pixels: the masks cover every image"


def _missing(masks: Sequence[Mask], names: Sequence[str]) -> str:
    """Says which masks are missing, or ''."""
    missing = [i for i, mask in enumerate(masks) if mask is None]
    if not missing:
        return ""
    total = sum(1 for mask in masks if mask is None or mask.any())
    text = f"{len(missing)} of {total} defective images have no mask"
    return f"{text}: {some_of([names[i] for i in missing])}" if names else text
