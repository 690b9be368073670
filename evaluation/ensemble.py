"""Two networks as one: the larger of two scores, each standardised on good images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from engine.method import Method, Score, ScoreFn, Variables
from evaluation.scoring import Scorer, scores


class Standard(NamedTuple):
    """What good images score: mean and standard deviation of image scores, and of map values."""

    mean: float
    deviation: float
    map_mean: float
    map_deviation: float


def standard_of(scorer: Scorer, batches: Iterable[np.ndarray], size: int) -> Standard:
    """Measured on calibration images, in `batches` of at most `size`.

    Raises:
      ValueError: all have one score, so that nothing can be standardised by it.
    """
    found = [*scores(scorer, batches, size)]
    image, maps = (
        np.concatenate([np.asarray(getattr(each, name), np.float64).ravel() for each in found])
        for name in ("image", "map")
    )
    standard = Standard(*(float(f(part)) for part in (image, maps) for f in (np.mean, np.std)))
    if not (standard.deviation > 0 and standard.map_deviation > 0):
        raise ValueError("all held-out good images have one score: train again, or hold out more")
    return standard


def ensemble_of(members: Sequence[ScoreFn], standards: Sequence[Standard]) -> Method:
    """A method without stages, of variables {'0': those of the first member, ...}.

    An image's score is the largest of (score - mean) / deviation; its map likewise at each pixel.
    The terms are the members' standardised scores.
    """

    def score(variables: Variables, images: jax.Array) -> Score:
        image, maps = [], []
        for index, (member, standard) in enumerate(zip(members, standards, strict=True)):
            said = member(variables[str(index)], images)
            image.append((said.image - standard.mean) / standard.deviation)
            maps.append((said.map - standard.map_mean) / standard.map_deviation)
        terms = {f"standardised_{index}": each for index, each in enumerate(image)}
        largest = jnp.max(jnp.stack(image), axis=0)
        return Score(largest, jnp.max(jnp.stack(maps), axis=0), terms)

    return Method((), score)


def standards_of(content: Sequence[Mapping[str, Any]]) -> list[Standard]:
    """From threshold.json.

    Raises:
      TypeError, ValueError: it holds something else.
    """
    return [Standard(**{name: float(value) for name, value in each.items()}) for each in content]
