"""AnoGAN's score: the search in the latent space against one written in NumPy, and its promises."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import anogan, fanogan
from engine.make import make
from fanogan_jax import build, build_anogan
from fanogan_jax.models import Networks
from fanogan_jax.score import latent_search

RNG = np.random.default_rng(0)
GENERATOR = RNG.normal(size=(3, 8)).astype(np.float32)  # latents -> the pixels of [2, 2, 2]
CRITIC = RNG.normal(size=(8, 5)).astype(np.float32)  # pixels -> features
LINEAR = Networks(
    generator=SimpleNamespace(apply=lambda w, z: (z @ w).reshape(-1, 2, 2, 2)),
    critic=SimpleNamespace(apply=lambda w, x: (None, x.reshape(-1, 8) @ w)),
    encoder=None,
    latent=3,
)
VARIABLES = {"generator": jnp.asarray(GENERATOR), "critic": jnp.asarray(CRITIC)}


def parts(x, z):
    """R and D of one image x [8]."""
    differences = x - z @ GENERATOR
    return np.abs(differences).sum(), np.abs(differences @ CRITIC).sum()


def adam(x, z, steps, rate, weight):
    """The z that Kingma and Ba's Adam finds for one image x [8]; float64 throughout."""
    mean, square = np.zeros(3), np.zeros(3)
    for step in range(1, steps + 1):
        differences = x - z @ GENERATOR
        signs = (1 - weight) * np.sign(differences)
        signs = signs + weight * CRITIC @ np.sign(differences @ CRITIC)
        gradient = -GENERATOR @ signs
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = mean / (1 - 0.9**step), square / (1 - 0.999**step)
        z = z - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    return z


@pytest.mark.parametrize(("steps", "weight"), [(1, 0.1), (30, 0.0), (30, 0.1), (30, 1.0)])
def test_the_search_is_adam_by_hand(steps, weight):
    images = RNG.normal(size=(4, 2, 2, 2)).astype(np.float32)
    search = latent_search(LINEAR, steps, 0.05, weight, seed=7)
    score = jax.jit(search)(VARIABLES, images)
    start = np.asarray(jax.random.normal(jax.random.key(7), (1, 3)), np.float64)[0]
    for index, image in enumerate(images.reshape(4, 8)):
        z = adam(image, start, steps, 0.05, weight)
        image_part, feature_part = parts(image, z)
        np.testing.assert_allclose(score.reconstruction[index].ravel(), z @ GENERATOR, atol=1e-4)
        np.testing.assert_allclose(score.terms["R"][index], image_part, rtol=1e-4)
        np.testing.assert_allclose(score.terms["D"][index], feature_part, rtol=1e-4)
        loss = (1 - weight) * image_part + weight * feature_part
        np.testing.assert_allclose(score.image[index], loss, rtol=1e-4)
        residuals = np.abs(image - z @ GENERATOR).reshape(2, 2, 2).mean(axis=-1)
        np.testing.assert_allclose(score.map[index], residuals, atol=1e-4)


def test_an_image_of_the_generator_is_found():
    latents = np.array([[0.5, -1.0, 0.2], [-0.3, 0.4, 1.5]], np.float32)
    images = latents @ GENERATOR
    score = jax.jit(latent_search(LINEAR, 500, 0.02))(VARIABLES, images.reshape(2, 2, 2, 2))
    start = np.asarray(jax.random.normal(jax.random.key(0), (3,)))
    for found, image in zip(score.image, images, strict=True):
        assert found < 0.05 * np.dot([0.9, 0.1], parts(image, start))


@pytest.mark.parametrize("values", [{"num_steps": 0}, {"feature_weight": 1.1}])
def test_values_out_of_range(values):
    with pytest.raises(ValueError, match="choose num_steps >= 1 and feature_weight in"):
        latent_search(LINEAR, **values)


def shrunk(category="bottle"):
    """configs/anogan.py with networks that compile in seconds."""
    config = anogan.get_config(category)
    config.latent = 4
    config.data.image_size = 16
    config.generator.features, config.critic.features = (8, 8, 4), (4, 8)
    config.gan.update(batch_size=8, num_steps=2, n_critic=2)
    config.score.num_steps = 5
    return config


@pytest.fixture(scope="module")
def variables():
    """Random numbers; the running averages are not those of any batch scored here."""
    state = jax.eval_shape(build_anogan(shrunk(), 16).stages[0].init, jax.random.key(0), {})
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        averages = any(key.key == "batch_stats" for key in path)
        draws = rng.uniform(0.1, 0.5, leaf.shape) if averages else rng.normal(0, 0.2, leaf.shape)
        return draws.astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, state.variables)


@pytest.fixture(scope="module")
def score():
    """Of five steps, compiled once for each size of a batch."""
    return jax.jit(build_anogan(shrunk(), 16).score)


def test_a_score_depends_neither_on_batch_mates_nor_on_the_place(score, variables, images):
    batch = score(variables, images[:6])
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = score(variables, images[order])
    alone = [score(variables, images[i : i + 1]) for i in range(6)]
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *alone)
    mixed = jax.tree.map(lambda leaf: leaf[order], batch)
    for ours, theirs in ((batch, joined), (mixed, moved)):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_more_steps_come_nearer_and_leave_the_networks_alone(score, variables, images):
    before, config = jax.tree.map(np.array, variables), shrunk()
    few = score(variables, images[:6])
    config.score.num_steps = 100
    many = jax.jit(build_anogan(config, 16).score)(variables, images[:6])
    assert np.all(many.image < few.image)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_one_stage_is_that_of_fanogan():
    """So that its checkpoints fit; the score needs no encoder."""
    config = shrunk()
    method = build_anogan(config, 16)
    other = fanogan.get_config()
    other.update({name: config[name] for name in ("latent", "data", "generator", "critic", "gan")})
    (stage,), first = method.stages, build(other, 16).stages[0]
    assert (stage.name, stage.num_steps, stage.batch_dims) == ("gan", 2, (2, 8))
    states = [jax.eval_shape(s.init, jax.random.key(0), {}) for s in (stage, first)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert jax.tree.leaves(states[0]) == jax.tree.leaves(states[1])
    score = jax.eval_shape(method.score, states[0].variables, np.zeros((3, 16, 16, 3), np.float32))
    assert score.image.shape == score.terms["R"].shape == (3,)
    assert score.map.shape == (3, 16, 16) and score.reconstruction.shape == (3, 16, 16, 3)


@pytest.mark.parametrize("category", ["bottle", "demo"])
def test_the_config_names_what_is_there(category):
    config = anogan.get_config(category)
    assert "encoder" not in config and "encoding" not in config
    method = make(config.method, config, 16)
    assert [stage.name for stage in method.stages] == ["gan"]


def test_the_map_over_what_is_usual():
    x = jnp.asarray(RNG.normal(size=(2, 2, 2, 2)), jnp.float32)
    usual = ((1.0, 2.0), (4.0, 8.0))
    plain, over = (
        latent_search(LINEAR, num_steps=2, **options)(VARIABLES, x)
        for options in ({}, {"normalise": "pixel", "usual": usual})
    )
    np.testing.assert_allclose(over.map, plain.map / np.asarray(usual)[None], rtol=1e-6)
    np.testing.assert_array_equal(over.image, plain.image)
