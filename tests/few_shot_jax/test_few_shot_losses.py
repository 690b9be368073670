"""DevNet and the metric loss against numbers by hand and formulas in NumPy; devices; gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from engine import parallel
from engine.method import descend, init_state
from few_shot_jax import losses
from few_shot_jax.models import (
    DeviationHead,
    MetricHead,
    Places,
    PlaceScorer,
    ResidualTrunk,
    entropy_of,
    top_mean,
)

RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(-1, 1, (2, 8, 8, 8, 3)), jnp.float32)


def brighter(rng, images):
    """A corruption: every image's first row is white."""
    del rng
    return images.at[:, 0].set(1.0), jnp.zeros(images.shape[:3]).at[:, 0].set(1.0)


def unseen(rng, images):
    del rng
    return images, jnp.zeros(images.shape[:3])


def mean_of(variables, images):
    """A network whose score is the mean of an image, times a number."""
    return Places(variables["scorer"]["params"] * images.mean(axis=(1, 2, 3)), images[..., 0])


def constant(value):
    return {"scorer": {"params": value}}


def test_deviation_losses_by_hand():
    deviations, defective = jnp.array([0.5, 3.0, 6.0, -1.0]), jnp.array([0.0, 1.0, 1.0, 0.0])
    each = losses.deviation_losses(deviations, defective, 5.0)
    np.testing.assert_allclose(each, [0.5, 2.0, 0.0, 1.0])
    assert float(each.mean()) == 0.875
    slope = jax.grad(lambda dev: losses.deviation_losses(dev, defective, 5.0).sum())(deviations)
    np.testing.assert_allclose(slope, [1.0, -1.0, 0.0, -1.0])  # none beyond the margin


def test_the_largest_places_count_and_no_other_has_a_gradient():
    scores = jnp.asarray(RNG.permutation(10), jnp.float32).reshape(1, 2, 5) + 1
    assert top_mean(scores, 0.1).tolist() == [10.0] and top_mean(scores, 0.25).tolist() == [9.5]
    assert top_mean(jnp.ones((1, 2, 2)), 0.1).tolist() == [1.0]  # one at least
    slope = jax.grad(lambda x: top_mean(x, 0.25).sum())(scores)
    np.testing.assert_allclose(slope, np.where(scores >= 9, 0.5, 0.0))


def test_negative_scores_count_by_magnitude():
    head, features = DeviationHead(top=0.25), jnp.asarray(RNG.normal(size=(2, 2, 2, 3)))
    variables = jax.jit(head.init)(jax.random.key(0), features)
    kernel = np.asarray(variables["params"]["Conv_0"]["kernel"])[0, 0, :, 0]
    expected = np.abs(np.asarray(features) @ kernel)
    seen = head.apply(variables, features)
    np.testing.assert_allclose(seen.map, expected, rtol=1e-5)
    np.testing.assert_allclose(seen.score, expected.max(axis=(1, 2)), rtol=1e-5)


def test_pairs_by_hand():
    def of(distance, same):
        return float(losses.pair_losses(jnp.array(distance), jnp.array(same), 1.2, 0.2))

    assert of(0.0, True) == 0 and of(2.0, False) == 0
    assert of(1.5, True) == pytest.approx(0.5) and of(0.5, False) == pytest.approx(0.9)

    def slope(distance, same):
        return float(jax.grad(lambda b: losses.pair_losses(distance, same, b, 0.2))(1.2))

    assert slope(1.5, True) == -1 and slope(0.5, False) == 1  # -y on active pairs
    assert slope(0.0, True) == 0 and slope(2.0, False) == 0


def test_all_pairs_against_numpy():
    embedding = RNG.normal(size=(5, 3))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    kinds, weight = np.array([0, 0, 1, 1, 1]), np.array([1, 1, 1, 0, 1])
    total = 0.0
    for i in range(5):
        for j in range(5):
            if i != j:
                sign = 1 if kinds[i] == kinds[j] else -1
                distance = np.linalg.norm(embedding[i] - embedding[j])
                total += weight[i] * weight[j] * max(0, 0.2 + sign * (distance - 1.2))
    found = losses.pair_mean(*map(jnp.float32, (embedding, kinds, weight)), jnp.float32(1.2), 0.2)
    assert float(found) == pytest.approx(total / 20, rel=1e-5)
    same = jnp.ones((2, 3)) / 3**0.5
    slope = jax.grad(lambda x: losses.pair_mean(x, jnp.arange(2.0), jnp.ones(2), 1.2, 0.2))(same)
    assert np.isfinite(slope).all()  # equal embeddings


def test_entropy_of_even_and_of_single_attention():
    even, single = jnp.full((1, 16), 1 / 16), jnp.eye(16)[:1]
    assert float(entropy_of(even)[0]) == pytest.approx(1) and float(entropy_of(single)[0]) == 0
    assert np.isfinite(jax.grad(lambda a: entropy_of(a).sum())(single)).all()


def test_the_metric_head_against_numpy():
    head, features = MetricHead(width=4), jnp.asarray(RNG.normal(size=(2, 3, 3, 5)), jnp.float32)
    variables = jax.jit(head.init)(jax.random.key(1), features)
    seen = head.apply(variables, features)
    assert ((seen.map > 0) & (seen.map < 1)).all()
    assert ((seen.entropy >= 0) & (seen.entropy <= 1)).all()
    np.testing.assert_allclose(np.linalg.norm(seen.embedding, axis=1), 1, rtol=1e-5)
    flipped = jax.tree.map(lambda x: x, variables)
    flipped["params"]["classes"] = variables["params"]["classes"][::-1]
    other = head.apply(flipped, features)  # good and defective change places
    np.testing.assert_allclose(other.map, 1 - seen.map, atol=1e-6)
    np.testing.assert_allclose(other.score, 1 - seen.score, atol=1e-6)
    np.testing.assert_allclose(other.entropy, seen.entropy, atol=1e-6)


