"""How well anomaly scores separate good from defective: per image, per defect type, per pixel.

Scores and anomaly maps are NumPy floats in any range, higher = more anomalous; labels are 1 for a
defective image and 0 for a good one. A metric that cannot be computed is None and comes with a
`reason` in words; no result is ever NaN. `N` images; masks and maps are `[h, w]` each, and the
mask of a good image is all False. None stands for the missing mask of a defective image.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

LIMIT = 0.3  # the false-positive rate up to which MVTec AD integrates PRO
NAMED = 5  # so many images without a mask are named, the others counted

Metrics = dict[str, Any]
Mask = np.ndarray | None


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> Metrics:
    """AUROC and average precision of the image scores, and the share of defective images.

    Args:
      labels: int [N], 1 = defective.
      scores: float [N].

    Returns:
      {'auroc', 'average_precision', 'prevalence'}, each in [0, 1]; where only one class is present
      the first two are None and 'reason' says why.

    Raises:
      ValueError: some scores are NaN or infinite, or labels and scores differ in number.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape}: both must be [N]")
    if broken := int((~np.isfinite(scores)).sum()):
        raise ValueError(f"{broken} of {scores.size} image scores are NaN or infinite")
    if reason := _one_class(labels):
        prevalence = float(labels.mean()) if labels.size else None
        return _absent(reason, prevalence=prevalence)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
        "prevalence": float(labels.mean()),
    }


def _one_class(labels: np.ndarray) -> str:
    if not labels.size:
        return "no test images"
    if not labels.any():
        return "no defective test images"
    return "no good test images" if labels.all() else ""


def _absent(reason: str, **others: Any) -> Metrics:
    return {"auroc": None, "average_precision": None, "prevalence": None, "reason": reason} | others


def per_defect(
    labels: np.ndarray, defects: Sequence[str], scores: np.ndarray
) -> dict[str, Metrics]:
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

    def of(name: str) -> Metrics:
        mine = (labels == 1) & (names == name)
        chosen = mine | (labels == 0)
        return image_metrics(labels[chosen], scores[chosen]) | {"count": int(mine.sum())}

    return {name: of(name) for name in sorted(set(names[labels == 1]))}


def pixel_metrics(
    masks: Sequence[Mask], maps: Sequence[np.ndarray], size: int = 0, *, names: Sequence[str] = ()
) -> Metrics:
    """AUROC, average precision and AU-PRO of the anomaly maps over all pixels of all test images.

    `prevalence` is the share of defective pixels. Numbers of different resolutions do not compare.

    Args:
      masks: N of bool [h, w], all False for a good image; None if the image's mask is missing.
      maps: N of float [H, W].
      size: masks are brought to size x size (nearest) and maps too (Pillow's bilinear, which
        averages when it shrinks); 0 brings the maps to the size of each mask.
      names: N names of the images, to say which masks are missing.

    Returns:
      {'auroc', 'average_precision', 'prevalence', 'au_pro', 'au_pro_limit', 'resolution'}; where
      the numbers do not exist they are None and 'reason' says why.

    Raises:
      ValueError: some map holds NaN or infinity, or masks and maps differ in number.
    """
    resolution = f"{size} x {size}" if size else "each mask's own size"
    extra = {"au_pro": None, "au_pro_limit": LIMIT, "resolution": resolution}
    if reason := _missing(masks, names):
        return _absent(reason, **extra)
    curve = _curve(fit([mask for mask in masks if mask is not None], maps, size))
    if reason := _one_sided(curve):
        return _absent(reason, **extra)
    found = curve.found / curve.found[-1]
    precision = curve.found / (curve.found + curve.false_at)
    return extra | {
        "auroc": _area(curve, found, 1.0),
        "average_precision": float(np.sum(np.diff(found, prepend=0.0) * precision)),
        "prevalence": float(curve.found[-1] / (curve.found[-1] + curve.negatives)),
        "au_pro": _area(curve, curve.overlap, LIMIT),
    }


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
    curve = _curve(zip(masks, maps, strict=True))
    if reason := _one_sided(curve):
        raise ValueError(reason)
    return _area(curve, curve.overlap, limit)


