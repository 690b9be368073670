"""An autoencoder as a method: one stage, one network."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ae_jax.losses import reconstruct
from ae_jax.score import WHOLE_RULES, window_starts
from engine.make import make
from engine.method import (
    Method,
    ScoreFn,
    Stage,
    descend,
    first_line,
    init_state,
    refuse_size,
    shapes_of,
    steps_of,
)
from engine.usual import place_tuning


def build(config: Any, num_train: int) -> Method:
    """The method that `config` (see configs/ae.py) describes, for `num_train` training images.

    An epoch is `config.training.samples` draws from the training images, or, where that is 0, as
    many as there are of them.

    Raises:
      ValueError: a section names nothing, what it names does not take its fields, the images are of
        a size that the network cannot reconstruct, or the epochs are too few for one step.
    """
    side = config.data.crop or config.data.image_size
    network = make(config.autoencoder)
    require_fitting(network, side)
    if "stride" in config.score:
        window_starts(config.data.image_size, side, config.score.stride)
    stage = _stage(config, num_train, network, side)

    def score_with(fields: Mapping[str, Any]) -> ScoreFn:
        score: ScoreFn = make({**config.score, **fields}, network, side)
        return score

    rules = {name: {"image_score": name} for name in WHOLE_RULES}
    tuning = place_tuning(config.tuning, score_with, rules) if "tuning" in config else None
    return Method(stages=(stage,), score=score_with({}), tuning=tuning)


def require_fitting(network: nn.Module, side: int) -> None:
    """Raises ValueError where the network does not reconstruct images of `side` pixels."""
    name = type(network).__name__

    def problem_of(side: int) -> str:
        try:
            height, width = shapes_of(network, (1, side, side, 3)).reconstructions.shape[1:3]
        except (ZeroDivisionError, TypeError, ValueError) as error:
            return f"{name} does not take images of {side} px ({first_line(error)})"
        return "" if height == width == side else f"{name} makes {height} px of {side} px"

    refuse_size(side, problem_of)


def _stage(config: Any, num_train: int, network: nn.Module, side: int) -> Stage:
    section = config.training
    optimizer = make(section.optimizer)
    step = partial(descend, make(section.loss, network), optimizer, "autoencoder")
    num_steps = steps_of(section, num_train)

    def init(rng, variables):
        network_variables = network.init(rng, jnp.zeros((1, side, side, 3)))
        return init_state({"autoencoder": network_variables}, {"autoencoder": optimizer})

    def pictures(variables, images):
        images = images[:, :side, :side]
        output, _ = reconstruct(network, variables, images, train=False)
        return {"reconstructions": jnp.concatenate([images, output.reconstructions], axis=2)}

    return Stage("autoencoder", init, step, num_steps, (section.batch_size,), pictures)
