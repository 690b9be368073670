"""Seamless cloning against a dense solver, and against what must come out exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax import poisson
from ae_jax.poisson import Box


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def box_of(low, high, batch=1):
    return Box(*(jnp.tile(jnp.array(at, jnp.float32), (batch, 1)) for at in (low, high)))


def cloned(target, source, low, high, *, mixed=False, **options):
    flags = jnp.full((len(target),), mixed)
    made = poisson.clone(target, source, box_of(low, high, len(target)), flags, **options)
    return np.asarray(made)[:, low[0] : high[0] + 1, low[1] : high[1] + 1]


def dense(target, source, *, mixed=False):
    """The Poisson equation of Pérez et al. on the pixels of [H, W], solved as a dense system."""
    height, width = target.shape
    index = np.arange(height * width).reshape(height, width)
    matrix, right = np.eye(height * width), target.ravel().astype(float).copy()
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            at = index[row, column]
            matrix[at, at], right[at] = 4, 0
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                matrix[at, index[row + dy, column + dx]] = -1
                ours = target[row, column] - target[row + dy, column + dx]
                theirs = source[row, column] - source[row + dy, column + dx]
                right[at] += ours if mixed and abs(ours) > abs(theirs) else theirs
    return np.linalg.solve(matrix, right).reshape(height, width)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_box_of_as_many_pixels_as_grid_points_is_solved_as_by_a_dense_solver(mixed):
    target, source = images(1, 20, 24, 1), images(1, 20, 24, 1, seed=1)
    (low, high) = (3, 5), (14, 16)  # 12 x 12 pixels
    found = cloned(target, source, low, high, mixed=mixed, grid=12)[0, ..., 0]
    inside = np.s_[0, 3:15, 5:17, 0]
    np.testing.assert_allclose(found, dense(target[inside], source[inside], mixed=mixed), atol=2e-5)


def test_a_box_of_fewer_pixels_than_grid_points_is_solved_nearly_so():
    """Smooth images: what the finer grid changes is of the order of a pixel's curvature."""
    rows, columns = np.mgrid[:40, :40] / 40
    target = (np.sin(3 * rows + columns) / 2)[None, ..., None].astype(np.float32)
    source = (np.cos(2 * rows * columns) / 2)[None, ..., None].astype(np.float32)
    found = cloned(target, source, (5, 8), (25, 30))[0, ..., 0]
    inside = np.s_[0, 5:26, 8:31, 0]
    np.testing.assert_allclose(found, dense(target[inside], source[inside]), atol=2e-3)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_source_that_is_the_target_plus_a_constant_gives_the_target(mixed):
    target = images(2, 32, 32, 3)
    found = cloned(target, target + 0.3, (2, 3), (20, 29), mixed=mixed)
    np.testing.assert_allclose(found, target[:, 2:21, 3:30], atol=1e-5)


def test_a_linear_border_gives_a_linear_inside():
    rows, columns = np.mgrid[:32, :32] / 16
    target = (0.3 * rows - 0.2 * columns - 0.1)[None, ..., None].astype(np.float32)
    found = cloned(target, np.zeros_like(target), (4, 1), (13, 27))
    np.testing.assert_allclose(found, target[:, 4:14, 1:28], atol=1e-5)


def test_the_border_of_the_box_is_the_targets_own():
    target, source = images(1, 48, 48, 3), images(1, 48, 48, 3, seed=1)
    found = cloned(target, source, (6, 9), (6 + 32, 9 + 32), grid=65)  # 2 grid points a pixel
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        expected = target[0, 6:39, 9:42][edge]
        np.testing.assert_allclose(found[0][edge], expected, atol=1 / 255)


def test_each_image_has_its_own_box_and_kind_of_gradients():
    target, source = images(2, 24, 24, 2), images(2, 24, 24, 2, seed=1)
    box = Box(jnp.array([[2.0, 2.0], [5.0, 8.0]]), jnp.array([[12.0, 10.0], [20.0, 20.0]]))
    both = poisson.clone(target, source, box, jnp.array([True, False]))
    for i, mixed in enumerate((True, False)):
        alone = jax.tree.map(lambda values, i=i: values[i : i + 1], box)
        single = poisson.clone(target[i : i + 1], source[i : i + 1], alone, jnp.array([mixed]))
        np.testing.assert_allclose(both[i], single[0], atol=1e-5)


def test_weights_of_whole_places_choose_pixels():
    at = jnp.array([[-3.0, 0.0, 1.0, 1.25, 9.0]])
    expected = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(poisson.hat(at, 4)[0], expected)
    wide = poisson.hat(jnp.array([[2.0]]), 5, 2.0)[0, 0]
    np.testing.assert_allclose(wide, [0, 0.25, 0.5, 0.25, 0])
