"""Residual maps against scikit-image, SciPy and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from engine import residuals


def pair(seed, shape=(2, 24, 32, 3), noise=0.3):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (0, 3, 3, 0))
    images = np.clip(3 * smooth, -1, 1)
    return images, np.clip(images + noise * rng.normal(size=shape), -1, 1)


def skimage_dssim(image, reconstruction):
    """Of images brought to [0, 1], as SSIM wants them."""
    _, similarity = structural_similarity(
        (image + 1) / 2,
        (reconstruction + 1) / 2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    return 1 - similarity.mean(axis=-1)


@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_dssim_is_scikit_images(noise):
    """Of every pixel, the border too; also where both are flat and nearly equal."""
    images, others = pair(0, noise=noise)
    images[0, :12], others[0, :12] = 0.9, 0.9 + 0.01 * others[0, :12]
    expected = np.stack([skimage_dssim(x, y) for x, y in zip(images, others, strict=True)])
    found = jax.jit(residuals.dssim)(images.astype(np.float32), others.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dssim_of_equal_images_is_zero_with_zero_gradient():
    images = jnp.asarray(pair(1)[0], jnp.float32)
    assert (residuals.dssim(images, images) == 0).all()
    slope = jax.grad(lambda y: residuals.dssim(images, y).mean())(images)
    np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_an_inverted_image_is_unlike():
    """The mean of an image may be negative here, but not of the intensities that SSIM compares."""
    images = jnp.asarray(pair(5)[0], jnp.float32)
    assert residuals.dssim(images, -images).mean() > 0.9


def test_the_gradient_of_dssim_is_that_of_finite_differences():
    """Of scikit-image's function, in double precision, along random directions."""
    images, others = pair(2, (1, 16, 16, 3))
    loss = jax.grad(lambda y: residuals.dssim(images.astype(np.float32), y).mean())
    gradient = np.asarray(loss(jnp.asarray(others, jnp.float32)), np.float64)
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=others.shape)
        ahead, behind = (
            skimage_dssim(images[0], (others + step * direction)[0]).mean()
            for step in (1e-5, -1e-5)
        )
        slope = (ahead - behind) / 2e-5
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 9.0])
def test_smoothing_is_scipys(sigma):
    maps = np.random.default_rng(3).random((2, 20, 13)).astype(np.float32)
    found = residuals.smooth(jnp.asarray(maps), sigma)
    gaussian = partial(
        ndimage.gaussian_filter, sigma=sigma, mode="reflect", radius=round(4 * sigma)
    )
    np.testing.assert_allclose(found, [gaussian(m.astype(float)) for m in maps], atol=1e-6)
    np.testing.assert_allclose(found.mean((1, 2)), maps.mean((1, 2)), atol=1e-6)


def test_no_smoothing_changes_nothing():
    maps = jnp.ones((1, 4, 4))
    assert residuals.smooth(maps, 0.0) is maps
