"""The video method: networks, losses and scores against formulas, and any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import video
from engine import parallel
from engine.method import require_score
from video_jax import build
from video_jax.models import WindowAutoencoder
from video_jax.pseudo import Difference
from video_jax.score import mean_of_largest, residual_maps, standardised, usual_scale


def tiny():
    config = video.get_config("mine")
    config.data.update(image_size=16, width=24)
    config.clips.update(frames=4, strides=(2, 3), blur=0.0, gain=2.0)
    for branch in (config.spatial, config.temporal):
        branch.update(features=(4, 6), convolutions=0, bottleneck=3, fold=2)
    config.training.update(spatial_steps=2, temporal_steps=2, batch_size=8)
    config.training.schedule.warmup_steps = 1
    config.statistics.update(num_steps=3, smoothing=1.0)
    return config


@pytest.fixture(scope="module")
def method():
    return build(tiny(), 0)


@pytest.fixture(scope="module")
def spans():
    return np.random.default_rng(0).uniform(-1, 1, (8, 16, 24, 10)).astype(np.float32)


class Identity:
    """A network that gives what it gets."""

    def apply(self, variables, windows, *, train=False, mutable=()):
        del variables, train
        return (windows, {}) if mutable else windows


class Zero(Identity):
    def apply(self, variables, windows, **options):
        return super().apply(variables, jnp.zeros_like(windows), **options)


def test_a_network_gives_what_has_the_shape_of_its_input():
    network = WindowAutoencoder(features=(4, 6), convolutions=1, bottleneck=3, fold=2)
    windows = jnp.zeros((2, 16, 24, 5))
    output, variables = network.init_with_output(jax.random.key(0), windows)
    assert output.shape == windows.shape
    kernels = [v["kernel"].shape for k, v in variables["params"].items() if k.startswith("Conv_")]
    assert (3, 3, 6, 3) in kernels and (3, 3, 3, 6) in kernels  # into the bottleneck and out


@pytest.mark.parametrize("field", ["image_size", "width"])
def test_sizes_that_do_not_fit_are_told_with_the_nearest(field):
    config = tiny()
    config.data[field] = 18
    with pytest.raises(ValueError, match=f"data.{field}=18 is no multiple of 4: choose 16 or 20"):
        require_score(build(config, 0), (config.data.image_size, config.data.width, 4))


def test_windows_of_two_frames_have_no_middle():
    config = tiny()
    config.clips.frames = 2
    with pytest.raises(ValueError, match="clips.frames=2.*choose 3 or more"):
        build(config, 0)


@pytest.mark.parametrize("branch", ["spatial", "temporal"])
def test_without_pseudo_anomalies_the_loss_is_the_mean_squared_error(branch, spans):
    """Of the identity it is 0; of zero it is the mean square of what is to be restored."""
    from video_jax.method import restoration
    from video_jax.pseudo import Pseudo, moved, seen

    none = Pseudo(0.0, (0.2, 0.5), 2, (0.2, 0.8))
    how = Difference(2.0)
    make = seen(none, 4, (2, 3)) if branch == "spatial" else moved(none, 4, (2, 3), how)
    rng = jax.random.key(3)
    assert restoration(Identity(), branch, make)({branch: {}}, spans, rng)[0] == 0
    _, target, _ = make(rng, spans)
    loss, aux = restoration(Zero(), branch, make)({branch: {}}, spans, rng)
    assert loss == pytest.approx(np.mean(np.square(target)), rel=1e-6)
    assert aux.metrics["error_normal"] == pytest.approx(float(loss), rel=1e-5)
    assert aux.metrics["error_replaced"] == 0


def test_of_the_identity_skipped_frames_cost_their_difference(spans):
    from video_jax.method import restoration
    from video_jax.pseudo import Pseudo, moved

    make = moved(Pseudo(1.0, (0.2, 0.5), 2, (0.2, 0.8)), 4, (2, 3), Difference(2.0))
    rng = jax.random.key(4)
    given, target, mask = make(rng, spans)
    loss, aux = restoration(Identity(), "temporal", make)({"temporal": {}}, spans, rng)
    assert loss == pytest.approx(np.mean(np.square(given - target)), rel=1e-5) and loss > 0
    inside = np.asarray(mask) > 0
    wanted = np.square(given - target)[inside].mean()
    assert aux.metrics["error_replaced"] == pytest.approx(wanted, rel=1e-5)
    assert aux.metrics["error_normal"] == 0


def test_residuals_are_those_about_the_middle_frame(spans):
    windows = jnp.asarray(spans[..., :4])
    networks = {"spatial": Zero(), "temporal": Zero()}
    maps = residual_maps(networks, {"spatial": {}, "temporal": {}}, windows, 0.0, Difference(2.0))
    np.testing.assert_allclose(maps["spatial"], np.square(spans[..., 2]), rtol=1e-5)
    steps = 2 * np.diff(spans[..., :4])
    wanted = (np.square(steps[..., 1]) + np.square(steps[..., 2])) / 2
    np.testing.assert_allclose(maps["temporal"], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by_place", [False, True])
def test_maps_are_brought_to_their_usual_scale(by_place):
    values = np.random.default_rng(1).gamma(2.0, size=(500, 4, 4)) * np.arange(1, 17).reshape(4, 4)
    usual = {"spatial_mean": values.mean(0), "spatial_square": np.square(values).mean(0)}
    scaled = np.asarray(usual_scale(usual, "spatial", jnp.asarray(values), by_place))
    if by_place:
        spread = np.sqrt((values.var(axis=0) + values.var()) / 2)
        wanted = (values - values.mean(axis=0)) / spread
    else:
        wanted = (values - values.mean()) / values.std()
    np.testing.assert_allclose(scaled, wanted, rtol=1e-3, atol=1e-3)


def test_the_score_is_the_mean_of_the_largest_of_the_sum_of_both(spans):
    windows = jnp.asarray(spans[..., :4])
    networks, how = {"spatial": Zero(), "temporal": Zero()}, Difference(2.0)
    fields = ("spatial_mean", "spatial_square", "temporal_mean", "temporal_square")
    usual = dict(zip(fields, [jnp.full((16, 24), v) for v in (0.3, 0.2, 1.0, 3.0)], strict=True))
    variables = {"spatial": {}, "temporal": {}, "statistics": usual}
    score = standardised(networks, 1.0, how, top=0.1, weight=2.0)(variables, windows)
    maps = residual_maps(networks, variables, windows, 1.0, how)
    z = {
        "spatial": (maps["spatial"] - 0.3) / np.sqrt(0.2 - 0.09),
        "temporal": (maps["temporal"] - 1.0) / np.sqrt(2.0),
    }
    both = np.asarray(z["spatial"] + 2 * z["temporal"])
    np.testing.assert_allclose(score.map, both, rtol=1e-4, atol=1e-5)
    largest = np.sort(both.reshape(8, -1))[:, -38:].mean(axis=1)
    np.testing.assert_allclose(score.image, largest, rtol=1e-4)
    np.testing.assert_allclose(
        score.terms["spatial"], mean_of_largest(z["spatial"], 0.1), rtol=1e-4
    )


def states_of(method):
    variables = {}
    for stage in method.stages:
        state = stage.init(jax.random.key(0), variables)
        variables = state.variables
        yield stage, state


@pytest.mark.slow  # each stage is compiled twice
def test_one_step_on_eight_devices_is_one_on_one(method, spans):
    """Each stage, with patches that come from other devices' images."""
    for stage, state in states_of(method):
        results = []
        for count in (1, 8):
            batches = jnp.asarray(spans).reshape(count, 8 // count, *spans.shape[1:])
            step = jax.vmap(
                parallel.per_device(stage.step, 0), in_axes=(None, 0), axis_name="devices"
            )
            new, metrics = jax.jit(step)(state, batches)
            results.append(jax.tree.map(lambda x: np.asarray(x[0]), (new.variables, metrics)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), *results)


@pytest.mark.slow
def test_gradients_are_finite_where_nothing_moves(method):
    still = jnp.zeros((8, 16, 24, 10))
    for stage, state in states_of(method):
        step = jax.vmap(parallel.per_device(stage.step, 0), in_axes=(None, 0), axis_name="devices")
        new, metrics = jax.jit(step)(state, still[None])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new.variables, metrics)))


