"""Pseudo-anomalies against what NumPy makes of the same definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from video_jax.pseudo import (
    RAMP,
    Difference,
    Pseudo,
    Track,
    cut_windows,
    differences,
    moved,
    moving_patches,
    patch_masks,
    seen,
    window_indices,
)

SPAN, LENGTH, STRIDES = 29, 8, (2, 3, 4)
PSEUDO = Pseudo(1.0, (0.2, 0.5), 3, (0.2, 0.8))


@pytest.fixture(scope="module")
def spans():
    """Every pixel of a frame says its number, and which of six spans it belongs to."""
    numbers = np.arange(SPAN)[None, None, None] + 100.0 * np.arange(6)[:, None, None, None]
    return jnp.asarray(np.broadcast_to(numbers, (6, 16, 24, SPAN)), jnp.float32)


def test_indices_of_the_largest_stride_end_with_the_span():
    indices = window_indices(jnp.array([0, 0]), jnp.array([4, 1]), LENGTH)
    assert indices.tolist() == [list(range(0, 29, 4)), list(range(8))]


def test_windows_are_consecutive_frames_and_skipped_ones_of_the_same_start(spans):
    for seed in range(10):
        consecutive, skipping = cut_windows(jax.random.key(seed), spans, LENGTH, STRIDES)
        steps = np.diff(consecutive[:, 0, 0])
        assert (steps == 1).all()
        strides = np.diff(skipping[:, 0, 0])
        assert (strides == strides[:, :1]).all() and set(strides[:, 0]) <= set(STRIDES)
        np.testing.assert_array_equal(consecutive[..., 0], skipping[..., 0])
        assert (skipping[:, 0, 0, -1] % 100 < SPAN).all()


def test_both_ends_of_a_span_are_seen(spans):
    cut = jax.jit(lambda rng: cut_windows(rng, spans, LENGTH, STRIDES)[0])
    firsts = np.concatenate([cut(jax.random.key(i))[:, 0, 0, 0] % 100 for i in range(40)])
    assert firsts.min() == 0 and firsts.max() == SPAN - 1 - (LENGTH - 1) * 2


def test_a_patch_that_does_not_move_has_the_same_mask_in_all_frames():
    track = moving_patches(jax.random.key(0), (4, 16, 24, LENGTH), (0.2, 0.5), 0)
    masks = np.asarray(patch_masks(track, (16, 24)))
    np.testing.assert_array_equal(masks, np.repeat(masks[..., :1], LENGTH, -1))
    assert masks.max() == 1


def test_centres_stay_in_the_frame_and_move_no_further_than_they_may():
    track = moving_patches(jax.random.key(1), (64, 16, 24, LENGTH), (0.2, 0.5), 5)
    rows, columns = np.asarray(track.rows), np.asarray(track.columns)
    assert rows.min() == 0 and rows.max() == 15 and columns.min() == 0 and columns.max() == 23
    assert np.abs(np.diff(rows)).max() <= 6 and np.abs(np.diff(columns)).max() <= 6


def test_a_mask_is_one_inside_and_falls_over_a_tenth_of_its_half_side():
    track = Track(jnp.full((1, 1), 30.0), jnp.full((1, 1), 30.0), (jnp.array([20.0]),) * 2)
    row = np.asarray(patch_masks(track, (61, 61)))[0, 30, :, 0]
    away = np.abs(np.arange(61) - 30)
    wanted = np.interp(away, [0, 20, 20 + RAMP * 20], [1, 1, 0])
    np.testing.assert_allclose(row, wanted, atol=1e-6)
    assert row[30 + 20] == 1 and row[30 + 21] == pytest.approx(0.5) and row[30 + 22] == 0


@pytest.mark.parametrize("make", [seen, lambda *a: moved(*a, Difference(2.0, 0.0))])
def test_nothing_changes_outside_the_mask_and_the_target_is_clean(make, spans):
    noise = jax.random.normal(jax.random.key(5), spans.shape)
    given, target, mask = make(PSEUDO, LENGTH, STRIDES)(jax.random.key(2), noise)
    assert given.shape == target.shape == mask.shape
    np.testing.assert_array_equal(np.asarray(given)[mask == 0], np.asarray(target)[mask == 0])
    changed = np.abs(given - target) > 1e-6
    assert changed.any(axis=(1, 2, 3)).all() and (np.asarray(mask)[changed] > 0).all()
    clean, _, _ = make(PSEUDO._replace(share=0.0), LENGTH, STRIDES)(jax.random.key(2), noise)
    np.testing.assert_array_equal(clean, target)


def test_the_content_of_a_patch_is_of_another_image(spans):
    given, target, mask = seen(PSEUDO, LENGTH, STRIDES)(jax.random.key(3), spans)
    whole = np.asarray(mask) == 1
    of = np.asarray(given) // 100
    for index in range(6):
        inside = of[index][whole[index]]
        assert inside.size and (inside == (index - 1) % 6).all()
    assert (np.asarray(target) // 100 == np.arange(6)[:, None, None, None]).all()


def test_differences_are_those_of_frames_under_a_gaussian():
    windows = np.random.default_rng(0).normal(size=(2, 12, 14, 4)).astype(np.float32)
    smooth = ndimage.gaussian_filter(windows, (0, 1.5, 1.5, 0), mode="reflect", truncate=4)
    wanted = 3.0 * np.diff(smooth)
    np.testing.assert_allclose(differences(windows, Difference(3.0, 1.5)), wanted, atol=1e-5)


def test_on_a_still_scene_skipped_frames_change_nothing():
    still = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (4, 8, 8, 1)), (4, 8, 8, SPAN))
    given, target, _ = moved(PSEUDO, LENGTH, STRIDES, Difference())(jax.random.key(1), still)
    assert not np.asarray(target).any() and not np.asarray(given).any()
