"""What the head learns from: graded labels and lighting; the head itself, and the loss with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from scipy import ndimage

from ae_jax import head, labels, lighting, losses, score, self_supervised
from ae_jax.dilated import DilatedAutoencoder
from ae_jax.models import Output
from configs import restorer, restorer_head
from engine import folding, parallel
from engine.make import make

KEY = jax.random.key(0)


def graded(change, mask=None, **options):
    """Labels of one grey image that changes by so many levels of 255."""
    change = np.asarray(change, np.float32)[None, ..., None] / 127.5
    images = np.zeros_like(change)
    mask = np.ones(change.shape[:3], np.float32) if mask is None else mask[None]
    return np.asarray(labels.graded(images, change, jnp.asarray(mask), **options))[0]


def test_labels_are_those_of_a_formula():
    rng = np.random.default_rng(0)
    change = np.zeros((64, 64))
    change[20:40, 10:30] = rng.uniform(-40, 40, (20, 20))
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    basis = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2]).reshape(6, -1).T
    slow = basis @ np.linalg.lstsq(basis, change.ravel(), rcond=None)[0]
    fast = np.abs(change - slow.reshape(64, 64))
    counts = ndimage.uniform_filter(np.ones((64, 64)), 3, mode="constant")
    smooth = ndimage.uniform_filter(fast, 3, mode="constant") / counts
    expected = np.where(np.abs(change) > 1, 1 / (1 + np.exp(-(smooth - 7) / 3)), 0)
    np.testing.assert_allclose(graded(change), expected, atol=2e-4)


@pytest.mark.parametrize(("level", "label"), [(0, 0.0), (7, 0.5), (15, 0.935), (200, 1.0)])
def test_labels_by_hand(level, label):
    """Away from the border of a patch that is too small to be taken for a lamp."""
    change = np.zeros((256, 256))
    change[100:112, 100:112] = level
    found = graded(change)
    np.testing.assert_allclose(found[106, 106], label, atol=0.02)
    assert (found[change == 0] == 0).all()


def test_slow_changes_of_brightness_have_no_label():
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    found = graded(30 + 20 * x - 15 * y * x + 25 * y**2)
    assert found.max() < 0.1
    mask = np.zeros((64, 64), np.float32)
    assert (graded(np.full((64, 64), 90.0), mask) == 0).all()


def test_lighting_of_strength_zero_changes_nothing_and_more_changes_all_alike():
    images = jax.random.uniform(KEY, (4, 32, 32, 3), minval=-0.5, maxval=0.5)
    np.testing.assert_allclose(lighting.relight(KEY, images, 0.0), images, atol=1e-6)
    flat = np.asarray(lighting.relight(KEY, jnp.zeros((200, 32, 32, 3)), 0.1))
    means = flat.mean(axis=(1, 2, 3))
    assert 0.02 < means.std() < 0.1 and np.abs(means).max() < 0.3
    assert np.abs(np.diff(flat, axis=1)).max() < 0.02  # a smooth field
    np.testing.assert_array_equal(flat[..., 0], flat[..., 2])


def test_folding_is_undone():
    images = jax.random.normal(KEY, (2, 8, 12, 3))
    folded = folding.folded(images, 4)
    assert folded.shape == (2, 2, 3, 48)
    np.testing.assert_array_equal(folded[1, 1, 2].reshape(4, 4, 3), images[1, 4:8, 8:12])
    np.testing.assert_array_equal(folding.unfolded(folded, 4), images)


def networks(fold=2):
    small = DilatedAutoencoder((4,), 1, 1, 2, (1, 2))
    return small, head.Restorer(small, head.Head(fold, (4, 8)))


def corrupt(rng, images):
    """A square of white."""
    mask = jnp.zeros(images.shape[:3]).at[:, 4:10, 4:10].set(1.0)
    return jnp.where(mask[..., None] > 0, 1.0, images), mask


def value(network, variables, **options):
    images = jax.random.uniform(KEY, (2, 16, 16, 3), minval=-1, maxval=0)
    corruption = options.pop("corrupt", corrupt)
    loss = losses.self_supervised(network, corruption, **options)

    @jax.jit
    @jax.value_and_grad
    def on_one_device(variables):
        of = jax.vmap(lambda x: loss({"autoencoder": variables}, x, KEY)[0], axis_name="devices")
        return of(images[None])[0]

    return on_one_device(variables)


@pytest.mark.slow
def test_a_head_without_weight_leaves_the_loss_of_restoration_to_the_bit():
    plain, both = networks()
    variables = jax.jit(both.init)(KEY, jnp.zeros((1, 16, 16, 3)))
    alone = jax.tree.map(lambda x: x, {k: v["autoencoder"] for k, v in variables.items()})
    expected, _ = value(plain, alone)
    found, _ = value(both, variables, head_weight=0.0)
    assert found == expected
    more, _ = value(both, variables, head_weight=1.0)
    assert more > expected


def test_gradients_are_finite_without_any_corrupted_pixel():
    _, both = networks()
    variables = jax.jit(both.init)(KEY, jnp.zeros((1, 16, 16, 3)))
    nothing = lambda rng, images: (images, jnp.zeros(images.shape[:3]))  # noqa: E731
    loss, gradient = value(both, variables, corrupt=nothing, lighting=0.1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, gradient)))


def test_a_head_alone_restores_nothing():
    alone = head.Restorer(None, head.Head(2, (4, 8)))
    images = jax.random.normal(KEY, (2, 16, 16, 3))
    output, _ = jax.jit(alone.init_with_output)(KEY, images)
    np.testing.assert_array_equal(output.reconstructions, images)
    assert output.logits.shape == (2, 16, 16)


def test_maps_by_hand():
    images, restored = jnp.zeros((1, 2, 2, 3)), jnp.full((1, 2, 2, 3), 0.5)
    output = Output(restored, logits=jnp.zeros((1, 2, 2)))
    for name, expected in {"residual": 0.25, "head": 0.5, "product": 0.25}.items():
        np.testing.assert_allclose(score.anomaly_map(name, images, output), expected)
    with pytest.raises(ValueError, match="needs a head"):
        score.anomaly_map("head", images, Output(restored))
    with pytest.raises(ValueError, match="must be one of"):
        score.anomaly_map("sum", images, output)


def two_stages():
    config = restorer_head.get_config("demo")
    config.data.image_size = 32
    config.autoencoder.update(features=(4,), blocks=1, branch=2, dilations=(1, 2))
    config.head.update(fold=2, features=(4, 8))
    config.head_training.batch_size = config.training.batch_size = 8
    return config


def started(first, second):
    """The second stage's first state."""
    return jax.jit(lambda: second.init(KEY, first.init(KEY, {}).variables))()


