"""Losses of autoencoders, each a function of the network that returns an `engine.method.LossFn`.

Images are [B, H, W, C] in [-1, 1]; every loss is a mean over images.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax.models import Output
from engine import residuals
from engine.method import Aux, LossFn, Variables

Residual = Callable[[jax.Array, jax.Array], jax.Array]
"""(images, reconstructions) [B, H, W, C] -> residual map [B, H, W]."""


def reconstruct(
    network: nn.Module, variables: Variables, images: jax.Array, *, train: bool
) -> tuple[Output, Variables]:
    """What the network makes of `images`, and its running averages, moved with `train`."""
    mine = variables["autoencoder"]
    output: Any = network.apply(mine, images, train=train, mutable=["batch_stats"])
    return output[0], {"autoencoder": output[1]}


def latent_norm(output: Output) -> jax.Array:
    """||z||_2 of every image, not squared (targeted collapse, arXiv 2306.12627): [B].

    Raises:
      ValueError: the network has no latents.
    """
    if output.latents is None:
        raise ValueError("latent_norm_weight is not 0, but the autoencoder gives no latents")
    # The square root has an infinite slope at 0.
    return jnp.sqrt(jnp.sum(jnp.square(output.latents), axis=-1) + 1e-12)


def l2(network: nn.Module, **weights: float) -> LossFn:
    """Mean squared residual over pixels and channels, with the options of `reconstruction`."""
    return reconstruction(network, residuals.squared, **weights)


def ssim(network: nn.Module, **weights: float) -> LossFn:
    """1 - SSIM, mean over pixels (Bergmann et al. 2019, arXiv 1807.02011, eq. 3), and options."""
    return reconstruction(network, residuals.dssim, **weights)


def reconstruction(
    network: nn.Module,
    residual: Residual,
    *,
    latent_norm_weight: float = 0.0,
    sspcab_weight: float = 0.1,
) -> LossFn:
    """Mean of a residual map, plus what is switched on.

    Args:
      network: an autoencoder, which gives an `Output`.
      residual: the map whose mean is minimised.
      latent_norm_weight: of the mean of `latent_norm`; 0 leaves it out.
      sspcab_weight: of the mean squared difference between input and output of the network's SSPCAB
        block (arXiv 2111.09099, eq. 5), where it has one.
    """

    def loss_fn(variables, images, rng):
        output, updates = reconstruct(network, variables, images, train=True)
        loss = jnp.mean(residual(images, output.reconstructions))
        metrics = {"residual": loss}
        if latent_norm_weight:
            metrics["latent_norm"] = jnp.mean(latent_norm(output))
            loss += latent_norm_weight * metrics["latent_norm"]
        if output.block_residual is not None:
            metrics["sspcab"] = jnp.mean(output.block_residual)
            loss += sspcab_weight * metrics["sspcab"]
        return loss, Aux(metrics, updates)

    return loss_fn
