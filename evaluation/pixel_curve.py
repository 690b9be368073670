"""Areas under curves over all pixels of all images, exact, with a bounded number of them in memory.

Pixels are sorted some at a time, and these runs go to temporary files. Then all runs are read side
by side, from the highest scores to the lowest. A pixel lies inside a region, a connected part of
its image's mask, or outside; scores are float32, higher = more anomalous.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from evaluation.maps import region_weights
from storage import rows

_RUN = 2**20  # about so many pixels are sorted at a time, unless one image has more
_PIECE = 2**18  # so many records are read at a time, which take four times the memory of a pixel
_STEP = 2**10  # the cost of every so many-th record of a run is known without the file

# All pixels of a run with one score; the cost is the negative score, so that the highest come first
_OUTSIDE = np.dtype([("cost", np.float32), ("count", np.uint32)])
_INSIDE = np.dtype([*_OUTSIDE.descr, ("weight", np.float64)])


class Areas(NamedTuple):
    """Areas under the curves that all scores inside regions, as thresholds, give."""

    auroc: float
    average_precision: float
    au_pro: float  # up to a false-positive rate, divided by that


class Pixels(NamedTuple):
    """Sorted pixels."""

    inside: "_Runs"
    outside: "_Runs"
    positives: int  # pixels inside regions
    negatives: int  # and outside
    regions: int


class _Runs:
    """Records in runs, each sorted by cost, in a temporary file."""

    def __init__(self, folder: str | None) -> None:
        self._records = rows.temporary(folder)
        self._starts: list[int] = []  # of the runs in the file
        self._ends: list[int] = []
        self._next: list[int] = []  # the first record that was not yet taken
        self.marks: list[np.ndarray] = []  # costs of the last record of every step

    def add(self, records: np.ndarray) -> None:
        self._starts.append(len(self._records))
        self._next.append(len(self._records))
        self._records.append(records)
        self._ends.append(len(self._records))
        self.marks.append(records["cost"][_STEP - 1 :: _STEP].copy())

    def take(self, cost: float) -> np.ndarray:
        """The records up to `cost`, by cost, that were not yet taken."""
        taken = []
        for run, marks in enumerate(self.marks):
            steps = int(np.searchsorted(marks, cost, side="right")) + 1
            end = min(self._starts[run] + steps * _STEP, self._ends[run])
            records = self._records[self._next[run] : end]
            count = int(np.searchsorted(records["cost"], cost, side="right"))
            self._next[run] += count
            taken.append(records[:count])
        records = np.concatenate(taken)
        return records[np.argsort(records["cost"])]


def collect(pairs: Iterable[tuple[np.ndarray, np.ndarray]], folder: str | None = None) -> Pixels:
    """Sorts the pixels of (mask, map) pairs, bool and float [h, w]; temporary files in `folder`.

    Raises:
      ValueError: mask and map differ in shape; NaN or infinite values.
      OSError: the disk is full.
    """
    inside, outside = _Runs(folder), _Runs(folder)
    positives = negatives = regions = 0
    for group in _groups(pairs):
        found, weights, others, counts = zip(*group, strict=True)
        inside.add(_inside(np.concatenate(found), np.concatenate(weights)))
        outside.add(_outside(np.concatenate(others)))
        positives += sum(scores.size for scores in found)
        negatives += sum(scores.size for scores in others)
        regions += sum(counts)
    return Pixels(inside, outside, positives, negatives, regions)


_Image = tuple[np.ndarray, np.ndarray, np.ndarray, int]
"""Scores inside regions, their weights, scores outside, the number of regions."""


def _groups(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[_Image]]:
    """Images of together about a run of pixels."""
    group: list[_Image] = []
    count = 0
    for mask, values in pairs:
        if mask.shape != values.shape or mask.ndim != 2:
            raise ValueError(f"mask {mask.shape} and anomaly map {values.shape}: not one [h, w]")
        if broken := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{broken} of {values.size} pixels of a map are NaN or infinite")
        mask, values = mask.astype(bool), values.astype(np.float32)
        weights, regions = region_weights(mask)
        group.append((values[mask], weights, values[~mask], regions))
        count += mask.size
        if count >= _RUN:
            yield group
            group, count = [], 0
    if group:
        yield group


def _inside(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A run of records; `weights` add up over those of one score."""
    order = np.argsort(-scores)
    cost = -scores[order]
    last = _last(cost)
    records = np.empty(last.size, _INSIDE)
    records["cost"], records["count"] = cost[last], np.diff(last, prepend=-1)
    records["weight"] = np.add.reduceat(weights[order], last - records["count"] + 1)[: last.size]
    return records


