"""Marks with a stated number of false alarms: regions of any method's anomaly maps, from good ones.

The number of false alarms of Tailanian, Musé, Pardo 2021 (arXiv 2110.02407) for the maps of
calibration images. Two kinds of tests share the false alarms evenly. Windows: in which more pixels
exceed a level than chance would have it, for levels that a known share of good pixels exceeds
(engine/nfa.py). Peaks: of pixels above the rarest of these levels, how many regions as high a good
image has; beyond what was seen by a power law. How alike neighbouring pixels are is measured for
both. Beside the promise stands what the calibration images say of it, each judged by others. Maps
are float32 [H, W], higher = more anomalous.
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, stats

from engine.nfa import LEAST, independent_share, log_windows, window_moments
from engine.usual import over_usual, usual_cells
from evaluation.maps import resize_map

LEVELS = (0.1, 0.01, 0.001)
"""Shares of good pixels that lie above the levels."""

_SHARES = (1 / 32, 1 / 16, 1 / 8)  # sides of the windows, of the image's
_KINDS = 2  # of tests, which share the false alarms
_MOST, _FEWEST = 200, 20  # maps: more say little more of the levels, and take memory
_MOST_PIXELS = 2**22  # of more maps than the fewest
_TURNS = 10  # so many times some calibration images are judged by the others
_DOUBT = 0.025  # how improbable more regions than expected must be, to count as clearly more


class Background(NamedTuple):
    """What is usual of the maps of good images, with L levels and V windows."""

    usual: tuple[tuple[float, ...], ...]  # mean by place, rows of cells; () where it is not used
    thresholds: tuple[float, ...]  # [L], the levels, of a map over what is usual at its place
    probabilities: tuple[float, ...]  # [L], measured; 0: the level is not used
    sides: tuple[int, ...]  # [V], of the windows, in pixels
    independent: tuple[float, ...]  # [V], independent values to a pixel
    rarest: int  # of the levels that are used; -1: none is
    excess: float  # of the peaks above it: the mean by which they exceed it, or their logarithm
    regions: float  # above it, in a good image


class Marks(NamedTuple):
    """Which pixels are marked, and what is known of that."""

    background: Background
    expected: float  # false regions in a good image, as asked for
    observed: float  # in a calibration image, by what the others say
    limit: float  # marked: a smaller log10 NFA
    conformal: bool  # whether good images had clearly more regions, so that it is a quantile
    images: int  # calibration images
    losses: tuple[float, float | None]  # of levels: all places alike, by place; None: not tried


def require_expected(expected: float) -> None:
    """Raises ValueError for a number of false regions that is not positive."""
    if not 0 < expected <= 1e6:
        raise ValueError(
            f"threshold.false_regions={expected} is not in (0, 1000000]: set how many false "
            "regions a good image may have, such as 1"
        )


def calibrate_marks(maps: Iterable[np.ndarray], expected: float, rate: float) -> Marks:
    """What is marked, by the maps of calibration images alone.

    Whether a place has levels of its own is decided by which predicts the other half of the images
    better. Where good images have clearly more regions than expected, what is assumed of chance is
    wrong; then a pixel is marked where it is less probable than any of all but a share `rate` of
    the calibration images, as `evaluation.threshold.calibrate` does for scores.

    Args:
      maps: of calibration images, at least two of float [H, W], finite; of more than 200,
        or than 4 million pixels, the first.
      expected: false regions in a good image, above 0.
      rate: false-alarm rate, in (0, 1).

    Raises:
      ValueError: as `require_expected`; or a map is not finite.
    """
    require_expected(expected)
    array = _first(maps)
    if not np.isfinite(array).all():
        raise ValueError("a map of a held-out good image is not finite: train again")
    alike = _loss(array, by_place=False)
    own = _loss(array, by_place=True) if len(array) >= 4 and array.min() >= 0 else None
    by_place = own is not None and own < alike
    background = fit_background(array, by_place=by_place)
    least, regions = [], 0
    for turn in range(min(_TURNS, len(array))):
        mine = np.arange(len(array)) % _TURNS == turn
        values = log_nfa(array[mine], fit_background(array[~mine], by_place=by_place))
        least.extend(values.min((1, 2)).tolist())
        regions += sum(_count(each < math.log10(expected)) for each in values)
    count = len(array)
    wrong = regions > count * expected and stats.poisson.sf(regions - 1, count * expected) < _DOUBT
    limit = math.log10(expected)
    if wrong:
        above = max(1, math.floor((count + 1) * Fraction(str(rate))))
        limit = min(limit, float(np.sort(least)[above - 1]))
    return Marks(
        background, float(expected), regions / count, limit, bool(wrong), count, (alike, own)
    )


def _first(maps: Iterable[np.ndarray]) -> np.ndarray:
    taken: list[np.ndarray] = []
    for values in itertools.islice(maps, _MOST):
        if len(taken) >= max(_FEWEST, _MOST_PIXELS // values.size):
            break
        taken.append(np.asarray(values, np.float32))
    return np.stack(taken)


def fit_background(maps: np.ndarray, *, by_place: bool) -> Background:
    """The levels of maps [N, H, W], and how many independent values a window of them has.

    `by_place`: of maps over what is usual at each place, the mean over images and over a cell of
    1/32 of the side. A level is not used where fewer than `engine.nfa.LEAST` independent values lie
    above it.
    """
    usual = usual_cells(maps.mean(0)) if by_place else ()
    fields = over_usual(maps, usual)
    side = min(fields.shape[1:])
    thresholds = np.quantile(fields, [1 - level for level in LEVELS])
    sides = tuple(dict.fromkeys(max(3, round(share * side) // 2 * 2 + 1) for share in _SHARES))
    above = _above(fields, thresholds)
    middle = _above(fields, np.median(fields, keepdims=True).ravel())
    moments = np.mean([window_moments(each[None], sides)[0] for each in middle], axis=0)
    independent = independent_share(moments, sides, side)
    probabilities = above.mean((0, 2, 3))
    used = np.where(probabilities * fields.size * independent[-1] >= LEAST, probabilities, 0.0)
    rarest = int(np.flatnonzero(used)[-1]) if used.any() else -1
    excess, regions = (
        _peaks(fields, above[:, rarest], thresholds[rarest]) if used.any() else (1.0, 1.0)
    )
    return Background(
        usual,
        tuple(thresholds.tolist()),
        tuple(used.tolist()),
        sides,
        tuple(independent.tolist()),
        rarest,
        excess,
        regions,
    )


def _peaks(fields: np.ndarray, above: np.ndarray, threshold: float) -> tuple[float, float]:
    """Mean excess of the regions' highest values over the threshold, and regions in an image.

    The excess of the logarithm, which is Hill's estimate for a power law (1975,
    doi:10.1214/aos/1176343247), where the threshold is positive. One region more than there are is
    counted, since a further image may have it.
    """
    found = []
    for values, mask in zip(fields, above, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        found.extend(ndimage.maximum(values, labels, np.arange(1, count + 1)))
    peaks = np.asarray(found, np.float64)
    steps = np.log(peaks / threshold) if threshold > 0 else peaks - threshold
    return max(float(steps.mean()), 1e-6), (len(peaks) + 1) / len(fields)


def log_nfa(maps: Any, background: Background) -> Any:
    """log10 of the number of false alarms at each pixel: [B, H, W] of maps [B, H, W].

    At most 10 to this power windows of a good image are expected to be so unusual. Of NumPy's
    arrays it is NumPy's, of JAX's JAX's.
    """
    xp = maps.__array_namespace__()
    fields = over_usual(maps, background.usual)
    above = _above(fields, np.asarray(background.thresholds, np.float32))
    levels = xp.asarray(background.probabilities, dtype=np.float32)
    independent = xp.asarray(background.independent, dtype=np.float32)
    tests = max(sum(p > 0 for p in background.probabilities), 1) * len(background.sides)
    pixels = maps.shape[1] * maps.shape[2]
    windows = math.log10(_KINDS * pixels * tests)
    windows += log_windows(above, levels, background.sides, independent)
    if background.rarest < 0:
        return windows
    threshold = background.thresholds[background.rarest]
    if threshold > 0:
        beyond = xp.log(xp.maximum(fields, threshold) / threshold)
    else:
        beyond = xp.maximum(fields - threshold, 0)
    peaks = math.log10(_KINDS * background.regions) - beyond / (background.excess * math.log(10))
    return xp.minimum(windows, xp.where(above[:, background.rarest] > 0, peaks, windows))


def marked_pixels(values: np.ndarray, marks: Marks, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of an image of `size` are marked by its map, float [h, w]: bool of that size."""
    nfa = log_nfa(np.asarray(values, np.float32)[None], marks.background)[0]
    return resize_map(nfa, size) < marks.limit


