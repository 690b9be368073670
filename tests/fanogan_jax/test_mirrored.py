"""AMA: losses and scores against formulas written out by hand; who learns how often."""

from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import shrink
from scipy import stats
from test_fanogan_losses import Scale

from configs import ama
from engine import parallel, residuals
from engine.make import make
from engine.method import TrainState, descend, init_state
from fanogan_jax.losses import gradient_penalty
from fanogan_jax.mirrored import losses, method, score
from fanogan_jax.mirrored.models import AutoEncoder, MirroredNetworks, PairCritic


class Linear(nn.Module):
    """D(x, y) = <a, x> + <b, y>; the features are what is summed, at each position."""

    a: np.ndarray
    b: np.ndarray

    @nn.compact
    def __call__(self, pairs):
        weights = jnp.concatenate([self.param("a", lambda _: self.a), self.b], axis=-1)
        features = pairs * weights[None]
        return jnp.sum(features, axis=(1, 2, 3)), features


class Flat(nn.Module):
    """An encoder whose latents are the pixels, times a number."""

    factor: float

    @nn.compact
    def __call__(self, x, *, train=False):
        return Scale(self.factor)(x, train=train).reshape(len(x), -1)


class Unflat(nn.Module):
    """The generator that goes with `Flat`."""

    factor: float

    @nn.compact
    def __call__(self, z, *, train=False):
        return Scale(self.factor)(z, train=train).reshape(-1, 2, 3, 1)


def toy_of(encoder=0.8, generator=0.5, *, slope=1.0):
    """Networks on four images [2, 3, 1], with x' = encoder * generator * x."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 2, 3, 1)).astype(np.float32)
    a, b = (slope * rng.normal(size=(2, 2, 3, 1)).astype(np.float32)).astype(np.float32)
    networks = MirroredNetworks(AutoEncoder(Flat(encoder), Unflat(generator)), Linear(a, b))
    variables = {
        "autoencoder": networks.autoencoder.init(jax.random.key(0), x),
        "critic": networks.critic.init(jax.random.key(0), losses.pair(x, x)),
    }
    return SimpleNamespace(networks=networks, variables=variables, x=x, a=a, b=b)


@pytest.fixture
def toy():
    return toy_of()


def dot(weights, images):
    return np.sum(weights * np.asarray(images), axis=(1, 2, 3))


def critic_of(toy, *, penalty=10.0, **options):
    pairs_of = losses.mirrored_pairs(toy.networks, **options)
    loss = losses.mirrored_critic(toy.networks, pairs_of, penalty=penalty)
    return loss(toy.variables, jnp.asarray(toy.x), jax.random.key(0))


def autoencoder_of(toy, *, pairs=None, **options):
    pairs_of = losses.mirrored_pairs(toy.networks, **(pairs or {}))
    loss = losses.mirrored_autoencoder(toy.networks, pairs_of, **options)
    return loss(toy.variables, jnp.asarray(toy.x), jax.random.key(0))


def test_critic_loss_of_a_linear_critic(toy):
    """mean <b, x' - x>, whatever a is, and (sqrt(||a||^2 + ||b||^2) - 1)^2 a pair."""
    loss, aux = critic_of(toy, penalty=0.0)
    np.testing.assert_allclose(loss, np.mean(dot(toy.b, 0.4 * toy.x - toy.x)), rtol=1e-5)
    norm = np.sqrt(np.sum(toy.a**2) + np.sum(toy.b**2))
    np.testing.assert_allclose(aux.metrics["gradient_penalty"], (norm - 1) ** 2, rtol=1e-5)
    whole, _ = critic_of(toy)
    np.testing.assert_allclose(whole, loss + 10 * (norm - 1) ** 2, rtol=1e-5)
    assert not aux.updates  # the autoencoder's averages rest in the critic's step


