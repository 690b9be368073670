from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import parallel
from engine.make import make
from fanogan_jax.method import build


def emulate(step, seed, state, images):
    """The step on devices that vmap makes up; raises if an output differs between devices."""
    run = parallel.per_device(step, seed)
    devices = jax.vmap(run, in_axes=(None, 0), out_axes=None, axis_name=parallel._AXIS)
    return jax.jit(devices)(state, images)


def one_step(step, seed, state, batch):
    """The step on the real devices, in a dispatch of its own."""
    run = parallel.data_parallel(step, seed, lambda held, sent: sent)
    return run(parallel.replicate(state), (), batch[:, None])


def states(method):
    """The first state of every stage, each built on the networks of the one before."""
    variables = {}
    for stage in method.stages:
        state = jax.jit(stage.init)(jax.random.key(1), variables)
        variables = jax.device_get(state.variables)  # a step uses the state up
        yield stage, state


def shards(images, stage, devices):
    """The global batch of `stage`, taken from `images`, as [devices, ..., batch / devices, ...]."""
    *leading, batch = stage.batch_dims
    count = int(np.prod(stage.batch_dims))
    whole = np.resize(images, (count, *images.shape[1:])).reshape(
        *leading, devices, batch // devices, *images.shape[1:]
    )
    return np.moveaxis(whole, len(leading), 0)


def test_every_output_of_every_stage_is_averaged(any_config, images):
    method = make(any_config.method, any_config, 16)
    variables = {}
    for stage in method.stages:
        state = jax.eval_shape(stage.init, jax.random.key(0), variables)
        jax.eval_shape(partial(emulate, stage.step, 0), state, shards(images, stage, 4))
        variables = state.variables


def test_every_config_trains_a_step_of_every_stage_and_scores(any_config, images):
    if "gan" in any_config:
        any_config.gan.n_critic = 1
    method = make(any_config.method, any_config, 16)
    for stage, state in states(method):
        batch = shards(images, stage, 8)
        state, metrics = one_step(stage.step, 0, state, batch)
        assert state.step == 1
        assert all(np.isfinite(value) for value in metrics.values())
    score = jax.jit(method.score)(jax.device_get(state.variables), images[:2])
    assert score.image.shape == (2,) and score.map.shape == (2, 16, 16)


def test_a_forgotten_mean_is_caught(config, images, monkeypatch):
    monkeypatch.setattr(parallel, "mean", lambda tree: tree)
    stage = build(config, 16).stages[0]
    state = jax.eval_shape(stage.init, jax.random.key(0), {})
    with pytest.raises(ValueError, match="vmap"):
        jax.eval_shape(partial(emulate, stage.step, 0), state, shards(images, stage, 4))


def test_share_and_gather():
    """By hand: rows of one draw, in the order of the devices; and what they are of one device."""

    def draw(count):
        return jax.random.normal(jax.random.key(7), (3, count))

    def shared(mine):
        return parallel.share(draw, 2, axis=1), parallel.gather(mine)

    rows = jnp.arange(8.0).reshape(4, 2)
    drawn, gathered = jax.vmap(shared, axis_name=parallel._AXIS)(rows)
    np.testing.assert_array_equal(drawn, draw(8).reshape(3, 4, 2).swapaxes(0, 1))
    np.testing.assert_array_equal(gathered, np.tile(np.arange(8.0), (4, 1)))
    drawn, gathered = shared(rows[0])
    np.testing.assert_array_equal(drawn, draw(2))
    np.testing.assert_array_equal(gathered, rows[0])


def test_local_dims():
    assert parallel.local_dims((5, 64)) == (8, 5, 8)
    assert parallel.local_dims((16,)) == (8, 2)
    with pytest.raises(ValueError, match="batch 70 does not divide over 8 devices"):
        parallel.local_dims((70,))
