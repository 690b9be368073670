"""Which images a step sees, how they are cut and turned, and how pixels become numbers."""

import numpy as np
import pytest
from trees import picture

from data import pipeline, sampling


@pytest.mark.parametrize("size", [1, 7, 60, 64, 150])
def test_each_epoch_sees_every_image_once(size):
    steps = [sampling.batch_indices(3, step, (size,), 60)[0] for step in range(300 // size + 2)]
    stream = np.concatenate(steps)
    for epoch in range(len(stream) // 60):
        assert sorted(stream[60 * epoch : 60 * (epoch + 1)]) == list(range(60))
    assert not np.array_equal(stream[:60], stream[60:120])


def test_indices_are_a_pure_function_of_seed_and_step():
    first, flips = sampling.batch_indices(1, 5, (5, 8), 60)
    assert first.shape == flips.shape == (5, 8) and flips.dtype == bool
    again, flips_again = sampling.batch_indices(1, 5, (5, 8), 60)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(flips, flips_again)
    for other in ((2, 5), (1, 6)):
        indices, other_flips = sampling.batch_indices(*other, (5, 8), 60)
        assert not np.array_equal(first, indices) and not np.array_equal(flips, other_flips)
    many = sampling.batch_indices(0, 0, (10000,), 60)[1]
    assert 0.47 < many.mean() < 0.53


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        sampling.batch_indices(0, 0, (4,), 0)


def test_corners_reach_every_place_and_repeat():
    corners = sampling.batch_corners(0, 0, (20, 50), (3, 1))
    assert corners.shape == (20, 50, 2)
    assert set(map(tuple, corners.reshape(-1, 2))) == {(i, j) for i in range(4) for j in range(2)}
    np.testing.assert_array_equal(corners, sampling.batch_corners(0, 0, (20, 50), (3, 1)))
    assert not np.array_equal(corners, sampling.batch_corners(0, 1, (20, 50), (3, 1)))
    assert not sampling.batch_corners(0, 0, (7,), (0, 0)).any()


@pytest.mark.parametrize("crop", [-1, 5])
def test_crops_larger_than_the_images_are_refused(crop):
    with pytest.raises(ValueError, match=f"data.crop {crop} does not fit images of 4x6 px"):
        pipeline.train_draws(picture(0, (10, 4, 6, 3)), flip=True, crop=crop)


@pytest.mark.parametrize(("rotation", "quarters"), [(0, (0,)), (90, (0, 1, 2, 3)), (180, (0, 2))])
def test_turns_are_uniform_and_a_pure_function_of_seed_and_step(rotation, quarters):
    assert sampling.quarter_turns(rotation) == quarters
    turns = sampling.batch_turns(0, 0, (100, 60), quarters)
    shares = np.bincount(turns.ravel(), minlength=4)[list(quarters)] / turns.size
    assert shares.sum() == 1 and np.abs(shares - 1 / len(quarters)).max() < 0.03
    np.testing.assert_array_equal(turns, sampling.batch_turns(0, 0, (100, 60), quarters))
    for other in ((0, 1), (1, 0)) if rotation else ():
        assert not np.array_equal(turns, sampling.batch_turns(*other, (100, 60), quarters))
    flips = sampling.batch_indices(0, 0, (100, 60), 60)[1]
    assert 0.47 < flips[turns == 0].mean() < 0.53  # drawn independently


@pytest.mark.parametrize("rotation", [-90, 45, 270, 360])
def test_other_rotations_are_refused(rotation):
    with pytest.raises(ValueError, match=f"data.rotation {rotation} is not 0, 90 or 180"):
        pipeline.train_draws(picture(0, (10, 4, 4, 3)), flip=True, crop=0, rotation=rotation)


def test_quarter_turns_need_squares():
    pixels = picture(0, (10, 4, 6, 3))
    with pytest.raises(ValueError, match=r"data.rotation 90 does not fit images of 4x6 px"):
        pipeline.train_draws(pixels, flip=True, crop=0, rotation=90)
    pipeline.train_draws(pixels, flip=True, crop=4, rotation=90)
    pipeline.train_draws(pixels, flip=True, crop=0, rotation=180)


@pytest.mark.parametrize("leading", [(), (3,)])
def test_crops_and_turns_of_a_step_do_not_depend_on_devices_and_processes(leading):
    draws = sampling.draws(60, flip=True, rotation=90, room=(9, 9))
    whole = [part[0] for part in next(draws((1, *leading, 16), 0, 7))]
    for local, count in ((8, 1), (2, 2)):
        dims = (local, *leading, 16 // (local * count))
        shares = [next(draws(dims, 0, 7, process=(index, count))) for index in range(count)]
        for expected, *parts in zip(whole, *shares, strict=True):
            joined = np.concatenate([*np.concatenate(parts)], axis=len(leading))
            np.testing.assert_array_equal(joined, expected)


def test_scaling_ends_at_the_ends():
    scaled = sampling.scale(np.array([0, 255], np.uint8))
    assert scaled.dtype == np.float32 and scaled.tolist() == [-1.0, 1.0]
