"""Moments, whitening and levels by hand; what the whole method promises, on noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import contrario
from contrario_jax import build, levels
from contrario_jax.moments import (
    ROUNDED,
    Moments,
    batch_moments,
    distances,
    merged,
    patches,
    pooled,
    whitening,
)
from engine import parallel


def on_devices(function, images, devices=1):
    """The function of images that are spread over devices which vmap makes up."""
    parts = images.reshape(devices, -1, *images.shape[1:])
    return jax.vmap(function, out_axes=None, axis_name=parallel._AXIS)(parts)


def noise(count, side, seed=0):
    """White noise as of 8 bits, in [-1, 1]."""
    pixels = np.random.default_rng(seed).integers(60, 196, (count, side, side, 3))
    return (pixels / 127.5 - 1).astype(np.float32)


def settings(image_size=32, **section):
    config = contrario.get_config("mine")
    config.data.image_size = image_size
    config.patches.update({"side": 3, "stride": 1, "scales": (1, 2)} | section)
    return config


def trained(config, images):
    """The method, and what it takes from the images in one pass, eight at a time."""
    method, variables = build(config, len(images)), {}
    for number, stage in enumerate(method.stages):
        state = jax.jit(stage.init)(jax.random.key(0), variables)
        step = jax.jit(partial(on_step, parallel.per_device(stage.step, number)))
        for start in range(0, len(images), 8):
            state, _ = step(state, images[start : start + 8])
        variables = state.variables
    return jax.jit(partial(method.score, variables)), variables


def on_step(step, state, images):
    return on_devices(partial(step, state), images)


@pytest.fixture(scope="module")
def of_noise():
    """The score, and what it rests on, of 48 images of white noise."""
    return trained(settings(), noise(48, 32))


def test_moments_are_those_of_numpy_whatever_the_order_and_the_devices():
    images = noise(8, 12) * np.linspace(0.2, 1, 12, dtype=np.float32)[:, None, None]
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))[:, ::2, ::2]
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 27)
    moments = partial(batch_moments, scales=(1,), side=3, stride=2)
    for devices in (1, 2):
        found = on_devices(moments, images, devices)
        np.testing.assert_allclose(found.mean[0], rows.mean(0), atol=1e-6)
        np.testing.assert_allclose(found.covariance[0], np.cov(rows.T, bias=True), atol=1e-6)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        state = Moments(jnp.zeros((1, 27)), jnp.zeros((1, 27, 27)))
        for number, part in enumerate(order):
            new = on_devices(moments, images[2 * part : 2 * part + 2])
            state = merged(state, new, jnp.asarray(number))
        np.testing.assert_allclose(state.mean[0], rows.mean(0), atol=1e-5)
        np.testing.assert_allclose(state.covariance[0], np.cov(rows.T, bias=True), atol=1e-5)


def test_whitened_patches_are_white_and_one_convolution_gives_their_distances():
    rng = np.random.default_rng(1)
    images = noise(6, 24) @ rng.uniform(0, 0.5, (3, 3)).astype(np.float32)
    rows = np.asarray(patches(jnp.asarray(images), 3)).reshape(-1, 27)
    covariance = np.cov(rows.T, bias=True).astype(np.float32)
    matrix, bias, components = whitening(jnp.asarray(rows.mean(0)), jnp.asarray(covariance), 0.0)
    white = rows @ np.asarray(matrix) + np.asarray(bias)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(27), atol=2e-2)
    np.testing.assert_allclose(components.T @ components, np.eye(27), atol=1e-5)
    found = distances(jnp.asarray(images), matrix.reshape(3, 3, 3, 27), bias)
    assert found.shape == (6, 22, 22)
    np.testing.assert_allclose(found.ravel(), np.square(white).mean(1), rtol=1e-3)
    assert float(found.mean()) == pytest.approx(1, abs=1e-3)


def test_a_direction_without_variance_counts_as_rounding_does():
    """Grey images: a colour is far, and what does not vary is not divided by nothing."""
    matrix, _, _ = whitening(jnp.zeros(3), jnp.full((3, 3), 0.2), 0.0)
    coloured = jnp.array([[0.1, -0.1, 0.0]]) @ matrix
    assert float(jnp.square(coloured).sum()) == pytest.approx(0.02 / ROUNDED, rel=1e-3)
    assert np.isfinite(np.asarray(whitening(jnp.zeros(3), jnp.zeros((3, 3)), 1e-5)[0])).all()


def test_smaller_scales_are_means():
    blocks = pooled(jnp.arange(48.0).reshape(1, 4, 4, 3), 2)
    np.testing.assert_array_equal(blocks[0, 0, 0], [7.5, 8.5, 9.5])


def test_tails_of_known_laws():
    """Pareto's survival x^-3, far beyond all that was seen; and levels on the bins' edges."""
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.uniform(size=100_000) ** (-1 / 3), jnp.float32)
    shares = levels.bin_shares(values)
    tail = levels.log_tail(shares, jnp.float32(values.size))
    for distance in (1.5, 5.0, 100.0):
        found = float(levels.log_pixels(jnp.float32(distance), tail))
        assert found == pytest.approx(-3 * np.log10(distance), rel=0.12, abs=0.02)
    edges = levels.thresholds(shares, (0.1, 0.01))
    above = levels.above_levels(values.reshape(1, 100, 1000), edges).mean((0, 2, 3))
    found = np.asarray(above)
    assert (found <= [0.1, 0.01]).all() and (found > [0.07, 0.007]).all()


def test_noise_has_no_more_marks_than_promised(of_noise):
    """The property that all of it is for: less than one false region is expected in an image."""
    from scipy import ndimage

    score, _ = of_noise
    scored = [score(noise(100, 32, seed)) for seed in (1, 2)]
    maps = np.concatenate([each.map for each in scored])
    tests = float(scored[0].map[0].max() - scored[0].image[0])  # log10 of their number
    assert tests == pytest.approx(np.log10((30**2 + 14**2) * (1 + 3 * 3)), abs=1e-4)
    counts = [ndimage.label(values > tests, np.ones((3, 3)))[1] for values in maps]
    assert np.mean(counts) <= 1


def test_what_differs_is_marked_where_it_is(of_noise):
    """A small patch of less contrast, one of more, and a third of the image."""
    score, _ = of_noise
    for rows, factor in ((slice(10, 22), 0.3), (slice(10, 22), 1.4), (slice(0, 32), 1.4)):
        images = noise(4, 32, seed=3)
        images[:, rows, 10:21] *= factor
        found = score(images)
        if factor > 1:
            assert (np.asarray(found.image) > 0).all()
            for values in np.asarray(found.map):
                row, column = np.unravel_index(values.argmax(), values.shape)
                assert rows.start - 2 <= row < rows.stop + 2 and 8 <= column < 23
    assert set(found.terms) == {"patch", "windows"}
    assert (found.image == jnp.maximum(*found.terms.values())).all()


def test_few_images_use_no_level_that_they_know_nothing_of(of_noise):
    """Of one image the level of a thousandth lies above one patch: its windows are not tested."""
    _, variables = of_noise
    usual = variables["usual"]
    images = noise(2, 32, seed=3)
    images[:, :, :10] *= 1.4
    score = jax.jit(build(settings(), 48).score)
    few = {**variables, "usual": usual | {"patches": usual["patches"] / 48}}
    many_images, few_images = score(variables, images), score(few, images)
    assert (few_images.terms["windows"] < many_images.terms["windows"]).all()


def test_an_image_against_itself():
    """No training image is looked at: what is rare in the image is found, in noise nothing."""
    score, variables = trained(settings(48, reference="image"), noise(8, 48))
    assert variables == {}
    images = noise(8, 48, seed=4)
    images[4:, 12:20, 12:20] *= 1.6
    found = score(images)
    assert (found.image[:4] < 0).all() and (found.image[4:] > 0).all()
    for values in np.asarray(found.map)[4:]:
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert 10 <= row < 22 and 10 <= column < 22
    assert np.isfinite(np.asarray(score(np.full((8, 48, 48, 3), 0.5, np.float32)).map)).all()


def test_images_of_one_colour_are_finite_and_a_speck_is_far():
    blank = np.full((16, 32, 32, 3), -0.2, np.float32)
    score, _ = trained(settings(), blank)
    good = score(blank[:2])
    specks = blank[:2].copy()
    specks[:, 16, 16] = 1
    assert np.isfinite(np.asarray(good.map)).all() and (good.image <= 0).all()
    assert (score(specks).image > 0).all()


@pytest.mark.parametrize(
    ("section", "side", "said"),
    [
        ({"side": 4}, 32, "patches.side=4 is even, so that a patch has no middle: choose 5"),
        ({"scales": (1, 3)}, 32, "32 px do not divide by patches.scales 3: choose 30 or 33 px"),
        (
            {"side": 9, "scales": (1, 4)},
            32,
            "patches of 9 px do not fit into 32 px made 4 times smaller: choose 36 px",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_told(section, side, said):
    with pytest.raises(ValueError, match=said):
        build(settings(side, **section), 20)


def test_too_few_epochs():
    config = settings()
    config.training.epochs = 0
    with pytest.raises(
        ValueError, match="0 epochs of 20 images are no step of .*: set more epochs, or num_steps"
    ):
        build(config, 20)
