"""Seamless corruption, the mixture of corruptions, and the product's foreground."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import draw, random_images
from ml_collections import FrozenConfigDict

from ae_jax import corruption, seamless, self_supervised
from ae_jax.poisson import Box
from configs import ssae
from engine import parallel
from engine.foreground import foreground
from engine.method import TrainState

KEY = jax.random.key(0)
SETTINGS = seamless.Settings(3, (0.03, 0.25), (0.7, 1.3), 0.5, 0.5, 0.15, False)


@cache
def jitted(**options):
    return jax.jit(corruption.seamless(**options))


@pytest.fixture(scope="module")
def draws():
    """600 images of 32 px, and what the defaults make of them."""
    return draw(jitted(), random_images(60, 32, 32, 3), 10)


def test_pixels_outside_the_mask_keep_their_bits_and_those_inside_change(draws):
    images, corrupted, masks = draws
    assert corrupted.dtype == masks.dtype == np.float32
    np.testing.assert_array_equal(corrupted[masks == 0], images[masks == 0])
    inside = masks > 0.5
    assert np.mean((corrupted[inside] != images[inside]).any(axis=-1)) > 0.99
    assert np.isfinite(corrupted).all() and np.abs(corrupted).max() <= 1 + 1e-6
    assert masks.min() == 0 and masks.max() == 1


def test_fifteen_percent_of_images_stay_clean(draws):
    """Of 600: 90, and a standard deviation of 8.7; four of them to either side."""
    clean = (draws[2] == 0).all(axis=(-2, -1))
    assert 55 <= clean.sum() <= 125


def test_sizes_are_those_of_the_paper():
    """Uncut, half a side has the mean 0.03 + 2 * 0.05; no box leaves the image."""
    wide = SETTINGS._replace(size=(0.0, 0.5))
    places = seamless.candidates(wide, KEY, (500, 256, 256))
    half = np.asarray(places.box.high - places.box.low) / 2 / 256
    assert half.size == 8000
    np.testing.assert_allclose(half.mean(), 0.13, atol=0.005)
    np.testing.assert_allclose(
        np.quantile(half, [0.05, 0.5, 0.95]), [0.048, 0.114, 0.267], atol=0.01
    )
    places = seamless.candidates(SETTINGS, KEY, (500, 256, 128))
    low, high, shift, scale = map(np.asarray, (*places.box, places.shift, places.scale))
    assert low.min() >= 0 and (high <= [255, 127]).all() and (high - low >= 2).all()
    half = (high - low) / 2
    source, reach = (low + high) / 2 + shift, half / scale[..., None]
    assert (source - reach >= -1).all() and (source + reach <= [256, 128]).all()
    assert (half <= 0.25 * np.array([256, 128]) + 1).all()


def test_what_is_not_resized_is_moved_with_its_bits():
    source = random_images(1, 16, 16, 3)
    box = Box(jnp.array([[4.0, 5.0]]), jnp.array([[9.0, 12.0]]))
    place = seamless.Place(box, jnp.array([[2.0, -3.0]]), jnp.ones(1))
    moved = np.asarray(seamless._moved(source, place, (16, 16)))
    np.testing.assert_array_equal(moved[0, 4:10, 5:13], source[0, 6:12, 2:10])


def test_equal_images_pasted_in_place_stay_as_they_are():
    """What is cut out of an equal image, at the same place, is what was there."""
    images = jnp.tile(random_images(1, 32, 32, 3), (4, 1, 1, 1))
    box = Box(jnp.tile(jnp.array([3.0, 4.0]), (4, 1)), jnp.tile(jnp.array([20.0, 29.0]), (4, 1)))
    place = seamless.Place(box, jnp.zeros((4, 2)), jnp.ones(4))
    mixed = jnp.array([False, True, False, True])
    content = seamless.clone(images, seamless._moved(images, place, (32, 32)), box, mixed)
    np.testing.assert_allclose(content, images, atol=1e-6)
    flat = jnp.full((4, 32, 32, 3), 0.25)
    corrupted, mask = jitted(clean=0.0)(KEY, flat)
    assert (np.asarray(mask) > 0).any(axis=(1, 2)).all()
    np.testing.assert_allclose(corrupted, flat, atol=1e-6)


def test_parts_are_laid_on_the_product_alone():
    rows, columns = np.mgrid[:64, :64] - 32
    disk = rows**2 + columns**2 < 16**2
    images = np.where(disk[None, ..., None], random_images(8, 64, 64, 3) / 4, 1.0)
    images = jnp.asarray(images, jnp.float32)
    _, masks = jitted(clean=0.0, max_patches=1, size=(0.03, 0.15))(KEY, images)
    product, masks = np.asarray(foreground(images)), np.asarray(masks) > 0
    assert masks.any(axis=(1, 2)).sum() >= 6
    for image, mask in zip(product, masks, strict=True):
        if mask.any():  # whose outermost pixels keep the image's own, so the box is larger by one
            (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0)
            assert image[top - 1 : bottom + 2, left - 1 : right + 2].mean() > 0.2
    _, anywhere = jitted(clean=0.0, max_patches=1, size=(0.03, 0.15), on_product=False)(KEY, images)
    assert not (np.asarray(anywhere) > 0)[:, disk].any(axis=1).all()


def test_a_batch_of_one_image_has_nothing_to_paste():
    with pytest.raises(ValueError, match="the batch holds one image: choose a batch_size of 2"):
        corruption.seamless()(KEY, random_images(1, 16, 16, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_patches": 0}, "max_patches 0 must be at least 1"),
        ({"size": (0.4, 0.03)}, "size (0.4, 0.03) two shares"),
        ({"resize": (0.0, 1.0)}, "resize (0.0, 1.0) two factors above 0"),
        ({"clean": 1.5}, "near, mixed and clean (0.5, 0.5, 1.5) must be from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        corruption.seamless(**options)


OWN = """
import jax.numpy as jnp