def test_the_penalty_is_of_a_pair_and_not_of_a_pixel(toy):
    """Zero where (a, b) has a norm of 1; the authors' norm over channels is another number."""
    norm = np.sqrt(np.sum(toy.a**2) + np.sum(toy.b**2))
    unit = toy_of(slope=1 / norm)
    _, aux = critic_of(unit)
    np.testing.assert_allclose(aux.metrics["gradient_penalty"], 0, atol=1e-10)
    of_pixels = np.sqrt(unit.a**2 + unit.b**2) - 1
    assert np.mean(of_pixels**2) > 0.1


def test_autoencoder_loss_of_a_linear_critic(toy):
    loss, aux = autoencoder_of(toy, latent_norm_weight=3.0, pixel_weight=7.0)
    norm = np.linalg.norm(0.8 * toy.x.reshape(4, -1), axis=1).mean()
    deceit = np.mean(dot(toy.a, toy.x) + dot(toy.b, 0.4 * toy.x))
    pixels = np.mean(np.abs(0.6 * toy.x))
    np.testing.assert_allclose(loss, -deceit + 3 * norm + 7 * pixels, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["latent_norm"], norm, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["residual"], pixels, rtol=1e-5)
    assert set(aux.updates) == {"autoencoder"}
    paper, _ = autoencoder_of(toy)
    np.testing.assert_allclose(paper, -deceit + norm, rtol=1e-5)


def test_a_perfect_autoencoder_leaves_the_penalty_alone():
    perfect = toy_of(2.0, 0.5)
    loss, aux = critic_of(perfect)
    np.testing.assert_allclose(loss, 10 * aux.metrics["gradient_penalty"], rtol=1e-6)
    found = score.mirrored(perfect.networks)(perfect.variables, jnp.asarray(perfect.x))
    assert not np.any(found.image) and not np.any(found.map)


def test_latent_norm_by_hand_and_its_gradient_at_zero():
    np.testing.assert_allclose(residuals.euclidean_norm(jnp.array([[3.0, 4.0]])), [5.0])
    zero = jax.grad(lambda z: jnp.sum(residuals.euclidean_norm(z)))(jnp.zeros((2, 3)))
    assert not np.any(zero)


def test_atypical_images_weigh_negatively(toy):
    """One of four: (d1 + d2 + d3 - 5 d4) / 4, d4 of G(a E(x)) = 0.4 a x and its reconstruction."""
    pairs_of = losses.mirrored_pairs(toy.networks, atypical=0.25, atypical_weight=5.0)
    made, updates = pairs_of(toy.variables, jnp.asarray(toy.x), jax.random.key(3))
    (index,) = np.flatnonzero(made.signs != 1)
    assert made.signs[index] == -5
    scale = np.asarray(made.images)[index] / (0.4 * toy.x[index])
    np.testing.assert_allclose(scale, np.full_like(scale, scale.mean()), rtol=1e-4)
    assert 0 <= scale.mean() <= 0.5
    np.testing.assert_allclose(made.reconstructions, 0.4 * made.images, rtol=1e-5)
    others = np.delete(np.arange(4), index)
    np.testing.assert_array_equal(np.asarray(made.images)[others], toy.x[others])
    # The averages and the norm are those of the normal images.
    _, plain_updates = losses.mirrored_pairs(toy.networks)(
        toy.variables, jnp.asarray(toy.x), jax.random.key(3)
    )
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), updates, plain_updates))
    wasserstein, _ = losses.critic_terms(toy.networks, toy.variables, made, jnp.ones(4))
    differences = dot(toy.b, made.images - made.reconstructions)
    np.testing.assert_allclose(wasserstein, np.mean(made.signs * differences), rtol=1e-5)


