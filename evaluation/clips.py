"""How well scores of frames find what is abnormal in clips, and a threshold from whole clips.

`F` frames, one clip after another as their paths have it (data/windows.py); labels are int [F],
1 = abnormal, scores float [F], higher = more anomalous. Neighbouring frames are nearly alike: they
are not exchangeable, clips are, so a threshold comes from the maxima of clips.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from data.windows import clip_slices
from evaluation import threshold
from evaluation.quality import mean_quality, quality_of
from evaluation.threshold import Threshold
from storage.rows import Stack


def calibrate_clips(
    paths: Sequence[str], scores: np.ndarray, maps: Stack, rate: float
) -> Threshold:
    """The threshold that at most a share `rate` of new good clips exceeds in any frame.

    As `threshold.calibrate`, of the highest score and the highest map values of each held-out clip.

    Raises:
      ValueError: as `threshold.calibrate`; fewer than two clips.
    """
    slices = clip_slices(paths).values()
    threshold.require_count(len(slices), len(slices), of="clips")
    maxima = np.array([scores[place].max() for place in slices])
    calibrated = threshold.calibrate(maxima, (maps[place].max(axis=0) for place in slices), rate)
    return calibrated._replace(clip_frames=max(place.stop - place.start for place in slices))


def clip_qualities(paths: Sequence[str], pictures: Stack) -> tuple[tuple[float, ...], ...]:
    """`qualities` of clips, uint8 frames [H, W, 3] in the order of their paths."""
    clips = clip_slices(paths).values()
    each = [mean_quality([quality_of(frame) for frame in pictures[place]]) for place in clips]
    return tuple(zip(*each, strict=True))


def clip_rates(
    calibrated: Threshold,
    paths: Sequence[str],
    labels: np.ndarray,
    defects: Sequence[str],
    scores: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """`threshold.rates` of clips: how many good ones have a frame above, how many others have none.

    An abnormal clip is found where one of its abnormal frames is above the threshold.
    """
    slices = clip_slices(paths).values()
    of_clips = np.array([labels[place].max() for place in slices], np.int64)
    kinds = [next((d for d in defects[place] if d != "good"), "good") for place in slices]
    highest = [
        scores[place][labels[place] == label].max()
        for place, label in zip(slices, of_clips, strict=True)
    ]
    return threshold.rates(calibrated, of_clips, kinds, np.array(highest))


def frames_content(
    paths: Sequence[str],
    labels: np.ndarray,
    scores: np.ndarray,
    terms: Mapping[str, np.ndarray],
    smoothing: float,
    limit: float,
) -> dict[str, Any]:
    """What results.json says of frames: the metrics of each score, and how many lie above `limit`.

    `terms` are the branches' scores; `smoothing` as in `frame_metrics`.
    """
    named = {"both": scores, **terms}
    above = {
        name: {
            "frames": int((labels == label).sum()),
            "above": int((scores[labels == label] > limit).sum()),
        }
        for name, label in (("normal", 0), ("abnormal", 1))
    }
    metrics = {
        name: frame_metrics(paths, labels, np.asarray(values), smoothing)
        for name, values in named.items()
    }
    return {"scores": metrics, "above_threshold": above, "smoothing": smoothing}


def frame_metrics(
    paths: Sequence[str], labels: np.ndarray, scores: np.ndarray, smoothing: float
) -> dict[str, Any]:
    """AUROC of frames in the ways that papers take it; None where there is none.

    Returns:
      `micro`: all frames of all clips in one curve, raw scores: the main figure. `macro`: the mean
      over clips, of those that have both classes; `left_out` counts the others. `micro_normalised`:
      as micro, of scores that run from 0 to 1 in each clip: of the whole test clip, so for
      comparison with papers alone. `micro_smoothed`, `micro_causal`: as micro, of scores smoothed
      over `smoothing` frames in both directions, and over past frames alone.
    """
    slices = list(clip_slices(paths).values())
    each = [_auroc(labels[place], scores[place]) for place in slices]
    of_both = [value for value in each if value is not None]

    def micro(change: Any) -> float | None:
        changed = [change(scores[place]) for place in slices]
        return _auroc(labels, np.concatenate([np.zeros(0), *changed]))

    return {
        "micro": _auroc(labels, scores),
        "macro": float(np.mean(of_both)) if of_both else None,
        "left_out": len(each) - len(of_both),
        "micro_normalised": micro(normalised),
        "micro_smoothed": micro(lambda values: smoothed(values, smoothing)),
        "micro_causal": micro(lambda values: smoothed(values, smoothing, causal=True)),
    }


def _auroc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < labels.size else None


def normalised(scores: np.ndarray) -> np.ndarray:
    """The scores of one clip, from 0 to 1 by its own extremes; constant ones are 0.

    >>> normalised(np.array([10.0, 20.0, 30.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    low, high = scores.min(), scores.max()
    values: np.ndarray = (scores - low) / (high - low) if high > low else np.zeros(scores.shape)
    return values


def smoothed(scores: np.ndarray, sigma: float, *, causal: bool = False) -> np.ndarray:
    """The scores of one clip under a Gaussian of `sigma` frames; `causal`: its past half alone.

    At its ends the clip goes on with its first and last score.
    """
    if not sigma:
        return np.asarray(scores, float)
    radius = round(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    if causal:
        weights[:radius] = 0  # of `convolve1d`, which runs backwards: what is yet to come
    weights /= weights.sum()
    return np.asarray(ndimage.convolve1d(np.asarray(scores, float), weights, mode="nearest"))


def intervals_above(scores: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """First and last frame of each stretch of one clip's frames that lie above the limit.

    >>> intervals_above(np.array([0, 2, 3, 0, 2]), 1.0)
    [(1, 2), (4, 4)]
    """
    edges = np.diff(np.concatenate([[0], np.asarray(scores) > limit, [0]]).astype(int))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
