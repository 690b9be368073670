"""Thresholds from normal images alone: what `n` calibration images can promise, and no more.

Split-conformal prediction (Vovk, Gammerman, Shafer 2005, 10.1007/b106715; Angelopoulos, Bates,
arXiv 2107.07511, sections 1 and 3.2). An image is called defective where its score, in the
method's own units, is above the threshold. Nothing is assumed of the scores; of the images, that
new good parts come from the same production, and through the same camera, as the `n`.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from evaluation.false_alarms import Marks, marks_content, marks_of, marks_statement
from evaluation.misses import Misses, misses_content, misses_of, misses_statement
from evaluation.quality import Quality
from storage.files import write_text

THRESHOLD_FILE = "threshold.json"
"""The file of a workdir that holds the threshold."""

COVERAGE = 0.95
"""Of the intervals of rates."""

ROUNDING = 1e-4
"""By what share of itself the threshold lies higher than the score of a good image.

Another machine's rounding must not lift that image above it: as much as an export's scores may
differ.
"""


class Threshold(NamedTuple):
    """Where good ends, and what is known of it."""

    false_alarm_rate: float  # asked for, in (0, 1)
    guaranteed_rate: float  # what holds for the threshold; above what was asked if images are few
    interval: tuple[float, float]  # 95 %, of the false-alarm rate in the long run
    threshold: float  # defective: a higher image score
    pixel_threshold: float  # marked: a higher value of the anomaly map
    map_max: float  # top of the maps' colour scale
    calibration_scores: tuple[float, ...]  # of the good images, ascending
    marks: Marks | None = None  # what is marked in place of `pixel_threshold`; None: of old runs
    misses: Misses | None = None  # what labelled defects say; None where there are none
    # Of clips, whose maxima the calibration scores are: the frames of the longest; 0: of images.
    clip_frames: int = 0
    # Of the calibration photos, each number of evaluation.quality.Quality; () of old runs.
    quality: tuple[tuple[float, ...], ...] = ()
    date: str = ""  # ISO 8601, where new photos have set it (--mode=recalibrate)


def require_rate(rate: float) -> None:
    """Raises ValueError for a false-alarm rate out of (0, 1)."""
    if not 0 < rate < 1:
        raise ValueError(
            f"threshold.false_alarm_rate={rate} is not in (0, 1): set the share of good parts that "
            "may be called defective, such as 0.05"
        )


def require_count(count: int, good: int, *, of: str = "images") -> None:
    """Raises ValueError for fewer than two held-out images, or clips, of `good` normal ones."""
    if count < 2:
        raise ValueError(
            f"a threshold needs 2 held-out good {of} at least, and there are {count}: "
            f"{_way_to(2, good, of)}"
        )


def _way_to(enough: int, good: int, of: str) -> str:
    """How to hold out `enough` of `good` normal images, so that as many twice are trained on."""
    if good < 3 * enough:
        more = "photograph more good parts" if of == "images" else f"record more good {of}"
        return f"{more}, for {good} are too few"
    share = math.ceil(100 * enough / good) / 100
    return f"--config.data.calibration={share:g} holds out {enough} or more of these {good}"


def needed(rate: float) -> int:
    """The number of good images from which on `rate` can be guaranteed.

    >>> needed(0.05), needed(0.01)
    (19, 99)
    """
    return math.ceil(1 / Fraction(str(rate))) - 1


def shortfall(rate: float, count: int, good: int, *, of: str = "images") -> str:
    """What `count` calibration images will not be able to promise of `rate`; '' if nothing.

    `good` is the number of all normal images, or `of` clips, with those that are trained on.

    Raises:
      ValueError: as `require_count`.
    """
    require_count(count, good, of=of)
    if count >= (enough := needed(rate)):
        return ""
    return (
        f"{count} good {of} are held out, which can guarantee a false-alarm rate of "
        f"{percent(1 / (count + 1))} at the lowest, not the {percent(rate)} asked for: {enough} "
        f"would: {_way_to(enough, good, of)}."
    )


def calibrate(
    scores: np.ndarray, maps: Iterable[np.ndarray], rate: float, *, point: int | None = None
) -> Threshold:
    """The threshold at which at most a share `rate` of new good images is called defective.

    The k-th smallest of the n scores, k = ceil((n + 1)(1 - rate)): a new good score is as likely in
    each of the n + 1 gaps between them, so that it is higher with a probability of
    (n + 1 - k) / (n + 1) at most. Where k would be n + 1, the highest score, the tightest threshold
    that anything is known of. The long-run rate at a given threshold is Beta(n + 1 - k, k)
    distributed over the choice of the n images. Pixels likewise, by the highest value of each map.

    Args:
      scores: float [n] of calibration images, which training has not seen.
      maps: n of float [H, W], their anomaly maps.
      rate: in (0, 1).
      point: n + 1 - k, from 1 to n, where it was chosen otherwise than by the rate.

    Raises:
      ValueError: as `require_rate` and `require_count`; or a score or map is not finite.
    """
    scores = np.sort(np.asarray(scores, np.float64))
    require_rate(rate)
    require_count(count := scores.size, scores.size)
    highest = np.sort(np.array([values.max() for values in maps], np.float64))
    if not (np.isfinite(scores).all() and np.isfinite(highest).all()):
        raise ValueError("a score of a held-out good image is not finite: train again")
    above = point or operating_point(count, rate)  # n + 1 - k
    low, high = stats.beta.ppf([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], above, count + 1 - above)
    return Threshold(
        false_alarm_rate=float(rate),
        guaranteed_rate=above / (count + 1),
        interval=(float(low), float(high)),
        threshold=_just_above(scores, count - above),
        pixel_threshold=_just_above(highest, count - above),
        map_max=SCALE * max(float(highest[-1]), 1e-6),
        calibration_scores=tuple(scores.tolist()),
    )


def operating_point(count: int, rate: float) -> int:
    """n + 1 - k of `calibrate` for `count` images.

    >>> operating_point(19, 0.05), operating_point(10, 0.05), operating_point(99, 0.05)
    (1, 1, 5)
    """
    return max(1, math.floor((count + 1) * Fraction(str(rate))))


def _just_above(ascending: np.ndarray, index: int) -> float:
    """A little more than the value at `index`, but no more than half way to the next higher one."""
    value = float(ascending[index])
    margin = ROUNDING * abs(value)
    higher = ascending[ascending > value]
    return value + (min(margin, (float(higher[0]) - value) / 2) if higher.size else margin)


def p_values(threshold: Threshold, scores: np.ndarray) -> np.ndarray:
    """The probability that a good image scores as high, float [N] in (0, 1] of float [N].

    (1 + the calibration scores that are as high) / (n + 1): of good images, at most a share p has a
    value of p or less.

    >>> of_twenty = calibrate(np.arange(20.0), np.ones((20, 2, 2)), 0.05)
    >>> p_values(of_twenty, np.array([0.0, 19.0, 20.0])).round(3).tolist()
    [1.0, 0.095, 0.048]
    """
    scores = np.asarray(scores, np.float64)
    below = np.searchsorted(threshold.calibration_scores, scores, side="left")
    count = len(threshold.calibration_scores)
    return (1 + count - below) / (count + 1)


def rates(
    threshold: Threshold, labels: np.ndarray, defects: Sequence[str], scores: np.ndarray
) -> dict[str, dict[str, Any]]:
    """How often the threshold is wrong about labelled images: misses by defect, and false alarms.

    Args:
      threshold: which no labelled image has had a part in.
      labels: int [N], 1 = defective.
      defects: N names.
      scores: float [N].

    Returns:
      {name: {'count', 'wrong', 'rate', 'interval'}}: 'good', where wrong is a false alarm, then
      each defect, where it is a miss; the exact 95 % interval of Clopper and Pearson.
    """
    names = np.where(np.asarray(labels) == 0, "good", np.asarray(defects, dtype=object))
    wrong = (np.asarray(scores, np.float64) > threshold.threshold) != (np.asarray(labels) == 1)

    def of(name: str) -> dict[str, Any]:
        count, errors = int((names == name).sum()), int(wrong[names == name].sum())
        interval = stats.binomtest(errors, count).proportion_ci(COVERAGE, "exact")
        return {
            "count": count,
            "wrong": errors,
            "rate": errors / count,
            "interval": [float(interval.low), float(interval.high)],
        }

    defective = sorted(set(names[np.asarray(labels) == 1]))
    return {name: of(name) for name in (["good"] if (names == "good").any() else []) + defective}


def statement(threshold: Threshold, *, tuned: bool = False) -> list[str]:
    """What the threshold promises, and what it does not, as sentences.

    `tuned`: whether the score was chosen with the help of the same images.
    """
    count = len(threshold.calibration_scores)
    asked, lowest = percent(threshold.false_alarm_rate), percent(1 / (count + 1))
    low, high = (percent(rate) for rate in threshold.interval)
    promised = percent(threshold.guaranteed_rate)
    of = "clips" if threshold.clip_frames else "images"
    held_out = f"held-out good {of}"
    if threshold.date:
        held_out, tuned = f"good photos of {threshold.date[:10]}", False
    sentences = [
        *_promise(threshold, promised, held_out),
        f"Another {count} {of} would have given another threshold: in 95 of 100 such choices the "
        f"false-alarm rate in the long run lies between {low} and {high}.",
        f"With {count} good {of} the lowest rate that can be guaranteed is {lowest}.",
    ]
    if threshold.guaranteed_rate > threshold.false_alarm_rate:
        more = needed(threshold.false_alarm_rate)
        sentences.append(
            f"The {asked} asked for are NOT guaranteed: that takes {more} {held_out}. "
            f"This is the tightest threshold that these {of} can vouch for."
        )
    if tuned:
        sentences.append(
            "The score's settings were chosen with the help of the same images, and these rates "
            "take no account of that: judge them on further good parts."
        )
    sentences += misses_statement(threshold.misses) if threshold.misses else []
    return sentences + (marks_statement(threshold.marks) if threshold.marks else [])


def _promise(threshold: Threshold, promised: str, held_out: str) -> list[str]:
    """What is decided on, and the share of what is good that is expected to be called otherwise."""
    count, frames = len(threshold.calibration_scores), threshold.clip_frames
    if not frames:
        return [
            f"An image with a score above {threshold.threshold:.6g} is called defective.",
            f"Of new good parts, {promised} at most are expected to be called defective, if they "
            f"come from the same production and camera as the {count} {held_out}.",
        ]
    return [
        f"A frame with a score above {threshold.threshold:.6g} is called defective.",
        f"Of new clips in which all is good, {promised} at most are expected to have such a frame, "
        f"if they show the same scene through the same camera as the {count} held-out clips, and "
        f"are no longer than these, {frames} frames at most: the longer a clip, the higher its "
        "highest score.",
        "Nothing is promised of single frames: neighbours are nearly alike, so that they are no "
        "independent trials.",
    ]


def percent(rate: float) -> str:
    """A share as '4.5 %', with two digits at least: '0.12 %'.

    >>> percent(1 / 22), percent(0.05), percent(0.0012)
    ('4.5 %', '5 %', '0.12 %')
    """
    value = 100 * rate
    return f"{value:.2g} %" if value < 1 else f"{value:.1f} %".replace(".0 %", " %")


def content(threshold: Threshold, network: Mapping[str, Any]) -> dict[str, Any]:
    """What threshold.json holds; `network` says of which networks and score the threshold is."""
    tuned = bool(network.get("score")) and not threshold.date  # new photos had no part in it
    marks, misses = threshold.marks, threshold.misses
    return threshold._asdict() | {
        "interval": list(threshold.interval),
        "calibration_scores": list(threshold.calibration_scores),
        "marks": marks and marks_content(marks),
        "quality": dict(zip(Quality._fields, map(list, threshold.quality), strict=False)),
        "misses": misses and misses_content(misses),
        "guaranteed": threshold.guaranteed_rate <= threshold.false_alarm_rate
        and not tuned
        and not (misses and misses.costs),
        "statement": statement(threshold, tuned=tuned),
        "network": dict(network),
    }


def write_threshold(workdir: str, threshold: Threshold, network: Mapping[str, Any]) -> None:
    """Writes `workdir/threshold.json`, as a whole or not at all."""
    text = json.dumps(content(threshold, network), indent=2, allow_nan=False)
    write_text(os.path.join(workdir, THRESHOLD_FILE), text + "\n")


def read_network(workdir: str) -> dict[str, Any]:
    """Of which networks and score a workdir's threshold is, as `write_threshold` was told.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is damaged.
    """
    path = os.path.join(workdir, THRESHOLD_FILE)
    remedy = f"run python main.py --mode=evaluate --workdir={workdir}"
    try:
        with open(path, encoding="utf-8") as file:
            network: dict[str, Any] = json.load(file)["network"]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist: {remedy} first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): {remedy} again") from error
    return network


def read_threshold(workdir: str, network: Mapping[str, Any]) -> Threshold:
    """What `write_threshold` wrote for the same networks and score.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is damaged, or of other networks.
    """
    path = os.path.join(workdir, THRESHOLD_FILE)
    remedy = f"run python main.py --mode=evaluate --workdir={workdir}"
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist: {remedy} first")
    threshold, origin = read_threshold_file(path, f"{remedy} again")
    if origin != json.loads(json.dumps(network)):
        raise ValueError(f"{path} was made with other networks or another score: {remedy} again")
    return threshold


def read_threshold_file(path: str, remedy: str) -> tuple[Threshold, Any]:
    """A threshold and the networks that it is of; `remedy` is what to do where it is damaged.

    Raises:
      OSError: there is no such file.
      ValueError: the file is damaged.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        content = {"clip_frames": 0, **content}  # files of earlier versions have none
        optional = {"marks", "misses", "quality", "date"}
        fields = {name: content[name] for name in Threshold._fields if name not in optional}
        marks = marks_of(content["marks"]) if content.get("marks") else None
        misses = misses_of(content["misses"]) if content.get("misses") else None
        numbers = [fields["threshold"], fields["pixel_threshold"], fields["map_max"]]
        scores = tuple(map(float, fields.pop("calibration_scores")))
        known = content.get("quality") or {}
        quality = tuple(tuple(map(float, known[name])) for name in Quality._fields if known)
        if not np.isfinite([*numbers, *scores, *sum(quality, ())]).all() or list(scores) != sorted(
            scores
        ):
            raise ValueError("its numbers make no sense")
        interval = tuple(fields.pop("interval"))
        fields |= {"interval": interval, "calibration_scores": scores, "marks": marks}
        fields |= {"misses": misses, "quality": quality, "date": str(content.get("date", ""))}
        return Threshold(**fields), content.get("network")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): {remedy}") from error


def recalibrated(workdir: str) -> str:
    """When new photos have set the workdir's threshold (--mode=recalibrate), or ''."""
    with contextlib.suppress(OSError, ValueError):
        return read_threshold_file(os.path.join(workdir, THRESHOLD_FILE), "")[0].date
    return ""


def keep_old_threshold(workdir: str, until: str) -> str:
    """Copies the workdir's threshold.json beside it, and says under which name; '' without one.

    `until`: when it is replaced, ISO 8601, which the name says.
    """
    path = os.path.join(workdir, THRESHOLD_FILE)
    if not os.path.exists(path):
        return ""
    stem, suffix = os.path.splitext(THRESHOLD_FILE)
    name = f"{stem}.until-{until.replace(':', '')}{suffix}"
    with open(path, encoding="utf-8") as file:
        write_text(os.path.join(workdir, name), file.read())
    return name


SCALE = 3.0
"""The top of the maps' colour scale over the highest value of good images: they stay dark."""
