"""The anomaly score of f-AnoGAN (Schlegl et al. 2019, eq. 6-7)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from engine import residuals
from engine.method import Score, Variables
from fanogan_jax.losses import feature_residual, reconstruct
from fanogan_jax.models import Networks


def residual(networks: Networks, kappa: float = 1.0) -> Callable[[Variables, jax.Array], Score]:
    """A(x) = A_R(x) + kappa * A_D(x), the terms of the loss izi_f; the map is |x - G(E(x))|.

    Batch normalisation uses its running averages, so that an image's score does not depend on the
    images scored with it.
    """

    def score(variables: Variables, images: jax.Array) -> Score:
        reconstructions, _ = reconstruct(networks, variables, images, train=False)
        image = jnp.mean(residuals.squared(images, reconstructions), axis=(1, 2))
        features = feature_residual(networks, variables, images, reconstructions)
        return Score(
            image=image + kappa * features,
            map=residuals.absolute(images, reconstructions),
            terms={"A_R": image, "A_D": features},
            reconstruction=reconstructions,
        )

    return score
