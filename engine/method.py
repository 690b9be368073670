"""What a method is: stages that train and a function that scores, all of them values.

Notation: `B` images per device, `H` x `W` pixels, `C` channels. Images are float32 in [-1, 1];
scores are float32, higher = more anomalous.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from engine import parallel

_SEARCHED = 65  # pixels about a size within which others are looked for

Variables = Mapping[str, Mapping[str, Any]]
"""Network -> collections ('params', 'batch_stats'), as Flax's `init` gives them."""

Metrics = Mapping[str, jax.Array]
"""Name -> scalar."""


class Aux(NamedTuple):
    """What a loss says besides its value."""

    metrics: Metrics = {}  # noqa: RUF012 (JAX takes plain dicts, and nobody writes into it)
    updates: Variables = {}  # noqa: RUF012 (JAX takes plain dicts, and nobody writes into it)
    """Network -> the collections that the loss changed, such as {'batch_stats': ...}."""


LossFn = Callable[[Variables, jax.Array, jax.Array], tuple[jax.Array, Aux]]
"""(variables, images [B, H, W, C], rng) -> (scalar, a mean over images; Aux).

The key is the same on all devices, so that the noise does not depend on their number. What is drawn
for each image is taken from the draw for everyone's images:
`parallel.share(lambda n: jax.random.normal(rng, (n, 8)), images.shape[0])`.
"""


@flax.struct.dataclass
class TrainState:
    """The arrays that a training run carries from step to step, and all that it saves."""

    step: jax.Array
    variables: Variables
    opt_state: Mapping[str, optax.OptState]


class Score(NamedTuple):
    """What scoring says of a batch of images."""

    image: jax.Array  # [B]
    map: jax.Array  # [B, H, W]
    terms: Mapping[str, jax.Array] = {}  # the parts of the image score, [B] each
    reconstruction: jax.Array | None = None  # [B, H, W, C]


class Stage(NamedTuple):
    """One training run: a start, a step, and how often."""

    name: str
    init: Callable[[jax.Array, Variables], TrainState]  # (rng, variables of the stages before)
    step: Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Metrics]]
    num_steps: int
    batch_dims: tuple[int, ...]  # of one step's images; the last is the global batch
    pictures: Callable[[Variables, jax.Array], Mapping[str, jax.Array]]
    """(variables, calibration images [B, H, W, C]) -> name -> images to look at in training."""
    checks: Callable[[Variables, jax.Array, jax.Array], Metrics] | None = None
    """(variables, calibration images [B, H, W, C], rng) -> what the networks are like there."""
    preview: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    """(calibration images [B, H, W, C], rng) -> 64 images: what the stage makes of its input."""
    labelled: bool = False
    """Whether a step's images are of two rows, batch_dims (2, batch): [0] normal ones and [1]
    labelled defective ones, or, where the run has none of these, normal ones again."""


ScoreFn = Callable[[Variables, jax.Array], Score]
"""(variables, images [B, H, W, C]) -> what scoring says of them."""


class Tuning(NamedTuple):
    """What scoring leaves open, and made-up defects on which it can be chosen."""

    corrupt: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None
    """(rng, images [B, H, W, C]) -> (images with defects, masks [B, H, W], 0 elsewhere); None: the
    defects of evaluation/made_up.py."""
    settings: tuple[Mapping[str, Any], ...]  # fields of the config's section `score`
    rules: Mapping[str, Mapping[str, Any]]  # name -> further fields, which change the image score
    scores: Callable[[Variables, jax.Array], tuple[Score, ...]]
    """(variables, images) -> the score of each of the settings, whose terms are named as rules."""
    score: Callable[[Mapping[str, Any]], ScoreFn]
    """fields of the section `score` that were chosen -> the method's score with them."""
    measured: Callable[[Variables, jax.Array, jax.Array], "Tuning"] | None = None
    """(variables, calibration images [B, H, W, C], some training images) -> the same choices, whose
    rules and scores have what was measured of these images, such as the mean of their scores; None:
    it is not needed."""
    constants: tuple[Mapping[str, Any], ...] = ()
    """Further fields of each of the settings: measured, not chosen, such as what is usual at each
    place. () where there are none."""


ChainFn = Callable[[Variables, jax.Array], Mapping[str, jax.Array]]
"""(variables, images [B, H, W, C]) -> caption -> images: what scoring does with them, in order.

Not to be jitted as a whole, which would sort the captions.
"""


class Method(NamedTuple):
    """Stages in the order of training, and the score that the last one's networks give."""

    stages: tuple[Stage, ...]
    score: ScoreFn
    tuning: Tuning | None = None
    chain: Callable[[Mapping[str, Any]], ChainFn] | None = None
    """As `Tuning.score`: fields of the section `score` that were chosen -> the pictures of the way
    from an image to its reconstruction; None: there is no way to be shown."""

    @property
    def labelled(self) -> bool:
        """Whether a stage learns from labelled defective images."""
        return any(stage.labelled for stage in self.stages)


