"""Chooses networks and score settings on made-up defects of calibration images.

Test images are never seen: whoever calls this hands over normal images alone. What was chosen, and
the table it was chosen from, is `workdir/tuning.json`, where scoring finds it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn import metrics

from engine.method import Score, Tuning, Variables
from storage.files import write_json

TUNING_FILE = "tuning.json"
# A made-up defect counts where it changes a pixel by 2.5 % of the range, as the mean over colours:
# what is fainter nobody would call a defect.
_VISIBLE = 0.05
_SIDE = 128  # pixel metrics are taken of about so many pixels a side: pixels side by side are alike


class Candidate(NamedTuple):
    """One way to score, and how well it finds the made-up defects."""

    network: str
    setting: int
    rule: str
    image_auroc: float
    pixel_average_precision: float

    @property
    def merit(self) -> float:
        """What is chosen by: the mean of both."""
        return (self.image_auroc + self.pixel_average_precision) / 2


def rank_candidates(
    networks: Mapping[str, Variables], tuning: Tuning, images: np.ndarray, *, draws: int
) -> list[Candidate]:
    """Scores the made-up defects of `images` in all ways that are open, the best first.

    Args:
      networks: variables to choose among, by name; all see the same defects.
      tuning: of their method.
      images: calibration images, float32 [N, H, W, C] in [-1, 1], at least one.
      draws: so many times defects are made in each image.

    Raises:
      ValueError: no visible defect was made in any image.
    """
    corrupt = jax.jit(tuning.corrupt)
    drawn = [jax.device_get(corrupt(jax.random.key(draw), images)) for draw in range(draws)]
    defects = [_visible(corrupted, mask, images) for corrupted, mask in drawn]
    scores = jax.jit(tuning.scores)
    candidates: list[Candidate] = []
    for name, variables in networks.items():
        good = jax.device_get(scores(variables, images))
        bad = [jax.device_get(scores(variables, corrupted)) for corrupted, _ in drawn]
        for setting in range(len(tuning.settings)):
            defective = [score[setting] for score in bad]
            candidates += _judge(
                name, setting, tuple(tuning.rules), good[setting], defective, defects
            )
    # Of equals the first stays first: the networks and settings come in order of preference.
    return sorted(candidates, key=lambda candidate: -candidate.merit)


def _visible(corrupted: np.ndarray, mask: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Where a defect can be seen: bool [N, H, W]."""
    visible: np.ndarray = (mask > 0) & (np.abs(corrupted - images).mean(axis=-1) > _VISIBLE)
    return visible


def _judge(
    network: str,
    setting: int,
    rules: Sequence[str],
    good: Score,
    bad: Sequence[Score],
    defects: Sequence[np.ndarray],
) -> list[Candidate]:
    """The candidates of one setting, which differ in the image score alone."""
    visible = np.concatenate([each.any(axis=(1, 2)) for each in defects])
    if not visible.any():
        raise ValueError("no made-up defect is visible: raise tuning.corruption.opacity")
    step = max(1, round(defects[0].shape[1] / _SIDE))
    pixels = np.concatenate([each[:, ::step, ::step].ravel() for each in defects])
    maps = np.concatenate([score.map[:, ::step, ::step].ravel() for score in bad])
    precision = float(metrics.average_precision_score(pixels, maps))
    labels = np.repeat([0, 1], [len(good.image), visible.sum()])
    candidates = []
    for rule in rules:
        defective = np.concatenate([score.terms[rule] for score in bad])[visible]
        auroc = float(metrics.roc_auc_score(labels, np.concatenate([good.terms[rule], defective])))
        candidates.append(Candidate(network, setting, rule, auroc, precision))
    return candidates


def write_tuning(
    workdir: str, ranked: Sequence[Candidate], tuning: Tuning, folders: Mapping[str, str], why: str
) -> dict[str, Any]:
    """Writes the best of `ranked` and the whole table to `workdir/tuning.json`; returns that.

    `folders` says where each network's checkpoints lie, relative to the workdir.
    """

    def fields(candidate: Candidate) -> dict[str, Any]:
        return {**tuning.settings[candidate.setting], **tuning.rules[candidate.rule]}

    best = ranked[0]
    table = [
        {
            "network": candidate.network,
            "score": fields(candidate),
            "image_auroc": candidate.image_auroc,
            "pixel_average_precision": candidate.pixel_average_precision,
            "mean": candidate.merit,
        }
        for candidate in ranked
    ]
    chosen = {"network": best.network, "folder": folders[best.network], "score": fields(best)}
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
