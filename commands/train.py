"""Trains what a config says, and evaluates it."""

import os
from typing import Any

from ml_collections import ConfigDict

from commands import inputs
from commands.evaluate import evaluate_run, require_judgement
from commands.leave_one_out import ranks_left_out
from commands.networks import train_networks
from commands.runs import held, whole_path


def train(
    config: ConfigDict, workdir: str | os.PathLike[str], *, reuse: str | None = None
) -> dict[str, Any]:
    """Trains `config` in `workdir`, then evaluates it there; returns the results.

    A run that was interrupted goes on. The finished stages of the workdir `reuse` are not trained
    again. Of several processes the main one alone evaluates; for the others there are no results.

    Raises:
      ValueError, OSError, FloatingPointError: one line that says what is wrong and the way out.
    """
    workdir = whole_path(workdir)
    config = inputs.located(config, workdir)
    judgement = require_judgement(config)
    inputs.require_method(config)
    with held(workdir):
        splits = inputs.load(config)
        judgement.warn_of_few(splits)
        facts = inputs.facts_of(config, splits)
        costs = judgement.costs_of(splits.num_labelled, inputs.method_of(config, facts).labelled)
        train_networks(config, facts, workdir, splits, reuse=reuse)
        left_out = None
        if judgement.leave_one_out:
            left_out = ranks_left_out(config, facts, workdir, splits)
        return evaluate_run(config, facts, judgement, costs, workdir, splits, left_out=left_out)