def test_a_negative_teaches_nothing_through_how_it_was_made(toy):
    """-y D(n, G(E(n))) = 5 (<a, n> + <b, f g n>): the slope in g is 5 <b, f n>, n at rest."""
    pairs_of = losses.mirrored_pairs(toy.networks, atypical=0.99, atypical_weight=5.0)
    loss_fn = losses.mirrored_autoencoder(toy.networks, pairs_of, latent_norm_weight=0.0)
    args = jnp.asarray(toy.x), jax.random.key(0)
    made, _ = pairs_of(toy.variables, *args)
    assert np.all(made.signs == -5)

    def loss(params):
        mine = {**toy.variables["autoencoder"], "params": params}
        return loss_fn({**toy.variables, "autoencoder": mine}, *args)[0]

    slopes = jax.grad(loss)(toy.variables["autoencoder"]["params"])
    slope = jax.tree.leaves(slopes["generator"])[0]
    np.testing.assert_allclose(slope, 5 * np.mean(dot(toy.b, 0.8 * made.images)), rtol=1e-5)


def test_without_atypical_images_nothing_changes_to_the_bit(toy):
    plain, _ = critic_of(toy)
    none, _ = critic_of(toy, atypical=0.0, atypical_weight=9.0)
    pairs_of = losses.mirrored_pairs(toy.networks, atypical=0.5)
    loss = losses.mirrored_critic(toy.networks, pairs_of)
    not_yet, _ = loss(
        toy.variables, jnp.asarray(toy.x), jax.random.key(0), atypical_on=jnp.array(False)
    )
    now, _ = loss(toy.variables, jnp.asarray(toy.x), jax.random.key(0))
    assert plain == none == not_yet != now


def test_mixtures_lie_between_three_images(toy):
    """Decoded as 0.4 (a1 x1 + a2 x2 + (1 - a1 - a2) x3), and paired with each of the three."""
    pairs_of = losses.mirrored_pairs(toy.networks, simplex_weight=0.2)
    made, _ = pairs_of(toy.variables, jnp.asarray(toy.x), jax.random.key(5))
    images, decoded, weight = made.mixtures
    assert weight == 0.2
    trio = [np.roll(toy.x, -places, axis=0) for places in range(3)]
    np.testing.assert_array_equal(images, np.concatenate(trio))
    np.testing.assert_array_equal(decoded, np.concatenate([decoded[:4]] * 3))
    for index in range(4):
        basis = np.stack([each[index].ravel() for each in trio], axis=1)
        weights, *_ = np.linalg.lstsq(0.4 * basis, np.ravel(decoded[index]), rcond=None)
        assert weights.sum() == pytest.approx(1, abs=1e-4)
        assert np.all(weights[:2] >= 0) and np.all(weights[:2] <= 0.5)
    loss, _ = autoencoder_of(toy, pairs={"simplex_weight": 0.2}, latent_norm_weight=0.0)
    alone, _ = autoencoder_of(toy, latent_norm_weight=0.0)
    made, _ = pairs_of(toy.variables, jnp.asarray(toy.x), jax.random.key(0))
    images, decoded, _ = made.mixtures
    deceit = np.mean(dot(toy.a, images) + dot(toy.b, decoded))
    np.testing.assert_allclose(loss, alone - 0.2 * deceit, rtol=1e-4, atol=1e-5)
    critic_loss, _ = critic_of(toy, penalty=0.0, simplex_weight=0.2)
    plain, _ = critic_of(toy, penalty=0.0)
    pairs_rng, _ = jax.random.split(jax.random.key(0))
    made, _ = pairs_of(toy.variables, jnp.asarray(toy.x), pairs_rng)
    images, decoded, _ = made.mixtures
    expected = plain + 0.2 * np.mean(dot(toy.b, decoded - images))
    np.testing.assert_allclose(critic_loss, expected, rtol=1e-4, atol=1e-5)