def flat(textures, *, value):
    return lambda rng, images: (jnp.full_like(images, value), jnp.ones(images.shape[:3]))
"""


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """A mixture of `seamless` with a corruption of the user's own."""
    (tmp_path / "own_corruption.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    sections = {
        "flat": {"fn": "own_corruption:flat", "value": 0.5},
        "seamless": {"fn": "ae_jax.corruption:seamless", "clean": 0.0, "max_patches": 1},
    }
    return lambda **weights: corruption.mixture(corruptions=sections, weights=weights)


def test_each_image_of_a_mixture_has_one_corruption_by_the_weights(mixed):
    images = random_images(60, 16, 16, 3)
    corrupted, masks = jax.jit(mixed(flat=1, seamless=3))(KEY, images)
    _, _, rng = jax.random.split(KEY, 3)
    other, other_masks = jitted(clean=0.0, max_patches=1)(rng, images)
    flat = np.all(corrupted == 0.5, axis=(1, 2, 3))
    assert 4 <= flat.sum() <= 26  # of 60 a quarter, and three standard deviations of 3.4
    np.testing.assert_array_equal(masks[flat], 1)
    np.testing.assert_allclose(corrupted[~flat], other[~flat], atol=1e-5)
    np.testing.assert_allclose(masks[~flat], other_masks[~flat], atol=1e-5)


def test_a_config_names_a_mixture_as_its_json_holds_it():
    config = ssae.get_config("demo")
    sections = {
        "patches": {"fn": "ae_jax.corruption:patches", "side": [0.1, 0.4]},
        "seamless": {"fn": "ae_jax.corruption:seamless", "resize": [0.8, 1.2]},
    }
    config.corruption = {
        "fn": "ae_jax.corruption:mixture",
        "corruptions": sections,
        "weights": {"patches": 0.5, "seamless": 0.5},
    }
    (stage,) = self_supervised.build(FrozenConfigDict(config), 16).stages
    shape = jax.eval_shape(stage.preview, jnp.zeros((2, 64, 64, 3)), KEY).shape
    assert shape == (64, 64, 128, 3)


def test_a_weight_of_zero_leaves_the_other_corruption_alone(mixed):
    corrupted, masks = mixed(flat=2, seamless=0)(KEY, random_images(1, 8, 8, 3))
    np.testing.assert_array_equal(corrupted, 0.5)
    np.testing.assert_array_equal(masks, 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"flat": 1.0}, "weights ['flat']: name the same in both"),
        ({"flat": 1.0, "seamless": -1.0}, "must be 0 or more"),
        ({"flat": 0.0, "seamless": 0.0}, "one at least above 0"),
    ],
)
def test_weights_that_make_no_mixture_are_refused(mixed, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        mixed(**weights)


def test_eight_devices_corrupt_as_one_that_has_all_images(mixed):
    images = random_images(8, 1, 2, 16, 16, 3)
    weights = random_images(16, 16, 16, 3)
    corrupt = mixed(flat=1, seamless=3)

    def step(state, images, rng):
        corrupted, mask = corrupt(rng, images)
        mine = parallel.share(lambda count: weights[:count], len(images))
        sums = {"sum": jnp.sum(mine * corrupted), "mask": jnp.sum(mine[..., 0] * mask)}
        return state, sums

    state = parallel.replicate(TrainState(jnp.zeros((), jnp.int32), {}, {}))
    _, metrics = parallel.data_parallel(step, 5, lambda held, sent: sent)(state, (), images)
    rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 0)
    corrupted, mask = jax.jit(corrupt)(rng, images.reshape(16, 16, 16, 3))
    np.testing.assert_allclose(8 * metrics["sum"], jnp.sum(weights * corrupted), rtol=1e-4)
    np.testing.assert_allclose(8 * metrics["mask"], jnp.sum(weights[..., 0] * mask), rtol=1e-4)


def test_a_disk_on_a_plain_background_is_foreground():
    rows, columns = np.mgrid[:128, :128] - 64
    radius = np.hypot(rows, columns)
    for inside, outside in ((1.0, -1.0), (-0.2, 0.6)):
        image = np.where(radius[..., None] < 40, inside, outside) * np.ones((1, 1, 3))
        found = np.asarray(foreground(jnp.asarray(image[None], jnp.float32)))[0]
        np.testing.assert_array_equal(found[radius < 40], 1)
        np.testing.assert_array_equal(found[radius > 44], 0)


def test_where_there_is_no_background_all_is_foreground():
    noise, flat = random_images(1, 64, 64, 3)[0], jnp.full((64, 64, 3), 0.5)
    small = flat.at[30:34, 30:34].set(-1.0)  # less than a tenth
    np.testing.assert_array_equal(foreground(jnp.stack([noise, flat, small])), 1)
