"""Trains what a config says, and evaluates it."""

import json
import os
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from commands import inputs
from commands.evaluate import evaluate_run, require_judgement
from commands.runs import FREE, held, refuse_changed, whole_path
from data import pipeline
from engine import checkpoint, hosts, parallel
from engine.method import Method
from engine.sources import Sources, usable_sources, write_sources
from engine.train import Every, require_divisible, train_stages
from engine.workdir import Facts, claim
from engine.workdir import reuse as reuse_stages
from evaluation.tuning import forget_choice

# What else may differ from a run whose stages are reused: it changes no stage.
_NO_STAGES = ("name", "method", "score")
_EXAMPLES = 16  # calibration images in the pictures of training


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
        train_networks(config, facts, workdir, splits, reuse=reuse)
        return evaluate_run(config, facts, judgement, workdir, splits)


def train_networks(
    config: ConfigDict,
    facts: Facts,
    workdir: str,
    splits: pipeline.Splits,
    *,
    reuse: str | None = None,
) -> None:
    """Binds the workdir to the config and trains what is not yet trained."""
    pictures = inputs.load_textures(config, inputs.reading_of(config, facts))
    method = inputs.method_of(config, facts, *pictures)
    training = inputs.training_batches(config, splits.train.images)
    _bind(workdir, config, facts, method, reuse, inputs.sources_of(splits))
    train_stages(
        method,
        training,
        workdir,
        seed=config.seed,
        every=Every(**config.every),
        examples=next(pipeline.eval_batches(splits.calibration.images, _EXAMPLES)),
    )


def _bind(
    workdir: str,
    config: ConfigDict,
    facts: Facts,
    method: Method,
    reuse: str | None,
    images: Sources,
) -> None:
    """Binds the workdir to a config that can be trained, so that a corrected one may follow."""
    require_divisible(method)
    settings, main_process = config.to_dict(), parallel.is_main()
    hosts.require_same(json.dumps([settings, facts]), "the config and the images")
    refuse_changed(workdir, facts, images)
    claim(workdir, settings, facts, free=FREE, main=False)
    if reuse:
        stages = {stage.name: stage.num_steps for stage in method.stages}
        source, free = whole_path(reuse), (*FREE, *_NO_STAGES)
        refuse_changed(source, facts, images)
        taken = reuse_stages(source, workdir, stages, settings, facts, free=free, main=main_process)
        logging.info("Stages taken over from %s: %s.", source, ", ".join(taken) or "none")
    bound = checkpoint.exist(workdir)
    claim(workdir, settings, facts, free=FREE, main=main_process)
    if main_process and not bound:
        forget_choice(workdir)  # of networks that are not there any more
    if main_process and not (bound and usable_sources(workdir)):
        write_sources(workdir, images)
