"""Corruption: what it changes and leaves, how much of it there is, where its content comes from."""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import draw, random_images
from scipy import ndimage

from ae_jax import contents, corruption, patches
from engine import parallel
from engine.method import TrainState

MAGENTA, GREEN = (255, 0, 255), (0, 255, 0)


@cache
def jitted(**options):
    """One compiled corruption for all tests that ask for it."""
    return jax.jit(corruption.patches(**options))


@pytest.fixture(scope="module")
def draws():
    """1,000 images of 32 px, and what the defaults make of them: images, corrupted, masks."""
    return draw(jitted(), random_images(50, 32, 32, 3), 20)


def test_pixels_outside_the_mask_keep_their_bits(draws):
    images, corrupted, masks = draws
    assert corrupted.dtype == masks.dtype == np.float32
    outside = masks == 0
    assert 0.5 < outside.mean() < 1
    np.testing.assert_array_equal(corrupted[outside], images[outside])


def test_pixels_inside_the_mask_are_changed(draws):
    """Where at least a tenth was replaced; a content of the pixel's own colour is an accident."""
    images, corrupted, masks = draws
    inside = masks > 0.1
    assert np.mean((corrupted[inside] != images[inside]).any(axis=-1)) > 0.99


def test_corrupted_images_and_masks_stay_in_their_ranges(draws):
    """Up to the last bit of float32."""
    _, corrupted, masks = draws
    assert np.isfinite(corrupted).all() and np.abs(corrupted).max() <= 1 + 1e-6
    assert masks.min() == 0 and 0.9 < masks.max() <= 1 + 1e-6


def test_how_much_is_corrupted(draws):
    """Measured: 6.9 % of the pixels of a corrupted image on average, 30 % at most of 2,000 images.

    The prototype of reference/autoencoders.md, 1.4, had 9.4 % on average and 31 % at most.
    """
    shares = (draws[2] > 0).mean(axis=(-2, -1)).ravel()
    assert shares.size == 1000
    assert shares.max() < 0.6
    assert 0.05 < shares[shares > 0].mean() < 0.09
    assert shares.max() > 0.15  # large ones occur


def test_about_fifteen_percent_of_images_stay_clean(draws):
    """Of 1,000: 150, and a standard deviation of 11; four of them to either side."""
    images, corrupted, masks = draws
    clean = (masks == 0).all(axis=(-2, -1))
    assert 105 <= clean.sum() <= 195
    np.testing.assert_array_equal(corrupted[clean], images[clean])


def test_defects_lie_everywhere(draws):
    """Every pixel of the 32 x 32 is inside some of 1,000 masks, the corners as well."""
    assert (draws[2] > 0).any(axis=(0, 1)).all()


def test_one_key_gives_the_same_bits_and_another_key_others(draws):
    images, corrupted, masks = draws
    again, mask = jitted()(jax.random.key(0), jnp.asarray(images[0]))
    np.testing.assert_array_equal(again, corrupted[0])
    np.testing.assert_array_equal(mask, masks[0])
    for other in range(1, 20):
        # Apart from the images that are clean under both keys, all differ.
        some = ((masks[0] > 0) | (masks[other] > 0)).any(axis=(1, 2))
        assert (masks[0] != masks[other]).any(axis=(1, 2))[some].all()


def test_images_of_one_batch_have_masks_of_their_own(draws):
    masks = draws[2][0].reshape(50, -1)
    shown = masks[(masks > 0).any(axis=1)]
    assert len(np.unique(shown, axis=0)) == len(shown) > 30


def test_compiled_and_uncompiled_agree():
    images = random_images(2, 16, 16, 3)
    options = dict(max_patches=2, clean=0.0)
    compiled = jitted(**options)(jax.random.key(3), images)
    plain = corruption.patches(**options)(jax.random.key(3), images)
    assert (compiled[1] > 0).any()
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_clean_images_alone_come_back_unchanged():
    images = random_images(20, 16, 16, 3)
    corrupted, mask = jitted(clean=1.0)(jax.random.key(0), images)
    np.testing.assert_array_equal(corrupted, images)
    np.testing.assert_array_equal(mask, 0)


