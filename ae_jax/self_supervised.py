"""The self-supervised autoencoder as a method: it learns to restore corrupted normal images.

Bauer, Nakajima, Müller 2024, arXiv 2206.11723. One stage. Its network learns under the name
'autoencoder'; 'averaged' is the exponential moving average of its parameters and of its batch
normalisation's averages, and what scores. With a head (ae_jax/head.py) both learn together in that
stage, or the head alone in a second one, as 'head' and 'averaged_head'.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.corruption import CorruptFn
from ae_jax.head import Restorer
from ae_jax.losses import over_images, reconstruct, region_means
from ae_jax.method import require_fitting
from ae_jax.score import anomaly_map
from engine import residuals
from engine.make import corruption_of, make
from engine.map_score import of_map
from engine.method import (
    Method,
    Metrics,
    Score,
    ScoreFn,
    Stage,
    TrainState,
    Tuning,
    Variables,
    average,
    descend,
    init_state,
    refuse_batch,
    steps_of,
)
from engine.optimizer import scheduled_optimizer
from engine.preview import pairs, previewed
from engine.usual import Cells, by_place, measured_usual


def build(config: Any, num_train: int, textures: np.ndarray | None = None) -> Method:
    """The method that `config` (see configs/ssae.py) describes, for `num_train` training images.

    Args:
      config: `corruption` is a function of (textures, **fields) that gives a
        `ae_jax.corruption.CorruptFn`, `training.loss` one of (network, corrupt, **fields).
      textures: images whose content may replace that of others, uint8 [T, S, S, 3].

    Raises:
      ValueError: as `ae_jax.build`; a warm-up as long as the training; no autoencoder, and no head
        that scores alone.
    """
    side = config.data.crop or config.data.image_size
    autoencoder: Any = make(config.autoencoder) if config.autoencoder.fn else None
    network: Any = Restorer(autoencoder, make(config.head)) if "head" in config else autoencoder
    if autoencoder is None and ("head" not in config or config.score.map != "head"):
        raise ValueError(
            "autoencoder.fn is empty, so that a head alone learns: add a section `head`, and "
            "--config.score.map=head"
        )
    for each in {side, config.data.image_size}:  # scored are whole images
        require_fitting(network, each)
    corrupt: CorruptFn = corruption_of(config.corruption, textures)
    if "head_training" in config:
        corrupt_for_head = corruption_of(config.head_training.corruption, textures)
        stages: tuple[Stage, ...] = (
            autoencoder_stage(config, num_train, autoencoder, corrupt, side),
            _head_stage(config, num_train, network, corrupt_for_head, side),
        )
    else:
        stages = (autoencoder_stage(config, num_train, network, corrupt, side),)

    def score_with(fields: Mapping[str, Any]) -> ScoreFn:
        score = make({**config.score, **fields}, network)
        return lambda variables, images: score(_averaged(variables), images)

    return Method(stages, score_with({}), _tuning(config.tuning, network, score_with))


def _averaged(variables: Variables) -> Variables:
    """The variables with the averages in the place of the networks that learn."""
    averaged = variables["averaged"]
    if "averaged_head" in variables:  # the two stages' networks, as one `Restorer` has them
        head = variables["averaged_head"]
        averaged = {name: {"autoencoder": averaged[name], "head": head[name]} for name in averaged}
    return {"autoencoder": averaged}


def autoencoder_stage(
    config: Any, num_train: int, network: nn.Module, corrupt: CorruptFn, side: int
) -> Stage:
    """All that there is learns together, as 'autoencoder' and, on average, 'averaged'."""

    def start(rng: jax.Array, variables: Variables) -> Variables:
        return {"autoencoder": network.init(rng, jnp.zeros((1, side, side, 3)))}

    return _trained(
        "autoencoder", "averaged", config.training, num_train, network, corrupt, side, start
    )


def _head_stage(
    config: Any, num_train: int, network: Restorer, corrupt: CorruptFn, side: int
) -> Stage:
    """The head alone learns, from what the averaged autoencoder of the first stage restores."""

    def start(rng: jax.Array, variables: Variables) -> Variables:
        image = jnp.zeros((1, side, side, 3))
        return {**variables, "head": network.head.init(rng, image, image)}

    return _trained(
        "head", "averaged_head", config.head_training, num_train, network, corrupt, side, start
    )


def _trained(
    name: str,
    averaged: str,
    section: Any,
    num_train: int,
    network: nn.Module,
    corrupt: CorruptFn,
    side: int,
    start: Callable[[jax.Array, Variables], Variables],
) -> Stage:
    """A stage in which the network `name`, which is among what `start` gives, learns."""
    num_steps = steps_of(section, num_train)
    optimizer = scheduled_optimizer(section, num_steps)
    loss = make(section.loss, network, corrupt)
    refuse_batch(corrupt, section.batch_size, side)

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        networks = start(rng, variables)
        copy = jax.tree.map(jnp.copy, networks[name])
        return init_state({**networks, averaged: copy}, {name: optimizer})

    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        state, metrics = descend(loss, optimizer, name, state, images, rng)
        return average(state, section.averaging, name, averaged), metrics

    return Stage(
        name,
        init,
        step,
        num_steps,
        (section.batch_size,),
        partial(_pictures, network, corrupt, side),
        checks=partial(checks, network, corrupt, side),
        preview=partial(preview, corrupt, side),
    )


def _pictures(
    network: nn.Module, corrupt: CorruptFn, side: int, variables: Variables, images: jax.Array
) -> dict[str, jax.Array]:
    """Images and corrupted ones beside what becomes of them, and where the head sees defects."""
    images = images[:, :side, :side]
    corrupted, mask = corrupt(jax.random.key(0), images)

    def row(images: jax.Array, *more: jax.Array) -> jax.Array:
        output, _ = reconstruct(network, _averaged(variables), images, train=False)
        shown = [images, output.reconstructions, *more]
        if output.logits is not None:
            shown.append(_as_image(jax.nn.sigmoid(output.logits)))
        return jnp.concatenate(shown, axis=2)

    return {"reconstructions": row(images), "restored": row(corrupted, _as_image(mask))}


def _tuning(
    section: Any,
    network: nn.Module,
    score_with: Callable[[Mapping[str, Any]], ScoreFn],
    usual: Sequence[Cells] = (),
) -> Tuning:
    """Each map and smoothing, over what is `usual` of it or not, and each image score.

    Where the config names a corruption, defects are as in training, but single, small and faint.
    """
    tops = {f"top {share}": share for share in section.tops}
    kinds: list[dict[str, Any]] = [{"smoothing": sigma} for sigma in section.smoothing]
    if "maps" in section:
        kinds = [{"map": name, **fields} for name in section.maps for fields in kinds]
    settings, constants = by_place(kinds, section.get("normalise", ("none",)), usual)

    def scores_of(
        fields_of_each: Sequence[Mapping[str, Any]], variables: Variables, images: jax.Array
    ) -> tuple[Score, ...]:
        output, _ = reconstruct(network, _averaged(variables), images, train=False)
        names = {fields.get("map", "residual") for fields in fields_of_each}
        maps = {name: anomaly_map(name, images, output) for name in sorted(names)}
        return tuple(
            of_map(
                maps[fields.get("map", "residual")],
                fields["smoothing"],
                tops,
                fields.get("usual", ()),
            )
            for fields in fields_of_each
        )

    def maps_of(variables: Variables, images: jax.Array) -> list[jax.Array]:
        return [score.map for score in scores_of(kinds, variables, images)]

    def measured(variables: Variables, images: jax.Array, training: jax.Array) -> Tuning:
        del images
        return _tuning(section, network, score_with, measured_usual(maps_of, variables, training))

    return Tuning(
        corrupt=make(section.corruption, None) if "corruption" in section else None,
        settings=settings,
        rules={
            "max": {"image_score": "max"},
            **{name: {"image_score": "top", "top": share} for name, share in tops.items()},
            "sum": {"image_score": "sum"},
        },
        scores=partial(scores_of, [{**a, **b} for a, b in zip(settings, constants, strict=True)]),
        score=score_with,
        measured=measured if "pixel" in section.get("normalise", ()) else None,
        constants=constants,
    )


def checks(
    network: nn.Module,
    corrupt: CorruptFn,
    side: int,
    variables: Variables,
    images: jax.Array,
    rng: jax.Array,
) -> Metrics:
    """What the theory says of the network f, on images x [B, H, W, C] and their corruptions y.

    f should be the orthogonal projection onto normal images (arXiv 2206.11723): clean pixels stay
    and corrupted ones are restored, f(f(x)) is f(x), and the residual of y lies inside the mask.

    Returns:
      `error_clean`, `error_corrupted`: mean squared f(y) - x outside and inside the mask;
      `error_unchanged`: that of f(x) - x; `idempotence`: root of the mean squared f(f(x)) - f(x);
      `residual_inside`: mean squared f(y) - y inside the mask; conservation is that it is far above
      the residual outside, which is `error_clean`, as y is x there. Means over images that have
      such pixels.
    """
    images = images[:, :side, :side]

    def f(x: jax.Array) -> jax.Array:
        return reconstruct(network, _averaged(variables), x, train=False)[0].reconstructions

    corrupted, mask = corrupt(rng, images)
    inside = mask > 0
    once, restored = f(images), f(corrupted)

    def errors(target: jax.Array) -> tuple[jax.Array, jax.Array]:
        return over_images(region_means(residuals.squared(restored, target), inside), inside)

    (error_clean, error_corrupted), (_, residual_inside) = errors(images), errors(corrupted)
    return {
        "error_clean": error_clean,
        "error_corrupted": error_corrupted,
        "error_unchanged": jnp.mean(residuals.squared(once, images)),
        "idempotence": jnp.sqrt(jnp.mean(residuals.squared(f(once), once))),
        "residual_inside": residual_inside,
    }


def preview(corrupt: CorruptFn, side: int, images: jax.Array, rng: jax.Array) -> jax.Array:
    """64 corruptions of images [B, H, W, C], beside their masks: [64, h, 2 h, C], small."""
    corrupted, mask = corrupt(rng, previewed(images)[:, :side, :side])
    return pairs(corrupted, _as_image(mask))


def _as_image(mask: jax.Array) -> jax.Array:
    """A mask [B, H, W] from 0 to 1 as a grey image [B, H, W, 3]."""
    return jnp.repeat(2 * mask[..., None] - 1, 3, axis=-1)
