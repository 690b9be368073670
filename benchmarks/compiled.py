"""A step or a score of ours, compiled ahead of its first call, with what that cost."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import roofline
from engine import parallel


class Compiled(NamedTuple):
    """A program of ours on the device; `run` returns when the device has done it."""

    run: Callable[[], None]
    cost: roofline.Cost
    compile_seconds: float
    text: str  # what XLA made of it


def training(step: Callable, state: Any, images: np.ndarray) -> Compiled:
    """One training step, as engine/train.py runs it, on images [B, H, W, C] that every device has.

    `run` goes on from the state that it left.
    """
    run = parallel.data_parallel(step, 0, lambda held, sent: held)
    held = parallel.replicate(jnp.asarray(images))
    sent = np.zeros((jax.local_device_count(), 1), np.int32)
    latest = [parallel.replicate(jax.tree.map(jnp.array, state))]
    lowered = run.lower(latest[0], held, sent)
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start

    def one() -> None:
        latest[0], metrics = program(latest[0], held, sent)
        jax.block_until_ready((latest[0], metrics))

    return Compiled(one, roofline.cost_of(lowered, program), seconds, program.as_text())


def scoring(score: Callable, variables: Any, images: np.ndarray) -> Compiled:
    """`score` of images [B, H, W, C] in [-1, 1], which come from the host."""
    lowered = jax.jit(score).lower(variables, images)
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start
    cost = roofline.cost_of(lowered, program)

    def one() -> None:
        jax.block_until_ready(program(variables, images))

    return Compiled(one, cost, seconds, program.as_text())
