"""The two autoencoders as a method: a stage for each, and one that measures what is usual.

Of Rai et al. (arXiv 2311.16514) are the indicators of appearance and of motion and that each learns
to restore pseudo-anomalies. Their third, semantic one needs a pretrained video model, and is left
out, as are the pretrained inpainting and optical flow. Images of a step are spans [B, H, W, span].
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from engine import parallel
from engine.make import make
from engine.method import (
    Aux,
    LossFn,
    Method,
    Metrics,
    Stage,
    TrainState,
    Variables,
    descend,
    init_state,
)
from engine.optimizer import scheduled_optimizer
from engine.preview import previewed
from video_jax.pseudo import Difference, Pseudo, PseudoFn, moved, seen
from video_jax.score import BRANCHES, Networks, branch_input, residual_maps


def build(config: Any, num_train: int) -> Method:
    """The method that `config` (see configs/video.py) describes; `num_train` does not matter.

    Raises:
      ValueError: frames of a size that the networks do not take, windows of fewer than 3 frames, a
        warm-up as long as the training, or no step.
    """
    del num_train
    length, strides = config.clips.frames, tuple(config.clips.strides)
    if length < 3:
        raise ValueError(
            f"clips.frames={length}: the middle frame of a window needs one before and one after "
            "it: choose 3 or more"
        )
    size = (config.data.image_size, config.data.width)
    networks: dict[str, Any] = {name: make(config[name]) for name in BRANCHES}
    fields = config.pseudo
    pseudo = Pseudo(fields.share, tuple(fields.side), fields.move, tuple(fields.mix))
    how = Difference(config.clips.gain, config.clips.blur)
    makers: dict[str, Any] = {"spatial": seen, "temporal": partial(moved, how=how)}
    stages = tuple(
        _branch_stage(config, name, networks[name], makers[name](pseudo, length, strides), size)
        for name in BRANCHES
    )
    usual = config.statistics.smoothing, how
    return Method(
        (*stages, _statistics_stage(config, networks, length, usual, size)),
        make(config.score, networks, *usual),
    )


def restoration(network: Any, branch: str, pseudo: PseudoFn) -> LossFn:
    """Mean squared error of what the network makes of pseudo-anomalies, against the normal window.

    Metrics: the error inside the masks of pseudo-anomalies, and of all that is outside.
    """

    def loss_fn(variables: Variables, spans: jax.Array, rng: jax.Array) -> tuple[jax.Array, Aux]:
        given, target, mask = pseudo(rng, spans)
        restored, updates = network.apply(
            variables[branch], given, train=True, mutable=["batch_stats"]
        )
        error = jnp.square(restored - target)
        replaced = mask > 0
        metrics = {
            "error_normal": _mean_where(error, ~replaced),
            "error_replaced": _mean_where(error, replaced),
        }
        return jnp.mean(error), Aux(metrics, {branch: updates})

    return loss_fn


def _mean_where(values: jax.Array, chosen: jax.Array) -> jax.Array:
    """Over everyone's windows; 0 where nothing is chosen."""
    total = parallel.gather(jnp.sum(values * chosen, axis=(1, 2, 3)))
    count = parallel.gather(jnp.sum(chosen, axis=(1, 2, 3)))
    return jnp.sum(total) / jnp.maximum(jnp.sum(count), 1)


def _branch_stage(
    config: Any, branch: str, network: Any, pseudo: PseudoFn, size: tuple[int, int]
) -> Stage:
    section = config.training
    steps = _positive(section[f"{branch}_steps"], f"training.{branch}_steps")
    optimizer = scheduled_optimizer(section, steps)
    step = partial(descend, restoration(network, branch, pseudo), optimizer, branch)
    length = config.clips.frames

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        window = branch_input(branch, jnp.zeros((1, *size, length)), Difference())
        return init_state({**variables, branch: network.init(rng, window)}, {branch: optimizer})

    def pictures(variables: Variables, windows: jax.Array) -> Mapping[str, jax.Array]:
        given, _, mask = pseudo(jax.random.key(0), _as_span(windows, config))
        restored = network.apply(variables[branch], given)
        middle = slice(given.shape[-1] // 2, given.shape[-1] // 2 + 1)
        shown = [given[..., middle], restored[..., middle], 2 * mask[..., middle] - 1]
        return {"restored": jnp.concatenate(shown, axis=2)}

    def preview(windows: jax.Array, rng: jax.Array) -> jax.Array:
        spans = _as_span(previewed(windows), config)
        given, _, mask = pseudo(rng, spans)
        middle = slice(given.shape[-1] // 2, given.shape[-1] // 2 + 1)
        return jnp.concatenate([given[..., middle], 2 * mask[..., middle] - 1], axis=2)

    return Stage(branch, init, step, steps, (section.batch_size,), pictures, preview=preview)


def _as_span(windows: jax.Array, config: Any) -> jax.Array:
    """Windows, played to and fro until they are as long as a span: to be looked at alone."""
    span = (config.clips.frames - 1) * max(config.clips.strides) + 1
    there_and_back = jnp.concatenate([windows, windows[..., -2:0:-1]], axis=-1)
    return there_and_back[..., jnp.arange(span) % there_and_back.shape[-1]]


def _statistics_stage(
    config: Any,
    networks: Networks,
    length: int,
    usual_maps: tuple[float, Difference],
    size: tuple[int, int],
) -> Stage:
    """Mean and mean square of each branch's residual at each pixel, over normal training windows.

    Not over the calibration clips: a threshold is a promise about clips that had no say in their
    own score.
    """
    steps = _positive(config.statistics.num_steps, "statistics.num_steps")
    fields = [f"{name}_{what}" for name in BRANCHES for what in ("mean", "square")]

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        del rng
        usual = {field: jnp.zeros(size) for field in fields}
        return TrainState(jnp.zeros((), jnp.int32), {**variables, "statistics": usual}, {})

    def step(state: TrainState, spans: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        del rng
        first = (spans.shape[-1] - length) // 2
        windows = spans[..., first : first + length]
        maps = residual_maps(networks, state.variables, windows, *usual_maps)
        new = {f"{name}_mean": jnp.mean(value, axis=0) for name, value in maps.items()}
        new |= {f"{name}_square": jnp.mean(jnp.square(v), axis=0) for name, v in maps.items()}
        new, old = parallel.mean(new), state.variables["statistics"]
        share = 1 / (state.step + 1.0)
        usual = {field: old[field] + share * (new[field] - old[field]) for field in fields}
        state = dataclasses.replace(state, variables={**state.variables, "statistics": usual})
        return state, {name: jnp.mean(usual[f"{name}_mean"]) for name in BRANCHES}

    def pictures(variables: Variables, windows: jax.Array) -> Mapping[str, jax.Array]:
        del windows
        usual = variables["statistics"]
        shown = {}
        for name in BRANCHES:
            mean = usual[f"{name}_mean"]
            shown[name] = (2 * mean / jnp.maximum(jnp.max(mean), 1e-12) - 1)[None, ..., None]
        return shown

    return Stage("statistics", init, step, steps, (config.training.batch_size,), pictures)


def _positive(steps: int, name: str) -> int:
    if steps < 1:
        raise ValueError(f"{name}={steps} is no step: choose 1 or more")
    return steps
