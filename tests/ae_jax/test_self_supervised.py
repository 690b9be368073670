"""The self-supervised autoencoder: loss, averages, checks, pictures, score, and its stage."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import shrink
from scipy import ndimage

from ae_jax import self_supervised
from ae_jax.losses import region_means
from ae_jax.losses import self_supervised as loss_of
from ae_jax.models import Output
from ae_jax.score import restored
from configs import ssae
from engine import parallel
from engine.map_score import of_map
from engine.method import TrainState, average
from engine.optimizer import scheduled_optimizer

VALUE = 0.8  # of a corrupted pixel


class Identity(nn.Module):
    """images -> images, without parameters."""

    @nn.compact
    def __call__(self, images, *, train=False):
        return Output(images)


class Constant(nn.Module):
    """images -> an image of one value."""

    value: float

    @nn.compact
    def __call__(self, images, *, train=False):
        return Output(jnp.full_like(images, self.value))


class Scale(nn.Module):
    """images -> images times a parameter, 0.5 at first."""

    @nn.compact
    def __call__(self, images, *, train=False):
        scale = self.param("scale", nn.initializers.constant(0.5), (1,))
        return Output(images * scale.reshape(1, 1, 1, 1))


NONE = {"autoencoder": {}, "averaged": {}}
HALF = {"autoencoder": {"params": {"scale": jnp.full(1, 0.5)}}}
KEY = jax.random.key(0)


def squares(*sides):
    """A corruption that sets a square in the corner of each image, of its own side, to VALUE."""

    def corrupt(rng, images):
        row = np.arange(16)
        inside = np.stack([np.maximum(*np.meshgrid(row, row)) < side for side in sides])
        return jnp.where(inside[..., None], VALUE, images), jnp.asarray(inside, jnp.float32)

    return corrupt


def squared(images, other):
    """Mean over channels, [B, H, W], in double precision."""
    return np.mean((np.asarray(images, float) - np.asarray(other, float)) ** 2, axis=-1)


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_loss_of_an_identity_network_by_hand(images, weight):
    """It leaves corrupted pixels as they are; each image counts alike, whatever its square."""
    loss = loss_of(Identity(), squares(4, 8, 0), corrupted_weight=weight)
    value, aux = loss(NONE, jnp.asarray(images[:3]), KEY)
    residual = squared(images[:3], VALUE)
    means = [residual[0, :4, :4].mean(), residual[1, :8, :8].mean(), 0]
    np.testing.assert_allclose(value, weight * sum(means) / 3, rtol=1e-5)
    assert aux.metrics["error_clean"] == 0


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_loss_of_a_network_that_errs_everywhere_by_hand(images, weight):
    loss = loss_of(Constant(0.25), squares(4, 8), corrupted_weight=weight)
    value, aux = loss(NONE, jnp.asarray(images[:2]), KEY)
    residual, terms = squared(images[:2], 0.25), []
    for image, side in zip(residual, (4, 8), strict=True):
        inside = image[:side, :side].sum()
        terms.append(((image.sum() - inside) / (256 - side**2), inside / side**2))
    clean, corrupted = np.mean(terms, axis=0)
    np.testing.assert_allclose(value, (1 - weight) * clean + weight * corrupted, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["error_clean"], clean, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["error_corrupted"], corrupted, rtol=1e-5)


@pytest.mark.parametrize("network", [Constant(0.25), Identity()])
def test_without_regions_the_loss_is_the_plain_mean(network, images):
    """Whatever lambda is; and a lambda that is the corrupted share gives it as well."""
    some, corrupt = jnp.asarray(images[:2]), squares(4, 4)
    made = network.apply({}, corrupt(KEY, some)[0]).reconstructions
    expected = squared(some, made).mean()
    for weight in (0.5, 0.1):
        loss = loss_of(network, corrupt, per_region=False, corrupted_weight=weight)
        np.testing.assert_allclose(loss(NONE, some, KEY)[0], expected, rtol=1e-5)
    share = loss_of(network, corrupt, corrupted_weight=16 / 256)
    np.testing.assert_allclose(share(NONE, some, KEY)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("per_region", [True, False])
@pytest.mark.parametrize("side", [0, 16])
def test_empty_and_full_masks_have_finite_losses_and_gradients(side, per_region, images):
    """The one term that there is: of x / 2 - x, or of VALUE / 2 - x."""
    some = jnp.asarray(images[:2])
    loss = loss_of(Scale(), squares(side, side), corrupted_weight=0.3, per_region=per_region)

    def of_params(params):
        return loss({"autoencoder": {"params": params}}, some, KEY)[0]

    value, slope = jax.value_and_grad(of_params)(HALF["autoencoder"]["params"])
    seen = images[:2] if side == 0 else np.full_like(images[:2], VALUE)
    weight = 1 if not per_region else 0.7 if side == 0 else 0.3
    np.testing.assert_allclose(value, weight * squared(seen / 2, images[:2]).mean(), rtol=1e-5)
    expected = weight * np.mean(2 * seen * (seen / 2 - images[:2]))
    np.testing.assert_allclose(slope["scale"], [expected], rtol=1e-4)


def test_means_of_regions_by_hand():
    values = np.random.default_rng(0).uniform(size=(4, 6, 5)).astype(np.float32)
    inside = np.random.default_rng(1).random((4, 6, 5)) < 0.3
    inside[2], inside[3] = False, True
    outside_means, inside_means = region_means(jnp.asarray(values), jnp.asarray(inside))
    expected = [[v[~m].mean() if (~m).any() else 0 for v, m in zip(values, inside, strict=True)]]
    expected += [[v[m].mean() if m.any() else 0 for v, m in zip(values, inside, strict=True)]]
    np.testing.assert_allclose([outside_means, inside_means], expected, rtol=1e-5)


def test_what_is_not_finite_in_one_region_stays_out_of_the_other():
    values = jnp.ones((1, 4, 4)).at[0, 0, 0].set(jnp.inf)
    outside, _ = region_means(values, values > 1)
    np.testing.assert_array_equal(outside, [1])


def test_input_and_target_get_the_same_noise(images):
    """An identity network restores noise with the rest: the loss is what it is without."""
    some = jnp.asarray(images)
    loss = loss_of(Identity(), squares(*[0] * 16), noise=0.3)
    assert loss(NONE, some, KEY)[0] == 0
    values = [
        float(loss_of(Identity(), squares(*[5] * 16), noise=noise)(NONE, some, KEY)[0])
        for noise in (0.0, 0.3)
    ]
    assert values[0] > 0.1
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)


def test_the_target_holds_noise_of_the_given_strength(images):
    """Of a network that says 0 the residual is the target: x^2 + 0.3^2 on average.

    Of 12,288 numbers: a standard deviation of 0.3^2 sqrt(2) and 2 * 0.3 |x|, over their root.
    """
    loss = loss_of(Constant(0.0), squares(*[0] * 16), noise=0.3, per_region=False)
    values = [float(loss(NONE, jnp.asarray(images), jax.random.key(seed))[0]) for seed in (0, 1)]
    np.testing.assert_allclose(values, np.mean(images**2) + 0.09, atol=0.014)
    assert values[0] != values[1]


def average_state(step, network, averaged):
    def variables(value):
        return {"params": {"w": jnp.full(3, value)}, "batch_stats": {"mean": jnp.full(2, value)}}

    made = {"autoencoder": variables(network), "averaged": variables(averaged)}
    return TrainState(jnp.asarray(step), made, {})


@pytest.mark.parametrize(
    ("step", "decay"), [(0, 0.1), (8, 0.5), (89, 90 / 99), (8990, 0.999), (10**6, 0.999)]
)
def test_averages_by_hand(step, decay):
    """(1 + t) / (10 + t) in the first steps, and the decay at last; of all that a network holds."""
    moved = average(average_state(step, 3.0, 1.0), 0.999, "autoencoder", "averaged")
    for leaf in jax.tree.leaves(moved.variables["averaged"]):
        np.testing.assert_allclose(leaf, decay * 1 + (1 - decay) * 3, rtol=1e-6)
    for leaf in jax.tree.leaves(moved.variables["autoencoder"]):
        np.testing.assert_array_equal(leaf, 3)


def test_averages_reach_a_network_that_stands_still():
    """What is left of the first difference is the product of all decays."""
    state, left = average_state(0, 1.0, -1.0), 1.0
    run = jax.jit(partial(average, network="autoencoder", averaged="averaged"))
    for step in range(60):
        state = run(state.replace(step=jnp.asarray(step)), 0.8)
        left *= min(0.8, (1 + step) / (10 + step))
        if step in (5, 59):
            averaged = state.variables["averaged"]["params"]["w"]
            np.testing.assert_allclose(1 - averaged, 2 * left, atol=1e-6)
    assert left < 1e-5


@pytest.fixture
def small():
    return shrink(ssae.get_config())


def test_the_averages_score_and_the_network_that_learns_does_not(small, images):
    method = self_supervised.build(small, 16)
    variables = jax.jit(method.stages[0].init)(KEY, {}).variables
    score = jax.jit(method.score)
    base = score(variables, images[:2])

    def without(name):
        zeros = {
            **variables[name],
            "params": jax.tree.map(jnp.zeros_like, variables[name]["params"]),
        }
        return score({**variables, name: zeros}, images[:2])

    np.testing.assert_array_equal(without("autoencoder").map, base.map)
    changed = without("averaged")
    # Zero kernels and a zero bias: tanh(0).
    np.testing.assert_array_equal(changed.reconstruction, 0)
    assert (changed.map != base.map).all()


def test_a_step_moves_the_averages_and_starts_them_at_the_network(small, images):
    """The first step's decay is 0.1. Its learning rate is the schedule's first, usually 0."""
    small.training.schedule.init_value = 0.1
    (stage,) = self_supervised.build(small, 16).stages
    start = jax.device_get(jax.jit(stage.init)(KEY, {}).variables)
    for a, b in zip(*(jax.tree.leaves(start[name]) for name in start), strict=True):
        np.testing.assert_array_equal(a, b)
    state = parallel.replicate(jax.jit(stage.init)(KEY, {}))
    step = parallel.data_parallel(stage.step, 0, lambda held, sent: sent)
    state, metrics = step(state, (), images[:8].reshape(8, 1, 1, 16, 16, 3))
    assert {"autoencoder_loss", "error_clean", "error_corrupted"} == set(metrics)
    network, averaged = (state.variables[name] for name in ("autoencoder", "averaged"))
    moved = 0
    for old, new, mean in zip(
        *map(jax.tree.leaves, (start["averaged"], network, averaged)), strict=True
    ):
        np.testing.assert_allclose(mean, 0.1 * old + 0.9 * np.asarray(new), rtol=1e-4, atol=1e-5)
        moved += bool((np.asarray(new) != old).any())
    assert moved == len(jax.tree.leaves(network))  # batch statistics as well


@pytest.mark.slow
def test_training_lowers_the_loss(small, images):
    """From a network that knows nothing to one that knows the disc."""
    small.training.update(num_steps=40)
    small.training.schedule.update(peak_value=1e-2, warmup_steps=2)
    (stage,) = self_supervised.build(small, 16).stages
    state = parallel.replicate(jax.jit(stage.init)(KEY, {}))
    step = parallel.data_parallel(stage.step, 0, lambda held, sent: sent)
    seen = []
    for _ in range(40):
        state, metrics = step(state, (), images.reshape(8, 1, 2, 16, 16, 3))
        seen.append(float(metrics["autoencoder_loss"]))
    assert np.mean(seen[-5:]) < 0.5 * seen[0]


def run_checks(network, corrupt, images):
    found = self_supervised.checks(network, corrupt, 16, NONE, jnp.asarray(images), KEY)
    return {name: float(value) for name, value in found.items()}


def test_checks_of_an_identity_network(images):
    """It gets corrupted pixels wrong and nothing else; two images of three have some."""
    found = run_checks(Identity(), squares(4, 8, 0), images[:3])
    residual = squared(images[:3], VALUE)
    corrupted = (residual[0, :4, :4].mean() + residual[1, :8, :8].mean()) / 2
    np.testing.assert_allclose(found.pop("error_corrupted"), corrupted, rtol=1e-5)
    zero = ["error_clean", "error_unchanged", "idempotence", "residual_inside"]
    assert found == dict.fromkeys(zero, 0.0)


def test_checks_of_a_constant_network(images):
    found = run_checks(Constant(0.25), squares(4, 8, 0), images[:3])
    residual = squared(images[:3], 0.25)
    inside = [residual[0, :4, :4].mean(), residual[1, :8, :8].mean()]
    outside = [
        (image.sum() - image[:side, :side].sum()) / (256 - side**2)
        for image, side in zip(residual, (4, 8, 0), strict=True)
    ]
    expected = {
        "error_clean": np.mean(outside),
        "error_corrupted": np.mean(inside),
        "error_unchanged": residual.mean(),
        "idempotence": 0.0,
        "residual_inside": (VALUE - 0.25) ** 2,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_checks_of_a_network_that_is_not_idempotent(images):
    """f(x) = x / 2, so that f(f(x)) - f(x) is -x / 4."""
    variables = {"averaged": HALF["autoencoder"]}
    found = self_supervised.checks(Scale(), squares(4), 16, variables, images[:1], KEY)
    rms = np.sqrt(np.mean(images[:1] ** 2))
    np.testing.assert_allclose(found["idempotence"], rms / 4, rtol=1e-5)
    np.testing.assert_allclose(found["error_unchanged"], rms**2 / 4, rtol=1e-5)


def test_checks_are_means_over_images_that_have_such_pixels(images):
    """An image without clean pixels has no say in what clean ones become, and the reverse."""
    found = run_checks(Constant(0.25), squares(16, 0), images[:2])
    residual = squared(images[:2], 0.25).mean(axis=(1, 2))
    np.testing.assert_allclose(found["error_corrupted"], residual[0], rtol=1e-5)
    np.testing.assert_allclose(found["error_clean"], residual[1], rtol=1e-5)


def test_checks_without_any_corruption_are_finite(images):
    found = run_checks(Identity(), squares(0, 0), images[:2])
    assert set(found.values()) == {0.0}


def test_a_preview_shows_64_corruptions_beside_their_masks(images):
    """Of ten images, again and again."""
    shown = self_supervised.preview(squares(*[4] * 64), 16, jnp.asarray(images[:10]), KEY)
    assert shown.shape == (64, 16, 32, 3)
    expected = np.take(images, np.arange(64) % 10, axis=0)
    expected[:, :4, :4] = VALUE
    np.testing.assert_allclose(shown[:, :, :16], expected, atol=1e-6)
    mask = np.full((16, 16, 3), -1.0)
    mask[:4, :4] = 1
    np.testing.assert_allclose(shown[:, :, 16:], np.broadcast_to(mask, shown[:, :, 16:].shape))


@pytest.mark.parametrize(("side", "large", "height"), [(256, 256, 128), (16, 40, 16)])
def test_previews_are_of_128_pixels_at_most_and_of_the_crop(side, large, height, small):
    small.data.update(image_size=large, crop=side if large > side else 0)
    (stage,) = self_supervised.build(small, 16).stages
    held_out = jax.ShapeDtypeStruct((3, large, large, 3), jnp.float32)
    assert jax.eval_shape(stage.preview, held_out, KEY).shape == (64, height, 2 * height, 3)


def test_pictures_and_checks_are_of_the_averages(small, images):
    (stage,) = self_supervised.build(small, 16).stages
    variables = jax.jit(stage.init)(KEY, {}).variables
    zeros = jax.tree.map(jnp.zeros_like, variables["averaged"]["params"])
    variables = {**variables, "averaged": {**variables["averaged"], "params": zeros}}
    held_out = jnp.asarray(images[:3])
    shown = jax.jit(stage.pictures)(variables, held_out)
    assert {name: made.shape for name, made in shown.items()} == {
        "reconstructions": (3, 16, 32, 3),
        "restored": (3, 16, 48, 3),
    }
    np.testing.assert_array_equal(shown["reconstructions"][:, :, :16], held_out)
    np.testing.assert_array_equal(shown["reconstructions"][:, :, 16:], 0)
    np.testing.assert_array_equal(shown["restored"][:, :, 16:32], 0)
    found = jax.jit(stage.checks)(variables, held_out, KEY)
    np.testing.assert_allclose(found["error_unchanged"], np.mean(images[:3] ** 2), rtol=1e-5)
    assert found["idempotence"] == 0


@pytest.mark.parametrize("warmup", [2, 3, -1])
def test_a_warm_up_as_long_as_the_training_is_refused(warmup, small):
    small.training.schedule.warmup_steps = warmup
    message = f"warmup_steps {warmup} must be less than the 2 steps"
    with pytest.raises(ValueError, match=message) as caught:
        self_supervised.build(small, 16)
    assert "\n" not in str(caught.value)


def plain_steps(small, norm, *, clip):
    """The steps that gradient descent takes with gradients [3, 4], of norm 5, scaled to `norm`."""
    small.training.optimizer = dict(fn="optax:sgd")
    small.training.clip = clip
    small.training.schedule = dict(init_value=0.0, peak_value=0.4, warmup_steps=4, end_value=0.1)
    optimizer = scheduled_optimizer(small.training, 12)
    gradients = {"a": jnp.full(1, 3.0 * norm / 5), "b": jnp.full(1, 4.0 * norm / 5)}
    state, taken = optimizer.init(gradients), []
    for _ in range(13):
        step, state = optimizer.update(gradients, state)
        taken.append(float(optax.tree.norm(step)))
        np.testing.assert_allclose(step["b"] * 3, step["a"] * 4, rtol=1e-5, atol=1e-9)
        assert step["a"] <= 0
    return taken


def test_gradients_are_clipped_to_the_norm_and_small_ones_are_not(small):
    clipped = plain_steps(small, 1e6, clip=0.5)
    np.testing.assert_allclose(clipped, plain_steps(small, 0.5, clip=100.0), rtol=1e-5)
    np.testing.assert_allclose(
        plain_steps(small, 0.25, clip=0.5), 0.5 * np.array(clipped), rtol=1e-5
    )


def test_the_learning_rate_rises_in_a_line_and_falls_as_a_cosine(small):
    """0 to 0.4 in 4 steps, and to 0.1 at step 12."""
    steps = np.arange(13)
    cosine = 0.1 + 0.3 * (1 + np.cos(np.pi * (steps - 4) / 8)) / 2
    expected = np.where(steps < 4, 0.1 * steps, cosine)
    np.testing.assert_allclose(plain_steps(small, 1.0, clip=1.0), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_a_maps_scores_by_hand(sigma):
    """As SciPy smooths it, with the border mirrored."""
    maps = np.random.default_rng(0).uniform(size=(3, 24, 20)).astype(np.float32)
    found = jax.jit(lambda x: of_map(x, sigma, {"some": 0.05, "all": 1.0, "one": 1e-6}))(maps)
    smooth = maps.astype(float)
    if sigma:
        smooth = ndimage.gaussian_filter(smooth, sigma, mode="reflect", truncate=4.0, axes=(1, 2))
    np.testing.assert_allclose(found.map, smooth, rtol=1e-4)
    ranked = np.sort(smooth.reshape(3, -1), axis=1)[:, ::-1]
    expected = {
        "max": ranked[:, 0],
        "some": ranked[:, :24].mean(axis=1),
        "all": ranked.mean(axis=1),
        "one": ranked[:, 0],
        "sum": ranked.sum(axis=1),
    }
    assert set(found.terms) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found.terms[name], value, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(found.image, found.terms["max"])


@pytest.mark.parametrize("rule", ["max", "top", "sum"])
def test_the_chosen_rule_is_the_image_score(rule, images):
    score = restored(Constant(0.25), smoothing=0.0, image_score=rule, top=0.125)
    found = score(NONE, jnp.asarray(images[:3]))
    residual = squared(images[:3], 0.25)
    ranked = np.sort(residual.reshape(3, -1), axis=1)[:, ::-1]
    expected = {"max": ranked[:, 0], "top": ranked[:, :32].mean(1), "sum": ranked.sum(1)}
    np.testing.assert_allclose(found.image, expected[rule], rtol=1e-5)
    np.testing.assert_allclose(found.map, residual, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.reconstruction, 0.25)
    assert set(found.terms) == set(expected)


@pytest.mark.parametrize(
    ("options", "value"),
    [({"image_score": "median"}, "'median'"), ({"top": 0}, "top 0"), ({"top": 1.5}, "top 1.5")],
)
def test_scores_that_are_none_are_refused(options, value):
    with pytest.raises(ValueError, match=value) as caught:
        restored(Identity(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_textures_reach_the_corruption(small, images):
    """Through `build`: previews with and without them differ, and the config may name a folder."""
    small.corruption.textures = "a folder"
    small.corruption.clean = 0.0
    textures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    held_out = jnp.asarray(images)
    colours = [
        np.asarray(
            jax.jit(self_supervised.build(small, 16, given).stages[0].preview)(held_out, KEY)
        )
        for given in (textures, 255 - textures)
    ]
    differ = (colours[0] != colours[1]).any(axis=(1, 2, 3))
    assert 5 < differ.sum() < 50  # 64 images of 1 to 4 patches, an eighth of which are textures
    np.testing.assert_array_equal(colours[0][:, :, 16:], colours[1][:, :, 16:])


@pytest.mark.parametrize("category", ["demo", "bottle", "carpet"])
def test_every_config_describes_a_method(category):
    config = ssae.get_config(category)
    (stage,) = self_supervised.build(config, 16).stages
    assert stage.name == "autoencoder"
    assert stage.num_steps == config.training.num_steps > 0
    assert stage.batch_dims == (config.training.batch_size,)
    if category != "demo":
        assert (stage.num_steps, stage.batch_dims) == (10_000, (32,))
