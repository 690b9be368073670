"""What labelled defects say of a threshold: how many are missed, and where the cost is least.

A labelled image counts where training has not seen it: each, for a method that learns from good
images alone; else by a network that was trained without it (commands/leave_one_out.py). Its `rank`
among n calibration images is 1 + how many of these score as high, from 1 to n + 1: at the operating
point k, at which a share k / (n + 1) of good parts is expected to be called defective, a defect is
missed where its rank is above k. Ranks of different networks may be compared, scores may not.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from data.decoded import Images


class Costs(NamedTuple):
    """What an operating point is chosen by."""

    miss: float  # of one defective part that is called good
    false_alarm: float  # of one good part that is called defective, in the same currency
    defect_rate: float  # share of the parts that are defective, in (0, 1)


class LabelledDefects(NamedTuple):
    """The labelled images of a run, and what is to be done with them."""

    images: Images
    trained_on: bool  # whether the run's networks have learnt from them
    left_out: Sequence[int] | None = None  # the rank of each by a network that has not
    costs: Costs | None = None  # None: the operating point follows from the false-alarm rate


class Misses(NamedTuple):
    """What is known of misses by labelled images."""

    labelled: int  # how many there are
    trained_on: bool
    missed: int | None = None  # of them; None where all were trained on and none was left out
    interval: tuple[float, float] | None = None  # 95 %, of the rate of misses
    costs: Costs | None = None


def ranks_of(calibration: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The rank of each score [N] among calibration scores [n]: int [N], from 1 to n + 1.

    >>> ranks_of(np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 9.0])).tolist()
    [4, 3, 1]
    """
    ascending = np.sort(np.asarray(calibration, np.float64))
    below = np.searchsorted(ascending, np.asarray(scores, np.float64), side="left")
    ranks: np.ndarray = 1 + len(ascending) - below
    return ranks


def cheapest(ranks: Sequence[int] | np.ndarray, count: int, costs: Costs) -> int:
    """The operating point k, from 1 to `count`, of the least expected cost per part.

    defect_rate * miss * (share of ranks above k) + (1 - defect_rate) * false_alarm * k / (count +
    1). Of equal ones the smallest, which has the fewest false alarms.

    >>> cheapest([1, 1, 4], 9, Costs(100.0, 1.0, 0.1)), cheapest([1, 1, 4], 9, Costs(1, 1, 0.1))
    (4, 1)
    """
    points = np.arange(1, count + 1)
    missed = np.mean(np.asarray(ranks)[:, None] > points[None], axis=0)
    per_part = costs.defect_rate * costs.miss * missed
    per_part += (1 - costs.defect_rate) * costs.false_alarm * points / (count + 1)
    return int(points[np.argmin(per_part)])


def require_costs(costs: Costs, labelled: int, *, tested: bool) -> Costs | None:
    """The costs to choose by, or None where both are 0.

    Args:
      costs: as the config has them.
      labelled: how many labelled images there are.
      tested: whether each can be scored by a network that has not seen it.

    Raises:
      ValueError: one cost alone is set, or there is nothing to choose by.
    """
    if not costs.miss and not costs.false_alarm:
        return None
    if not (costs.miss and costs.false_alarm):
        raise ValueError(
            f"threshold.cost_of_miss={costs.miss:g} and threshold.cost_of_false_alarm="
            f"{costs.false_alarm:g}: set both above 0, or neither"
        )
    if labelled < 2:
        raise ValueError(
            "a threshold by cost takes 2 labelled defects at least, and there are "
            f"{labelled}: name some with --config.data.labelled=10, or leave both costs at 0"
        )
    if not tested:
        raise ValueError(
            "a threshold by cost takes labelled defects that training has not seen: add "
            "--config.threshold.leave_one_out=True, which trains a network without each of them"
        )
    return costs


def misses_at(ranks: Sequence[int] | np.ndarray, point: int) -> int:
    """How many are missed at the operating point."""
    return int(np.sum(np.asarray(ranks) > point))


