"""When the critic learns and when the generator.

A schedule is named in the config, and so can be replaced by one's own: a function of the two
networks' steps that returns the step of the adversarial stage, and the batches that one such step
takes as `batch_dims`, (batches, batch_size).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from engine.method import Metrics, TrainState

Step = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Metrics]]
"""(state, images, rng) -> (state, metrics)."""

Schedule = tuple[Step, tuple[int, int]]
"""The step of the adversarial stage, and its batches as (batches, batch_size)."""


def _critic_steps(
    critic_step: Step, state: TrainState, images: jax.Array, rng: jax.Array
) -> tuple[TrainState, Metrics]:
    """One critic step per batch of `images` [n, B, H, W, C]; metrics are the mean of theirs."""
    rngs = jax.random.split(rng, images.shape[0])
    state, metrics = jax.lax.scan(
        lambda state, inputs: critic_step(state, *inputs),
        state,
        (images, rngs),
    )
    return state, jax.tree.map(jnp.mean, metrics)


def adversarial_step(
    critic_step: Step,
    generator_step: Step,
    state: TrainState,
    images: jax.Array,
    rng: jax.Array,
) -> tuple[TrainState, Metrics]:
    """One critic step per batch of `images` [n_critic, B, H, W, C], then one of the generator."""
    critic_rng, generator_rng = jax.random.split(rng)
    state, critic_metrics = _critic_steps(critic_step, state, images, critic_rng)
    state, generator_metrics = generator_step(state, images[-1], generator_rng)
    return state, {**critic_metrics, **generator_metrics}


def every_n_critic(
    critic_step: Step, generator_step: Step, n_critic: int, batch_size: int, num_images: int
) -> Schedule:
    """Exactly `n_critic` critic updates to one of the generator, across epochs.

    One step of the stage is one update of the generator (Gulrajani et al. 2017, algorithm 1).
    """
    return partial(adversarial_step, critic_step, generator_step), (n_critic, batch_size)


def within_epoch(
    critic_step: Step, generator_step: Step, n_critic: int, batch_size: int, num_images: int
) -> Schedule:
    """The generator follows the critic where i % n_critic == 0, i the batch within the epoch.

    This is what the PyTorch implementation A03ki/f-AnoGAN does, for comparison with it: epochs of
    7 batches have 7 critic updates and 2 of the generator. One step of the stage is one epoch.
    """
    batches = -(-num_images // batch_size)
    turns = range(0, batches, n_critic)

    def step(state, images, rng):
        *turn_rngs, rest_rng = jax.random.split(rng, len(turns) + 1)
        start, logged = 0, []
        for turn, turn_rng in zip(turns, turn_rngs, strict=True):
            group = images[start : turn + 1]
            state, metrics = adversarial_step(critic_step, generator_step, state, group, turn_rng)
            logged.append(metrics)
            start = turn + 1
        if start < batches:
            state, _ = _critic_steps(critic_step, state, images[start:], rest_rng)
        return state, jax.tree.map(lambda *values: jnp.mean(jnp.stack(values)), *logged)

    return step, (batches, batch_size)