@pytest.mark.slow
def test_the_head_learns_alone_in_a_second_stage():
    first, second = self_supervised.build(FrozenConfigDict(two_stages()), 16).stages
    before = started(first, second)
    state = parallel.replicate(jax.tree.map(jnp.copy, before))  # which the step uses up
    images = np.random.default_rng(0).uniform(-1, 0, (8, 1, 1, 32, 32, 3)).astype(np.float32)
    run = parallel.data_parallel(second.step, 0, lambda held, sent: sent)
    for _ in range(2):  # the first has a learning rate of 0
        state, metrics = run(state, (), images)
    assert np.isfinite(metrics["head_loss"])
    for name in ("autoencoder", "averaged"):
        jax.tree.map(np.testing.assert_array_equal, before.variables[name], state.variables[name])
    for name in ("head", "averaged_head"):
        old, new = (jax.tree.leaves(each.variables[name]["params"]) for each in (before, state))
        assert any((a != b).any() for a, b in zip(old, new, strict=True)), name


def test_two_stages_score_as_one_network_with_these_parts():
    method = self_supervised.build(FrozenConfigDict(two_stages()), 16)
    first, second = method.stages
    variables = started(first, second).variables
    images = jax.random.uniform(KEY, (2, 32, 32, 3), minval=-1, maxval=0)
    config = two_stages()
    restored = make(config.autoencoder).apply(variables["averaged"], images).reconstructions
    logits = make(config.head).apply(variables["averaged_head"], images, restored)
    expected = jnp.sqrt(jnp.square(images - restored).mean(-1)) * jax.nn.sigmoid(logits)
    score = method.tuning.score({"smoothing": 0.0})(variables, images)
    np.testing.assert_allclose(score.map, expected, atol=1e-5)


def test_a_head_alone_needs_a_score_of_its_own():
    config = restorer.get_config("demo")
    config.autoencoder.fn = ""
    with pytest.raises(ValueError, match="--config.score.map=head"):
        self_supervised.build(FrozenConfigDict(config), 16)
    config.score.map = "head"
    assert len(self_supervised.build(FrozenConfigDict(config), 16).stages) == 1
