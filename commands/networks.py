"""Trains a run's networks in a workdir that is bound to its config and images."""

import json

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from commands import inputs
from commands.runs import LABELLED_FIELDS, free_of, refuse_changed, whole_path
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
    few = splits.labelled and np.asarray(splits.labelled.images)
    training = inputs.training_batches(config, splits.train.images, few)
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
    settings, main_process, free = config.to_dict(), parallel.is_main(), free_of(config, method)
    hosts.require_same(json.dumps([settings, facts]), "the config and the images")
    refuse_changed(workdir, facts, images)
    claim(workdir, settings, facts, free=free, main=False)
    if reuse:
        # Those that learn from labelled images are trained anew: others may be labelled now.
        rest = [stage for stage in method.stages if not stage.labelled] or method.stages
        stages = {stage.name: stage.num_steps for stage in rest}
        source = whole_path(reuse)
        refuse_changed(source, facts, images)
        others = (*free, *_NO_STAGES, *(() if rest is method.stages else LABELLED_FIELDS))
        taken = reuse_stages(
            source, workdir, stages, settings, facts, free=others, main=main_process
        )
        logging.info("Stages taken over from %s: %s.", source, ", ".join(taken) or "none")
    bound = checkpoint.exist(workdir)
    claim(workdir, settings, facts, free=free, main=main_process)
    if main_process and not bound:
        forget_choice(workdir)  # of networks that are not there any more
    if main_process and not (bound and usable_sources(workdir)):
        write_sources(workdir, images)
