"""Few-shot detection as stages: `deviation` learns from normal and labelled images.

Where the config has a section `labelled_training`, a stage `autoencoder` comes first, the
self-supervised one of ae_jax, and `deviation` learns on the features of its frozen encoder.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.corruption import CorruptFn
from ae_jax.dilated import DilatedBlock
from ae_jax.method import require_fitting
from ae_jax.self_supervised import (
    autoencoder_stage,
    preview,
)
from engine.make import corruption_of, make
from engine.method import (
    LossFn,
    Method,
    Stage,
    TrainState,
    Variables,
    abstract_key,
    descend,
    first_line,
    init_state,
    refuse_size,
    shapes_of,
    steps_of,
)
from engine.optimizer import scheduled_optimizer
from few_shot_jax.losses import SeeFn
from few_shot_jax.models import Places, enlarged

_NETWORK = "scorer"


def build(config: Any, num_train: int, textures: np.ndarray | None = None) -> Method:
    """The method that `config` (see configs/few_shot.py) describes.

    Args:
      config: `trunk`, `head` and `scorer` are Flax modules, of few_shot_jax.models say;
        `training.loss` is a function of (see, corrupt, **fields).
      num_train: number of normal training images.
      textures: images whose content may replace that of others, uint8 [T, S, S, 3].

    Raises:
      ValueError: images of this size do not fit, or there is nothing defective to learn from:
        neither labelled images nor corruptions.
    """
    side = config.data.crop or config.data.image_size
    scorer = make(config.scorer, make(config.trunk), make(config.head))
    encoder = make(config.autoencoder) if "labelled_training" in config else None
    section = config.labelled_training if encoder else config.training
    corruption = corruption_of(section.corruption if encoder else config.corruption, textures)
    loss = {**section.loss, "corrupted": _corrupted(config, section)}
    if encoder:
        require_fitting(encoder, side)

    def features(variables: Variables, images: jax.Array) -> jax.Array:
        return images if encoder is None else encoded(encoder, variables["averaged"], images)

    def see(variables: Variables, images: jax.Array) -> Places:
        seen: Places = scorer.apply(variables[_NETWORK], features(variables, images))
        return seen

    for each in {side, config.data.image_size}:  # scored are whole images
        refuse_size(each, partial(_problem, config, scorer, encoder))

    def start(rng: jax.Array, variables: Variables) -> Any:
        return scorer.init(rng, features(variables, jnp.zeros((1, side, side, 3))))

    learn = make(loss, see, corruption)
    stage = _deviation_stage(section, num_train, start, see, learn, corruption, side)
    if encoder is None:
        return Method((stage,), make(config.score, see))
    first = corruption_of(config.corruption, textures)
    unsupervised = autoencoder_stage(config, num_train, encoder, first, side)
    return Method((unsupervised, stage), make(config.score, see))


def encoded(autoencoder: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """What the last dilated block of a trained autoencoder says of images: [B, h, w, F].

    It is frozen: batch normalisation uses running averages, and no gradient goes there.
    """
    _, seen = autoencoder.apply(
        variables,
        images,
        train=False,
        capture_intermediates=lambda module, _: isinstance(module, DilatedBlock),
        mutable=["intermediates"],
    )
    blocks = seen["intermediates"]
    last = max(blocks, key=lambda name: int(name.rpartition("_")[2]))
    features: jax.Array = blocks[last]["__call__"][0]
    return features


def _corrupted(config: Any, section: Any) -> float:
    """The share of corruptions among what is learnt as defective; all, where nothing is labelled.

    Raises:
      ValueError: nothing is labelled, and no share is asked for.
    """
    share: float = section.loss.corrupted
    if config.data.labelled.strip() not in ("", "0"):
        return share
    if not share:
        raise ValueError(
            "there is no defect to learn from: name labelled images, --config.data.labelled=10, or "
            "a share of corruptions, --config.training.loss.corrupted=0.5"
        )
    return 1.0


def _problem(config: Any, scorer: nn.Module, encoder: nn.Module | None, side: int) -> str:
    """What is wrong with images of `side` pixels; '' if nothing."""
    try:
        shape: tuple[int, ...] = (1, side, side, 3)
        if encoder is not None:
            image = jax.ShapeDtypeStruct(shape, jnp.float32)
            variables = jax.eval_shape(encoder.init, abstract_key(), image)
            shape = jax.eval_shape(partial(encoded, encoder), variables, image).shape
        shapes_of(scorer, shape)
    except (ZeroDivisionError, TypeError, ValueError) as error:
        return f"the networks do not take images of {side} px ({first_line(error)})"
    return ""


def _deviation_stage(
    section: Any,
    num_train: int,
    start: Callable[[jax.Array, Variables], Any],
    see: SeeFn,
    loss: LossFn,
    corrupt: CorruptFn,
    side: int,
) -> Stage:
    num_steps = steps_of(section, num_train)
    optimizer = scheduled_optimizer(section, num_steps)

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        return init_state({**variables, _NETWORK: start(rng, variables)}, {_NETWORK: optimizer})

    def pictures(variables: Variables, images: jax.Array) -> Mapping[str, jax.Array]:
        images = images[:, :side, :side]
        maps = enlarged(see(variables, images).map, images.shape[1:3])
        maps = 2 * maps / jnp.maximum(maps.max(), 1e-6) - 1  # one scale for all
        return {"maps": jnp.concatenate([images, jnp.repeat(maps[..., None], 3, -1)], axis=2)}

    return Stage(
        "deviation",
        init,
        partial(descend, loss, optimizer, _NETWORK),
        num_steps,
        (2, section.batch_size),
        pictures,
        preview=partial(preview, corrupt, side),
        labelled=True,
    )