def _outside(scores: np.ndarray) -> np.ndarray:
    cost = np.sort(-scores)
    last = _last(cost)
    records = np.empty(last.size, _OUTSIDE)
    records["cost"], records["count"] = cost[last], np.diff(last, prepend=-1)
    return records


def _last(ascending: np.ndarray) -> np.ndarray:
    """The last place of each value."""
    return np.flatnonzero(np.append(ascending[1:] != ascending[:-1], True)[: ascending.size])


class _Piece(NamedTuple):
    """Thresholds, all K distinct scores inside regions in a range, from high to low.

    Only there do the curves rise. The first of K + 1 entries is what was before the range.
    """

    found: np.ndarray  # [K + 1] pixels inside regions with this score or more
    overlap: np.ndarray  # [K + 1] the same as shares of their regions, summed up
    false_at: np.ndarray  # [K + 1] pixels outside regions with this score or more
    false_above: np.ndarray  # [K] with more than this score


def _pieces(pixels: Pixels) -> Iterator[_Piece]:
    """All thresholds, each once: a range ends where about so many records have been taken.

    The runs on disk are sorted each, and the curves need all records in one order. A merge record
    by record would take Python too long, and one sort of all of them too much memory. So the costs
    are cut into ranges: of every run what lies in the range is read and sorted together, which is
    a merge, since no record of a later range belongs before one of this. Where to cut is known
    without reading: a run's marks are the costs of every `_STEP`-th record, so that between two
    neighbours of all sorted marks there are about `_STEP` records, whichever runs they lie in.
    Records that tie lie in one range, for `take` takes all up to a cost and with it.
    """
    marks = np.sort(np.concatenate([*pixels.inside.marks, *pixels.outside.marks]))
    every = _PIECE // _STEP
    found = np.zeros(1, np.int64)
    overlap = np.zeros(1)
    false_at = np.zeros(1, np.int64)
    false = 0
    for cost in [*np.unique(marks[every - 1 :: every]), np.inf]:
        inside, outside = pixels.inside.take(cost), pixels.outside.take(cost)
        last = _last(inside["cost"])
        thresholds = inside["cost"][last]
        # What is outside costs nothing to a curve but its count below and at each threshold.
        counts = false + np.cumsum(np.append(0, outside["count"]), dtype=np.int64)
        above, at = (
            counts[np.searchsorted(outside["cost"], thresholds, side=side)]
            for side in ("left", "right")
        )
        found = np.append(found[-1], found[-1] + np.cumsum(inside["count"], dtype=np.int64)[last])
        overlap = np.append(overlap[-1], overlap[-1] + np.cumsum(inside["weight"])[last])
        false_at = np.append(false_at[-1], at)
        yield _Piece(found, overlap, false_at, above)
        false = counts[-1]


def areas(pixels: Pixels, limit: float) -> Areas:
    """The areas of pixels of both kinds; that of PRO up to the false-positive rate `limit`.

    PRO is the mean over all regions of the share of their pixels found. The curves over the
    false-positive rate are flat between thresholds and linear across the pixels that tie at one.
    """
    roc = precision = pro = 0.0
    end = limit * pixels.negatives
    for piece in _pieces(pixels):
        roc += _area(piece, piece.found, pixels.negatives)
        pro += _area(piece, piece.overlap, end)
        found = piece.found[1:]
        precision += float(np.sum(np.diff(piece.found) * (found / (found + piece.false_at[1:]))))
    rest = max(pixels.negatives - int(piece.false_at[-1]), 0)
    roc += rest * pixels.positives
    pro += max(end - int(piece.false_at[-1]), 0) * pixels.regions
    return Areas(
        auroc=roc / pixels.negatives / pixels.positives,
        average_precision=precision / pixels.positives,
        au_pro=pro / end / pixels.regions,
    )


def _area(piece: _Piece, height: np.ndarray, end: float) -> float:
    """The area under `height` [K + 1] over the count of false positives up to `end`."""
    before, rise = height[:-1], np.diff(height)
    flat = np.minimum(piece.false_above, end) - np.minimum(piece.false_at[:-1], end)
    width = piece.false_at[1:] - piece.false_above
    within = np.clip(end - piece.false_above, 0, width)
    share = np.divide(within, width, out=np.zeros(width.size), where=width > 0)
    return float(np.sum(flat * before + within * (before + rise * share / 2)))