def _above(fields: Any, thresholds: Any) -> Any:
    return (fields[:, None] > thresholds[None, :, None, None]).astype(np.float32)


def _loss(maps: np.ndarray, *, by_place: bool) -> float:
    """How badly the levels of one half of the maps predict the other, both ways round.

    The quantile loss (Koenker, Bassett 1978, doi:10.2307/1913643), whose smallest expectation is at
    the true level, in the maps' own units, over the share of each level.
    """
    total = 0.0
    for half in (0, 1):
        known, other = maps[half::2], maps[1 - half :: 2]
        background = fit_background(known, by_place=by_place)
        scale = over_usual(np.ones((1, *maps.shape[1:]), np.float32), background.usual)
        for level, threshold in zip(LEVELS, background.thresholds, strict=True):
            beyond = other - threshold / scale
            total += float(np.maximum((1 - level) * beyond, -level * beyond).mean()) / level
    return total


def _count(mask: np.ndarray) -> int:
    """How many 8-connected regions a bool mask [H, W] has."""
    return int(ndimage.label(mask, structure=np.ones((3, 3)))[1])


def marks_statement(marks: Marks) -> list[str]:
    """What the marks promise, what was observed, and what was not used, as sentences."""
    background = marks.background
    unused = [
        f"{100 * level:g} %"
        for level, share in zip(LEVELS, background.probabilities, strict=True)
        if not share
    ]
    sentences = [
        f"Expect at most {marks.expected:g} regions to be marked by chance in a good image; the "
        f"{marks.images} held-out good images, each judged by others of them, have "
        f"{marks.observed:.2g} on average."
    ]
    if marks.conformal:
        sentences.append(
            "That is clearly more, so the assumptions about chance do not hold here. Pixels are "
            "marked instead if they are less probable than those of nearly all held-out good "
            "images, so that no larger a share of new good parts has a mark than may be called "
            "defective."
        )
    if background.usual:
        sentences.append(
            "The map is compared with what is usual at each place: that predicts one half of these "
            "images from the other better than the same levels everywhere do."
        )
    if unused:
        sentences.append(
            f"Levels not used, because too few good pixels lie above them: {', '.join(unused)}."
        )
    return sentences


