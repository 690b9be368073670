"""How often the watch on the line is wrong, and how long it takes: python -m benchmarks.drift

Simulated lines: scores are normal, calibration images and good parts of mean 0, changed parts of
another mean, defects of mean 4; the cut is that of a threshold for 5 % of false alarms. NumPy
alone, minutes on a core. What evaluation/drift.py does with one line is done here with many at
once; tests/evaluation/test_drift.py holds the two to be the same.
"""

import datetime
import platform
import time
from typing import NamedTuple

import numpy as np

from evaluation.drift import ALARM, bet

RATE = 0.05


class Lines(NamedTuple):
    """What came of many lines of N parts."""

    highest: np.ndarray  # [L], of the capital
    first: np.ndarray  # [L], the part at which 100 was reached, from 1; 0: never


def cut_of(calibration: np.ndarray) -> np.ndarray:
    """The highest calibration score that is called good, of [L, n]: [L, 1]."""
    count = calibration.shape[1]
    above = max(1, int((count + 1) * RATE + 1e-9))
    return np.sort(calibration, axis=1)[:, [count - above]]


def p_values_of(calibration: np.ndarray, parts: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Of parts [L, N], each among calibration scores [L, n] and the parts before; NaN stays so."""
    count = calibration.shape[1]
    scores = np.concatenate([calibration, parts], axis=1)
    known = np.cumsum(np.isfinite(scores), axis=1)
    p = np.empty(parts.shape)
    for index in range(parts.shape[1]):
        before, here = scores[:, : count + index], scores[:, [count + index]]
        above = np.count_nonzero(before > here, axis=1)
        equal = np.count_nonzero(before == here, axis=1)
        total = known[:, count + index - 1] + 1
        p[:, index] = (above + chance[:, index] * (equal + 1)) / total
    return np.where(np.isfinite(parts), p, np.nan)


def capital_of(p: np.ndarray) -> Lines:
    """The watch's capital on p-values [L, N]; those that are NaN are not bet on."""
    lines, count = p.shape
    logs, bets = np.full((lines, 2), -np.inf), np.zeros(lines, int)
    highest, first = np.ones(lines), np.zeros(lines, int)
    for part in range(count):
        on = np.isfinite(p[:, part])
        new, capital = bet(logs[on], p[on, part], bets[on])
        logs[on], bets[on] = new, bets[on] + 1
        highest[on] = np.maximum(highest[on], np.exp(np.minimum(capital, 700)))
        first = np.where((first == 0) & (highest >= ALARM), part + 1, first)
    return Lines(highest, first)


def jumper(p: np.ndarray, jump: float = 0.01) -> Lines:
    """The Simple Jumper (arXiv 2102.10439, Algorithm 1) on the same p-values [L, N], to compare."""
    slopes = np.array([-1.0, 0.0, 1.0])
    capitals = np.full((len(p), 3), 1 / 3)
    highest, first = np.ones(len(p)), np.zeros(len(p), int)
    for part in range(p.shape[1]):
        on = np.isfinite(p[:, part])
        mixed = (1 - jump) * capitals + jump / 3 * capitals.sum(1, keepdims=True)
        won = mixed * (1 + slopes * (p[:, [part]] - 0.5))
        capitals = np.where(on[:, None], np.minimum(won, 1e290), capitals)
        highest = np.maximum(highest, capitals.sum(1))
        first = np.where((first == 0) & (highest >= ALARM), part + 1, first)
    return Lines(highest, first)


def p_values_of_lines(
    rng: np.random.Generator,
    *,
    lines: int,
    calibration: int,
    good: int,
    changed: int = 0,
    shift: float = 0.0,
    defects: float = 0.0,
    good_only: bool = True,
) -> np.ndarray:
    """p-values [lines, good + changed] of lines that change after `good` parts.

    `defects`: the share of parts that are defective, with scores of mean 4 and deviation 2, so that
    one in eight lies below the cut. `good_only`: bets on parts below the cut alone, as the watch
    does.
    """
    known = rng.standard_normal((lines, calibration))
    parts = rng.standard_normal((lines, good + changed))
    parts[:, good:] += shift
    bad = rng.random(parts.shape) < defects
    parts = np.where(bad, 4 + 2 * rng.standard_normal(parts.shape), parts)
    if good_only:
        cut = cut_of(known)
        parts = np.where(parts < cut, parts, np.nan)
        known = np.where(known < cut, known, np.nan)
    return p_values_of(known, parts, rng.random(parts.shape))


def main() -> None:
    """Prints the tables of docs/factory/serve.md."""
    start = time.perf_counter()
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, seed 0")
    rng = np.random.default_rng(0)
    print("\nfalse alarms of 2,000 lines of 2,000 good parts (60 calibration images)")
    print("| defects on the line | bets on parts called good | bets on all parts |")
    print("|---|---|---|")
    for defects in (0, 0.01, 0.05, 0.1, 0.2):
        row = [f"{100 * defects:g} %"]
        for good_only in (True, False):
            p = p_values_of_lines(
                rng, lines=2000, calibration=60, good=2000, defects=defects, good_only=good_only
            )
            row.append(f"{100 * (capital_of(p).first > 0).mean():.2f} %")
        print(f"| {' | '.join(row)} |")
    print("\nparts from the change to the alarm: median of 500 lines (share that had one in 1,000)")
    print("| calibration | good parts before | shift | called good | all parts | Simple Jumper |")
    print("|---|---|---|---|---|---|")
    for calibration, good, shift in (
        *((20, 0, s) for s in (1, 2, -1)),
        *((60, 0, s) for s in (0.5, 1, 2, -1)),
        *((200, 0, s) for s in (0.5, 1, 2)),
        *((60, 200, s) for s in (0.5, 1, 2, -1)),
        *((60, 2000, s) for s in (0.5, 1, 2, -1)),
        (60, 5000, 1),
    ):
        row = [f"{calibration}", f"{good:,}", f"{shift:+g} sd"]
        size = {"lines": 500, "calibration": calibration, "good": good, "changed": 1000}
        called = p_values_of_lines(rng, shift=shift, **size)
        whole = p_values_of_lines(rng, shift=shift, good_only=False, **size)
        for outcome in (capital_of(called), capital_of(whole), jumper(called)):
            kept = outcome.first[(outcome.first == 0) | (outcome.first > good)] - good
            delays = np.where(kept > 0, kept, np.inf)
            found = np.isfinite(delays).mean()
            median = np.median(delays)
            text = f"{median:.0f}" if np.isfinite(median) else "none"
            row.append(f"{text} ({100 * found:.0f} %)")
        print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
