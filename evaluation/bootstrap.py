"""How far metrics would move with other test images: bootstrap intervals over `N` test images.

Images are drawn again with replacement, good and defective ones apart, so that the prevalence
stays. A resample is a row of weights: how often each image was drawn. Since all metrics come from
counts per threshold that add up over images, `R` resamples are one matrix product
`[R, N] @ [N, K]` over `K` thresholds, and no image is copied. Scores: higher = more anomalous.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation import metrics
from evaluation.maps import at_one_size, region_weights
from evaluation.threshold import COVERAGE

RESAMPLES = 1000
QUANTILES = 1000  # thresholds at so many quantiles of the defective and of all pixels each
SPARSE = 13  # one in so many pixels places the latter; prime, or it would pick columns of an image


class Counts(NamedTuple):
    """What of each image lies between each threshold and the next higher one, high to low."""

    defective: np.ndarray  # float64 [N, K] defective images or pixels
    good: np.ndarray  # float64 [N, K]
    overlap: np.ndarray | None = None  # float64 [N, K] the same pixels as shares of their regions
    regions: np.ndarray | None = None  # float64 [N] regions of the mask


def resamples(labels: np.ndarray, count: int = RESAMPLES) -> np.ndarray:
    """How often each image is drawn in each of `count` resamples, the same at every call.

    Args:
      labels: int [N], 1 = defective.
      count: number of resamples.

    Returns:
      float64 [count, N]; good and defective images keep their numbers in every row.
    """
    rng = np.random.default_rng(0)
    labels = np.asarray(labels)
    weights = np.zeros((count, labels.size))
    for value in (0, 1):
        if size := int((labels == value).sum()):
            weights[:, labels == value] = rng.multinomial(size, np.full(size, 1 / size), count)
    return weights


def clip_resamples(
    labels: np.ndarray, clips: Sequence[slice], count: int = RESAMPLES
) -> np.ndarray:
    """`resamples` of frames, of which whole clips are drawn: neighbouring frames are nearly alike.

    Clips with an abnormal frame and those without keep their numbers; frames do not.

    Args:
      labels: int [N], 1 = abnormal.
      clips: where each clip's frames lie; together all of them, in order.
      count: number of resamples.
    """
    of_clips = np.array([labels[place].max() for place in clips])
    lengths = [place.stop - place.start for place in clips]
    return np.repeat(resamples(of_clips, count), lengths, axis=1)


def image_counts(labels: np.ndarray, scores: np.ndarray) -> Counts:
    """Counts of int labels [N] and float scores [N] with every distinct score as a threshold."""
    labels, (_, rank) = np.asarray(labels), np.unique(-np.asarray(scores), return_inverse=True)
    one_hot = (rank[:, None] == np.arange(rank.max(initial=-1) + 1)).astype(np.float64)
    return Counts(one_hot * (labels == 1)[:, None], one_hot * (labels == 0)[:, None])


def pixel_counts(masks: Sequence[np.ndarray], maps: Sequence[np.ndarray], size: int) -> Counts:
    """Counts of pixels, at thresholds dense enough for an error of metrics below 0.001.

    Args:
      masks: N of bool [h, w], all False for a good image.
      maps: N of finite float [H, W].
      size: masks and maps are brought to it as by `metrics.pixel_metrics`.
    """
    edges = _thresholds(masks, maps, size)
    bins = edges.size + 1  # the lowest one holds what is below all thresholds
    defective, good, overlap = (np.zeros((len(masks), bins)) for _ in range(3))
    regions = np.zeros(len(masks))
    for i, (mask, values) in enumerate(at_one_size(masks, maps, size)):
        place = bins - 1 - np.searchsorted(edges, values, side="right")
        weights, regions[i] = region_weights(mask)
        defective[i] = np.bincount(place[mask], minlength=bins)
        good[i] = np.bincount(place[~mask], minlength=bins)
        overlap[i] = np.bincount(place[mask], weights, minlength=bins)
    return Counts(defective, good, overlap, regions)


def _thresholds(masks: Sequence[np.ndarray], maps: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Ascending; many where defective pixels are, since curves rise there, and some everywhere."""
    inside, everywhere = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for mask, values in at_one_size(masks, maps, size):
        inside.append(values[mask])
        everywhere.append(values.ravel()[::SPARSE])
    shares = np.linspace(0, 1, QUANTILES)
    pools = [np.concatenate(pool) for pool in (inside, everywhere)]
    return np.unique([np.quantile(pool, shares) for pool in pools if pool.size])


def curve_metrics(counts: Counts, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of each resample.

    Args:
      counts: of N images.
      weights: float [R, N], rows of `resamples` or a row of ones for the test set itself.

    Returns:
      {'auroc', 'average_precision', 'best_f1'} and with regions 'au_pro' up to
      `metrics.LIMIT`, float64 [R'] in [0, 1]. Resamples without anything good, or without anything
      defective, have no metrics and are left out. 'best_f1' is that at its best threshold.
    """
    totals = weights @ np.stack([counts.defective.sum(1), counts.good.sum(1)], axis=1)
    weights, totals = weights[(totals > 0).all(1)], totals[(totals > 0).all(1)]
    positives, negatives = totals[:, :1], totals[:, 1:]
    found = np.cumsum(weights @ counts.defective, axis=1)
    false = np.cumsum(weights @ counts.good, axis=1)
    precision = found / np.maximum(found + false, 1)  # nothing found: 0 / 1, and no step of recall
    steps = np.diff(found / positives, axis=1, prepend=0.0)
    result = {
        "auroc": _area(false / negatives, found / positives, 1.0),
        "average_precision": (steps * precision).sum(1),
        "best_f1": (2 * found / (found + false + positives)).max(1),
    }
    if counts.overlap is not None:
        overlap = np.cumsum(weights @ counts.overlap, axis=1) / (weights @ counts.regions)[:, None]
        result["au_pro"] = _area(false / negatives, overlap, metrics.LIMIT)
    return result


def _area(rates: np.ndarray, heights: np.ndarray, limit: float) -> np.ndarray:
    """The area up to `limit` under each row's linear curve from (0, 0), divided by `limit`."""
    width = np.diff(rates, axis=1, prepend=0.0)
    rise = np.diff(heights, axis=1, prepend=0.0)
    start = rates - width
    within = np.clip(limit - start, 0, width)  # how much of each step lies before the limit
    share = np.divide(within, width, out=np.zeros_like(width), where=width > 0)
    areas: np.ndarray = (within * (heights - rise + rise * share / 2)).sum(1) / limit
    return areas


def interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of a metric over float resamples [R], R > 0, at `COVERAGE`."""
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
