"""Whether new parts are still like the calibration images: what the threshold's promise rests on.

A conformal test martingale bets against it while the line runs (Vovk, Nouretdinov, Gammerman 2003;
Vovk et al. 2021, "Retrain or not retrain", arXiv 2102.10439). The p-value of a part is its rank
among the calibration images and all parts before it, ties broken at random; as long as they are
exchangeable, these are independent and even in [0, 1], whatever the scores are. A capital of 1 is
bet on them at fair odds: by Ville's inequality it ever reaches 100 with a probability of 1 % at
most. So 100 is the alarm.

The bets are those of the Simple Jumper there, 1 + e (p - 1/2) with e = -1 (scores have risen) and
e = 1 (they have fallen): no part wins or loses more than half. When the change comes is unknown, so
the capital is spread over all parts at which it may begin, as in the Shiryaev-Roberts procedure,
but with weights whose sum is 1: reserve(n) is left after n parts. A line that was good for 10,000
parts has lost little of what is needed for the alarm, where the Simple Jumper has lost all.

Scores: bets are on parts with a score below `cut`, the highest calibration score that is called
good, and the calibration scores below it are what they are compared with. So true defects that are
found have no part in it, and the guarantee stays: given `cut`, the scores below it are as
exchangeable as before. Photos: brightness, contrast and sharpness of every part, each with a
capital of its own. Martingales of different p-values must not be added; each of the three has its
alarm at 300, so that one of them comes with a probability of 1 % at most.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation.quality import Quality
from evaluation.threshold import Threshold, percent

ALARM = 100.0
"""The capital at which the promise is said not to hold: 1 / its probability, if it does hold."""

NOTICE = 10.0
"""The capital from which on the evidence is shown, without an alarm."""

BETS = (-1.0, 1.0)
"""The slopes of the bets: on higher values, and on lower ones."""

_START = 10  # the larger, the less is bet on a change in the first parts
_DIGITS = 4  # of values: as few distinct ones are kept, however many parts there are
_ALL_DEFECTIVE = 20  # parts in a row, of which nothing can be said
_WORDS = {
    ("brightness", 0): ("brighter", "the lamp and the exposure"),
    ("brightness", 1): ("darker", "the lamp"),
    ("contrast", 0): ("richer in contrast", "the lamp and the background"),
    ("contrast", 1): ("flatter", "the lens for dirt, and for stray light"),
    ("sharpness", 0): ("sharper, or noisier,", "the focus and the camera's gain"),
    ("sharpness", 1): ("less sharp", "the focus, and the lens for dirt"),
}


class Martingale(NamedTuple):
    """The bets on one number of the parts, and all that is needed to go on."""

    values: tuple[float, ...]  # distinct ones, ascending, of calibration images and parts
    counts: tuple[int, ...]  # how often each of them
    bets: int  # parts that were bet on
    logs: tuple[float, float]  # natural logarithm of the capital that each of BETS has
    highest: float  # of the whole capital, ever
    runs: tuple[float, float]  # Page's CUSUM of each of BETS' logarithms: above 0 since `since`
    since: tuple[int, int]  # the part at which that began, from 1
    alarm: int  # the part at which the alarm came, after which no bet is made; 0: none


class Watch(NamedTuple):
    """What has been seen of a line since its calibration."""

    parts: int  # the number of the last one
    before: int  # the number of the last one before the calibration
    called_defective: int
    defective_in_a_row: int  # the last ones, or others that are not below `cut`
    cut: float  # scores below it are bet on
    scores: Martingale
    photos: tuple[Martingale, ...]  # of each number of `Quality`; () where none is calibrated


class Drift(NamedTuple):
    """What is said of the promise, for a person."""

    light: str  # 'green', 'amber' or 'red'
    evidence: dict[str, float]  # the highest capital by name; the alarm is at 100 for each
    sentences: list[str]


def reserve(bets: Any) -> Any:
    """The share of the capital that is not yet bet after so many bets, from 1 to 0.

    Its steps, the weights of a change at each part, fall as 1 / (n log(n)**2): a change at part n
    takes about log(n) + 2 log(log(n)) more evidence than one that is known of.
    """
    return np.log(_START) / np.log(np.asarray(bets, np.float64) + _START)


def bet(logs: Any, p: Any, bets: Any) -> tuple[Any, Any]:
    """The capitals after one more bet, of any number of lines at once.

    Args:
      logs: float [..., 2], natural logarithms of the capitals of BETS; -inf before the first bet.
      p: float [...] in [0, 1], the p-values of the parts.
      bets: int [...], how many were made before.

    Returns:
      The new `logs`, and float [...], the logarithm of the whole capital with the reserve.
    """
    left = reserve(bets + 1)
    stake = np.log((reserve(bets) - left) / len(BETS))[..., None]
    factors = np.log1p(np.asarray(BETS) * (np.asarray(p)[..., None] - 0.5))
    logs = np.logaddexp(logs, stake) + factors
    return logs, np.logaddexp(np.logaddexp.reduce(logs, axis=-1), np.log(left))


def p_value(values: Sequence[float], counts: Sequence[int], value: float, chance: float) -> float:
    """The smoothed conformal p-value: the rank of `value` among all, from the top, ties by chance.

    (number above + chance * (number equal + 1)) / (number + 1), Vovk, Gammerman, Shafer 2005,
    equation 2.20.

    >>> p_value((1.0, 2.0), (3, 1), 2.0, 0.5)
    0.2
    """
    first, last = bisect_left(values, value), bisect_right(values, value)
    above, equal = sum(counts[last:]), sum(counts[first:last])
    return (above + chance * (equal + 1)) / (sum(counts) + 1)


def start_watch(threshold: Threshold, parts: int = 0) -> Watch:
    """The watch of a line of which no part has been seen since `threshold` was set.

    `parts`: the number of the last part before that.
    """
    called_good = [s for s in threshold.calibration_scores if s <= threshold.threshold]
    cut = called_good[-1] if called_good else float("-inf")
    photos = tuple(map(_martingale, threshold.quality))
    return Watch(parts, parts, 0, 0, cut, _martingale([s for s in called_good if s < cut]), photos)


def _martingale(values: Sequence[float]) -> Martingale:
    distinct, counts = np.unique(_rounded(np.asarray(values, np.float64)), return_counts=True)
    none = float("-inf")
    return Martingale(
        tuple(distinct.tolist()), tuple(counts.tolist()), 0, (none, none), 1, (0, 0), (0, 0), 0
    )


def _rounded(values: Any) -> Any:
    """To four digits, whatever the unit: a grid that no data has chosen keeps ranks fair."""
    values = np.asarray(values, np.float64)
    size = np.where(values == 0, 1, np.abs(values))
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(size)))
    return np.round(values * scale) / scale


def observe(watch: Watch, score: float, quality: Quality, *, defective: bool) -> Watch:
    """The watch after one more part, whose number is `watch.parts` + 1.

    Args:
      watch: before it.
      score: of the part, finite.
      quality: of its photo.
      defective: whether the threshold calls it so.
    """
    part = watch.parts + 1
    chance = float(np.random.default_rng((0, part)).random())  # the same after a restart
    below = score < watch.cut
    limit = ALARM * len(watch.photos)
    pairs = zip(watch.photos, quality, strict=False)
    photos = tuple(_seen(state, part, value, chance, limit) for state, value in pairs)
    return Watch(
        part,
        watch.before,
        watch.called_defective + int(defective),
        0 if below else watch.defective_in_a_row + 1,
        watch.cut,
        _seen(watch.scores, part, score, chance, ALARM) if below else watch.scores,
        photos,
    )


def _seen(state: Martingale, part: int, value: float, chance: float, alarm: float) -> Martingale:
    if state.alarm:
        return state
    value = float(_rounded(value))
    p = p_value(state.values, state.counts, value, chance)
    logs, capital = bet(np.asarray(state.logs), p, state.bets)
    runs, since = [], []
    for e, run, begun in zip(BETS, state.runs, state.since, strict=True):
        runs.append(max(run, 0.0) + float(np.log1p(e * (p - 0.5))))
        since.append(begun if run > 0 else part)
    capital = float(np.exp(min(capital, 700)))
    values, counts = _with(state, value)
    return Martingale(
        values,
        counts,
        state.bets + 1,
        (float(logs[0]), float(logs[1])),
        max(state.highest, capital),
        (runs[0], runs[1]),
        (since[0], since[1]),
        part if capital >= alarm else 0,
    )


def _with(state: Martingale, value: float) -> tuple[tuple[float, ...], tuple[int, ...]]:
    values, counts = state.values, state.counts
    place = bisect_left(values, value)
    if place < len(values) and values[place] == value:
        return values, (*counts[:place], counts[place] + 1, *counts[place + 1 :])
    return (*values[:place], value, *values[place:]), (*counts[:place], 1, *counts[place:])


def drift_of(watch: Watch, threshold: Threshold) -> Drift:
    """What the watch says, in words that an operator can act on."""
    numbers = {"scores": watch.scores.highest}
    sentences = []
    for name, state in zip(Quality._fields, watch.photos, strict=False):
        numbers[name] = state.highest / len(watch.photos)
        if state.alarm:
            word, where = _WORDS[name, _direction(state)]
            sentences.append(
                f"Since about part {_since(state):,} the photos are {word} than at calibration: "
                f"check {where}, or calibrate again."
            )
    if watch.scores.alarm:
        sentences.append(_of_scores(watch, bool(sentences)))
    red = bool(sentences)
    if watch.defective_in_a_row >= _ALL_DEFECTIVE:
        sentences.append(
            f"None of the last {watch.defective_in_a_row:,} parts was clearly good, so that the "
            "watch on the scores, which bets on parts called good, has seen none of them: look at "
            "a part by hand."
        )
    amber = bool(sentences) or max(numbers.values()) >= NOTICE
    light = "red" if red else "amber" if amber else "green"
    evidence = {name: round(min(number, 1e9), 3) for name, number in numbers.items()}
    return Drift(light, evidence, sentences or [_nothing(watch, threshold, numbers)])


def _of_scores(watch: Watch, photos_changed: bool) -> str:
    up = _direction(watch.scores) == 0
    if up:
        means = "more good parts are called defective than was promised"
    else:
        means = "fewer defects may be found than at first"
    photos = "; the photos themselves are as they were" if watch.photos else ""
    return (
        f"Since about part {_since(watch.scores):,} parts called good score "
        f"{'higher' if up else 'lower'} than at calibration{'' if photos_changed else photos}: "
        f"{means}. Look at recent parts, or calibrate again."
    )


def _nothing(watch: Watch, threshold: Threshold, numbers: Mapping[str, float]) -> str:
    name = max(numbers, key=lambda each: numbers[each])
    count, seen = len(threshold.calibration_scores), f"{watch.parts - watch.before:,} parts seen"
    text = (
        f"{seen}, {watch.called_defective:,} called defective: nothing speaks "
        f"against the promise of {percent(threshold.guaranteed_rate)} at most of good parts "
        f"(evidence {numbers[name]:.2g}, alarm at {ALARM:g}; {count} calibration images)."
    )
    if numbers[name] >= NOTICE:
        text = (
            f"{seen}: there is some evidence of a change in {name} "
            f"({numbers[name]:.2g}; the alarm is at {ALARM:g})."
        )
    if not watch.photos and not threshold.clip_frames:  # photos of clips are not calibrated
        text += " The photos are not watched: this threshold was set by an earlier version."
    return text


def _direction(state: Martingale) -> int:
    return int(np.argmax(state.logs))


def _since(state: Martingale) -> int:
    """Where the change that won the bets most likely began, by Page's CUSUM."""
    return state.since[_direction(state)]