def marks_content(marks: Marks) -> dict[str, Any]:
    """What threshold.json holds of them, as JSON has it."""
    content = marks._asdict() | {"background": marks.background._asdict()}
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def marks_of(content: Mapping[str, Any]) -> Marks:
    """The marks that `marks_content` is of.

    Raises:
      ValueError, KeyError, TypeError: it is damaged.
    """
    fields = {name: content[name] for name in Marks._fields}
    inner = fields.pop("background")
    usual, thresholds, probabilities, sides, independent, *peaks = (
        inner[name] for name in Background._fields
    )
    rarest, excess, regions = int(peaks[0]), float(peaks[1]), float(peaks[2])
    background = Background(
        tuple(tuple(map(float, row)) for row in usual),
        tuple(map(float, thresholds)),
        tuple(map(float, probabilities)),
        tuple(map(int, sides)),
        tuple(map(float, independent)),
        rarest,
        excess,
        regions,
    )
    numbers = (fields["expected"], fields["limit"], 1 / excess, 1 / regions)
    if (
        len(background.independent) != len(background.sides)
        or len(background.probabilities) != len(background.thresholds)
        or not np.isfinite([*numbers, *background.thresholds]).all()
    ):
        raise ValueError("its marks make no sense")
    return Marks(background=background, **fields | {"losses": tuple(fields["losses"])})
