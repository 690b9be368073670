"""The denoiser, its loss, its stages on one and many devices, the score, and what is refused."""

from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import shrink

from commands.settings import require_legal
from configs import glad
from diffusion_jax import losses, method, noise, schedule, score
from diffusion_jax.models import UNet
from engine import parallel, residuals
from engine.make import make
from engine.method import descend, init_state
from evaluation.tuning import rank_candidates

KEY = jax.random.key(0)
ABAR = schedule.linear(400)


class Scale(nn.Module):
    """Its estimate is the noised image, times a number."""

    factor: float = 0.5

    @nn.compact
    def __call__(self, given, ratio):
        return self.param("factor", lambda _: jnp.float32(self.factor)) * given


def brighten(rng, images):
    """A defect that needs no luck to be known."""
    return images + 0.2, jnp.ones(images.shape[:3])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(-0.7, 0.7, (8, 8, 8, 3)).astype(np.float32)


def loss_of(network, images, **options):
    variables = {"denoiser": network.init(KEY, images, jnp.ones(len(images)))}
    loss_fn = losses.repair(network, ABAR, noise.gaussian(), brighten, **options)
    return float(loss_fn(variables, jnp.asarray(images), KEY)[0])


def test_without_noise_it_is_the_self_supervised_loss(images):
    """5 mean (f(c(x)) - x)^2, whatever fades; without corruption, of x itself."""
    found = loss_of(Scale(), images, levels=(0, 0), corrupted=1.0)
    assert found == pytest.approx(5 * np.mean((0.5 * (images + 0.2) - images) ** 2), rel=1e-5)
    clean = loss_of(Scale(), images, levels=(0, 0), corrupted=0.0)
    assert clean == pytest.approx(5 * np.mean((0.5 * images) ** 2), rel=1e-5)


class Known:
    """Its estimate is always the same, and it notes what it was given."""

    def __init__(self, estimate):
        self.estimate, self.notes = estimate, []

    def init(self, *args):
        return {}

    def apply(self, variables, given, ratio):
        self.notes.append(np.asarray(given, np.float64))
        return jnp.asarray(self.estimate)


@pytest.mark.parametrize("level", [60, 100, 130])
def test_the_loss_is_that_of_glads_noise(images, level):
    """mean (e - eps*)^2 with the noise e that the estimate means and eps* of the formula.

    Below the weight's bound, which is at a noise to signal of 0.45.
    """
    abar, estimate = ABAR[level], 0.3 * images[::-1].copy()
    network = Known(estimate)
    found = loss_of(network, images, levels=(level, level), corrupted=1.0)
    (given,) = network.notes
    mixed = images + 0.2  # a is t over the largest t, 1
    eps = (given - abar**0.5 * mixed) / (1 - abar) ** 0.5
    assert eps.std() == pytest.approx(1, abs=0.1)
    target = eps + (abar / (1 - abar)) ** 0.5 * (mixed - images)
    predicted = (given - abar**0.5 * estimate) / (1 - abar) ** 0.5
    assert found == pytest.approx(np.mean((predicted - target) ** 2), rel=1e-4)


@pytest.mark.parametrize("fade", [True, False])
def test_defects_fade_with_the_noise_and_only_some_images_have_one(fade):
    network = Known(np.zeros((400, 4, 4, 3), np.float32))
    options = {"levels": (0, 100), "corrupted": 0.25, "fade": fade}
    loss = losses.repair(network, ABAR, lambda rng, shape: jnp.zeros(shape), brighten, **options)
    loss({"denoiser": {}}, jnp.asarray(network.estimate), KEY)
    given = network.notes[0][:, 0, 0, 0]
    share = np.arange(101) / 100 if fade else np.ones(101)
    expected = np.round(0.2 * share * ABAR[:101] ** 0.5, 5)
    assert set(np.round(given, 5)) <= {0.0, *expected}
    assert 0.15 < np.mean(given > 0) < 0.35 and len(set(given)) > 30