def test_scores_by_hand(toy):
    """f(x, x) - f(x, x') = b (x - x') at each position and channel; the halves of x cancel."""
    found = score.mirrored(toy.networks, mean=0.1, deviation=0.5)(toy.variables, jnp.asarray(toy.x))
    difference = 0.6 * toy.b * toy.x  # [4, 2, 3, 1]
    expected = np.abs(difference.sum((1, 2, 3)))
    np.testing.assert_allclose(found.image, expected, rtol=1e-4)
    np.testing.assert_allclose(found.map, np.abs(difference[..., 0]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.terms["two-sided"], abs(expected - 0.1) / 0.5, rtol=1e-4)
    np.testing.assert_allclose(
        found.terms["pixels"], np.abs(0.6 * toy.x).mean((1, 2, 3)), rtol=1e-5
    )
    np.testing.assert_allclose(found.reconstruction, 0.4 * toy.x, rtol=1e-5)
    pixels = score.mirrored(toy.networks, map_of="pixels")(toy.variables, jnp.asarray(toy.x))
    np.testing.assert_allclose(pixels.map, np.abs(0.6 * toy.x[..., 0]), rtol=1e-5)
    assert set(pixels.terms) == {"one-sided", "pixels"}  # of what nobody has measured, nothing


def test_the_image_score_is_at_most_the_sum_of_the_map():
    difference = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4, 4, 5)), jnp.float32)
    of_image, of_map = score.feature_score(difference), jnp.sum(jnp.abs(difference), axis=(1, 2, 3))
    assert np.all(of_image < of_map)
    np.testing.assert_allclose(score.feature_score(jnp.abs(difference)), of_map, rtol=1e-5)


def test_two_sided_has_the_order_of_the_normal_density():
    """The paper's score is the density; a low one is anomalous."""
    np.testing.assert_array_equal(score.two_sided_score(jnp.array([1.0, 2, 3]), 2, 1), [1, 0, 1])
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    found = score.two_sided_score(jnp.asarray(values), 0.3, 0.7)
    density = stats.norm(0.3, 0.7).pdf(values)
    np.testing.assert_array_equal(np.argsort(found), np.argsort(-density))


def test_maps_are_enlarged_about_their_centres():
    """As JAX resizes, by matrices that an export can hold."""
    maps = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5)), jnp.float32)
    expected = jax.image.resize(maps, (2, 16, 20), "linear")
    np.testing.assert_allclose(score.enlarged(maps, 16, 20), expected, atol=1e-6)
    np.testing.assert_array_equal(score.enlarged(maps, 4, 5), maps)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"map_of": "residual"}, "score.map_of 'residual' must be one of features, pixels"),
        ({"deviation": 0.0}, "score.deviation 0.0 must be above 0"),
        ({"two_sided": True}, "score.two_sided needs score.mean .*--mode=tune then measures them"),
    ],
)
def test_scores_that_cannot_be(toy, fields, said):
    with pytest.raises(ValueError, match=said):
        score.mirrored(toy.networks, **fields)


def test_the_penalty_of_the_critic_of_pairs_equals_finite_differences():
    critic = PairCritic(width=3, halvings=1, fold=2)
    pairs = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)
    with jax.enable_x64(True):
        variables = jax.jit(critic.init)(jax.random.key(0), pairs)
        variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        run = jax.jit(lambda x: critic.apply(variables, x)[0])
        penalties = gradient_penalty(run, jnp.asarray(pairs, jnp.float64))
        basis = np.eye(32).reshape(32, 1, 4, 4, 2)
        ahead, behind = (
            np.stack([run(pairs + side * 1e-6 * step) for step in basis]) for side in (1, -1)
        )
    slopes = (ahead - behind) / 2e-6
    np.testing.assert_allclose(penalties, (np.linalg.norm(slopes, axis=0) - 1) ** 2, rtol=1e-5)