@pytest.mark.parametrize(("number", "least", "most"), [(1, 0.4999, 0.5), (3, 0.76, 0.875)])
def test_opacity_bounds_the_mask(number, least, most):
    """0.5 of one patch, and of three, one over the other, 1 - 0.5^3: more than 0.75 of two."""
    images = random_images(50, 32, 32, 3)
    options = dict(max_patches=number, side=(0.9, 1.0), opacity=(0.5, 0.5), clean=0.0)
    _, mask = jitted(**options)(jax.random.key(0), images)
    assert least < mask.max() <= most + 1e-6


def test_a_pixel_moves_by_its_mask_towards_content_in_the_range_of_images():
    """M Q + (1 - M) P, with |Q| <= 1, so that the pixel moves by 2 M at most."""
    images = random_images(20, 32, 32, 3)
    corrupted, mask = jitted(max_patches=1, clean=0.0)(jax.random.key(0), images)
    some = mask > 0.05
    content = images[some] + (corrupted - images)[some] / mask[some][:, None]
    assert float(jnp.abs(content).max()) <= 1 + 1e-4
    assert float(jnp.std(content)) > 0.2


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 16, 16, 3), dict(max_patches=1, side=(1.0, 1.0), opacity=(1.0, 1.0), clean=0.0)),
        ((1, 16, 16, 3), dict(max_patches=1, side=(1e-3, 1e-3))),
        ((2, 25, 17, 1), dict(max_patches=3, side=(0.5, 1.0), opacity=(1e-3, 1e-3))),
    ],
    ids=["as large as the image", "smaller than a pixel", "grey, tall and faint"],
)
def test_extreme_settings_give_finite_images(shape, options):
    images = random_images(*shape)
    for seed in range(20):
        corrupted, mask = jitted(**options)(jax.random.key(seed), images)
        assert corrupted.shape == shape and mask.shape == shape[:3]
        assert jnp.isfinite(corrupted).all() and jnp.abs(corrupted).max() <= 1 + 1e-6
        assert mask.min() >= 0 and mask.max() <= 1 + 1e-6
        np.testing.assert_array_equal(corrupted[mask == 0], images[mask == 0])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("side", (0.5, 0.1)),
        ("side", (0.0, 0.5)),
        ("side", (0.1, 1.5)),
        ("clean", 2),
        ("clean", -0.1),
        ("max_patches", 0),
        ("opacity", (0, 1)),
        ("opacity", (0.5, 1.5)),
        ("opacity", (0.8, 0.2)),
        ("opacity", (float("nan"), 1.0)),
    ],
)
def test_numbers_out_of_their_range_are_refused_and_named(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field} {value}")) as caught:
        corruption.patches(**{field: value})
    assert "\n" not in str(caught.value)


def plain_textures(colour):
    return np.full((3, 20, 20, 3), colour, np.uint8)


def test_textures_are_the_content_of_an_eighth_of_the_patches():
    """One of eight kinds. Two corruptions that differ in nothing but the textures' colour."""
    images = 0.3 * random_images(64, 16, 16, 3)
    options = dict(max_patches=1, opacity=(1.0, 1.0), side=(0.5, 0.5), clean=0.0)
    found = 0
    run = jax.jit(lambda textures, *args: corruption.patches(textures, **options)(*args))
    both = [plain_textures(colour) for colour in (MAGENTA, GREEN)]
    for seed in range(10):
        (magenta, mask), (green, other) = (run(t, jax.random.key(seed), images) for t in both)
        np.testing.assert_array_equal(mask, other)
        differ = np.asarray((magenta != green).any(axis=(1, 2, 3)))
        found += differ.sum()
        core = np.asarray(mask == 1) & differ[:, None, None]
        # Recoloured, but by less than would turn the sign.
        assert core.any()
        assert (np.sign(magenta[core]) * [1, -1, 1] >= 0).all()
        assert (np.sign(green[core]) * [-1, 1, -1] >= 0).all()
    assert 80 - 4 * 8.4 < found < 80 + 4 * 8.4  # binomial of 640 at 1/8


