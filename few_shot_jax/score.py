"""The anomaly score of a network that has learnt from labelled images."""

import jax

from engine import residuals
from engine.method import Score, ScoreFn, Variables
from few_shot_jax.losses import SeeFn
from few_shot_jax.models import enlarged


def places(see: SeeFn, *, smoothing: float = 4.0) -> ScoreFn:
    """The image's score, and its places as a map, never brought to one range image by image.

    DevNet's own map is the gradient by the pixels, brought to [0, 1] in each image; here it is what
    the score is made of, for a good image is to stay dark.

    Args:
      see: (variables, images) -> `few_shot_jax.models.Places`.
      smoothing: standard deviation of a Gaussian on the map, in pixels of an image of 256 px.
    """

    def score(variables: Variables, images: jax.Array) -> Score:
        seen = see(variables, images)
        maps = enlarged(seen.map, images.shape[1:3])
        return Score(seen.score, residuals.smooth(maps, smoothing * images.shape[1] / 256))

    return score
