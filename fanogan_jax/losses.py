"""Losses of f-AnoGAN, each a function of the networks that returns an `engine.method.LossFn`.

The critic and the generator play WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028, eq. 3); the
encoder then learns to invert the fixed generator (Schlegl et al. 2019, eq. 2-5). Images are
[B, H, W, C] in [-1, 1]. Every loss is a mean over images, and says itself whose batch statistics
move: the generator's in its own step only, the encoder's in its own.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine import parallel, residuals
from engine.method import Aux, LossFn, Variables
from fanogan_jax.models import Networks


def apply_moving(
    network: nn.Module, variables: Mapping[str, Any], inputs: jax.Array, *, train: bool
) -> tuple[jax.Array, Mapping[str, Any]]:
    """The network's outputs, and its running averages as they are after them."""
    outputs: Any = network.apply(variables, inputs, train=train, mutable=["batch_stats"])
    return outputs


def draw_latents(networks: Networks, rng: jax.Array, batch: int) -> jax.Array:
    """Latents z ~ N(0, I): [batch, latent]."""
    return parallel.share(lambda n: jax.random.normal(rng, (n, networks.latent)), batch)


def generate(
    networks: Networks, variables: Variables, latents: jax.Array
) -> tuple[jax.Array, Variables]:
    """G(z) on the statistics of this batch, and the generator's moved running averages."""
    images, updates = apply_moving(networks.generator, variables["generator"], latents, train=True)
    return images, {"generator": updates}


def gradient_penalty(score: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """(||grad score(x)||_2 - 1)^2 of every image, the norm over H, W and C: [B].

    Args:
      score: images [B, H, W, C] -> [B], each entry a function of its own image only, so that the
        gradient of the sum holds every image's own gradient.
      images: where the gradient is taken.
    """
    gradients = jax.grad(lambda x: jnp.sum(score(x)))(images)
    # The square root has an infinite slope at 0, which would make the second derivative NaN.
    norms = jnp.sqrt(jnp.sum(jnp.square(gradients), axis=(1, 2, 3)) + 1e-12)
    return jnp.square(norms - 1.0)


def critic_loss(
    networks: Networks,
    variables: Variables,
    images: jax.Array,
    latents: jax.Array,
    mixing: jax.Array,
    penalty: float,
) -> tuple[jax.Array, Aux]:
    """The critic's loss for given noise: latents [B, latent] and `mixing` in [0, 1], [B]."""

    def score(x: jax.Array) -> Any:
        return networks.critic.apply(variables["critic"], x)[0]

    fakes, _ = generate(networks, variables, latents)
    mixing = mixing[:, None, None, None]
    penalties = gradient_penalty(score, mixing * images + (1.0 - mixing) * fakes)
    wasserstein = jnp.mean(score(images)) - jnp.mean(score(fakes))
    gradient_penalties = jnp.mean(penalties)
    metrics = {"wasserstein": wasserstein, "gradient_penalty": gradient_penalties}
    return penalty * gradient_penalties - wasserstein, Aux(metrics)


def critic(networks: Networks, penalty: float = 10.0) -> LossFn:
    """E[D(G(z))] - E[D(x)] + penalty * E[(||grad D(x')|| - 1)^2], x' between an x and a G(z)."""

    def loss_fn(variables, images, rng):
        latent_rng, mixing_rng = jax.random.split(rng)
        latents = draw_latents(networks, latent_rng, images.shape[0])
        mixing = parallel.share(lambda n: jax.random.uniform(mixing_rng, (n,)), images.shape[0])
        return critic_loss(networks, variables, images, latents, mixing, penalty)

    return loss_fn


def generator(networks: Networks) -> LossFn:
    """-E[D(G(z))]."""

    def loss_fn(variables, images, rng):
        latents = draw_latents(networks, rng, images.shape[0])
        fakes, updates = generate(networks, variables, latents)
        scores, _ = networks.critic.apply(variables["critic"], fakes)
        return -jnp.mean(scores), Aux(updates=updates)

    return loss_fn


def reconstruct(
    networks: Networks, variables: Variables, images: jax.Array, *, train: bool
) -> tuple[jax.Array, Variables]:
    """G(E(x)), the generator at rest, the encoder on the statistics of this batch with `train`.

    Returns:
      Reconstructions [B, H, W, C], and the encoder's running averages, moved with `train`.
    """
    latents, updates = apply_moving(networks.encoder, variables["encoder"], images, train=train)
    reconstructions: Any = networks.generator.apply(variables["generator"], latents)
    return reconstructions, {"encoder": updates}


def feature_residual(
    networks: Networks, variables: Variables, images: jax.Array, reconstructions: jax.Array
) -> jax.Array:
    """(1 / n_d) ||f(x) - f(G(E(x)))||^2 of every image, f the critic's features: [B]."""

    def features(x: jax.Array) -> Any:
        return networks.critic.apply(variables["critic"], x)[1]

    return jnp.mean(jnp.square(features(images) - features(reconstructions)), axis=-1)


def izi(networks: Networks) -> LossFn:
    """(1 / n) ||x - G(E(x))||^2 (Schlegl et al. 2019, eq. 2)."""

    def loss_fn(variables, images, rng):
        reconstructions, updates = reconstruct(networks, variables, images, train=True)
        return jnp.mean(residuals.squared(images, reconstructions)), Aux(updates=updates)

    return loss_fn


def izi_f(networks: Networks, kappa: float = 1.0) -> LossFn:
    """(1 / n) ||x - G(E(x))||^2 + (kappa / n_d) ||f(x) - f(G(E(x)))||^2 (eq. 4)."""

    def loss_fn(variables, images, rng):
        reconstructions, updates = reconstruct(networks, variables, images, train=True)
        image = jnp.mean(residuals.squared(images, reconstructions))
        features = jnp.mean(feature_residual(networks, variables, images, reconstructions))
        metrics = {"image_residual": image, "feature_residual": features}
        return image + kappa * features, Aux(metrics, updates)

    return loss_fn


def ziz(networks: Networks) -> LossFn:
    """(1 / d) ||z - E(G(z))||^2, d the length of z; sees no real image (eq. 3).

    An encoder that ends in tanh reaches only the box (-1, 1), so this loss cannot come near 0.
    """

    def loss_fn(variables, images, rng):
        latents = draw_latents(networks, rng, images.shape[0])
        fakes: Any = networks.generator.apply(variables["generator"], latents)
        encoded, updates = apply_moving(networks.encoder, variables["encoder"], fakes, train=True)
        return jnp.mean(jnp.square(latents - encoded)), Aux(updates={"encoder": updates})

    return loss_fn