def test_each_of_the_textures_is_taken():
    """Found by changing one at a time: of 320 patches 40 hold a texture, 13 each of three."""
    greys = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 127, 255)])
    rng, placed = jax.random.key(0), patches.place(jax.random.key(1), (8, 8, 8, 3), 40, (0.5, 0.5))
    images = jnp.zeros((8, 8, 8, 3))
    made = jax.jit(contents.contents)
    base = made(rng, images, placed, jnp.asarray(greys))
    changed = []
    for which in range(3):
        other = greys.copy()
        other[which] += 20 if which < 2 else 236  # 255 + 236 is 235: away from the end
        filled = made(rng, images, placed, jnp.asarray(other))
        changed.append(np.asarray((filled != base).any(axis=(2, 3, 4))))
    # Less where recolouring cuts both off at the range's end.
    assert all(3 <= each.sum() < 30 for each in changed)
    assert np.sum(changed, axis=0).max() == 1


def test_foreign_content_is_of_one_other_image_and_own_content_of_the_image_itself():
    """Found by changing one image at a time: 5 of 7 kinds depend on none.

    Images of small contrast, so that recolouring cuts nothing off.
    """
    images = 0.3 * random_images(4, 16, 16, 3)
    made = jax.jit(lambda rng, images, placed: contents.contents(rng, images, placed, None))
    placing = jax.jit(lambda rng: patches.place(rng, images.shape, 8, (0.3, 0.5)))
    depends, largest = [], []
    for seed in range(12):
        rng, place_rng = jax.random.split(jax.random.key(seed))
        placed = placing(place_rng)
        base = made(rng, images, placed)
        moved = [made(rng, images.at[j].multiply(-0.9), placed) for j in range(4)]
        depends.append([np.asarray((m != base).any(axis=(2, 3, 4))) for m in moved])
        largest.append(np.abs(base).max(axis=(2, 3, 4)))
    depends = np.moveaxis(np.array(depends), 1, -1)  # [seeds, images, patches, on which image]
    on_itself = np.einsum("sbkb->sbk", depends)
    on_others = depends.sum(-1) - on_itself
    assert on_others.max() == 1 and not (on_others.astype(bool) & on_itself).any()
    # 384 patches, a seventh is 55, of standard deviation 6.9.
    assert abs(on_itself.sum() - 55) < 28 and abs(on_others.sum() - 55) < 28
    # Each image gets content from each of the three others.
    assert (depends.any(axis=(0, 2))).all()
    # Only what comes from another image is recoloured.
    largest = np.array(largest)
    assert largest[on_itself].max() <= 0.3 + 1e-6
    assert np.median(largest[on_others.astype(bool)]) > 0.4