def misses_by_cost(ranks: Sequence[int] | np.ndarray, count: int, costs: Costs) -> int:
    """How many are missed, each at the point that the others choose: leave-one-out."""
    ranks = np.asarray(ranks)
    chosen = [cheapest(np.delete(ranks, i), count, costs) for i in range(len(ranks))]
    return int(np.sum(ranks > np.array(chosen)))


def judged(labelled: LabelledDefects, ranks: Sequence[int], count: int, point: int) -> Misses:
    """The misses among labelled images of these ranks, of `count` calibration images."""
    costs, number = labelled.costs, len(ranks)
    missed = misses_by_cost(ranks, count, costs) if costs else misses_at(ranks, point)
    low, high = stats.binomtest(missed, number).proportion_ci(0.95, "exact")
    return Misses(number, labelled.trained_on, missed, (float(low), float(high)), costs)


def labels_statement(labelled: int, *, learns: bool, leave_one_out: bool) -> str:
    """What so many labelled images allow before anything is trained, and what not, in a sentence.

    `learns`: whether the method learns from them.
    """
    if labelled < 2:
        images = "1 labelled image is" if labelled else "No labelled images are"
        what = "a threshold by cost, or for leaving one out" if learns else "a threshold by cost"
        return f"{images} too few for {what}: --config.data.labelled=10 would do."
    both = "misses are counted, and a threshold by cost can be chosen"
    if not learns:
        return f"By the {labelled} labelled images, which training does not see, {both}."
    if leave_one_out:
        return f"By {labelled} more trainings, each without one of the labelled images, {both}."
    return (
        f"The {labelled} labelled images are trained on, so that nothing is known of misses, and "
        "no threshold by cost can be chosen: both take --config.threshold.leave_one_out=True, "
        f"{labelled} more trainings, each without one of them."
    )


def misses_statement(misses: Misses) -> list[str]:
    """What is known of misses, and what that rests on, as sentences."""
    number = (
        f"the {misses.labelled} labelled defects" if misses.labelled > 1 else "1 labelled defect"
    )
    if misses.missed is None or misses.interval is None:
        return [
            f"Nothing is known of misses: training has seen {number}. "
            "--config.threshold.leave_one_out=True trains a network without each of them, if there "
            "are 2 or more, and counts which of them it misses."
        ]
    low, high = (f"{100 * each:.0f} %" for each in misses.interval)
    how = (
        "each scored by a network that was trained without it"
        if misses.trained_on
        else "which training has not seen"
    )
    sentences = [
        f"Of {number}, {how}, {misses.missed} would be missed: of new defects of the same kinds "
        f"between {low} and {high} (95 % interval)."
    ]
    if costs := misses.costs:
        sentences.append(
            f"The threshold was chosen by cost: {costs.miss:g} for a miss, {costs.false_alarm:g} "
            f"for a false alarm, and {100 * costs.defect_rate:g} % of the parts defective. The "
            "choice rests on these labelled defects and on the held-out good images, and each miss "
            "was counted at the threshold that the other defects choose. Since the same good "
            "images had a say, the false-alarm rate is an estimate and no promise."
        )
    return sentences


def misses_content(misses: Misses) -> dict[str, Any]:
    """What threshold.json holds of it."""
    interval = misses.interval and list(misses.interval)
    costs = misses.costs and misses.costs._asdict()
    return misses._asdict() | {"interval": interval, "costs": costs}


def misses_of(content: dict[str, Any]) -> Misses:
    """What `misses_content` gave.

    Raises:
      ValueError, TypeError: it holds something else.
    """
    fields = dict(content)
    interval, costs = fields.pop("interval"), fields.pop("costs")
    low_high = (float(interval[0]), float(interval[1])) if interval else None
    return Misses(**fields, interval=low_high, costs=Costs(**costs) if costs else None)
