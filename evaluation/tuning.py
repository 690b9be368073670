"""Chooses networks and score settings on made-up defects of calibration images.

Test images are never seen: whoever calls this hands over normal images alone. What was chosen, and
the table it was chosen from, is `workdir/tuning.json`, where scoring finds it.
"""

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn import metrics

from engine.method import Score, Tuning, Variables
from evaluation.made_up import MadeUp, made_up, visible
from storage.files import write_json

TUNING_FILE = "tuning.json"
_SIDE = 128  # pixel metrics are taken of about so many pixels a side: pixels side by side are alike

_Terms = dict[tuple[Any, ...], list[float]]


class Found(NamedTuple):
    """How well the defects of one kind are found."""

    image_auroc: float  # against the good images under all lightings
    pixel_auroc: float  # of the images with defects, and mean over lightings
    pixel_average_precision: float  # likewise

    @property
    def merit(self) -> float:
        """What is chosen by: the mean of image AUROC and pixel average precision."""
        return (self.image_auroc + self.pixel_average_precision) / 2


class Candidate(NamedTuple):
    """One way to score, and how well it finds the made-up defects."""

    network: str
    setting: int
    rule: str
    kinds: Mapping[str, Found]

    def mean(self) -> Found:
        """Over kinds."""
        return Found(*np.mean(list(self.kinds.values()), axis=0).tolist())


def rank_candidates(
    networks: Mapping[str, Variables],
    tunings: Mapping[str, Tuning],
    images: np.ndarray,
    *,
    draws: int,
) -> list[Candidate]:
    """Scores the made-up defects of `images` in all ways that are open, the best first.

    Best is the smallest of `regrets`: what is near the best for every kind comes before what is the
    best for one and poor for another. Of a single kind that is the largest merit.

    Args:
      networks: variables to choose among, by name; all see the same defects.
      tunings: of their method, by the same names; they differ in what was measured alone.
      images: calibration images, float32 [N, H, W, C] in [-1, 1], at least one.
      draws: so many times defects are made in each image.

    Raises:
      ValueError: no visible defect was made in any image.
    """
    tuning = next(iter(tunings.values()))
    scores = {name: jax.jit(each.scores) for name, each in tunings.items()}
    seen = {
        name: _Seen(defaultdict(list), defaultdict(list), defaultdict(list)) for name in networks
    }
    for made in _drawn(tuning, images, draws):
        for name, variables in networks.items():
            _look(seen[name], made, partial(scores[name], variables), tuning.rules)
    candidates = [
        candidate for name in networks for candidate in _candidates(name, seen[name], tuning)
    ]
    # Of equals the first stays first: the networks and settings come in order of preference.
    return [candidates[index] for index in np.argsort(regrets(candidates), kind="stable")]


def regrets(candidates: Sequence[Candidate]) -> list[float]:
    """How far each is behind the best of all on the kind where it is furthest behind."""
    merits = np.array([[found.merit for found in each.kinds.values()] for each in candidates])
    behind: list[float] = (merits.max(axis=0) - merits).max(axis=1).tolist()
    return behind


def _drawn(tuning: Tuning, images: np.ndarray, draws: int) -> Iterator[MadeUp]:
    if tuning.corrupt is None:
        yield from made_up(images, draws=draws)
        return
    corrupt = jax.jit(tuning.corrupt)
    for draw in range(draws):
        corrupted, mask = jax.device_get(corrupt(jax.random.key(draw), images))
        seen = (mask > 0) & visible(images, corrupted)
        yield MadeUp("as it is", images, {"corruption": (corrupted, seen)})


class _Seen(NamedTuple):
    """Scores and pixel metrics of one network, so far."""

    good: _Terms  # by setting and rule
    bad: _Terms  # by setting, rule and kind
    pixels: dict[tuple[int, str], list[tuple[float, float]]]


def _look(
    seen: _Seen,
    made: MadeUp,
    scores: Callable[[np.ndarray], tuple[Score, ...]],
    rules: Mapping[str, Any],
) -> None:
    """Adds what is found of one draw to `seen`; the rules differ in the image score alone."""
    for setting, score in enumerate(jax.device_get(scores(made.good))):
        for rule in rules:
            seen.good[setting, rule].extend(score.terms[rule])
    for kind, (defective, where) in made.defective.items():
        with_defect = where.any(axis=(1, 2))
        if not with_defect.any():
            continue
        for setting, score in enumerate(jax.device_get(scores(defective))):
            seen.pixels[setting, kind].append(_pixel_metrics(where, score.map))
            for rule in rules:
                seen.bad[setting, rule, kind].extend(score.terms[rule][with_defect])


