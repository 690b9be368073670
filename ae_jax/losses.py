"""Losses of autoencoders, each a function of the network that returns an `engine.method.LossFn`.

Images are [B, H, W, C] in [-1, 1]; every loss is a mean over images.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ae_jax.corruption import CorruptFn
from ae_jax.head import Restorer
from ae_jax.labels import graded as labels_of
from ae_jax.lighting import relight
from ae_jax.models import Output
from engine import parallel, residuals
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
    return residuals.euclidean_norm(output.latents)


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


def self_supervised(
    network: nn.Module,
    corrupt: CorruptFn,
    *,
    corrupted_weight: float = 0.5,
    per_region: bool = True,
    noise: float = 0.0,
    lighting: float = 0.0,
    head_weight: float = 0.1,
    graded: bool = True,
) -> LossFn:
    """Restoration of corrupted images (Bauer et al. 2024, arXiv 2206.11723).

    (1 - lambda) times the mean squared residual of an image's clean pixels, plus lambda times that
    of its corrupted ones (equation recalled, not re-read). An image without corrupted pixels has
    the first term alone, one without clean pixels the second.

    Args:
      network: an autoencoder, which gives an `Output`.
      corrupt: (rng, images) -> (corrupted, mask), see ae_jax/corruption.py.
      corrupted_weight: lambda.
      per_region: without, the loss is the plain mean over all pixels, and lambda has no effect.
      noise: standard deviation of Gaussian noise that is added to input and target alike: "Noise &
        Pattern" (Bauer & Mueller 2025, arXiv 2511.07233).
      lighting: strength of `ae_jax.lighting.relight`, before the corruption; 0: none.
      head_weight: of the head's term, where the network has a head: binary cross-entropy between
        its logits and labels, mean over each image.
      graded: whether the labels are those of `ae_jax.labels.graded`, or 1 inside the mask.
    """

    def loss_fn(variables, images, rng):
        corrupt_rng, noise_rng = jax.random.split(rng)
        images = _lit(rng, images, lighting)
        corrupted, mask = corrupt(corrupt_rng, images)
        target = images
        if noise:
            batch, *size = images.shape
            added = noise * parallel.share(
                lambda n: jax.random.normal(noise_rng, (n, *size)), batch
            )
            corrupted, target = corrupted + added, target + added
        output, updates = reconstruct(network, variables, corrupted, train=True)
        residual = residuals.squared(target, output.reconstructions)
        clean, replaced = means = region_means(residual, mask > 0)
        if per_region:
            loss = jnp.mean((1 - corrupted_weight) * clean + corrupted_weight * replaced)
        else:
            loss = jnp.mean(residual)
        metrics = dict(
            zip(("error_clean", "error_corrupted"), over_images(means, mask > 0), strict=True)
        )
        if output.logits is not None:
            metrics["head"] = _cross_entropy(output.logits, images, corrupted, mask, graded)
            loss += head_weight * metrics["head"]
        return loss, Aux(metrics, updates)

    return loss_fn


def head_alone(
    network: Restorer, corrupt: CorruptFn, *, lighting: float = 0.0, graded: bool = True
) -> LossFn:
    """Binary cross-entropy of the head, on what the averaged, frozen autoencoder restores.

    Options as `self_supervised` has them.
    """

    def loss_fn(variables, images, rng):
        images = _lit(rng, images, lighting)
        corrupted, mask = corrupt(rng, images)
        autoencoder: Any = network.autoencoder
        restored = autoencoder.apply(variables["averaged"], corrupted)
        logits, updates = network.head.apply(
            variables["head"],
            corrupted,
            restored.reconstructions,
            train=True,
            mutable=["batch_stats"],
        )
        return _cross_entropy(logits, images, corrupted, mask, graded), Aux({}, {"head": updates})

    return loss_fn


def _lit(rng: jax.Array, images: jax.Array, lighting: float) -> jax.Array:
    """The images under other light; what else `rng` is split into stays as it is without."""
    return relight(jax.random.fold_in(rng, 2), images, lighting) if lighting else images


def _cross_entropy(
    logits: jax.Array, images: jax.Array, corrupted: jax.Array, mask: jax.Array, graded: bool
) -> jax.Array:
    labels = labels_of(images, corrupted, mask) if graded else (mask > 0).astype(jnp.float32)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels))


def region_means(values: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of each image's values [B, H, W] outside and inside a region: [B] each; of none, 0."""

    def mean(weights: jax.Array) -> jax.Array:
        count = jnp.maximum(jnp.sum(weights, axis=(1, 2)), 1)
        return jnp.sum(jnp.where(weights, values, 0), axis=(1, 2)) / count

    return mean(~inside), mean(inside)


def over_images(
    means: tuple[jax.Array, jax.Array], inside: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`region_means`, averaged over everyone's images that have such pixels: [] each."""

    def mean(of_images: jax.Array, pixels: jax.Array) -> jax.Array:
        count = jnp.sum(parallel.gather(jnp.any(pixels, axis=(1, 2))))
        return jnp.sum(parallel.gather(of_images)) / jnp.maximum(count, 1)

    return mean(means[0], ~inside), mean(means[1], inside)