def test_statistics_are_the_mean_over_the_steps(method, spans):
    *_, (stage, state) = states_of(method)
    step = jax.jit(
        jax.vmap(parallel.per_device(stage.step, 0), in_axes=(None, 0), axis_name="devices")
    )
    other = spans[::-1] * 0.5
    seen = []
    for batch in (spans, other):
        windows = jnp.asarray(batch)[..., 3:7]
        networks = {
            name: WindowAutoencoder(features=(4, 6), bottleneck=3, fold=2)
            for name in ("spatial", "temporal")
        }
        seen.append(residual_maps(networks, state.variables, windows, 1.0, Difference(2.0)))
        state = jax.tree.map(lambda x: x[0], step(state, jnp.asarray(batch)[None])[0])
    usual = state.variables["statistics"]
    for name in ("spatial", "temporal"):
        both = np.concatenate([maps[name] for maps in seen])
        np.testing.assert_allclose(usual[f"{name}_mean"], both.mean(0), rtol=1e-3, atol=1e-5)
        square = np.square(both).mean(0)
        np.testing.assert_allclose(usual[f"{name}_square"], square, rtol=1e-3, atol=1e-5)


def test_the_optimiser_is_clipped_adam_with_a_warm_up():
    from engine.optimizer import scheduled_optimizer

    config = tiny()
    optimizer = scheduled_optimizer(config.training, 10)
    params = {"w": jnp.ones(3)}
    state = optimizer.init(params)
    updates, _ = optimizer.update({"w": jnp.full(3, 1e3)}, state, params)
    moved = optax.apply_updates(params, updates)["w"]
    assert not np.asarray(moved - 1).any()  # the warm-up begins at 0
    config.training.schedule.warmup_steps = 10
    with pytest.raises(ValueError, match="must be less than the 10 steps"):
        scheduled_optimizer(config.training, 10)