def watch_content(watch: Watch) -> dict[str, Any]:
    """The watch as JSON has it, whose numbers are the same bits when read."""

    def plain(state: Martingale) -> dict[str, Any]:
        # JSON has no infinity: before the first bet there is no logarithm.
        return state._asdict() | {"logs": list(state.logs) if state.bets else None}

    content = watch._asdict() | {"scores": plain(watch.scores)}
    content["cut"] = watch.cut if np.isfinite(watch.cut) else None
    content["photos"] = list(map(plain, watch.photos))
    return content


def watch_of(content: Mapping[str, Any]) -> Watch:
    """The watch that `watch_content` is of.

    Raises:
      KeyError, TypeError, ValueError: it is damaged.
    """
    none = float("-inf")

    def state_of(fields: Mapping[str, Any]) -> Martingale:
        logs = fields["logs"] or (none, none)
        state = Martingale(
            tuple(fields["values"]),
            tuple(fields["counts"]),
            int(fields["bets"]),
            (logs[0], logs[1]),
            fields["highest"],
            (fields["runs"][0], fields["runs"][1]),
            (fields["since"][0], fields["since"][1]),
            int(fields["alarm"]),
        )
        if len(state.values) != len(state.counts) or list(state.values) != sorted(state.values):
            raise ValueError("the watch makes no sense")
        return state

    return Watch(
        int(content["parts"]),
        int(content["before"]),
        int(content["called_defective"]),
        int(content["defective_in_a_row"]),
        none if content["cut"] is None else float(content["cut"]),
        state_of(content["scores"]),
        tuple(map(state_of, content["photos"])),
    )