def test_the_number_of_devices_changes_no_step(images):
    """A step of plain descent, whose steps are the gradients."""
    network, optimizer = Scale(), optax.sgd(1.0)
    variables = {"denoiser": network.init(KEY, images[:1], jnp.ones(1))}
    loss = losses.repair(network, ABAR, noise.multi_scale(), brighten)
    start = init_state(variables, {"denoiser": optimizer})
    step = parallel.per_device(partial(descend, loss, optimizer, "denoiser"), 0)

    def learned(devices):
        run = jax.vmap(step, (None, 0), None, axis_name=parallel._AXIS)
        state, _ = jax.jit(run)(start, images.reshape(devices, -1, 8, 8, 3))
        return jax.tree.leaves(state.variables)

    for a, b, first in zip(learned(1), learned(4), jax.tree.leaves(variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        assert np.all(np.isfinite(a)) and np.any(a != first)


def test_the_new_network_gives_the_signals_share_and_takes_each_image_by_itself(images):
    network, ratio = UNet(features=(8,), fold=2), jnp.array([0.0, 1.0, 0.5])
    variables = jax.jit(network.init)(KEY, images[:1], jnp.ones(1))
    apply = jax.jit(network.apply)
    share = 1 / np.sqrt(1 + np.array([0.0, 1.0, 0.25]))
    expected = images[:3] * share[:, None, None, None]
    np.testing.assert_allclose(apply(variables, images[:3], ratio), expected, atol=1e-6)
    variables = jax.tree.map(lambda leaf: leaf + 0.05, variables)
    three, alone = apply(variables, images[:3], ratio), apply(variables, images[1:2], ratio[1:2])
    np.testing.assert_allclose(three[1], alone[0], atol=1e-5)
    other = apply(variables, images[1:2], ratio[:1])
    assert np.abs(other / share[0] - alone / share[1]).max() > 1e-3  # it sees the noise level


@pytest.fixture(scope="module")
def toy(images):
    """A denoiser of the formula 0.5 x, and limits that all exceed."""
    denoiser = score.Denoiser(Scale(), ABAR, noise.gaussian())
    variables = {
        "averaged": denoiser.network.init(KEY, images, None),
        "limits": {
            "centre": jnp.full(2, 0.1),
            "width": jnp.full(2, 0.05),
            "largest": jnp.full(2, 0.4),
        },
    }
    return SimpleNamespace(denoiser=denoiser, variables=variables)


OPTIONS = {"start": 60, "steps": 2, "draws": 2}


def test_an_images_score_depends_on_nothing_but_the_image(toy, images):
    scored = jax.jit(score.glad(toy.denoiser, **OPTIONS))
    all_of, reversed_of = (scored(toy.variables, batch) for batch in (images, images[::-1]))
    alone = scored(toy.variables, images[2:3])
    for a, b, c in zip(*map(jax.tree.leaves, (all_of, reversed_of, alone)), strict=True):
        np.testing.assert_allclose(a, b[::-1], atol=1e-5)
        np.testing.assert_allclose(a[2], c[0], atol=1e-5)
    again = scored(toy.variables, images)
    np.testing.assert_array_equal(all_of.image, again.image)


def test_draws_are_averaged_and_the_network_without_noise_is_called_once(toy, images):
    plain = score.glad(
        toy.denoiser,
        **{"start": 0, "steps": 1, "draws": 1, "adaptive": False, "fusion": False},
        limits=((0.0, 1.0, 0.0),),
        smoothing=0.0,
        residual="absolute",
        image_score="sum",
    )(toy.variables, jnp.asarray(images))
    expected = np.abs(0.5 * images).mean(-1)
    np.testing.assert_allclose(plain.map, expected, atol=1e-5)
    np.testing.assert_allclose(plain.image, expected.sum((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(plain.terms["max"], expected.max((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(plain.reconstruction, 0.5 * images, atol=1e-5)
    one, two = (
        score.glad(toy.denoiser, **{**OPTIONS, "draws": draws}, smoothing=0.0)(
            toy.variables, jnp.asarray(images)
        )
        for draws in (1, 2)
    )
    course = score.Course(60, 2, 2)
    known = score.limits_of((), toy.variables)
    chains = score.repaired_draws(toy.denoiser, course, toy.variables, known, jnp.asarray(images))
    maps = [residuals.squared(images, each) for each in chains.repaired]
    np.testing.assert_allclose(one.map, maps[0], atol=1e-6)
    np.testing.assert_allclose(two.map, (maps[0] + maps[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(two.terms["level"], np.mean(chains.level, axis=0))


def test_limits_are_quantiles_of_good_images(toy, images):
    course = score.Course(60, 2, 1, probe_smoothing=0.0)
    found = score.measured_limits(toy.denoiser, course, toy.variables, jnp.asarray(images))
    drawn = toy.denoiser.draw(0, images.shape)
    for step, level in enumerate((60, 30)):
        signal, share = ABAR[level] ** 0.5, (1 - ABAR[level]) ** 0.5
        estimate = np.clip(0.5 * (signal * images + share * drawn), -1, 1)
        pixels = np.abs(images - estimate).mean(-1).ravel()
        low, high, centre = np.quantile(pixels, [0.25, 0.75, 0.99])
        np.testing.assert_allclose(found.centre[step], centre, rtol=1e-4)
        np.testing.assert_allclose(found.width[step], high - low, rtol=1e-4)
        np.testing.assert_allclose(found.largest[step], pixels.max(), rtol=1e-4)


def test_limits_of_training_images_do_not_depend_on_devices(toy, images):
    """Two steps: the mean of both batches' centres, and the largest of all residuals."""
    course = score.Course(60, 2, 1)
    stage = method._limits_stage(8, 16, toy.denoiser, course)
    assert stage.num_steps == 2
    step = parallel.per_device(stage.step, 0)
    batches = images, 0.5 * images

    def found(devices):
        run = jax.jit(jax.vmap(step, (None, 0), None, axis_name=parallel._AXIS))
        state = stage.init(KEY, toy.variables)
        for batch in batches:
            state, _ = run(state, batch.reshape(devices, -1, 8, 8, 3))
        return state.variables["limits"]

    each = [
        score.measured_limits(toy.denoiser, course, toy.variables, jnp.asarray(batch))
        for batch in batches
    ]
    for limits in (found(1), found(4)):
        np.testing.assert_allclose(limits["centre"], (each[0].centre + each[1].centre) / 2, 1e-4)
        np.testing.assert_allclose(limits["width"], (each[0].width + each[1].width) / 2, 1e-4)
        np.testing.assert_allclose(
            limits["largest"], np.maximum(each[0].largest, each[1].largest), 1e-4
        )


def small_config():
    config = shrink(glad.get_config())
    config.tuning.update(
        starts=(20, 40), steps=(1, 2), noise_draws=(1, 2), residuals=("squared", "absolute")
    )
    return config


def test_tuning_ranks_what_the_score_does_by_limits_of_the_calibration_images(toy, images):
    """The fields that were chosen give the score that was ranked."""
    section = glad.get_config("demo").tuning
    section.update(starts=(40,), steps=(2,), noise_draws=(1, 2), smoothing=(1.0,), tops=(0.01,))
    course = score.Course(80, 2, 2)
    tuning = method._tuning(
        section, toy.denoiser, course, 130, lambda fields: score.glad(toy.denoiser, **fields)
    )
    large = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    known = tuning.measured(toy.variables, large, large)
    assert len(known.settings) == 2 * 3 * 2 and "limits" not in tuning.settings[0]
    wanted = score.measured_limits(toy.denoiser, course._replace(start=40), toy.variables, large)
    np.testing.assert_allclose(np.stack(wanted, axis=1), known.settings[0]["limits"], rtol=1e-4)
    best = rank_candidates({"own": toy.variables}, {"own": known}, large, draws=1)[0]
    everything = known.scores(toy.variables, large)
    for setting in (best.setting, len(known.settings) - 1):  # the last is over what is usual
        fields = {**known.settings[setting], **known.rules[best.rule], **known.constants[setting]}
        scored = known.score(fields)(toy.variables, large)
        ranked = everything[setting]
        np.testing.assert_allclose(scored.image, ranked.terms[best.rule], rtol=1e-4)
        np.testing.assert_allclose(scored.map, ranked.map, rtol=1e-3, atol=1e-6)
    assert fields["normalise"] == "pixel" and len(fields["usual"]) == large.shape[1]
    assert np.all(np.asarray(scored.terms["level"]) <= 40)


def test_the_pictures_of_a_chain_are_in_its_order(toy, images):
    course = score.Course(40, 2, 2)
    shown = method._chain_pictures(toy.denoiser, course, (), toy.variables, jnp.asarray(images))
    assert [*shown] == [
        *("image", "noised to 40", "estimate at 40", "estimate at 20"),
        *("share of the chain", "repaired"),
    ]
    assert all(each.shape == images.shape for each in shown.values())
    np.testing.assert_allclose(
        shown["estimate at 40"], np.clip(0.5 * shown["noised to 40"], -1, 1), atol=1e-5
    )


@pytest.mark.parametrize(
    ("section", "fields", "said"),
    [
        ("data", {"image_size": 17}, "UNet does not take images of 17 px .*: choose 16 or 18 px"),
        ("score", {"start": 3, "steps": 4}, "choose score.start of 4 at least, or 1 step"),
        ("score", {"residual": "cubic"}, "score.residual 'cubic' must be one of squared, "),
        ("score", {"limits": ((1.0, 1.0, 1.0),)}, "score.limits are of 1 levels, and .* 2"),
        (
            "score",
            {"start": 131},
            "score.start 131 is above the highest level that is trained, 130",
        ),
        ("training", {"num_steps": 0}, "warmup_steps 1 must be less than the 0 steps of training"),
        ("diffusion", {"num_levels": 100}, "training.loss.levels 130 is above .*, 100: choose"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(section, fields, said):
    config = small_config()
    config.score.steps = 2
    config[section].update(fields)
    with pytest.raises(ValueError, match=said) as caught:
        make(config.method, config, 16)
    assert "\n" not in str(caught.value)


def test_a_start_above_the_schedule_is_refused_by_the_score_itself(toy):
    with pytest.raises(ValueError, match="score.start 401 is above the last level .*, 400: choose"):
        score.glad(toy.denoiser, start=401)
    score.glad(toy.denoiser, start=400)


def test_the_remedies_are_legal():
    config = small_config()
    config.data.image_size = 18
    config.score.update(start=130, steps=4)
    config.diffusion.num_levels = 130
    settings = make(config.method, config, 16).tuning.settings
    starts = {fields["start"] for fields in settings}
    assert starts == {20, 40}
    config.tuning.update(starts=(500,))
    only = make(config.method, config, 16).tuning.settings
    assert {(fields["start"], fields["steps"]) for fields in only} == {(130, 4)}


def test_levels_out_of_order_are_told_with_their_field():
    config = glad.get_config()
    config.training.loss.levels = (130, 1)
    with pytest.raises(ValueError, match="training.loss.levels=.130, 1. is not two values, the fi"):
        require_legal(config)
    config.training.loss.levels = (1, 130)
    require_legal(config)
