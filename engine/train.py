"""Trains the stages of a method, one after the other, each resumable from its checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from engine import parallel
from engine.checkpoint import Checkpoints
from engine.logs import TrainingLog
from engine.method import Method, Stage, TrainState, Variables

Batches = Callable[[tuple[int, ...], int, int, tuple[int, int]], Iterator[np.ndarray]]
"""(dims, seed, first step, (process, processes)) -> images [*dims, H, W, C] of each step on.

The batch of step s is a pure function of (seed, s): a resumed run sees the images of an unbroken
one, and no state of an iterator is saved.
"""


class Every(NamedTuple):
    """How many steps lie between two of each."""

    log: int
    save: int
    pictures: int


def due(step: int, every: int, last: int) -> bool:
    """Whether something that happens every `every` steps, and at the last, happens at `step`."""
    return step % every == 0 or step == last


def stage_seed(seed: int, index: int) -> int:
    """The seed of a run's stage: neighbouring seeds share no stage's random numbers."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0])


def check_batches(method: Method) -> None:
    """Finds what is wrong with the last stage's batch before the first stage is trained.

    Raises:
      ValueError: a stage's batch does not divide over the devices.
    """
    for stage in method.stages:
        parallel.local_dims(stage.batch_dims)


def train(
    method: Method, batches: Batches, workdir: str, *, seed: int, every: Every, examples: np.ndarray
) -> Variables:
    """Trains every stage that is not finished yet, and returns all networks.

    Args:
      method: what to train.
      batches: the training images.
      workdir: where checkpoints and logs go, and from where an interrupted run goes on.
      seed: of everything random.
      every: the periods of logging, saving and pictures, in steps.
      examples: held-out normal images [N, H, W, C] for the pictures.

    Raises:
      ValueError: a stage's batch does not divide over the devices.
      FloatingPointError: a loss is not finite; the last checkpoint is from before.
    """
    check_batches(method)
    variables: Variables = {}
    for index, stage in enumerate(method.stages):
        fit_seed = stage_seed(seed, index)
        variables = fit(
            stage, variables, batches, workdir, seed=fit_seed, every=every, examples=examples
        )
    return variables


def fit(
    stage: Stage,
    variables: Variables,
    batches: Batches,
    workdir: str,
    *,
    seed: int,
    every: Every,
    examples: np.ndarray,
) -> Variables:
    """Trains one stage from its newest checkpoint to its last step; see `train`."""
    last = stage.num_steps
    dims = parallel.local_dims(stage.batch_dims)
    with Checkpoints(workdir, stage.name) as checkpoints:
        state = checkpoints.restore(jax.jit(stage.init)(jax.random.key(seed), variables))
        first = int(state.step)
        logging.info("Stage %s: at step %d of %d, batches %s.", stage.name, first, last, dims)
        state = parallel.replicate(state)
        step_fn = parallel.data_parallel(stage.step, seed)
        stream = batches(dims, seed, first, parallel.process())
        with _log(workdir, stage, first) as log:
            for step in range(first + 1, last + 1):
                state, metrics = step_fn(state, next(stream))
                if due(step, every.log, last) or due(step, every.save, last):
                    values = _finite(stage.name, step, jax.device_get(metrics))
                    if log and due(step, every.log, last):
                        log.write(step, values)
                if due(step, every.save, last):
                    checkpoints.save(state)
                if log and due(step, every.pictures, last):
                    log.pictures(step, _pictures(stage, state, examples))
    return jax.device_get(state.variables)


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
            "is kept: lower the learning rate or look at the images"
        )
    return values


def _pictures(stage: Stage, state: TrainState, examples: np.ndarray) -> dict[str, np.ndarray]:
    return jax.device_get(jax.jit(stage.pictures)(jax.device_get(state.variables), examples))
