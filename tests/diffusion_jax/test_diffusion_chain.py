"""Schedules, noise, the chain and its two adaptations, against formulas and perfect denoisers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import noise, schedule
from diffusion_jax.chain import (
    Limits,
    fuse,
    fusion_mask,
    noise_in,
    noised,
    repair_chain,
    switched,
    tried_residuals,
)
from diffusion_jax.score import in_turns, probe

KEY = jax.random.key(0)
LEVELS = (80, 60, 40, 20)
ABAR = schedule.linear(400)
PROBE = partial(probe, sigma=0.0)


def test_schedules_by_hand():
    """The products of 1 - beta, by a loop; and the numbers of a thousand linear levels."""
    kept = schedule.linear(1000)
    product = 1.0
    for level, beta in enumerate(np.linspace(1e-4, 0.02, 1000), start=1):
        product *= 1 - beta
        assert kept[level] == pytest.approx(product, rel=1e-5)
    np.testing.assert_allclose(kept[[101, 251, 501]], [0.8951, 0.5214, 0.0778], atol=2e-3)
    assert kept[0] == 1 and kept[1] == pytest.approx(1 - 1e-4)
    roots = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    np.testing.assert_allclose(schedule.scaled_linear(1000)[1:], np.cumprod(1 - roots), rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_schedules_fall_and_end_alike_whatever_their_number_of_levels(name):
    few, many = (getattr(schedule, name)(levels) for levels in (400, 1000))
    assert len(few) == 401 and few.dtype == np.float32
    for each in (few, many):
        assert each[0] == 1 and np.all(np.diff(each) < 0) and each[-1] > 0
    np.testing.assert_allclose(few[100], many[250], rtol=0.02)
    ratio = schedule.noise_to_signal(few)
    np.testing.assert_allclose(few * ratio**2, 1 - few, atol=1e-6)


def test_levels_of_a_chain():
    assert schedule.levels_of(80, 4) == LEVELS
    assert schedule.levels_of(0, 1) == (0,)
    for start, steps in ((3, 4), (0, 2)):
        with pytest.raises(ValueError, match=f"choose score.start of {steps} at least, or 1 step"):
            schedule.levels_of(start, steps)
        assert len(schedule.levels_of(steps, steps)) == steps  # the remedies
        assert len(schedule.levels_of(start, 1)) == 1
    with pytest.raises(ValueError, match="score.start 401 is above the last level .* 400: choose"):
        schedule.refuse_above(ABAR, score__start=401)
    schedule.refuse_above(ABAR, score__start=400)


@pytest.mark.parametrize("name", ["gaussian", "multi_scale"])
def test_noise_has_mean_0_and_variance_1_and_one_kind_is_coarse(name):
    draw = jax.jit(getattr(noise, name)(), static_argnums=1)
    drawn = np.asarray(draw(KEY, (400, 32, 32, 3)))
    assert abs(drawn.mean()) < 0.03
    assert drawn.var() == pytest.approx(1, abs=0.04)
    assert drawn.var(axis=(0, 3)).min() > 0.8  # at each pixel
    apart = np.mean(drawn[:, :-8] * drawn[:, 8:])
    assert apart > 0.3 if name == "multi_scale" else abs(apart) < 0.01


def roots(level):
    return np.float32(ABAR[level] ** 0.5), np.float32((1 - ABAR[level]) ** 0.5)


def draws(*names, shape=(2, 8, 8, 3)):
    rng = np.random.default_rng(0)
    return [rng.uniform(-0.9, 0.9, shape).astype(np.float32) for _ in names]


def test_anomaly_oriented_training_has_glads_target():
    """If the estimate is the clean image, the noise is eps + sqrt(abar / (1 - abar)) (x_s - x).

    With the sign that the public code has since 2025 the same noise would mean 2 x_s - x.
    """
    clean, mixed = draws("clean", "mixed")
    eps = np.random.default_rng(1).normal(size=clean.shape).astype(np.float32)
    for level in (10, 80, 130):
        signal, share = roots(level)
        given = noised(mixed, eps, signal, share)
        target = eps + signal / share * (mixed - clean)
        np.testing.assert_allclose(noise_in(given, clean, signal, share), target, atol=2e-4)
        np.testing.assert_allclose((given - share * target) / signal, clean, atol=2e-5)
        wrong = eps + signal / share * (clean - mixed)
        np.testing.assert_allclose((given - share * wrong) / signal, 2 * mixed - clean, atol=2e-5)
        # Without a defect the target is the noise.
        np.testing.assert_allclose(
            noise_in(noised(clean, eps, signal, share), clean, signal, share), eps, atol=2e-4
        )


def limits(largest, centre=0.5, width=0.01):
    return Limits(*(jnp.full(len(LEVELS), value) for value in (centre, width, largest)))


def chain(denoise, images, *, found, residual=PROBE, levels=LEVELS):
    eps = noise.gaussian()(KEY, (1, *images.shape[1:]))
    run = partial(repair_chain, denoise, ABAR, levels, found, residual)
    return jax.jit(run)(jnp.asarray(images), eps)


def perfect(clean):
    return lambda given, ratio: jnp.asarray(clean)


def test_with_a_perfect_denoiser_the_chain_ends_at_the_clean_image():
    clean, images = draws("clean", "images")
    whole = chain(perfect(clean), images, found=switched(limits(0.0), adaptive=False, fusion=False))
    np.testing.assert_allclose(whole.repaired, clean, atol=1e-5)
    np.testing.assert_array_equal(whole.level, LEVELS[0])
    np.testing.assert_array_equal(whole.mask, 1)
    one = chain(
        perfect(clean),
        images,
        found=Limits(*(jnp.full(1, -jnp.inf), jnp.ones(1), jnp.full(1, -jnp.inf))),
        levels=(0,),
    )
    np.testing.assert_allclose(one.repaired, clean, atol=1e-5)


def test_fusion_by_hand():
    chained, images = draws("chain", "images")
    np.testing.assert_array_equal(fuse(jnp.zeros((2, 8, 8)), chained, images), images)
    np.testing.assert_array_equal(fuse(jnp.ones((2, 8, 8)), chained, images), chained)
    mask = fusion_mask(jnp.array([0.1, 0.2, 0.3]), 0.2, 0.05)
    np.testing.assert_allclose(mask, 1 / (1 + np.exp([2.0, 0.0, -2.0])), rtol=1e-5)
    assert fusion_mask(jnp.zeros(1), -jnp.inf, 1.0) == 1


def test_where_nothing_is_wrong_the_image_stays_its_own():
    """One square is wrong: it is repaired, and all else keeps its value, from the level on."""
    (clean,) = draws("clean", shape=(1, 8, 8, 3))
    images = clean.copy()
    images[:, 2:4, 2:4] = np.where(clean[:, 2:4, 2:4] > 0, -1, 1)
    made = chain(perfect(clean), images, found=limits(0.5, width=1e-3))
    np.testing.assert_allclose(made.repaired, clean, atol=1e-4)
    assert made.mask[0, 2:4, 2:4].min() > 0.99 and made.mask[0, 5:, 5:].max() < 1e-6
    np.testing.assert_array_equal(np.asarray(made.repaired)[0, 5:], images[0, 5:])


def test_each_image_has_its_own_level():
    """The residual of these two exceeds 0.5 from the first level on, or from the third, or never.

    The denoiser's estimate is wrong by more, the less noise there is: by 0.9 - noise to signal.
    """
    images = np.zeros((3, 8, 8, 3), np.float32)
    error = jnp.array([3.0, 1.0, 0.1]).reshape(-1, 1, 1, 1)

    def denoise(given, ratio):
        return jnp.clip(error * (0.9 - ratio.reshape(-1, 1, 1, 1)), 0, 1) * jnp.ones(given.shape)

    ratio = schedule.noise_to_signal(ABAR)[list(LEVELS)]
    found = [
        next((at for at, r in zip(LEVELS, ratio, strict=True) if factor * (0.9 - r) > 0.5), 20)
        for factor in (3.0, 1.0, 0.1)
    ]
    assert found == [80, 40, 20]
    made = chain(denoise, images, found=limits(0.5))
    np.testing.assert_array_equal(made.level, found)
    # The one that never exceeds ends as it was: its mask is 0.
    np.testing.assert_allclose(made.repaired[2], images[2], atol=1e-6)
    fixed = chain(denoise, images, found=switched(limits(0.5), adaptive=False, fusion=True))
    np.testing.assert_array_equal(fixed.level, 80)
    # What is tried at a level is what the network makes of the image noised to it.
    eps = noise.gaussian()(KEY, (1, 8, 8, 3))
    tried = tried_residuals(denoise, ABAR, LEVELS, PROBE, jnp.asarray(images), eps)
    np.testing.assert_allclose(tried[:, 1, 0, 0], np.clip(0.9 - ratio, 0, 1), atol=1e-5)


def test_images_that_take_turns_come_out_as_together(monkeypatch):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 4, 3)), jnp.float32)

    def function(some):
        return some.sum((1, 2, 3)), 2 * some

    together = function(images)
    monkeypatch.setattr("diffusion_jax.score.PIXELS_AT_ONCE", 32)
    lines = []
    monkeypatch.setattr(
        "diffusion_jax.score.logging.log_first_n",
        lambda level, text, times, *values: lines.append((text % values, times)),
    )
    in_two = in_turns(function, images)
    assert [len(each) for each in in_two] == [5, 5]
    for a, b in zip(together, in_two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert lines == [("Scoring: of 5 images of 4 px at a time, 2 go through the chain at once.", 1)]
