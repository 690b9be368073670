"""Anomaly scores: of f-AnoGAN, by its encoder (Schlegl et al. 2019, eq. 6-7), and of AnoGAN, by a
search in the latent space of the same generator (Schlegl et al. 2017, arXiv 1703.05921).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from engine import residuals
from engine.map_score import of_map
from engine.method import Score, ScoreFn, Variables
from engine.usual import Cells, over_usual, required_usual
from fanogan_jax.losses import feature_residual, reconstruct
from fanogan_jax.models import Networks

RULES = ("A", "top")
"""What `score.image_score` of f-AnoGAN may be."""

_TOP = 0.01  # of the map's pixels


def residual(
    networks: Networks,
    kappa: float = 1.0,
    *,
    image_score: str = "A",
    normalise: str = "none",
    usual: Cells = (),
) -> ScoreFn:
    """A(x) = A_R(x) + kappa * A_D(x), the terms of the loss izi_f; the map is |x - G(E(x))|.

    Batch normalisation uses its running averages, so that an image's score does not depend on the
    images scored with it.

    Args:
      networks: all three.
      kappa: weight of A_D.
      image_score: 'A', or 'top', ours: the mean of the largest hundredth of the map.
      normalise: 'pixel': the map is divided by what is `usual` at each place, which the paper does
        not; 'none': it is not.
      usual: as engine/usual.py has it.

    Raises:
      ValueError: another image score, or as `engine.usual.required_usual`.
    """
    if image_score not in RULES:
        raise ValueError(f"score.image_score {image_score!r} must be one of {', '.join(RULES)}")
    usual_places = required_usual(normalise, usual)

    def score(variables: Variables, images: jax.Array) -> Score:
        reconstructions, _ = reconstruct(networks, variables, images, train=False)
        image = jnp.mean(residuals.squared(images, reconstructions), axis=(1, 2))
        features = feature_residual(networks, variables, images, reconstructions)
        places = of_map(
            residuals.absolute(images, reconstructions), 0.0, {"top": _TOP}, usual_places
        )
        return Score(
            image=places.terms["top"] if image_score == "top" else image + kappa * features,
            map=places.map,
            terms={"A_R": image, "A_D": features},
            reconstruction=reconstructions,
        )

    return score


def latent_search(
    networks: Networks,
    num_steps: int = 300,
    learning_rate: float = 0.02,
    feature_weight: float = 0.1,
    seed: int = 0,
    *,
    normalise: str = "none",
    usual: Cells = (),
) -> ScoreFn:
    """A(x) = (1 - lambda) R(x) + lambda D(x) at the z that Adam finds; the map is |x - G(z)|.

    AnoGAN (Schlegl et al. 2017, arXiv 1703.05921): the residual score R = sum |x - G(z)|, over
    pixels and channels, and the discrimination score D = sum |f(x) - f(G(z))|, over the critic's
    features f. The terms are R and D without their weights.

    Every image's search starts at the same z ~ N(0, I), and batch normalisation uses its running
    averages, so that an image's score depends neither on the images scored with it nor on its place
    among them.

    Args:
      networks: of which the encoder is not used.
      num_steps: of Adam on z, at least 1.
      learning_rate: Adam's.
      feature_weight: lambda, in [0, 1].
      seed: of the z at which the searches start.
      normalise: as `residual` has it, and `usual`.

    Raises:
      ValueError: `num_steps` or `feature_weight` is out of its range; or as `residual`.
    """
    if num_steps < 1 or not 0 <= feature_weight <= 1:
        wanted = "choose num_steps >= 1 and feature_weight in [0, 1]"
        raise ValueError(f"num_steps={num_steps}, feature_weight={feature_weight}: {wanted}")
    usual_places = required_usual(normalise, usual)

    def score(variables: Variables, images: jax.Array) -> Score:
        compare = _comparison(networks, variables, images)

        def loss(latents: jax.Array) -> jax.Array:
            image, features, _ = compare(latents)
            # A sum, so that each image's z gets the gradient of its own loss alone.
            return jnp.sum((1.0 - feature_weight) * image + feature_weight * features)

        start = jax.random.normal(jax.random.key(seed), (1, networks.latent))
        latents = jnp.repeat(start, images.shape[0], axis=0)
        latents = _descend(loss, latents, num_steps, learning_rate)
        image, features, reconstructions = compare(latents)
        return Score(
            image=(1.0 - feature_weight) * image + feature_weight * features,
            map=over_usual(residuals.absolute(images, reconstructions), usual_places),
            terms={"R": image, "D": features},
            reconstruction=reconstructions,
        )

    return score


def _comparison(
    networks: Networks, variables: Variables, images: jax.Array
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array, jax.Array]]:
    """Of latents [B, latent]: R [B], D [B] and G(z) [B, H, W, C]; f(x) is computed here, once."""

    def features(x: jax.Array) -> Any:
        return networks.critic.apply(variables["critic"], x)[1]

    targets = features(images)

    def compare(latents: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        fakes: Any = networks.generator.apply(variables["generator"], latents)
        image = jnp.sum(jnp.abs(images - fakes), axis=(1, 2, 3))
        return image, jnp.sum(jnp.abs(targets - features(fakes)), axis=-1), fakes

    return compare


def _descend(
    loss: Callable[[jax.Array], jax.Array], latents: jax.Array, num_steps: int, learning_rate: float
) -> jax.Array:
    """The latents after `num_steps` of Adam, which works on each number by itself."""
    optimizer = optax.adam(learning_rate)

    def step(carry, _):
        latents, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(latents), opt_state)
        return (optax.apply_updates(latents, updates), opt_state), None

    carry = (latents, optimizer.init(latents))
    (latents, _), _ = jax.lax.scan(step, carry, length=num_steps)
    return latents