def test_samples_are_bilinear_and_mirrored_at_the_borders():
    """As SciPy has it, whose pixel middles are at whole numbers."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (3, 7, 9, 2)).astype(np.float32)
    index = np.array([[0, 2], [1, 1], [2, 0]])
    places = rng.uniform(-30, 40, (3, 2, 6, 5, 2)).astype(np.float32)
    places[0, 0, 0] = [[0.0, 0.0], [7.0, 9.0], [0.5, 0.5], [6.5, 8.5], [-6.5, 20.5]]
    found = jax.jit(contents._sample)(images, index, places)
    assert found.shape == (3, 2, 6, 5, 2)
    for b, k in np.ndindex(3, 2):
        for channel in range(2):
            expected = ndimage.map_coordinates(
                images[index[b, k], ..., channel].astype(float),
                np.moveaxis(places[b, k], -1, 0) - 0.5,
                order=1,
                mode="mirror",
            )
            np.testing.assert_allclose(found[b, k, ..., channel], expected, atol=2e-5)


def test_samples_of_bytes_and_of_a_single_pixel():
    images = np.full((1, 1, 1, 3), (0, 100, 255), np.uint8)
    places = np.random.default_rng(0).uniform(-3, 3, (1, 1, 4, 4, 2)).astype(np.float32)
    found = contents._sample(jnp.asarray(images), jnp.zeros((1, 1), int), jnp.asarray(places))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to((0, 100, 255), (1, 1, 4, 4, 3)), rtol=1e-6)


def centred(number, at):
    """Patches whose canvases have these `u` and `v`, [P], centred and of half a side of 1."""
    line = jnp.broadcast_to(jnp.asarray(at, jnp.float32), (1, number, len(at)))
    zeros = jnp.zeros((1, number, 2))
    return patches.Patches(zeros.astype(int), zeros, jnp.ones((1, number)), line, line)


def test_displacements_have_variance_one_and_are_smooth():
    """Over the whole patch. Correlation of u = 0 and 0.5: exp(-(0.5 / 0.5)^2 / 4)."""
    drawn = jax.jit(patches.field)(jax.random.key(0), centred(4000, [-1, -0.5, 0, 0.5, 1]))
    values = np.asarray(drawn[0])  # [K, 5, 5, 2]
    assert np.abs(values.mean(axis=0)).max() < 0.08
    np.testing.assert_allclose((values**2).mean(axis=0), 1, atol=0.12)
    correlation = np.mean(values[:, 2, 2] * values[:, 3, 2])
    np.testing.assert_allclose(correlation, np.exp(-0.25), atol=0.06)
    components = np.mean(values[..., 0] * values[..., 1])
    assert abs(components) < 0.05


def test_disks_stay_within_their_patches():
    at = np.linspace(-1.5, 1.5, 31)
    weights = np.asarray(jax.jit(patches.disks)(jax.random.key(0), centred(500, at))[0])
    assert weights.min() == 0 and weights.max() == 1
    beyond = np.maximum(*np.abs(np.meshgrid(at, at))) >= 1
    np.testing.assert_array_equal(weights[:, beyond], 0)
    # Soft: there are weights in between. And none is bent out of its patch altogether.
    assert ((weights > 0.1) & (weights < 0.9)).any(axis=(1, 2)).mean() > 0.95
    assert (weights > 0.5).any(axis=(1, 2)).mean() > 0.98


def test_canvases_lie_in_the_image_and_centres_anywhere():
    placed = patches.place(jax.random.key(0), (100, 20, 40, 3), 8, (0.1, 0.5))
    assert placed.u.shape == placed.v.shape == (100, 8, 10)
    last = placed.corner + 10
    assert placed.corner.min() == 0 and (last.max(axis=(0, 1)) == np.array([20, 40])).all()
    half = np.asarray(placed.half)
    assert 1 <= half.min() < 1.1 and 4.9 < half.max() <= 5
    centre = np.asarray(placed.centre).reshape(-1, 2)
    np.testing.assert_allclose(centre.mean(axis=0), (10, 20), atol=2)
    assert (centre.min(axis=0) < 0.5).all() and (centre.max(axis=0) > (19.5, 39.5)).all()
    # u is how far a row of the canvas, at its middle, is from the centre, in halves of the side.
    rows = np.asarray(placed.corner)[..., 0, None] + np.arange(10) + 0.5
    expected = (rows - np.asarray(placed.centre)[..., 0, None]) / half[..., None]
    np.testing.assert_allclose(placed.u, expected, atol=1e-4)


def test_eight_devices_corrupt_as_one_that_has_all_images():
    """In a step, with a closure over textures, and content of images of other devices."""
    images = random_images(8, 1, 2, 16, 16, 3)
    weights = random_images(16, 16, 16, 3)
    textures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    corrupt = corruption.patches(textures, max_patches=2, clean=0.0)

    def step(state, images, rng):
        corrupted, mask = corrupt(rng, images)
        mine = parallel.share(lambda count: weights[:count], len(images))
        sums = {"sum": jnp.sum(mine * corrupted), "mask": jnp.sum(mine[..., 0] * mask)}
        return state, sums

    state = parallel.replicate(TrainState(jnp.zeros((), jnp.int32), {}, {}))
    run = parallel.data_parallel(step, 5, lambda held, sent: sent)
    _, metrics = run(state, (), images)
    rng = jax.random.fold_in(jax.random.fold_in(jax.random.key(5), 0), 0)
    corrupted, mask = jax.jit(corrupt)(rng, images.reshape(16, 16, 16, 3))
    np.testing.assert_allclose(8 * metrics["sum"], jnp.sum(weights * corrupted), rtol=1e-4)
    expected = jnp.sum(weights[..., 0] * mask)
    np.testing.assert_allclose(8 * metrics["mask"], expected, rtol=1e-4, atol=1e-4)
