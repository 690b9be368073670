"""Losses against formulas written out by hand, on networks that are one multiplication each."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fanogan_jax import losses, models, score
from fanogan_jax.models import Networks


class Scale(nn.Module):
    """A generator or an encoder that multiplies by one number and keeps a running sum."""

    factor: float

    @nn.compact
    def __call__(self, x, *, train=False):
        seen = self.variable("batch_stats", "seen", lambda: jnp.zeros(()))
        if train and not self.is_initializing():
            seen.value += jnp.sum(x)
        return self.param("factor", lambda _: jnp.array(self.factor)) * x


class Sum(nn.Module):
    """A critic: the weighted sum of an image; features are three times its pixels."""

    weight: float

    @nn.compact
    def __call__(self, images):
        weight = self.param("weight", lambda _: jnp.array(self.weight))
        return weight * jnp.sum(images, axis=(1, 2, 3)), 3.0 * images.reshape(len(images), -1)


@pytest.fixture
def toy(monkeypatch):
    """Networks on [2, 2, 2, 1] 'images', with latents of the same shape."""
    networks = Networks(Scale(0.5), Sum(2.0), Scale(0.8), latent=4)
    x = np.random.default_rng(0).normal(size=(2, 2, 2, 1)).astype(np.float32)
    fields = ("generator", "critic", "encoder")
    variables = {f: getattr(networks, f).init(jax.random.key(0), x) for f in fields}
    z = np.random.default_rng(1).normal(size=(2, 2, 2, 1)).astype(np.float32)
    monkeypatch.setattr(losses, "draw_latents", lambda networks, rng, batch: jnp.asarray(z[:batch]))
    return SimpleNamespace(networks=networks, variables=variables, x=x, z=z)


def test_penalty_of_a_linear_critic_is_exact():
    """The gradient of w.x is w everywhere, so the penalty is (|w| - 1)^2."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)), jnp.float32)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4, 4, 3)), jnp.float32)
    penalties = losses.gradient_penalty(lambda x: jnp.sum(x * w, axis=(1, 2, 3)), images)
    expected = (np.sqrt(np.sum(np.square(w))) - 1) ** 2
    np.testing.assert_allclose(penalties, np.full(5, expected), rtol=1e-6)


def test_penalty_of_a_random_critic_equals_finite_differences():
    critic = models.Critic((2, 3))
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
    with jax.enable_x64(True):
        variables = jax.jit(critic.init)(jax.random.key(0), images)
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        run = jax.jit(lambda x: critic.apply(variables, x)[0])
        penalties = losses.gradient_penalty(run, jnp.asarray(images, jnp.float64))
        basis = np.eye(16).reshape(16, 1, 4, 4, 1)
        ahead, behind = (
            np.stack([run(images + side * 1e-5 * step) for step in basis]) for side in (1, -1)
        )
    gradients = (ahead - behind) / 2e-5  # [pixels, B]
    np.testing.assert_allclose(penalties, (np.linalg.norm(gradients, axis=0) - 1) ** 2, rtol=1e-6)


def test_penalty_has_a_finite_gradient_where_the_slope_is_zero():
    def loss(w):
        scores = losses.gradient_penalty(
            lambda x: w * jnp.sum(x, axis=(1, 2, 3)), jnp.ones((2, 2, 2, 1))
        )
        return jnp.mean(scores)

    assert np.isfinite(jax.grad(loss)(0.0))


def test_critic_loss_by_hand(toy):
    loss, aux = losses.critic(toy.networks, penalty=10.0)(
        toy.variables, jnp.asarray(toy.x), jax.random.key(0)
    )
    real, fake = 2 * toy.x.sum((1, 2, 3)).mean(), 2 * (0.5 * toy.z).sum((1, 2, 3)).mean()
    penalty = (2 * np.sqrt(4) - 1) ** 2  # the gradient is 2 at each of 4 pixels
    np.testing.assert_allclose(loss, fake - real + 10 * penalty, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["wasserstein"], real - fake, rtol=1e-4)
    np.testing.assert_allclose(aux.metrics["gradient_penalty"], penalty, rtol=1e-5)
    assert not aux.updates  # the generator's statistics stay in the critic's step


