"""Chooses how to score, on made-up defects."""

import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from commands import inputs
from commands.networks import train_networks
from commands.runs import (
    held,
    refuse_changed,
    rejoin,
    require_finished,
    trained_facts,
    whole_path,
)
from data import pipeline
from engine import parallel
from engine.usual import MOST
from engine.workdir import Facts
from evaluation import tuning
from evaluation.scoring import restore


def tune(config: ConfigDict, workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Chooses network and score on calibration images with made-up defects.

    Writes `workdir/tuning.json`, where evaluation finds it. A network is trained for each weight
    of the loss in `config.tuning.corrupted_weights` besides the own one, in `workdir/tuning/`; an
    interrupted one goes on. No test image is opened. Of several processes the main one alone
    chooses.

    Raises:
      ValueError, OSError, FloatingPointError: one line that says what is wrong and the way out.
    """
    workdir = whole_path(workdir)
    config = inputs.located(config, workdir)
    if "tuning" not in config:
        raise ValueError(
            f"{config.name} leaves nothing to tune: --mode=tune is for configs/restorer.py, "
            "configs/ssae.py, configs/fanogan.py, configs/ae.py, configs/ama.py and configs/glad.py"
        )
    trained_facts(workdir)  # where nothing was trained, nothing is written
    with held(workdir):
        return _tune(config, workdir)


def _tune(config: FrozenConfigDict, workdir: str) -> dict[str, Any]:
    facts = rejoin(config, workdir)
    method: Any = inputs.method_of(config, facts)  # of one that has a section `tuning`
    require_finished(method, restore(method, workdir)[1], workdir)
    splits = inputs.read(config, facts, test=False)
    refuse_changed(workdir, inputs.facts_of(config, splits), inputs.sources_of(splits))
    if not len(splits.calibration.images):
        raise ValueError(
            "no normal images are held out to tune on: train with data.calibration > 0"
        )
    folders = _trained_weights(config, facts, workdir, splits)
    if not parallel.is_main():
        return {}
    networks = {
        name: restore(method, os.path.join(workdir, folder))[0] for name, folder in folders.items()
    }
    count = len(splits.calibration.images)
    images = next(pipeline.eval_batches(splits.calibration.images, count))
    few = np.linspace(0, len(splits.train.images) - 1, MOST).astype(int)  # of all, evenly
    training = next(pipeline.eval_batches(splits.train.images[np.unique(few)], MOST))
    measured = method.tuning.measured
    choices = {
        name: measured(variables, images, training) if measured else method.tuning
        for name, variables in networks.items()
    }
    ranked = tuning.rank_candidates(networks, choices, images, draws=config.tuning.draws)
    why = (
        "smallest regret: how far it is behind what finds a kind of made-up defect best, by the "
        "mean of image AUROC and pixel average precision, on the kind where that is most; "
        f"{config.tuning.draws} draws of defects in each of {count} held-out normal images; "
        "no test image was seen"
    )
    content = tuning.write_tuning(workdir, ranked, choices, folders, why)
    print(tuning.tuning_summary(content))
    return content


def _trained_weights(
    config: ConfigDict, facts: Facts, workdir: str, splits: pipeline.Splits
) -> dict[str, str]:
    """Name -> folder below the workdir of a network for each weight of the loss, the own first."""
    loss = config.get("training", {}).get("loss", {})  # there are methods without such a section
    if "corrupted_weight" not in loss:
        return {"own": "."}
    folders = {f"corrupted_weight={loss.corrupted_weight}": "."}
    weights = config.tuning.corrupted_weights
    for weight in map(float, weights):  # a text from a stranger's config could name any folder
        if (name := f"corrupted_weight={weight}") not in folders:
            folders[name] = os.path.join("tuning", name)
            variant = _with_weight(config, weight)
            train_networks(variant, facts, os.path.join(workdir, folders[name]), splits)
    return folders


def _with_weight(config: ConfigDict, weight: float) -> FrozenConfigDict:
    variant = ConfigDict(config.to_dict())
    variant.training.loss.corrupted_weight = weight
    return FrozenConfigDict(variant)
