"""Scores images with the networks of a finished workdir."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import numpy as np

from engine import checkpoint
from engine.method import Method, Score, Variables
from engine.pixels import to_pixels
from storage import rows

Scorer = Callable[[np.ndarray | jax.Array], Score]


def restore(method: Method, workdir: str) -> tuple[Variables, int]:
    """The networks of the last stage's newest checkpoint, and its step.

    Raises:
      FileNotFoundError: the last stage has no checkpoint.
    """
    newest = checkpoint.newest(workdir, method.stages[-1].name)
    return newest["variables"], int(newest["step"])


def scorer_of(method: Method, variables: Variables) -> Scorer:
    """A jitted scorer of images [B, H, W, C] in [-1, 1] with these networks."""
    return partial(jax.jit(method.score), jax.device_put(variables))


def score_to_disk(scorer: Scorer, batches: Iterable[np.ndarray], size: int, folder: str) -> Any:
    """Scores of all images of `batches`, with what is large in temporary files in `folder`.

    The scorer is compiled once: shorter batches are padded to `size` images, or to as many as the
    first one has where that is 0.

    Returns:
      A `Score` whose map is `Rows` of float32 [H, W], and whose reconstruction, where there is one,
      is `Rows` of uint8 [H, W, C].

    Raises:
      ValueError: there is no image.
      OSError: the disk is full.
    """
    maps, reconstructions, small = rows.temporary(folder), rows.temporary(folder), []
    for score in scores(scorer, batches, size):
        maps.append(score.map)
        for image in () if score.reconstruction is None else score.reconstruction:
            reconstructions.append(to_pixels(image)[None])
        small.append(score._replace(map=None, reconstruction=None))
    return _joined(small)._replace(
        map=maps, reconstruction=reconstructions if len(reconstructions) else None
    )


def scores(scorer: Scorer, batches: Iterable[np.ndarray], size: int) -> Iterator[Any]:
    """The scores of each batch, as NumPy arrays; `size` is that of `score_to_disk`."""
    for images in batches:
        size = size or len(images)
        count = len(images)
        if count < size:
            images = np.pad(images, [(0, size - count)] + [(0, 0)] * (images.ndim - 1))
        yield jax.tree.map(itemgetter(slice(count)), jax.device_get(scorer(images)))


def _joined(scores: list[Any]) -> Any:
    if not scores:
        raise ValueError("there is no image to score")
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *scores)


def theory_checks(method: Method, variables: Variables, images: np.ndarray) -> dict[str, float]:
    """The last stage's checks of these networks on images [B, H, W, C]; {} if it has none."""
    checks = method.stages[-1].checks if method.stages else None
    if checks is None:
        return {}
    checked = jax.jit(checks)(variables, images, jax.random.key(0))
    return {name: float(value) for name, value in checked.items()}
