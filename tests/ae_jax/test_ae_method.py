"""Losses, scores and the stage of the autoencoders."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import AUTOENCODERS, shrink
from skimage.metrics import structural_similarity

from ae_jax import build, losses, score
from ae_jax.models import Output
from engine import parallel


class Toy(NamedTuple):
    """A network without parameters, with the signature of Flax's `apply`."""

    function: object

    def apply(self, variables, images, *, train, mutable):
        return self.function(images), {}


IDENTITY = Toy(lambda images: Output(images, images[:, 0, 0]))
HALF = Toy(lambda images: Output(images / 2, images[:, 0, 0], jnp.mean(images**2, (1, 2, 3))))
NONE = {"autoencoder": {}}
SCORES = [score.mean_squared, score.max_squared, score.max_dssim]


@pytest.fixture
def large():
    """Two images [2, 40, 48, 3]."""
    return np.random.default_rng(0).uniform(-1, 1, (2, 40, 48, 3)).astype(np.float32)


@pytest.mark.parametrize("loss", [losses.l2, losses.ssim])
def test_an_identity_network_has_zero_loss(loss, images):
    value, aux = loss(IDENTITY)(NONE, jnp.asarray(images), None)
    assert value == 0 and set(aux.metrics) == {"residual"}


@pytest.mark.parametrize("smoothing", [0.0, 2.0])
@pytest.mark.parametrize("make_score", SCORES)
def test_an_identity_network_has_a_zero_map(make_score, smoothing, large):
    found = jax.jit(make_score(IDENTITY, 16, stride=7, smoothing=smoothing))(NONE, large)
    assert found.map.shape == large.shape[:3]
    assert (found.image == 0).all() and (found.map == 0).all()
    np.testing.assert_allclose(found.reconstruction, large, atol=1e-6)