@pytest.mark.parametrize("network", ["critic", "autoencoder"])
def test_the_number_of_devices_changes_nothing(network):
    """A step of plain descent, whose steps are the gradients, with all that can be switched on."""
    toy, optimizer = toy_of(slope=0.1), optax.sgd(1.0)
    pairs_of = losses.mirrored_pairs(toy.networks, atypical=0.5, simplex_weight=0.5)
    loss = {
        "critic": losses.mirrored_critic(toy.networks, pairs_of),
        "autoencoder": losses.mirrored_autoencoder(toy.networks, pairs_of, pixel_weight=1.0),
    }[network]
    start = init_state(toy.variables, {network: optimizer})
    step = parallel.per_device(partial(descend, loss, optimizer, network), 0)

    def learned(devices):
        run = jax.vmap(step, (None, 0), None, axis_name=parallel._AXIS)
        state, _ = jax.jit(run)(start, toy.x.reshape(devices, -1, 2, 3, 1))
        return state.variables[network]["params"]

    one, two, four = (jax.tree.leaves(learned(devices)) for devices in (1, 2, 4))
    for a, b, c, first in zip(
        one, two, four, jax.tree.leaves(start.variables[network]["params"]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5)
        assert np.any(a != first)


def sums_of(name, state, images, rng):
    """A step that notes who has learned."""
    log = {**state.variables, name: state.variables[name] + 1}
    return state.replace(variables=log), {}


def test_n_critic_steps_to_one_of_the_autoencoder(toy, monkeypatch):
    """As the stage calls them: `n_critic` of the critic, each on a batch of its own."""
    monkeypatch.setattr(
        method, "_descend", lambda loss, tx, name, start, *args: sums_of(name, *args)
    )
    config = shrink(ama.get_config())
    stage = make(config.method, config, 16).stages[0]
    assert stage.batch_dims == (2, 8)
    state = TrainState(jnp.zeros((), jnp.int32), {"critic": 0, "autoencoder": 0}, {})
    state, _ = stage.step(state, jnp.zeros((2, 8, 16, 16, 3)), jax.random.key(0))
    assert {name: int(count) for name, count in state.variables.items()} == {
        "critic": 2,
        "autoencoder": 1,
    }


def test_negatives_begin_at_their_step(toy):
    pairs_of = losses.mirrored_pairs(toy.networks, atypical=0.5)
    loss = losses.mirrored_critic(toy.networks, pairs_of)
    optimizer = optax.sgd(0.1)
    start = init_state(toy.variables, {"critic": optimizer})

    def loss_at(step, atypical_start):
        state = start.replace(step=jnp.array(step))
        run = partial(method._descend, loss, optimizer, "critic", atypical_start)
        devices = jax.vmap(run, (None, 0, None), axis_name=parallel._AXIS)
        return devices(state, toy.x[None], jax.random.key(0))[1]["critic_loss"][0]

    plain, _ = critic_of(toy)
    assert loss_at(6, 7) == plain != loss_at(7, 7)
    assert loss_at(0, 0) == loss_at(7, 7)


def test_sizes_that_do_not_fit_are_told_with_the_nearest():
    config = shrink(ama.get_config())
    config.data.image_size = 18
    with pytest.raises(ValueError, match="18 px.*: choose 16 or 20 px for data.image_size"):
        make(config.method, config, 16)


def test_tuning_measures_what_the_two_sided_score_needs(toy):
    x = jnp.asarray(toy.x)
    section = ama.get_config().tuning
    of_fields = partial(score.mirrored, toy.networks)
    known = method._tuning(section, toy.networks, lambda fields: of_fields(**fields)).measured(
        toy.variables, x, x[:1]
    )
    one_sided = np.abs(0.6 * dot(toy.b, toy.x))
    fields = known.rules["two"]
    assert fields["mean"] == pytest.approx(one_sided.mean(), rel=1e-4)
    assert fields["deviation"] == pytest.approx(one_sided.std(), rel=1e-4)
    expected = np.abs(one_sided - one_sided.mean()) / one_sided.std()
    chosen = known.score({**known.settings[0], **fields})(toy.variables, x)
    np.testing.assert_allclose(chosen.image, expected, rtol=1e-3)
    of_settings = known.scores(toy.variables, x)
    assert len(of_settings) == len(known.settings) == 2 * 6
    places = dict(known.settings[-1], **known.constants[-1])
    assert places["normalise"] == "pixel" and not known.constants[0]
    np.testing.assert_allclose(
        known.score(places)(toy.variables, x).map, of_settings[-1].map, rtol=1e-4
    )
    np.testing.assert_allclose(of_settings[0].terms["two"], expected, rtol=1e-3)
    np.testing.assert_allclose(of_settings[0].terms["one"], one_sided, rtol=1e-4)
