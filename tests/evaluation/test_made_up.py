"""Made-up defects: where they lie, what they leave alone, and that they are always the same."""

import numpy as np
import pytest

from evaluation import made_up

SIDE = 64


@pytest.fixture(scope="module")
def images():
    """Four speckled disks on white, of which the corners are no product."""
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disk = (np.hypot(rows, columns) < 24)[None, ..., None]
    speckles = np.random.default_rng(0).uniform(-0.8, 0.2, (4, SIDE, SIDE, 3))
    return np.where(disk, speckles, 0.95).astype(np.float32)


@pytest.fixture(scope="module")
def draws(images):
    return list(made_up.made_up(images))


def test_each_light_has_each_kind(images, draws):
    assert [made.lighting for made in draws] == list(made_up.LIGHTINGS)
    for made in draws:
        assert list(made.defective) == list(made_up.DEFECT_KINDS)
        for defective, seen in made.defective.values():
            assert defective.shape == images.shape and defective.dtype == np.float32
            assert seen.shape == images.shape[:3] and seen.dtype == bool
            assert np.abs(defective).max() <= 1


def test_a_defect_is_small_and_changes_little_around_it(draws):
    for made in draws:
        for kind, (defective, seen) in made.defective.items():
            share = seen.mean(axis=(1, 2))
            assert (share > 0).all() and (share < 0.15).all(), kind
            changed = np.abs(defective - made.good).mean(-1)
            assert changed[~seen].max() <= 0.05 + 1e-6, kind
            assert changed[seen].mean() > 0.05, kind


def test_defects_lie_on_the_product(draws):
    rows, columns = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    far = np.hypot(rows, columns) > 30
    seen = np.concatenate([seen for made in draws for _, seen in made.defective.values()])
    assert (seen & far).sum() < 0.1 * seen.sum()


def test_lightings_are_as_strong_as_they_say(images, draws):
    plain, brightness, uneven = (made.good for made in draws)
    np.testing.assert_allclose(plain, images, atol=1e-6)
    middle = np.s_[:, 24:40, 24:40]  # where nothing is cut off at white
    gain = (brightness[middle] + 1) / (images[middle] + 1)
    np.testing.assert_allclose(gain, np.broadcast_to(gain[:, :1, :1, :1], gain.shape), rtol=1e-4)
    assert np.abs(gain - 1).max() <= 0.1 + 1e-4 and np.abs(gain - 1).max() > 0.01
    ratio = (uneven + 1) / (images + 1)
    assert ratio.min() >= 0.9 - 1e-4 and ratio.max() <= 1.1 + 1e-4 and np.ptp(ratio[0]) > 0.1


def test_the_same_images_and_seed_give_the_same_defects(images, draws):
    again = next(made_up.made_up(images[:2]))
    others = next(made_up.made_up(images[:2], seed=1))
    for kind, (defective, _) in draws[0].defective.items():
        if kind != "misplaced patch":  # which comes from the next image, here another
            np.testing.assert_array_equal(again.defective[kind][0], defective[:2])
        assert (others.defective[kind][0] != defective[:2]).any(), kind
