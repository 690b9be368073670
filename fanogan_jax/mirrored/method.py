"""AMA as a stage: `mirrored` trains the critic of pairs, and the autoencoder against it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from engine import residuals
from engine.make import make
from engine.method import (
    LossFn,
    Method,
    Metrics,
    Score,
    ScoreFn,
    Stage,
    TrainState,
    Tuning,
    Variables,
    descend,
    first_line,
    init_state,
    refuse_size,
    shapes_of,
    steps_of,
)
from engine.usual import Cells, by_place, measured_usual, over_usual
from fanogan_jax.mirrored.losses import pair
from fanogan_jax.mirrored.models import AutoEncoder, MirroredNetworks
from fanogan_jax.mirrored.score import mirrored_terms, two_sided_score


def build(config: Any, num_train: int) -> Method:
    """The method that `config` (see configs/ama.py) describes.

    `num_train`, the number of training images, turns epochs into steps.

    Raises:
      ValueError: a section names nothing, what it names does not take its fields, the networks do
        not take images of that size, or the epochs are too few for one step.
    """
    side = config.data.image_size
    refuse_size(side, partial(_problem, config))
    networks = _networks(config, side)

    def score_with(fields: Mapping[str, Any]) -> ScoreFn:
        score: ScoreFn = make({**config.score, **fields}, networks)
        return score

    return Method(
        stages=(_stage(config, num_train, networks),),
        score=score_with({}),
        tuning=_tuning(config.tuning, networks, score_with),
    )


def _networks(config: Any, side: int) -> MirroredNetworks:
    encoder, generator = make(config.encoder, config.latent), make(config.generator, side)
    return MirroredNetworks(AutoEncoder(encoder, generator), make(config.critic))


def _problem(config: Any, side: int) -> str:
    """What is wrong with images of `side` pixels; '' if nothing."""
    networks, image = _networks(config, side), (1, side, side, 3)
    try:
        made = shapes_of(networks.autoencoder, image)[0].shape
        shapes_of(networks.critic, (1, side, side, 6))
    except (ZeroDivisionError, TypeError, ValueError) as error:
        return f"the networks do not take images of {side} px ({first_line(error)})"
    return "" if made == image else f"the autoencoder makes {made[1]} px of {side} px"


def _stage(config: Any, num_train: int, networks: MirroredNetworks) -> Stage:
    section, side = config.gan, config.data.image_size
    pairs_of = make(section.pairs, networks)
    losses: Mapping[str, LossFn] = {
        "critic": make(section.critic_loss, networks, pairs_of),
        "autoencoder": make(section.autoencoder_loss, networks, pairs_of),
    }
    optimizers = {
        "critic": make(section.critic_optimizer),
        "autoencoder": make(section.autoencoder_optimizer),
    }
    steps = {
        name: partial(_descend, losses[name], optimizers[name], name, section.atypical_start)
        for name in losses
    }
    step, batch_dims = make(
        section.schedule,
        steps["critic"],
        steps["autoencoder"],
        section.n_critic,
        section.batch_size,
        num_train,
    )

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        autoencoder_rng, critic_rng = jax.random.split(rng)
        image = jnp.zeros((1, side, side, 3))
        autoencoder = networks.autoencoder.init(autoencoder_rng, image)
        critic = networks.critic.init(critic_rng, pair(image, image))
        return init_state({"autoencoder": autoencoder, "critic": critic}, optimizers)

    def pictures(variables: Variables, images: jax.Array) -> Mapping[str, jax.Array]:
        outputs: Any = networks.autoencoder.apply(variables["autoencoder"], images)
        return {"reconstructions": jnp.concatenate([images, outputs[0]], axis=2)}

    num_steps = steps_of(section, num_train, batch_dims[0])
    return Stage("mirrored", init, step, num_steps, batch_dims, pictures)


def _descend(
    loss: LossFn,
    optimizer: Any,
    network: str,
    atypical_start: int,
    state: TrainState,
    images: jax.Array,
    rng: jax.Array,
) -> tuple[TrainState, Metrics]:
    """`descend`, without atypical images before the step from which on there are some."""
    if atypical_start:
        on = {"atypical_on": state.step >= atypical_start}
        loss = partial(loss, **on)
    return descend(loss, optimizer, network, state, images, rng)


def _tuning(
    section: Any,
    networks: MirroredNetworks,
    score_with: Any,
    measured: Mapping[str, float] | None = None,
    usual: Sequence[Cells] = (),
) -> Tuning:
    """Each map and smoothing, over what is `usual` of it or not; one-sided or two-sided.

    That by the `measured` mean and deviation.
    """
    kinds = [
        {"map_of": name, "smoothing": sigma}
        for name in section.maps_of
        for sigma in section.smoothing
    ]
    normalise = section.get("normalise", ("none",))
    settings, constants = by_place(kinds, normalise, usual)
    known = measured or {"mean": 0.0, "deviation": 1.0}

    def smoothed(maps: Mapping[str, jax.Array]) -> list[jax.Array]:
        return [residuals.smooth(maps[each["map_of"]], each["smoothing"]) for each in kinds]

    def scores(variables: Variables, images: jax.Array) -> tuple[Score, ...]:
        one_sided, maps, _ = mirrored_terms(networks, variables, images)
        terms = {"one": one_sided, "two": two_sided_score(one_sided, **known)}
        each = zip(smoothed(maps) * len(normalise), constants, strict=True)
        return tuple(
            Score(one_sided, over_usual(values, more.get("usual", ())), terms)
            for values, more in each
        )

    def maps_of(variables: Variables, images: jax.Array) -> list[jax.Array]:
        return smoothed(mirrored_terms(networks, variables, images)[1])

    def measure(variables: Variables, images: jax.Array, training: jax.Array) -> Tuning:
        one_sided = jax.jit(partial(mirrored_terms, networks))(variables, images)[0]
        # Good images that all score alike give no scale: their deviation must not be 0.
        deviation = max(float(jnp.std(one_sided)), 1e-6)
        moments = {"mean": float(jnp.mean(one_sided)), "deviation": deviation}
        seen = measured_usual(maps_of, variables, training) if "pixel" in normalise else ()
        return _tuning(section, networks, score_with, moments, seen)

    sides = {"one": {"two_sided": False}, "two": {"two_sided": True}}
    return Tuning(
        corrupt=None,
        settings=settings,
        rules={side: {**sides[side], **known} for side in section.sides},
        scores=scores,
        score=score_with,
        measured=measure,
        constants=constants,
    )