def num_updates(epochs: int, num_images: int, batch_size: int) -> int:
    """Batches in `epochs` passes over `num_images`, the last batch of a pass rounded up."""
    return epochs * -(-num_images // batch_size)


def steps_of(section: Any, num_images: int, batches: int = 1) -> int:
    """How many steps of `batches` batches a section of the config means.

    `section.num_steps`, or where it is 0 what `section.epochs` amount to; an epoch is
    `section.samples` images where there is such a field and it is not 0, else `num_images`.

    Raises:
      ValueError: it is none.
    """
    images = section.get("samples", 0) or num_images
    updates = num_updates(section.epochs, images, section.batch_size)
    if (steps := section.num_steps or updates // batches) < 1:
        raise ValueError(
            f"{section.epochs} epochs of {images} images are no step of {batches} batches of "
            f"{section.batch_size}: set more epochs, or num_steps"
        )
    return int(steps)


def refuse_size(side: int, problem_of: Callable[[int], str]) -> None:
    """Raises ValueError where networks do not take images of `side` pixels, with the nearest sizes.

    `problem_of(side)` says what is wrong with a size, or ''.
    """
    if not (problem := problem_of(side)):
        return
    ranges = range(side - 1, max(side - _SEARCHED, 7), -1), range(side + 1, side + _SEARCHED)
    near = [next((size for size in sizes if not problem_of(size)), 0) for sizes in ranges]
    sizes = " or ".join(str(size) for size in near if size)
    where = "data.image_size, or data.crop where it is set"
    way_out = f"choose {sizes} px for {where}" if sizes else "change these"
    raise ValueError(f"{problem}: {way_out}")


def first_line(error: Exception) -> str:
    """What an error says, without what JAX puts below it."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def abstract_key() -> Any:
    """A key for `jax.eval_shape`: a real one would start a device."""
    return jax.eval_shape(lambda: jax.random.key(0))


def shapes_of(network: nn.Module, *arguments: tuple[int, ...]) -> Any:
    """What a network gives of float32 arrays of these shapes, without computing: ShapeDtypeStructs.

    No device is started. The errors are those of the network.
    """
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arguments]
    return jax.eval_shape(network.init_with_output, abstract_key(), *arrays)[0]


def require_score(method: Method, shape: tuple[int, ...]) -> None:
    """Raises what scoring raises of an image of `shape` [H, W, C], without computing."""
    variables: Variables = {}
    for stage in method.stages:
        variables = jax.eval_shape(stage.init, abstract_key(), variables).variables
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    jax.eval_shape(method.score, variables, images)


def refuse_batch(
    corrupt: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    batch_size: int,
    side: int,
) -> None:
    """Raises, without computing, what `corrupt` raises of so many images of `side` pixels."""
    images = jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.float32)
    jax.eval_shape(corrupt, abstract_key(), images)


def init_state(
    variables: Variables, optimizers: Mapping[str, optax.GradientTransformation]
) -> TrainState:
    """Step 0 of a stage in which the networks named in `optimizers` learn and the others rest."""
    opt_state = {name: tx.init(variables[name]["params"]) for name, tx in optimizers.items()}
    return TrainState(jnp.zeros((), jnp.int32), variables, opt_state)


def average(state: TrainState, decay: float, network: str, averaged: str) -> TrainState:
    """Moves `averaged` towards `network` by 1 - decay, and faster in the first steps."""
    decay_now = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    new, old = state.variables[network], state.variables[averaged]
    moved = optax.incremental_update(new, old, 1 - decay_now)
    return dataclasses.replace(state, variables={**state.variables, averaged: moved})


def descend(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    network: str,
    state: TrainState,
    images: jax.Array,
    rng: jax.Array,
) -> tuple[TrainState, Metrics]:
    """One optimiser step of `network`; the other networks keep their parameters.

    The only place that takes gradients of parameters, and so the only one that averages them, and
    what the loss updated, over the devices. Metrics get '<network>_loss'.
    """
    params = state.variables[network]["params"]

    def loss_of(params: Any) -> tuple[jax.Array, Aux]:
        mine = {**state.variables[network], "params": params}
        return loss_fn({**state.variables, network: mine}, images, rng)

    (loss, aux), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    grads, changed = parallel.mean((grads, aux.updates))
    steps, opt_state = tx.update(grads, state.opt_state[network], params)
    variables = {name: {**old, **changed.get(name, {})} for name, old in state.variables.items()}
    variables[network]["params"] = optax.apply_updates(params, steps)
    opt_states = {**state.opt_state, network: opt_state}
    state = dataclasses.replace(state, variables=variables, opt_state=opt_states)
    return state, {f"{network}_loss": loss, **aux.metrics}
