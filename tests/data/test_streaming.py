"""Training batches, gathered by tf.data and on the device: the same, to the bit."""

import itertools

import jax
import numpy as np
import pytest
from trees import picture

from data import pipeline, sampling
from engine import batches

NUMBERED = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 4, 4, 3))


def streamed(pixels, *, crop=0, **options):
    """`batches(dims, seed, first_step, process)` as the device makes them of what tf.data sends."""
    draws = pipeline.train_draws(pixels, crop=crop, **options)
    source = batches.streamed(pipeline.train_images(pixels, draws), crop=crop)
    images_of = jax.jit(source.images)

    def each(dims, seed, first_step, process=(0, 1)):
        for sent in source.sent(dims, seed, first_step, process):
            yield np.asarray(images_of(source.held, sent))

    return each


def numbers(batch):
    """Which images a batch of NUMBERED holds."""
    return np.rint((batch[..., 0, 0, 0] + 1) * 127.5).astype(int)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_the_images_of_a_step_do_not_depend_on_devices_and_processes(leading):
    each = streamed(NUMBERED, flip=True)
    whole = next(each((1, *leading, 16), 0, 7))[0]
    expected = sampling.batch_indices(0, 7, (*leading, 16), 60)[0]
    np.testing.assert_array_equal(numbers(whole), expected)
    for local, count in ((8, 1), (2, 1), (2, 2), (1, 4)):
        dims = (local, *leading, 16 // (local * count))
        parts = [next(each(dims, 0, 7, process=(index, count))) for index in range(count)]
        assert all(part.shape == (*dims, 4, 4, 3) for part in parts)
        joined = np.concatenate([*np.concatenate(parts)], axis=len(leading))
        np.testing.assert_array_equal(joined, whole)


def test_batches_are_scaled_and_resume():
    pixels = picture(0, (10, 4, 6, 3))
    pixels[0, 0, 0] = [0, 255, 128]
    each = streamed(pixels, flip=True)
    whole = list(itertools.islice(each((2, 5), 4, 0), 6))
    assert all(batch.dtype == np.float32 for batch in whole)
    assert min(batch.min() for batch in whole) == -1 and max(b.max() for b in whole) == 1
    for batch, step in zip(each((2, 5), 4, 3), range(3, 6), strict=False):
        np.testing.assert_array_equal(batch, whole[step])
        indices, flips = sampling.batch_indices(4, step, (10,), 10)
        expected = pixels[indices] / np.float32(127.5) - 1
        expected[flips] = expected[flips, :, ::-1]
        np.testing.assert_allclose(batch.reshape(10, 4, 6, 3), expected, atol=1e-7)
        if step == 5:
            break


def test_flips_only_when_asked():
    pixels = picture(0, (10, 4, 4, 3))
    batch = next(streamed(pixels, flip=False)((1, 10), 4, 0))[0]
    indices, flips = sampling.batch_indices(4, 0, (10,), 10)
    assert flips.any()
    np.testing.assert_allclose(batch, pixels[indices] / np.float32(127.5) - 1, atol=1e-7)


@pytest.mark.promise("R11", "a batch larger than the data set: each image as often as any other")
@pytest.mark.parametrize("batch", [60, 64, 200])
def test_sixty_images_and_any_batch(batch):
    drawn = numbers(next(streamed(NUMBERED, flip=True)((1, batch), 0, 0)))[0]
    counts = np.bincount(drawn, minlength=60)
    assert counts.min() >= batch // 60 and counts.max() <= -(-batch // 60)


@pytest.mark.parametrize(
    ("leading", "flip", "crop", "rotation"),
    [
        *[((), True, 0, 0), ((3,), True, 0, 0), ((), False, 0, 0), ((3,), True, 3, 0)],
        *[((), False, 4, 0), ((3,), True, 3, 90), ((), False, 4, 90), ((), True, 0, 180)],
    ],
)
def test_resident_batches_are_the_streamed_ones_to_the_bit(leading, flip, crop, rotation):
    pixels = picture(0, (10, 4, 6, 3))
    options = {"flip": flip, "crop": crop, "rotation": rotation}
    draws = pipeline.train_draws(pixels, **options)
    held = batches.resident(pixels, draws, crop=crop)
    images_of = jax.jit(held.images)
    for dims, process in (((2, *leading, 8), (0, 1)), ((2, *leading, 4), (1, 2))):
        whole = streamed(pixels, **options)(dims, 7, 3, process)
        sent = held.sent(dims, 7, 3, process)
        for expected, draw in itertools.islice(zip(whole, sent, strict=True), 4):
            images = images_of(held.held, draw)
            assert images.dtype == np.float32
            np.testing.assert_array_equal(images, expected)


def test_crops_are_pieces_of_the_images_that_are_drawn():
    """By hand: cut at the corner, then mirrored; indices and flips are those of whole images."""
    pixels = picture(0, (10, 8, 9, 3))
    batch = next(streamed(pixels, flip=True, crop=5)((1, 40), 4, 3))[0]
    indices, flips = sampling.batch_indices(4, 3, (40,), 10)
    corners = sampling.batch_corners(4, 3, (40,), (3, 4))
    for found, index, flip, (top, left) in zip(batch, indices, flips, corners, strict=True):
        piece = pixels[index, top : top + 5, left : left + 5]
        np.testing.assert_array_equal(found, sampling.scale(piece[:, ::-1] if flip else piece))


@pytest.mark.parametrize(
    ("side", "crop", "rotation"), [(5, 0, 90), (5, 0, 180), (8, 5, 90), (8, 5, 180), (8, 5, 0)]
)
@pytest.mark.parametrize("source", ["resident", "streamed"])
def test_turned_images_are_numpys(side, crop, rotation, source):
    """By hand: cut, mirrored, then turned; what else is drawn is as it is without turns."""
    pixels, dims = picture(0, (10, side, side, 3)), (2, 3, 20)
    draws = pipeline.train_draws(pixels, flip=True, crop=crop, rotation=rotation)
    draw = next(draws(dims, 4, 3))
    unturned = pipeline.train_draws(pixels, flip=True, crop=crop)
    for found, expected in zip(draw[:3], next(unturned(dims, 4, 3)), strict=False):
        np.testing.assert_array_equal(found, expected)
    if source == "resident":
        batch = jax.jit(batches.resident(pixels, draws, crop=crop).images)(pixels, draw)
    else:
        batch = next(streamed(pixels, flip=True, crop=crop, rotation=rotation)(dims, 4, 3))
    size, parts = crop or side, [part.reshape(-1, *part.shape[3:]) for part in draw]
    assert batch.shape == (*dims, size, size, 3) and parts[3].dtype == np.int32
    images = np.asarray(batch).reshape(-1, size, size, 3)
    for image, index, flip, (top, left), turns in zip(images, *parts, strict=True):
        piece = pixels[index, top : top + size, left : left + size]
        piece = np.rot90(piece[:, ::-1] if flip else piece, turns)
        np.testing.assert_array_equal(image, sampling.scale(piece))


@pytest.mark.parametrize("rotation", [0, 90])
def test_what_is_sent_are_whole_images_as_they_are_and_the_draws(rotation):
    """A quarter of the bytes of float32; beyond a block of a hundred steps, too."""
    pixels, dims = picture(0, (10, 8, 8, 3)), (2, 3, 4)
    draws = pipeline.train_draws(pixels, flip=True, crop=5, rotation=rotation)
    sent, drawn = pipeline.train_images(pixels, draws)(dims, 4, 3), draws(dims, 4, 3)
    both = zip(sent, drawn, strict=True)
    for (whole, *others), (indices, *expected) in itertools.islice(both, 203):
        assert whole.dtype == np.uint8
        np.testing.assert_array_equal(whole, pixels[indices])
        for one, other in zip(others, expected, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