def test_the_second_scale_is_the_image_at_half_its_size():
    images = jnp.asarray(RNG.normal(size=(2, 8, 8, 3)), jnp.float32)
    options = {"trunk": ResidualTrunk(1, (4, 8), 1), "head": DeviationHead()}
    both, single = PlaceScorer(**options, scales=2), PlaceScorer(**options)
    variables = jax.jit(both.init)(jax.random.key(0), images)
    small = np.asarray(images).reshape(2, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    parts = [single.apply(variables, jnp.asarray(each)) for each in (images, small)]
    seen = both.apply(variables, images)
    np.testing.assert_allclose(seen.score, (parts[0].score + parts[1].score) / 2, rtol=1e-5)
    assert parts[0].map.shape == seen.map.shape == (2, 4, 4)


def test_the_loss_of_a_step_by_hand():
    """Good images have |score|; of the others all are corruptions, whose mean is known."""
    loss_fn = losses.deviation_loss(mean_of, brighter, corrupted=1.0, lighting=0.0)
    loss, aux = loss_fn(constant(3.0), IMAGES, jax.random.key(0))
    good = 3 * np.asarray(IMAGES[0]).mean(axis=(1, 2, 3))
    bad = 3 * np.asarray(brighter(None, IMAGES[0])[0]).mean(axis=(1, 2, 3))
    expected = (np.abs(good).mean() + np.maximum(0, 5 - bad).mean()) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(aux.metrics["normal_score"]) == pytest.approx(good.mean(), rel=1e-4)


def test_labels_alone_and_what_cannot_be_seen():
    alone = losses.deviation_loss(mean_of, unseen, corrupted=0.0, lighting=0.0)
    score = 3 * np.asarray(IMAGES).mean(axis=(2, 3, 4))
    expected = (np.abs(score[0]).mean() + np.maximum(0, 5 - score[1]).mean()) / 2
    assert float(alone(constant(3.0), IMAGES, jax.random.key(0))[0]) == pytest.approx(expected)
    # A corruption that changes nothing teaches nothing.
    nothing = losses.deviation_loss(mean_of, unseen, corrupted=1.0, lighting=0.0)
    loss = float(nothing(constant(3.0), IMAGES, jax.random.key(0))[0])
    assert loss == pytest.approx(np.abs(score[0]).mean() / 2)


def test_swapping_the_rows_swaps_the_task():
    loss_fn = losses.deviation_loss(mean_of, unseen, corrupted=0.0, lighting=0.0)
    apart = jnp.stack([jnp.full((8, 8, 8, 3), -0.1), jnp.full((8, 8, 8, 3), 0.9)])

    def slope(images):
        of = jax.grad(lambda value: loss_fn(constant(value), images, jax.random.key(0))[0])
        return float(of(1.0))

    assert slope(apart) < 0 < slope(apart[::-1])


def test_the_drawn_reference_is_the_exact_one_with_noise():
    score = jnp.array([0.0, 1.0, 4.0])
    drawn = np.stack([losses.deviation(score, jax.random.key(i), 5000) for i in range(50)])
    np.testing.assert_allclose(drawn.mean(axis=0), score, atol=0.02)
    assert 0 < drawn.std(axis=0).max() < 0.08
    np.testing.assert_array_equal(losses.deviation(score, jax.random.key(0), 0), score)


@pytest.mark.parametrize("kind", ["deviation", "metric"])
def test_a_step_on_eight_devices_is_that_on_one(kind):
    head = DeviationHead() if kind == "deviation" else MetricHead(width=4)
    network = PlaceScorer(ResidualTrunk(2, (4,), 1), head)
    make = {"deviation": losses.deviation_loss, "metric": losses.metric_loss}[kind]
    loss_fn = make(lambda v, images: network.apply(v["scorer"], images), brighter, lighting=0.0)
    optimizer = optax.sgd(0.1)
    variables = {"scorer": jax.jit(network.init)(jax.random.key(0), IMAGES[0, :1])}
    state = init_state(variables, {"scorer": optimizer})

    def step(state, images, rng):
        return descend(loss_fn, optimizer, "scorer", state, images, rng)

    def trained(devices):
        run = jax.pmap(
            parallel.per_device(step, 3),
            axis_name=parallel._AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=jax.devices()[:devices],
        )
        batch = jnp.moveaxis(IMAGES.reshape(2, devices, 8 // devices, 8, 8, 3), 1, 0)
        new, metrics = run(state, batch)
        return jax.device_get((new.variables, metrics))

    one, eight = trained(1), trained(8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5), one, eight)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), one[0], variables)
    assert max(jax.tree.leaves(moved)) > 1e-3  # and not for want of a step


def test_the_metric_loss_says_which_head_it_needs():
    loss_fn = losses.metric_loss(mean_of, brighter, lighting=0.0)
    with pytest.raises(ValueError, match="needs few_shot_jax.models:MetricHead as head.fn"):
        loss_fn(constant(1.0), IMAGES, jax.random.key(0))