def test_generator_loss_by_hand(toy):
    loss, aux = losses.generator(toy.networks)(toy.variables, jnp.asarray(toy.x), jax.random.key(0))
    np.testing.assert_allclose(loss, -2 * (0.5 * toy.z).sum((1, 2, 3)).mean(), rtol=1e-5)
    seen = aux.updates["generator"]["batch_stats"]["seen"]
    np.testing.assert_allclose(seen, toy.z.sum(), rtol=1e-5)


def test_encoder_losses_by_hand(toy):
    """G(E(x)) = 0.4 x, features are 3 times the pixels."""
    run = (toy.variables, jnp.asarray(toy.x), jax.random.key(0))
    image = np.mean((0.6 * toy.x) ** 2)
    features = np.mean((3 * 0.6 * toy.x) ** 2)
    izi, izi_aux = losses.izi(toy.networks)(*run)
    izi_f, aux = losses.izi_f(toy.networks, kappa=0.5)(*run)
    np.testing.assert_allclose(izi, image, rtol=1e-5)
    np.testing.assert_allclose(izi_f, image + 0.5 * features, rtol=1e-5)
    for updates in (izi_aux.updates, aux.updates):
        assert set(updates) == {"encoder"}  # the generator rests
        np.testing.assert_allclose(
            updates["encoder"]["batch_stats"]["seen"], toy.x.sum(), rtol=1e-4
        )
    ziz, ziz_aux = losses.ziz(toy.networks)(*run)
    np.testing.assert_allclose(ziz, np.mean((toy.z - 0.8 * 0.5 * toy.z) ** 2), rtol=1e-5)
    assert set(ziz_aux.updates) == {"encoder"}


def test_score_by_hand(toy):
    """A = A_R + kappa * A_D per image, the map |x - G(E(x))|."""
    found = score.residual(toy.networks, kappa=2.0)(toy.variables, jnp.asarray(toy.x))
    a_r, a_d = ((factor * toy.x) ** 2 for factor in (0.6, 1.8))
    a_r, a_d = a_r.mean((1, 2, 3)), a_d.mean((1, 2, 3))
    np.testing.assert_allclose(found.terms["A_R"], a_r, rtol=1e-5)
    np.testing.assert_allclose(found.terms["A_D"], a_d, rtol=1e-5)
    np.testing.assert_allclose(found.image, a_r + 2 * a_d, rtol=1e-5)
    np.testing.assert_allclose(found.map, np.abs(0.6 * toy.x[..., 0]), rtol=1e-5)
    np.testing.assert_allclose(found.reconstruction, 0.4 * toy.x, rtol=1e-5)


def test_score_by_places_by_hand(toy):
    """The map over what is usual, two halves of the image; 'top' is its largest value here."""
    usual = ((1.0,), (4.0,))
    options = {"image_score": "top", "normalise": "pixel", "usual": usual}
    found = score.residual(toy.networks, **options)(toy.variables, jnp.asarray(toy.x))
    absolute = np.abs(0.6 * toy.x[..., 0])
    rows = np.interp(np.arange(absolute.shape[1]), *_between(absolute.shape[1]))
    expected = absolute / rows[:, None]
    np.testing.assert_allclose(found.map, expected, rtol=1e-5)
    np.testing.assert_allclose(found.image, expected.max((1, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match="'sum' must be one of A, top"):
        score.residual(toy.networks, image_score="sum")


def _between(side):
    """Where the two cells' centres lie among `side` pixels, and what is usual there."""
    return [side / 4 - 0.5, 3 * side / 4 - 0.5], [1.0, 4.0]
