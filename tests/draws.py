"""Random images, and what a corruption makes of them in many draws."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def random_images(*shape: int) -> jax.Array:
    """Uniform in [-1, 1], with some pixels at either end."""
    images = np.random.default_rng(1).uniform(-1.2, 1.2, shape)
    return jnp.asarray(np.clip(images, -1, 1), jnp.float32)


def draw(corrupt: Callable, images: jax.Array, times: int) -> tuple[np.ndarray, ...]:
    """Images, corrupted and masks of so many draws with the seeds from 0: [times, B, ...] each."""
    made = [jax.device_get(corrupt(jax.random.key(seed), images)) for seed in range(times)]
    corrupted, masks = (np.stack(parts) for parts in zip(*made, strict=True))
    return np.broadcast_to(images, corrupted.shape), corrupted, masks