def _candidates(network: str, seen: _Seen, tuning: Tuning) -> list[Candidate]:
    """Each setting and rule."""
    if not seen.pixels:
        raise ValueError(
            "no made-up defect is visible: raise tuning.corruption.opacity"
            if tuning.corrupt
            else "no made-up defect can be seen in the held-out images: look at them, they are of "
            "one colour"
        )
    kinds = list(dict.fromkeys(kind for _, kind in seen.pixels))

    def found(setting: int, rule: str, kind: str) -> Found:
        sides = seen.good[setting, rule], seen.bad[setting, rule, kind]
        labels = np.repeat([0, 1], [len(side) for side in sides])
        auroc = float(metrics.roc_auc_score(labels, np.concatenate(sides)))
        return Found(auroc, *np.mean(seen.pixels[setting, kind], axis=0).tolist())

    return [
        Candidate(network, setting, rule, {kind: found(setting, rule, kind) for kind in kinds})
        for setting in range(len(tuning.settings))
        for rule in tuning.rules
    ]


def _pixel_metrics(seen: np.ndarray, maps: np.ndarray) -> tuple[float, float]:
    """AUROC and average precision of the pixels."""
    step = max(1, round(seen.shape[1] / _SIDE))
    labels, values = (each[:, ::step, ::step].ravel() for each in (seen, maps))
    return (
        float(metrics.roc_auc_score(labels, values)),
        float(metrics.average_precision_score(labels, values)),
    )


def write_tuning(
    workdir: str,
    ranked: Sequence[Candidate],
    tunings: Mapping[str, Tuning],
    folders: Mapping[str, str],
    why: str,
) -> dict[str, Any]:
    """Writes the best of `ranked` and the whole table to `workdir/tuning.json`; returns that.

    `tunings` are those of `rank_candidates`; `folders` says where each network's checkpoints lie,
    relative to the workdir. What was measured for a setting is written for the best alone.
    """

    def fields(candidate: Candidate) -> dict[str, Any]:
        tuning = tunings[candidate.network]
        return {**tuning.settings[candidate.setting], **tuning.rules[candidate.rule]}

    best = ranked[0]
    constants = tunings[best.network].constants
    measured = constants[best.setting] if constants else {}
    table = [
        {
            "network": candidate.network,
            "score": fields(candidate),
            **candidate.mean()._asdict(),
            "regret": regret,
            "kinds": {kind: found._asdict() for kind, found in candidate.kinds.items()},
        }
        for candidate, regret in zip(ranked, regrets(ranked), strict=True)
    ]
    chosen = {
        "network": best.network,
        "folder": folders[best.network],
        "score": {**fields(best), **measured},
    }
    content = {"chosen": chosen, "why": why, "candidates": table}
    write_json(os.path.join(workdir, TUNING_FILE), content)
    return content


def tuning_summary(content: Mapping[str, Any]) -> str:
    """What was chosen, in a few lines, beside the best of the other networks."""
    best: dict[str, Any] = {}
    for candidate in content["candidates"]:
        best.setdefault(candidate["network"], candidate)
    lines = [
        f"{name}: image AUROC {entry['image_auroc']:.3f}, pixel average precision "
        f"{entry['pixel_average_precision']:.3f} with {entry['score']}"
        for name, entry in best.items()
    ]
    return "\n".join([*lines, f"Chosen: the first, by the {content['why']}."])


def forget_choice(workdir: str) -> None:
    """Removes what was chosen, if anything was."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(workdir, TUNING_FILE))


def read_choice(workdir: str) -> tuple[str, dict[str, Any]]:
    """The folder whose checkpoints score, and the score fields that were chosen for it.

    The workdir itself, and none, where nothing was tuned.

    Raises:
      ValueError: the file is damaged.
    """
    path = os.path.join(workdir, TUNING_FILE)
    if not os.path.exists(path):
        return workdir, {}
    try:
        with open(path, encoding="utf-8") as file:
            choice = json.load(file)["chosen"]
        folder = os.path.normpath(choice["folder"])
        if os.path.isabs(folder) or folder.startswith(os.pardir):
            raise ValueError(f"{folder} is not in the workdir")
        return os.path.normpath(os.path.join(workdir, folder)), dict(choice["score"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): tune again, or remove it") from error
