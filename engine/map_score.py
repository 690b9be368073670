"""From a residual map to a score."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from engine import residuals
from engine.method import Score
from engine.usual import Cells, over_usual

IMAGE_SCORES = ("max", "top", "sum")
"""What `score.image_score` of a map may be."""


def require_image_score(name: str, top: float) -> None:
    """Raises ValueError for another image score, or a share of the pixels out of (0, 1]."""
    if name not in IMAGE_SCORES or not 0 < top <= 1:
        raise ValueError(
            f"score.image_score {name!r} must be one of {', '.join(IMAGE_SCORES)}, and score.top "
            f"{top} in (0, 1]"
        )


def of_map(
    residual_map: jax.Array, smoothing: float, tops: Mapping[str, float], usual: Cells = ()
) -> Score:
    """A score of a residual map [B, H, W], smoothed by `smoothing` pixels, over the `usual`.

    Its terms are the map's 'max' and 'sum', and by the names in `tops` the mean of the largest of
    its values, such a share of them. The image score is the maximum.
    """
    smooth = over_usual(residuals.smooth(residual_map, smoothing), usual)
    pixels = smooth.reshape(smooth.shape[0], -1)
    counts = {name: max(1, round(share * pixels.shape[1])) for name, share in tops.items()}
    largest, _ = jax.lax.top_k(pixels, max(counts.values(), default=1))
    terms = {name: jnp.mean(largest[:, :count], axis=1) for name, count in counts.items()}
    return Score(
        largest[:, 0], smooth, {"max": largest[:, 0], **terms, "sum": jnp.sum(pixels, axis=1)}
    )
