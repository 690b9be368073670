"""Residual maps: how an image and its reconstruction differ, pixel by pixel.

Arrays are float32 [B, H, W, C] in [-1, 1]; maps are [B, H, W]. The same map serves a loss, an
image score and an anomaly map; reduction stays visible where it is called.
"""

import jax
import jax.numpy as jnp
import numpy as np

_RANGE = 2.0  # of images in [-1, 1]


def squared(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Squared residual, mean over channels: [B, H, W], in [0, 4].

    >>> squared(jnp.ones((1, 1, 2, 3)), jnp.zeros((1, 1, 2, 3))).tolist()
    [[[1.0, 1.0]]]
    """
    return jnp.mean(jnp.square(images - reconstructions), axis=-1)


def absolute(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Absolute residual, mean over channels: [B, H, W], in [0, 2].

    >>> absolute(jnp.ones((1, 1, 2, 3)), -jnp.ones((1, 1, 2, 3))).tolist()
    [[[2.0, 2.0]]]
    """
    return jnp.mean(jnp.abs(images - reconstructions), axis=-1)


def euclidean_norm(vectors: jax.Array) -> jax.Array:
    """||v||_2 of each vector, with a gradient at 0, where that of the root is infinite.

    [B, D] -> [B]. It is what the latents of an autoencoder are kept small by.

    >>> euclidean_norm(jnp.array([[3.0, 4.0]])).tolist()
    [5.0]
    """
    return jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1) + 1e-12)


def dssim(
    images: jax.Array, reconstructions: jax.Array, *, window: int = 11, sigma: float = 1.5
) -> jax.Array:
    """1 - SSIM of the window around each pixel, mean over channels: [B, H, W], in [0, 2].

    Structural similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13) with a Gaussian
    window, K1 = 0.01, K2 = 0.03 and population variances, of the intensities x + 1 from 0 to 2:
    were means negative, an image and its inverse could have an SSIM of 1. Images go on as in a
    mirror. Written with the difference d = x - y, SSIM is (1 - l)(1 - c), where l = mean(d)^2 /
    (mean(x + 1)^2 + mean(y + 1)^2 + C1) and c = var(d) / (var(x) + var(y) + C2): equal images give
    exactly 0, and no digits are lost where they nearly are.

    >>> grey = jnp.full((1, 4, 4, 3), 0.5)
    >>> float(dssim(grey, grey).max()), float(dssim(grey, -grey).min()) > 0.3
    (0.0, True)
    """
    radius = window // 2
    mean_x, var_x = _moments(images, radius, sigma)
    mean_y, var_y = _moments(reconstructions, radius, sigma)
    mean_d, var_d = _moments(images - reconstructions, radius, sigma)
    c1, c2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
    luminance = jnp.square(mean_d) / (jnp.square(mean_x + 1) + jnp.square(mean_y + 1) + c1)
    structure = var_d / (var_x + var_y + c2)
    return jnp.mean(luminance + structure - luminance * structure, axis=-1)


def interpolation_matrix(large: int, small: int) -> np.ndarray:
    """What each of `large` pixels of a line has of `small` cells, linearly: float32 [large, small].

    Cells and pixels span the same line, and their centres stay where they are.
    """
    places = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    near: np.ndarray = np.maximum(1 - np.abs(places[:, None] - np.arange(small)), 0)
    return np.asarray(near, np.float32)


def smooth(maps: jax.Array, sigma: float) -> jax.Array:
    """Maps [B, H, W] under a Gaussian of `sigma` pixels, cut off at 4 sigma; 0 changes nothing.

    Maps go on as in a mirror, so that the mean of each stays what it is.

    >>> round(float(smooth(jnp.eye(8)[None], 2.0).mean()), 4)
    0.125
    """
    if not sigma:
        return maps
    return _filter(maps[..., None], round(4 * sigma), sigma)[..., 0]


def _moments(images: jax.Array, radius: int, sigma: float) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the window around each pixel: [B, H, W, C] each."""
    mean = _filter(images, radius, sigma)
    return mean, _filter(jnp.square(images), radius, sigma) - jnp.square(mean)


def _filter(images: jax.Array, radius: int, sigma: float) -> jax.Array:
    """Gaussian filter of [B, H, W, C] over H and W, with the border mirrored.

    As two matrix products: a depthwise convolution and its gradient are many times slower on CPU.
    """
    rows, columns = (_filter_matrix(side, radius, sigma) for side in images.shape[1:3])
    return jnp.einsum("Hh,bhwc,Ww->bHWc", rows, images, columns)


def _filter_matrix(side: int, radius: int, sigma: float) -> np.ndarray:
    """Row i holds the weights of all pixels of a line in the filtered pixel i: [side, side]."""
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    mirrored = np.pad(np.eye(side), ((radius, radius), (0, 0)), mode="symmetric")
    shifted = (mirrored[k : k + side] for k in range(2 * radius + 1))
    matrix = sum(weight * rows for weight, rows in zip(weights, shifted, strict=True))
    return np.asarray(matrix, np.float32)
