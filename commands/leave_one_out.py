"""How each labelled image is judged by networks that were trained without it."""

import os
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from commands import inputs
from commands.networks import train_networks
from data import pipeline
from data.scan import digest
from engine import parallel
from engine.workdir import Facts
from evaluation.misses import ranks_of
from evaluation.scoring import restore, scores

_BATCH = 32


def ranks_left_out(
    config: ConfigDict, facts: Facts, workdir: str, splits: pipeline.Splits
) -> list[int] | None:
    """The rank of each labelled image among the calibration images, by a network without it.

    The networks are trained in `workdir/leave_one_out/<n>/`, one after the other; those that are
    there are not trained again, and an interrupted one goes on.

    Returns:
      Ranks as evaluation/misses.py has them; None for a method that learns from good images alone,
      and on processes that are not the main one.

    Raises:
      ValueError, OSError, FloatingPointError: as training.
    """
    method, few = inputs.method_of(config, facts), splits.labelled
    if few is None or not method.labelled:
        return None
    score, ranks = jax.jit(method.score), []
    for index in range(len(few.images)):
        rest, one = (pipeline.images_at(few, at) for at in _without(len(few.images), index))
        folder = os.path.join(workdir, "leave_one_out", str(index))
        others = facts._replace(labelled_digest=digest(rest.paths, rest.sums))
        train_networks(config, others, folder, splits._replace(labelled=rest))
        if parallel.is_main():
            scorer = partial(score, restore(method, folder)[0])
            both = [
                np.concatenate([each.image for each in scores(scorer, batches, _BATCH)])
                for batches in (
                    pipeline.eval_batches(splits.calibration.images, _BATCH),
                    pipeline.eval_batches(one.images, _BATCH),
                )
            ]
            ranks += ranks_of(*both).tolist()
    return ranks if parallel.is_main() else None


def _without(count: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    """All places but one, and that one."""
    places = np.arange(count)
    return np.delete(places, index), places[index : index + 1]
