"""Bounds by hand and against SciPy's exact tails, and windows of made-up fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from engine.nfa import independent_share, log_binomial_tail, log_windows, window_moments


def bound(hits, count, probability):
    return float(log_binomial_tail(np.float64(hits / count), np.float64(probability), count))


@pytest.mark.parametrize(
    ("hits", "count", "probability", "expected"),
    [
        (8, 16, 0.1, -16 * 0.5108 / np.log(10)),
        (16, 16, 0.1, -16),  # all of them: the bound is the exact tail
        (9, 9, 0.01, -18),
        (5, 25, 0.1, -0.48),
        (32, 64, 0.05, -23.1),
        (1.6, 16, 0.1, 0),  # as usual
        (0, 16, 0.1, 0),
        (8, 16, 0, 0),  # a level that is not used
        (30000, 30000, 0.001, -90000),  # no p-value of this could be held by a float
    ],
)
def test_the_bound_by_hand(hits, count, probability, expected):
    assert bound(hits, count, probability) == pytest.approx(expected, rel=5e-3, abs=1e-6)


def test_the_bound_is_never_below_the_exact_tail():
    rng = np.random.default_rng(0)
    for _ in range(300):
        count, probability = int(rng.integers(1, 400)), 10 ** rng.uniform(-3, -0.3)
        hits = int(rng.integers(0, count + 1))
        exact = stats.binom.logsf(hits - 1, count, probability) / np.log(10)
        assert bound(hits, count, probability) >= exact - 1e-4 * abs(exact) - 1e-5


def marks(above, probabilities, sides, independent):
    """How many of the tests of each image have NFA < 1."""
    count = np.log10(above.shape[2] * above.shape[3] * len(probabilities) * len(sides))
    tail = log_windows(above, probabilities, sides, independent)
    return (count + tail < 0).sum((1, 2))


def test_white_noise_has_no_more_marks_than_promised():
    """200 images of independent pixels, and 200 of neighbours that are alike, calibrated apart."""
    rng, sides = np.random.default_rng(0), (3, 7, 15)
    for blurred in (0, 1):
        fields = rng.standard_normal((400, 32 + blurred, 32 + blurred)).astype(np.float32)
        if blurred:
            fields = sum(fields[:, i : i + 32, j : j + 32] for i in (0, 1) for j in (0, 1)) / 2
        above = np.stack([(fields > z).astype(np.float32) for z in (0, 1.2816, 2.3263)], axis=1)
        moments = window_moments(above[:200], sides)
        levels = moments[:, 0, 0]
        np.testing.assert_allclose(levels, [0.5, 0.1, 0.01], rtol=0.06)
        independent = independent_share(moments[0], sides, 32)
        # Blurred: the sum of the correlations 1, 1/2 and 1/4 of neighbours is 4 at the most.
        expected = (0.9, 1.0) if not blurred else (0.2, 0.75)
        assert expected[0] <= float(independent[1]) <= expected[1]
        assert marks(above[200:, 1:], levels[1:], sides, independent).mean() <= 1


def test_more_above_never_lowers_and_a_third_of_the_image_is_found():
    sides, levels, independent = (3, 7), np.array([0.1]), np.full(2, 0.5)
    above = np.zeros((1, 1, 24, 24), np.float32)
    assert (log_windows(above, levels, sides, independent) == 0).all()
    above[..., :8] = 1
    after = log_windows(above, levels, sides, independent)
    assert (after[0, :, :6] < -4).all() and (after[0, :, 8:] == 0).all()  # each for itself
    # At the border a window has fewer pixels: a corner's 4 x 4 of 7 x 7, half of them independent.
    assert float(after[0, 0, 0]) == pytest.approx(-16 / 2, rel=1e-5)
    more = above.copy()
    more[..., 8:12, 6:12] = 1
    assert (log_windows(more, levels, sides, independent) <= after).all()


def test_jax_counts_as_numpy_does():
    rng = np.random.default_rng(0)
    above = (rng.uniform(size=(2, 2, 16, 16)) < [[[[0.4]], [[0.1]]]]).astype(np.float32)
    levels, sides = np.array([0.2, 0.05], np.float32), (3, 5)
    moments = window_moments(above, sides)
    found = jax.jit(window_moments, static_argnums=1)(above, sides)
    np.testing.assert_allclose(found, moments, rtol=1e-5)
    independent = independent_share(moments[0], sides, 16)
    expected = log_windows(above, levels, sides, independent)
    found = jax.jit(log_windows, static_argnums=2)(above, levels, sides, jnp.asarray(independent))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