def test_losses_by_hand(images):
    half = images / 2
    value, _ = losses.l2(HALF, sspcab_weight=0.0)(NONE, jnp.asarray(images), None)
    np.testing.assert_allclose(value, np.mean((images - half) ** 2), rtol=1e-5)
    value, _ = losses.ssim(HALF, sspcab_weight=0.0)(NONE, jnp.asarray(images), None)
    similar = partial(
        structural_similarity,
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    scaled = [(x.astype(float) + 1) / 2 for x in (images, half)]
    maps = [similar(x, y)[1] for x, y in zip(*scaled, strict=True)]
    np.testing.assert_allclose(value, 1 - np.mean(maps), atol=1e-5)


def test_options_add_their_weighted_terms(images):
    plain, _ = losses.l2(HALF, sspcab_weight=0.0)(NONE, jnp.asarray(images), None)
    loss = losses.l2(HALF, latent_norm_weight=0.25, sspcab_weight=0.5)
    value, aux = loss(NONE, jnp.asarray(images), None)
    norms = np.linalg.norm(images[:, 0, 0], axis=-1)
    np.testing.assert_allclose(aux.metrics["latent_norm"], norms.mean(), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["sspcab"], np.mean(images**2), rtol=1e-5)
    expected = plain + 0.25 * norms.mean() + 0.5 * np.mean(images**2)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_latent_norm_has_a_finite_slope_at_zero():
    slope = jax.grad(lambda z: losses.latent_norm(Output(z, z)).sum())(jnp.zeros((2, 4)))
    np.testing.assert_array_equal(slope, 0)


def test_a_latent_norm_without_latents_is_refused(images):
    loss = losses.l2(Toy(Output), latent_norm_weight=1.0)
    with pytest.raises(ValueError, match="latent_norm_weight"):
        loss(NONE, jnp.asarray(images), None)


def test_scores_by_hand(images):
    """One window: squared residuals, summed over channels in the map, meant in the score."""
    residual = (images / 2) ** 2
    found = score.mean_squared(HALF, 16)(NONE, jnp.asarray(images))
    np.testing.assert_allclose(found.map, residual.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(found.image, residual.mean((1, 2, 3)), rtol=1e-5)
    assert found.image is found.terms["mean"]
    np.testing.assert_allclose(found.terms["max"], residual.mean(-1).max((1, 2)), rtol=1e-5)
    found = score.max_squared(HALF, 16)(NONE, jnp.asarray(images))
    assert found.image is found.terms["max"]


@pytest.mark.parametrize(("side", "window", "stride"), [(40, 16, 7), (16, 16, 32), (17, 16, 16)])
def test_windows_cover_every_pixel(side, window, stride):
    starts = score.window_starts(side, window, stride)
    covered = {pixel for start in starts for pixel in range(start, start + window)}
    assert covered == set(range(side)) and starts == sorted(set(starts))
    assert max(np.diff(starts), default=0) <= stride


@pytest.mark.parametrize(("side", "stride"), [(15, 8), (40, 17), (40, 0)])
def test_windows_that_leave_pixels_out_are_refused(side, stride):
    with pytest.raises(ValueError, match="do not cover"):
        score.window_starts(side, 16, stride)


def test_averaging_reproduces_a_constant(large):
    ones = score.by_windows(lambda x: jnp.ones(x.shape[:3]), jnp.asarray(large), 16, 5)
    np.testing.assert_allclose(ones, np.ones(large.shape[:3]), atol=1e-6)


def test_overlaps_are_averaged(large):
    """Each window says its own mean; by hand, window by window."""
    total, count = np.zeros((2, 40, 48)), np.zeros((40, 48))
    for top in score.window_starts(40, 16, 9):
        for left in score.window_starts(48, 16, 9):
            place = np.s_[top : top + 16, left : left + 16]
            total[:, *place] += large[:, *place].mean((1, 2, 3))[:, None, None]
            count[place] += 1

    def mean(x):
        return jnp.broadcast_to(x.mean((1, 2, 3))[:, None, None], x.shape[:3])

    found = jax.jit(lambda x: score.by_windows(mean, x, 16, 9))(large)
    np.testing.assert_allclose(found, total / count, atol=1e-6)


@pytest.mark.parametrize("module", AUTOENCODERS, ids=lambda module: module.__name__)
def test_demo_and_every_category_build(module):
    for category in ("demo", "bottle", "carpet"):
        config = module.get_config(category)
        (stage,) = build(config, 209).stages
        assert stage.name == "autoencoder" and stage.num_steps > 0


def test_the_recipes_steps():
    """3 steps an epoch of 209 images; 79 of 10,000 samples."""
    steps = {}
    for module in AUTOENCODERS:
        config = module.get_config("bottle")
        steps[config.name] = build(config, 209).stages[0].num_steps
    assert steps == {"convolutional AE": 900, "AE-L2": 15_800, "AE-SSIM": 15_800}


def test_textures_are_cropped_and_objects_are_not():
    for module in AUTOENCODERS[1:]:
        assert module.get_config("carpet").data.crop == 128
        assert module.get_config("carpet").data.image_size == 512
        assert module.get_config("bottle").data.crop == 0
        assert module.get_config("bottle").data.image_size == 128


@pytest.mark.parametrize(
    ("side", "message"), [(24, "makes 16 px of 24 px: choose 16 or 32 px"), (8, "image_size")]
)
def test_sizes_that_cannot_be_reconstructed_are_refused(side, message):
    config = shrink(AUTOENCODERS[1].get_config())
    config.data.image_size = side
    with pytest.raises(ValueError, match=message):
        build(config, 16)


def test_training_lowers_the_loss_and_counts_options(images):
    """Latent norm and SSPCAB are one config line each, and reach the step."""
    config = shrink(AUTOENCODERS[1].get_config())
    config.training.loss.latent_norm_weight = 0.01
    config.autoencoder.sspcab = True
    config.training.optimizer.learning_rate = 1e-3
    (stage,) = build(config, 16).stages
    state = parallel.replicate(jax.jit(stage.init)(jax.random.key(0), {}))
    step = parallel.data_parallel(stage.step, 0, lambda held, sent: sent)
    seen = []
    for _ in range(20):
        state, metrics = step(state, (), images[:8].reshape(8, 1, 1, 16, 16, 3))
        seen.append(float(metrics["autoencoder_loss"]))
    parts = metrics["residual"] + 0.01 * metrics["latent_norm"] + 0.1 * metrics["sspcab"]
    np.testing.assert_allclose(seen[-1], parts, rtol=1e-5)
    assert seen[-1] < 0.8 * seen[0]


def test_pictures_show_the_first_crop_of_larger_images():
    config = shrink(AUTOENCODERS[1].get_config("carpet"))
    (stage,) = build(config, 16).stages
    variables = jax.jit(stage.init)(jax.random.key(0), {}).variables
    shown = stage.pictures(variables, jnp.zeros((2, 32, 32, 3)))
    assert shown["reconstructions"].shape == (2, 16, 32, 3)
