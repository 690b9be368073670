"""Trains the stages of a method, one after the other, each resumable from its checkpoints."""

import logging as python_logging
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from engine import hosts, parallel, preemption
from engine.batches import Batches
from engine.checkpoint import Checkpoints
from engine.log import TrainingLog
from engine.method import Method, Stage, TrainState, Variables

_LARGEST_GROUP = 100  # steps of a dispatch, where nothing happens between them


class Every(NamedTuple):
    """How many steps lie between two of each; 0: it happens at a stage's last step alone."""

    log: int
    save: int
    pictures: int


def due(step: int, every: int, last: int) -> bool:
    """Whether something that happens every `every` steps, and at the last, happens at `step`."""
    return step == last or (every > 0 and step % every == 0)


def dispatches(first: int, last: int, every: Every, *, grouped: bool) -> Iterator[tuple[int, int]]:
    """Cuts the steps after `first`, to `last`, into dispatches: (the last step of one, its size).

    One step each on CPU, where a dispatch costs nothing beside a step, and where what is sent is
    large (not `grouped`). Elsewhere as many as lie between two events of `every`, so that each
    event still meets its step; what does not fill a group goes step by step.
    """
    together = math.gcd(*every) or _LARGEST_GROUP
    group = together if grouped and not parallel.on_cpu() else 1
    step = first
    while step < last:
        size = group if step % group == 0 and step + group <= last else 1
        step += size
        yield step, size


def stage_seed(seed: int, index: int) -> int:
    """The seed of a run's stage: neighbouring seeds share no stage's random numbers."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0])


def require_divisible(method: Method) -> None:
    """Finds what is wrong with the last stage's batch before the first stage is trained.

    Raises:
      ValueError: a stage's batch does not divide over the devices.
    """
    for stage in method.stages:
        parallel.local_dims(stage.batch_dims)


def train_stages(
    method: Method,
    batches: Batches,
    workdir: str,
    *,
    seed: int,
    every: Every,
    examples: np.ndarray,
) -> Variables:
    """Trains every stage that is not finished yet, and returns all networks.

    Args:
      method: what to train.
      batches: the training images.
      workdir: where checkpoints and logs go, and from where an interrupted run goes on.
      seed: of everything random.
      every: the periods of logging, saving and pictures, in steps.
      examples: calibration images [N, H, W, C] for the pictures.

    Raises:
      ValueError: a stage's batch does not divide over the devices.
      FloatingPointError: a loss is not finite; the last checkpoint is from before.
      OSError: a checkpoint cannot be written; those before are kept.
      SystemExit, KeyboardInterrupt: after SIGTERM and SIGINT; what was trained is saved.
    """
    require_divisible(method)
    batches = batches._replace(held=parallel.replicate(batches.held))
    variables: Variables = {}
    for index, stage in enumerate(method.stages):
        variables = train_stage(
            stage,
            variables,
            batches,
            workdir,
            seed=stage_seed(seed, index),
            every=every,
            examples=examples,
        )
    return variables


def train_stage(
    stage: Stage,
    variables: Variables,
    batches: Batches,
    workdir: str,
    *,
    seed: int,
    every: Every,
    examples: np.ndarray,
) -> Variables:
    """Trains one stage from its newest checkpoint to its last step; see `train_stages`."""
    last = stage.num_steps
    with preemption.deferred() as asked, Checkpoints(workdir, stage.name) as checkpoints:
        state = checkpoints.restore(jax.jit(stage.init)(jax.random.key(seed), variables))
        first = int(state.step)
        state = parallel.replicate(state)
        step_fn = parallel.data_parallel(stage.step, seed, batches.images)
        sent = _sent(stage, batches, seed, first, every)
        logged = False
        with _log(workdir, stage, first) as log:
            if log and stage.preview and not first:
                log.preview(jax.device_get(jax.jit(stage.preview)(examples, jax.random.key(seed))))
            following = next(sent, None)
            while following:
                step, arrays = following
                state, metrics = step_fn(state, batches.held, arrays)
                following = next(sent, None)  # drawn while the devices are at work
                if not logged:
                    jax.block_until_ready(metrics)
                    _tell_first(stage.name, step)
                    logged = True
                if due(step, every.log, last) or due(step, every.save, last):
                    values = _finite(stage.name, step, jax.device_get(metrics))
                    if log and due(step, every.log, last):
                        if due(step, every.pictures, last):
                            values |= _checks(stage, state, examples)
                        log.write(step, values)
                if due(step, every.save, last):
                    checkpoints.save(state)
                if log and due(step, every.pictures, last):
                    log.pictures(step, _pictures(stage, state, examples))
                checkpoints.check()
                if signal := asked(step):
                    checkpoints.save(state)
                    checkpoints.wait()
                    hosts.barrier("stopped")
                    preemption.stop(signal, f" at step {step} of stage {stage.name}, saved")
    hosts.barrier(f"{stage.name} is saved")
    trained: Variables = jax.device_get(state.variables)
    return trained


def _tell_first(stage: str, step: int) -> None:
    """Python's logging, which is loaded with the program, knows how long ago that was."""
    seconds = python_logging.makeLogRecord({}).relativeCreated / 1000
    text = "Stage %s: step %d done %.1f s after the program's start."
    logging.info(text, stage, step, seconds)


def _sent(
    stage: Stage, batches: Batches, seed: int, first: int, every: Every
) -> Iterator[tuple[int, Any]]:
    """(Last step, arrays [local devices, steps, ...]) of each dispatch after step `first`."""
    dims, last = parallel.local_dims(stage.batch_dims), stage.num_steps
    logging.info("Stage %s: at step %d of %d, batches %s.", stage.name, first, last, dims)
    source = batches.labelled if stage.labelled else batches.sent
    assert source, f"stage {stage.name} learns from labelled images, and there are no batches of it"
    stream = source(dims, seed, first, parallel.process())
    for step, size in dispatches(first, last, every, grouped=batches.grouped):
        steps = [next(stream) for _ in range(size)]
        yield step, jax.tree.map(lambda *arrays: np.stack(arrays, axis=1), *steps)


def _log(workdir: str, stage: Stage, first: int) -> AbstractContextManager[TrainingLog | None]:
    """The stage's log on the main process, and none elsewhere."""
    if not parallel.is_main():
        return nullcontext()
    return TrainingLog(workdir, stage.name, first_step=first, num_steps=stage.num_steps)


def _finite(stage: str, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    wrong = [f"{name} is {value}" for name, value in values.items() if not np.isfinite(value)]
    if wrong:
        raise FloatingPointError(
            f"stage {stage}, step {step}: {', '.join(wrong)}; stopped, the last finite checkpoint "
            "is kept: train into another workdir with a lower learning rate, or look at the images"
        )
    return values


def _checks(stage: Stage, state: TrainState, examples: np.ndarray) -> dict[str, float]:
    """The stage's checks on the examples, with one key for all steps."""
    if stage.checks is None:
        return {}
    checks = jax.jit(stage.checks)(jax.device_get(state.variables), examples, jax.random.key(0))
    return {f"held_out_{name}": float(value) for name, value in checks.items()}


def _pictures(stage: Stage, state: TrainState, examples: np.ndarray) -> dict[str, np.ndarray]:
    pictures: dict[str, np.ndarray] = jax.device_get(
        jax.jit(stage.pictures)(jax.device_get(state.variables), examples)
    )
    return pictures
