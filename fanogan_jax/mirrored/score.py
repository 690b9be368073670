"""Anomaly scores of AMA (arXiv 2003.10713): how differently the critic sees (x, x) and (x, x'),

x' = G(E(x)). Images are [B, H, W, C] in [-1, 1], the critic's features f [B, h, w, F].
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from engine import residuals
from engine.method import Score, ScoreFn, Variables
from engine.usual import Cells, over_usual, required_usual
from fanogan_jax.mirrored.losses import pair, score_pairs
from fanogan_jax.mirrored.models import MirroredNetworks

PLACES = ("features", "pixels")
"""What `score.map_of` may be."""


def feature_score(difference: jax.Array) -> jax.Array:
    """A = sum_c |sum over positions of f(x, x) - f(x, x')|, of the difference [B, h, w, F]: [B].

    The L1 distance of the features as the critic's last layer sees them. It grows with the number
    of positions, and so with the size of the images.
    """
    return jnp.sum(jnp.abs(jnp.sum(difference, axis=(1, 2))), axis=-1)


def two_sided_score(scores: jax.Array, mean: float, deviation: float) -> jax.Array:
    """|A - mean| / deviation: what lies as far below good images as above is as anomalous.

    It has the order of the paper's score, where the normal density of A is low; mean and deviation
    are those of good images.

    >>> two_sided_score(jnp.array([1.0, 2.0, 3.0]), 2.0, 1.0).tolist()
    [1.0, 0.0, 1.0]
    """
    return jnp.abs(scores - mean) / deviation


def enlarged(maps: jax.Array, height: int, width: int) -> jax.Array:
    """Maps [B, h, w] linearly interpolated to [B, height, width], their centres where they were."""
    rows, columns = (
        residuals.interpolation_matrix(large, small)
        for small, large in zip(maps.shape[1:], (height, width), strict=True)
    )
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, maps, columns)


def mirrored_terms(
    networks: MirroredNetworks, variables: Variables, images: jax.Array
) -> tuple[jax.Array, Mapping[str, jax.Array], jax.Array]:
    """A [B], the maps [B, H, W] by the names in `PLACES`, and x' [B, H, W, C].

    Batch normalisation uses its running averages, so that an image's score does not depend on the
    images scored with it.
    """
    outputs: Any = networks.autoencoder.apply(variables["autoencoder"], images)
    reconstructions = outputs[0]
    same, other = (
        score_pairs(networks, variables, pair(images, each))[1]
        for each in (images, reconstructions)
    )
    difference = same - other
    places = jnp.sum(jnp.abs(difference), axis=-1)
    maps = {
        "features": enlarged(places, *images.shape[1:3]),
        "pixels": residuals.absolute(images, reconstructions),
    }
    return feature_score(difference), maps, reconstructions


def mirrored(
    networks: MirroredNetworks,
    *,
    two_sided: bool = False,
    mean: float = 0.0,
    deviation: float = 1.0,
    map_of: str = "features",
    smoothing: float = 0.0,
    normalise: str = "none",
    usual: Cells = (),
) -> ScoreFn:
    """A of the critic's features, one-sided or two-sided; the terms are both, and mean |x - x'|.

    Args:
      networks: both are needed.
      two_sided: `two_sided_score` in the place of A.
      mean: of A over good images. Where it is 0, nobody has measured it, and there is no two-sided
        score.
      deviation: of A over good images, above 0.
      map_of: 'features', sum_c |f(x, x) - f(x, x')| in its place, or 'pixels', |x - x'|, mean over
        channels.
      smoothing: standard deviation of the Gaussian over the map, in pixels; 0: none.
      normalise: 'pixel': the map is divided by what is `usual` at each place, which is ours.
      usual: as engine/usual.py has it.

    Raises:
      ValueError: another map, a deviation that is not above 0, a two-sided score without a mean, or
        as `engine.usual.required_usual`.
    """
    if map_of not in PLACES:
        raise ValueError(f"score.map_of {map_of!r} must be one of {', '.join(PLACES)}")
    if deviation <= 0:
        raise ValueError(f"score.deviation {deviation} must be above 0")
    if two_sided and not mean:
        raise ValueError(
            "score.two_sided needs score.mean and score.deviation of good images: train without "
            "it; --mode=tune then measures them, and --config.tuning.sides=\"('two',)\" chooses "
            "this score"
        )

    places = required_usual(normalise, usual)

    def score(variables: Variables, images: jax.Array) -> Score:
        one_sided, maps, reconstructions = mirrored_terms(networks, variables, images)
        terms = {"one-sided": one_sided}
        if mean:
            terms["two-sided"] = two_sided_score(one_sided, mean, deviation)
        image = terms["two-sided" if two_sided else "one-sided"]
        terms["pixels"] = jnp.mean(maps["pixels"], axis=(1, 2))
        chosen = over_usual(residuals.smooth(maps[map_of], smoothing), places)
        return Score(image, chosen, terms, reconstructions)

    return score
