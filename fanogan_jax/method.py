"""f-AnoGAN as stages: `gan` trains generator and critic, `encoder` the inverse of the generator.

AnoGAN is the first stage alone, with a score that searches for what the encoder would say.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from engine.make import make
from engine.method import (
    Method,
    ScoreFn,
    Stage,
    Tuning,
    descend,
    first_line,
    init_state,
    refuse_size,
    shapes_of,
    steps_of,
)
from engine.usual import place_tuning
from fanogan_jax.losses import reconstruct
from fanogan_jax.models import Networks
from fanogan_jax.score import RULES


def build(config: Any, num_train: int) -> Method:
    """The method that `config` (see configs/fanogan.py) describes.

    `num_train`, the number of training images, turns epochs into steps.

    Raises:
      ValueError: a section names nothing, what it names does not take its fields, the networks do
        not take images of that size, or the epochs are too few for one step.
    """
    refuse_size(config.data.image_size, partial(_problem, config))
    networks = _networks(config, config.data.image_size)
    stages = (
        _gan_stage(config, num_train, networks),
        _encoder_stage(config, num_train, networks),
    )
    rules = {name: {"image_score": name} for name in RULES}
    return Method(stages, *_scored(config, networks, rules))


def build_anogan(config: Any, num_train: int) -> Method:
    """The method that `config` (see configs/anogan.py) describes; like `build`, but no encoder.

    Raises:
      ValueError: as `build`.
    """
    refuse_size(config.data.image_size, partial(_problem, config))
    networks = _networks(config, config.data.image_size)
    return Method((_gan_stage(config, num_train, networks),), *_scored(config, networks, {"A": {}}))


def _scored(
    config: Any, networks: Networks, rules: Mapping[str, Mapping[str, Any]]
) -> tuple[ScoreFn, Tuning | None]:
    """The score, and what the section `tuning` leaves open of it, if there is one."""

    def score_with(fields: Mapping[str, Any]) -> ScoreFn:
        score: ScoreFn = make({**config.score, **fields}, networks)
        return score

    tuning = place_tuning(config.tuning, score_with, rules) if "tuning" in config else None
    return score_with({}), tuning


def _networks(config: Any, side: int) -> Networks:
    return Networks(
        generator=make(config.generator, side),
        critic=make(config.critic),
        encoder=make(config.encoder, config.latent) if "encoder" in config else None,
        latent=config.latent,
    )


def _problem(config: Any, side: int) -> str:
    """What is wrong with images of `side` pixels; '' if nothing."""
    generator, *others = _networks(config, side)[:3]
    image = (1, side, side, 3)
    try:
        generated = shapes_of(generator, (1, config.latent)).shape
        for network in filter(None, others):
            shapes_of(network, image)
    except (ZeroDivisionError, TypeError, ValueError) as error:
        return f"the networks do not take images of {side} px ({first_line(error)})"
    if generated == image:
        return ""
    return f"{type(generator).__name__} makes {generated[1]} px of {side} px"


def _blank(config: Any) -> jax.Array:
    return jnp.zeros((1, config.data.image_size, config.data.image_size, 3))


def _gan_stage(config: Any, num_train: int, networks: Networks) -> Stage:
    section = config.gan
    optimizers = {
        "critic": make(section.critic_optimizer),
        "generator": make(section.generator_optimizer),
    }
    losses = {
        "critic": make(section.critic_loss, networks),
        "generator": make(section.generator_loss, networks),
    }
    steps = {name: partial(descend, losses[name], optimizers[name], name) for name in losses}
    step, batch_dims = make(
        section.schedule,
        steps["critic"],
        steps["generator"],
        section.n_critic,
        section.batch_size,
        num_train,
    )

    def init(rng, variables):
        latents, image = jnp.zeros((1, networks.latent)), _blank(config)
        generator_rng, critic_rng = jax.random.split(rng)
        generator = networks.generator.init(generator_rng, latents)
        critic = networks.critic.init(critic_rng, image)
        return init_state({**variables, "generator": generator, "critic": critic}, optimizers)

    def pictures(variables, images):
        # The same latents at every step, so that one sees the generator change.
        latents = jax.random.normal(jax.random.key(0), (images.shape[0], networks.latent))
        return {"samples": networks.generator.apply(variables["generator"], latents)}

    num_steps = steps_of(section, num_train, batch_dims[0])
    return Stage("gan", init, step, num_steps, batch_dims, pictures)


def _encoder_stage(config: Any, num_train: int, networks: Networks) -> Stage:
    section = config.encoding
    optimizer = make(section.optimizer)
    step = partial(descend, make(section.loss, networks), optimizer, "encoder")
    batch_dims = (section.batch_size,)

    def init(rng, variables):
        encoder = networks.encoder.init(rng, _blank(config))
        return init_state({**variables, "encoder": encoder}, {"encoder": optimizer})

    def pictures(variables, images):
        reconstructions, _ = reconstruct(networks, variables, images, train=False)
        return {"reconstructions": jnp.concatenate([images, reconstructions], axis=2)}

    num_steps = steps_of(section, num_train)
    return Stage("encoder", init, step, num_steps, batch_dims, pictures)
