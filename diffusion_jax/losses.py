"""What the denoiser learns from: noised images that are in part corrupted, and what they were.

A loss is a function of the network, the schedule, the noise and the corruption that returns an
`engine.method.LossFn`. Images are [B, H, W, C] in [-1, 1].
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.chain import noised
from diffusion_jax.noise import NoiseFn
from diffusion_jax.schedule import Schedule, refuse_above
from engine import parallel
from engine.method import Aux, LossFn

Corrupt = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(rng, images [B, H, W, C]) -> (corrupted, alike; mask [B, H, W] from 0 to 1)."""


def repair(
    network: nn.Module,
    schedule: Schedule,
    noise: NoiseFn,
    corrupt: Corrupt,
    *,
    levels: tuple[int, int] = (1, 130),
    corrupted: float = 0.5,
    fade: bool = True,
    max_weight: float = 5.0,
) -> LossFn:
    """GLAD's anomaly-oriented training (arXiv 2406.07487), of the clean image.

    x_s = a c(x) + (1 - a) x, x_t = sqrt(abar_t) x_s + sqrt(1 - abar_t) noise, and the mean over
    images of min(abar_t / (1 - abar_t), max_weight) times the mean squared f(x_t, t) - x. Below
    `max_weight` that is the loss of the noise eps + sqrt(abar / (1 - abar)) (x_s - x), GLAD's
    target; the bound is Hang et al.'s (2023, arXiv 2303.09556). Without noise, levels (0, 0), it is
    the self-supervised autoencoder's plain loss, without corruption that of a DDPM.

    Args:
      network: the denoiser f, whose parameters are the variables' 'denoiser'.
      schedule: abar of each level.
      noise: (rng, shape) -> noise.
      corrupt: c, (rng, images) -> (corrupted, mask).
      levels: the least and the largest t, which is uniform between them.
      corrupted: share of the images that are corrupted; each by chance.
      fade: whether a is t over the largest t, so that what is left to repair shrinks with the noise
        as it does on the way down a chain; else a is 1, as it is without noise.
      max_weight: of an image.

    Raises:
      ValueError: a level is above the schedule's last.
    """
    refuse_above(schedule, training__loss__levels=levels[1])
    kept = jnp.asarray(schedule)
    low, high = levels

    def loss_fn(variables: Any, images: jax.Array, rng: jax.Array) -> tuple[jax.Array, Aux]:
        corrupt_rng, level_rng, noise_rng, coin_rng = jax.random.split(rng, 4)
        count = images.shape[0]
        level = parallel.share(lambda n: jax.random.randint(level_rng, (n,), low, high + 1), count)
        coin = parallel.share(lambda n: jax.random.uniform(coin_rng, (n,)), count)
        opacity = level / high if fade and high else jnp.ones(count)
        opacity = jnp.where(coin < corrupted, opacity, 0.0).reshape(-1, 1, 1, 1)
        with_defects, _ = corrupt(corrupt_rng, images)
        given = opacity * with_defects + (1 - opacity) * images
        abar = kept[level]
        signal, share = (jnp.sqrt(each).reshape(-1, 1, 1, 1) for each in (abar, 1 - abar))
        drawn = parallel.share(lambda n: noise(noise_rng, (n, *images.shape[1:])), count)
        given = noised(given, drawn, signal, share)
        ratio = jnp.sqrt((1 - abar) / abar)
        estimate: Any = network.apply(variables["denoiser"], given, ratio)
        errors = jnp.mean(jnp.square(estimate - images), axis=(1, 2, 3))
        weight = 1 / jnp.maximum(jnp.square(ratio), 1 / max_weight)
        return jnp.mean(weight * errors), Aux({"residual": jnp.mean(errors)})

    return loss_fn
