"""Each image's brightness brought to the training images', and what that leaves alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import brightness
from engine.method import Method, Score, Stage, TrainState, Tuning


def photos(count=5, side=32):
    rng = np.random.default_rng(0)
    return rng.integers(20, 180, (count, side, side, 3)).astype(np.uint8)


def scaled(pixels):
    return jnp.asarray(pixels / 127.5 - 1, jnp.float32)


def test_brightness_is_the_median_grey_value():
    pixels = photos()
    medians = np.median(pixels.mean(axis=-1).reshape(5, -1), axis=1) / 255
    np.testing.assert_allclose(brightness.brightness(scaled(pixels)), medians, atol=1e-6)
    found = brightness.training_brightness(pixels)
    assert found == pytest.approx(np.median(medians), abs=1e-9)
    large = np.repeat(np.repeat(pixels, 4, 1), 4, 2)  # looked at by strides
    assert brightness.training_brightness(large) == pytest.approx(found, abs=0.02)


@pytest.mark.parametrize("gain", [0.8, 1.0, 1.25])
def test_a_lamp_that_changes_changes_nothing(gain):
    pixels = photos()
    target = brightness.training_brightness(pixels)
    lit = (scaled(pixels) + 1) * gain - 1
    expected = brightness.corrected(scaled(pixels), target)
    np.testing.assert_allclose(brightness.corrected(lit, target), expected, atol=1e-5)
    np.testing.assert_allclose(brightness.brightness(expected), target, atol=1e-5)


def test_what_is_too_dark_for_a_lamp_stays_darker():
    dark = scaled(photos()) * 0.1 - 0.9
    found = brightness.corrected(dark, 0.5)
    np.testing.assert_allclose(found, (dark + 1) * brightness.LARGEST - 1, atol=1e-6)
    black = jnp.full((1, 8, 8, 3), -1.0)
    np.testing.assert_array_equal(brightness.corrected(black, 0.5), black)


def test_a_method_sees_corrected_images_wherever_it_sees_any():
    seen = []

    def look(images):
        seen.append(images)
        return images

    def score(variables, images):
        return Score(look(images).mean((1, 2, 3)), images.mean(-1))

    stage = Stage(
        "one",
        lambda rng, variables: None,
        lambda state, images, rng: (dataclasses.replace(state, step=look(images)), {}),
        1,
        (2, 3),
        lambda variables, images: {"x": look(images)},
        checks=lambda variables, images, rng: {"x": look(images)},
        preview=lambda images, rng: look(images),
    )
    choices = (
        *(None, ({},), {}),
        *(lambda variables, images: (score(variables, images),), lambda fields: score),
    )
    tuning = Tuning(
        *choices, measured=lambda _, *images: ([look(each) for each in images], Tuning(*choices))[1]
    )
    method = brightness.with_correction(Method((stage,), score, tuning), 0.3)
    images = scaled(photos(6))
    (stage,) = method.stages
    stage.step(TrainState(jnp.zeros(()), {}, {}), images.reshape(2, 3, 32, 32, 3), None)
    stage.pictures({}, images)
    stage.checks({}, images, jax.random.key(0))
    stage.preview(images, jax.random.key(0))
    method.score({}, images)
    method.tuning.scores({}, images)
    method.tuning.score({})({}, images)
    known = method.tuning.measured({}, images, images)
    known.scores({}, images)
    assert len(seen) == 10 and known.measured is None
    for found in seen:
        np.testing.assert_allclose(
            found.reshape(6, 32, 32, 3), brightness.corrected(images, 0.3), atol=1e-6
        )


def test_a_method_without_tuning_checks_and_preview_keeps_none():
    stage = Stage("one", None, None, 1, (2,), None)
    method = brightness.with_correction(Method((stage,), None), 0.3)
    assert method.tuning is method.stages[0].checks is method.stages[0].preview is None


def test_the_statement_says_to_what_and_what_it_hides():
    assert "the training images, 128 of 255, by a factor of 1.5" in brightness.correction(0.5)
    assert "the training images, by a factor" in brightness.correction(None)
    assert "wholly too dark" in brightness.correction(None)