def _missing(masks: Sequence[Mask], names: Sequence[str]) -> str:
    """Says which masks are missing, or ''."""
    missing = [i for i, mask in enumerate(masks) if mask is None]
    if not missing:
        return ""
    total = sum(1 for mask in masks if mask is None or mask.any())
    listed = ", ".join(names[i] for i in missing[:NAMED]) if names else ""
    more = f" and {len(missing) - NAMED} more" if names and len(missing) > NAMED else ""
    text = f"{len(missing)} of {total} defective images have no mask"
    return f"{text}: {listed}{more}" if listed else text


def fit(
    masks: Sequence[np.ndarray], maps: Sequence[np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each mask (bool) with its map (float) at one size [h, w], as `pixel_metrics` says."""
    for mask, values in zip(masks, maps, strict=True):
        if size and mask.shape != (size, size):
            small = Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling(0))
            mask = np.asarray(small) > 0
        if values.shape != mask.shape:
            picture = Image.fromarray(np.asarray(values, np.float32))
            values = np.asarray(picture.resize(mask.shape[::-1], Image.Resampling.BILINEAR))
        yield mask, values


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Of each True pixel of bool [h, w], in order, 1 / the size of its region; how many regions."""
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    region = regions[mask]
    return (1.0 / np.bincount(region)[region] if count else np.empty(0)), count


class _Curve(NamedTuple):
    """What each of the K distinct scores inside regions, from high to low, finds as a threshold.

    Only there do the curves rise, so the many scores outside regions need no threshold of theirs:
    they are sorted once and looked up.
    """

    found: np.ndarray  # [K] pixels inside regions with this score or more
    overlap: np.ndarray  # [K] PRO: mean share of a region found
    false_above: np.ndarray  # [K] pixels outside regions with more than this score
    false_at: np.ndarray  # [K] pixels outside regions with this score or more
    negatives: int  # pixels outside regions


def _curve(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> _Curve:
    inside, weights, outside = [np.empty(0, np.float32)], [np.empty(0)], [np.empty(0, np.float32)]
    regions = 0
    for mask, values in pairs:
        if mask.shape != values.shape or mask.ndim != 2:
            raise ValueError(f"mask {mask.shape} and anomaly map {values.shape}: not one [h, w]")
        if broken := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{broken} of {values.size} pixels of a map are NaN or infinite")
        mask = mask.astype(bool)
        weight, count = region_weights(mask)
        weights.append(weight)
        inside.append(values[mask])
        outside.append(values[~mask])
        regions += count
    negatives = np.concatenate(outside)
    del outside
    negatives.sort()
    scores, weight = np.concatenate(inside), np.concatenate(weights)
    order = np.argsort(scores)[::-1]
    scores = scores[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if scores.size else order
    thresholds = scores[last]
    return _Curve(
        found=last + 1,
        overlap=np.cumsum(weight[order])[last] / max(regions, 1),
        false_above=negatives.size - np.searchsorted(negatives, thresholds, side="right"),
        false_at=negatives.size - np.searchsorted(negatives, thresholds, side="left"),
        negatives=negatives.size,
    )


def _one_sided(curve: _Curve) -> str:
    if not curve.found.size:
        return "no defective pixels: no defective test images, or too small at this resolution"
    return "" if curve.negatives else "no good pixels: the masks cover every image"


def _area(curve: _Curve, height: np.ndarray, limit: float) -> float:
    """Area up to `limit` under `height` over the false-positive rate, divided by `limit`.

    The curve is flat between thresholds and linear across the pixels that tie at one.
    """
    rates = np.stack([curve.false_above, curve.false_at], axis=1).ravel() / curve.negatives
    heights = np.stack([np.append(0.0, height[:-1]), height], axis=1).ravel()
    x, y = np.concatenate([[0.0], rates, [1.0]]), np.concatenate([[0.0], heights, [1.0]])
    kept = x <= limit
    x_end, y_end = np.append(x[kept], limit), np.append(y[kept], np.interp(limit, x, y))
    return float(np.trapezoid(y_end, x_end) / limit)
