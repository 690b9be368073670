"""The two stages of f-AnoGAN as the engine runs them, shrunk; counters and frozen networks."""

from functools import partial
from unittest import mock

import jax
import numpy as np
import optax
import pytest

from data import pipeline, sampling
from engine import parallel
from engine.batches import resident
from engine.checkpoint import Checkpoints
from engine.method import TrainState
from engine.train import Every, train_stages
from evaluation.scoring import restore, score_to_disk, scorer_of
from fanogan_jax import schedule
from fanogan_jax.method import build

EVERY = Every(log=1, save=1, pictures=2)


class StopError(Exception):
    """What interrupts a run in these tests."""


def stop_after(batches, count):
    """`batches` that raise when batch `count` is asked for, over all calls."""
    given = iter(range(count))

    def stopping(*args):
        for sent in batches.sent(*args):
            if next(given, None) is None:
                raise StopError
            yield sent

    return batches._replace(sent=stopping)


@pytest.fixture(scope="module")
def pixels(images):
    """The images as the pipeline holds them."""
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def run(config, pixels, workdir, stops=()):
    """Trains to the end, interrupted after each of `stops` more batches."""
    batches = resident(pixels, sampling.draws(len(pixels), flip=True))
    examples = next(pipeline.eval_batches(pixels, 4))
    go = partial(train_stages, build(config, 16), seed=0, every=EVERY, examples=examples)
    for count in stops:
        with pytest.raises(StopError):
            go(stop_after(batches, count), str(workdir))
    return go(batches, str(workdir))


def newest(workdir, stage, method):
    state = jax.eval_shape(method.stages[0].init, jax.random.key(0), {})
    if stage == "encoder":
        state = jax.eval_shape(method.stages[1].init, jax.random.key(0), state.variables)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    with Checkpoints(str(workdir), stage) as checkpoints:
        return checkpoints.restore(fresh)


def assert_equal(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def unbroken(pixels, tmp_path_factory):
    from conftest import shrink

    from configs import fanogan

    config = shrink(fanogan.get_config(), gan=3, encoder=3)
    workdir = tmp_path_factory.mktemp("unbroken")
    run(config, pixels, workdir)
    return config, workdir


def test_resume_is_bit_equal_in_both_stages_and_across(unbroken, pixels, tmp_path):
    """Stopped within the first stage, at its last step, at the start and within the second."""
    config, workdir = unbroken
    run(config, pixels, tmp_path, stops=(1, 1, 1, 2))
    method = build(config, 16)
    for stage in ("gan", "encoder"):
        assert_equal(newest(workdir, stage, method), newest(tmp_path, stage, method))


def test_generator_and_critic_rest_in_the_encoder_stage(unbroken):
    config, workdir = unbroken
    method = build(config, 16)
    before, after = (newest(workdir, stage, method) for stage in ("gan", "encoder"))
    for network in ("generator", "critic"):
        assert_equal(before.variables[network], after.variables[network])


def test_five_to_one(unbroken):
    """Adam's own counters: n_critic (2, here) updates of the critic to one of the generator."""
    config, workdir = unbroken
    state = newest(workdir, "gan", build(config, 16))
    counts = {
        name: int(optax.tree_utils.tree_get(opt_state, "count"))
        for name, opt_state in state.opt_state.items()
    }
    assert counts == {"critic": 6, "generator": 3}


def test_scores_come_one_by_one_as_in_a_batch(unbroken, images, tmp_path):
    config, workdir = unbroken
    method = build(config, 16)
    scorer = scorer_of(method, restore(method, str(workdir))[0])

    def score_of(*batches):
        return score_to_disk(scorer, batches, 0, str(tmp_path))

    batch = score_of(images[:7])
    alone = score_of(*(images[i : i + 1] for i in range(7)))
    padded = score_of(images[:4], images[4:7])
    for other in (alone, padded):
        for name in ("image", "map", "terms"):
            leaves = [jax.tree.leaves(getattr(scores, name)) for scores in (batch, other)]
            for a, b in zip(*leaves, strict=True):
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-6)
        levels = np.asarray(batch.reconstruction, int) - np.asarray(other.reconstruction)
        assert np.abs(levels).max() <= 1


def note(name, state, images, rng):
    """A step that writes into the state who learned from which batch."""
    count = state.step
    log = state.variables["log"].at[count].set(name * 100 + images[0])
    return state.replace(step=count + 1, variables={"log": log}), {"loss": images[0]}


def order_of(step, batch_dims):
    """Whose step follows whose: [(0 critic or 1 generator, batch), ...]."""
    state = TrainState(np.int32(0), {"log": np.full(20, -1.0)}, {})
    images = np.arange(batch_dims[0], dtype=np.float32)[:, None]
    state, metrics = jax.jit(step)(state, images, jax.random.key(0))
    return [divmod(int(entry), 100) for entry in state.variables["log"] if entry >= 0], metrics


def test_strict_schedule():
    steps = [partial(note, name) for name in (0, 1)]
    step, batch_dims = schedule.every_n_critic(*steps, 5, 32, 209)
    assert batch_dims == (5, 32)
    order, _ = order_of(step, batch_dims)
    assert order == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 4)]


def test_schedule_within_epochs_is_that_of_the_loop_it_stands_for():
    """`if i % n_critic == 0` after each critic update: 3 generator updates in 13 batches."""
    for num_images in (209, 391, 60, 320):
        steps = [partial(note, name) for name in (0, 1)]
        step, (batches, _) = schedule.within_epoch(*steps, 5, 32, num_images)
        expected = []
        for i in range(-(-num_images // 32)):
            expected += [(0, i)] + [(1, i)] * (i % 5 == 0)
        assert order_of(step, (batches, 32))[0] == expected


def test_epochs_become_steps(config):
    """The original 1500 + 200 epochs on all of bottle, both schedules; fanogan.md, section 4."""
    config.gan.update(num_steps=0, batch_size=32, n_critic=5)
    config.encoding.update(num_steps=0, batch_size=32)
    gan, encoder = build(config, 209).stages
    assert (gan.num_steps, gan.batch_dims) == (2100, (5, 32))
    assert (encoder.num_steps, encoder.batch_dims) == (1400, (32,))
    config.gan.schedule.fn = "fanogan_jax.schedule:within_epoch"
    gan, _ = build(config, 209).stages
    assert (gan.num_steps, gan.batch_dims) == (1500, (7, 32))


def test_epochs_too_few_for_a_step(config):
    config.gan.update(num_steps=0, epochs=2, n_critic=5)
    with pytest.raises(ValueError, match="2 epochs of 10 images are no step of 5 batches of 8"):
        build(config, 10)


def test_pictures(config, images):
    method = build(config, 16)
    variables = {}
    for stage, name, width in zip(
        method.stages, ("samples", "reconstructions"), (16, 32), strict=True
    ):
        state = jax.eval_shape(stage.init, jax.random.key(0), variables)
        pictures = jax.eval_shape(stage.pictures, state.variables, images[:4])
        assert pictures[name].shape == (4, 16, width, 3)
        variables = state.variables


def test_the_loop_over_critic_batches_is_the_steps_one_by_one(config, images):
    """One scan in the program, to float rounding what so many calls of the critic's step do."""
    for optimizer in ("critic_optimizer", "generator_optimizer"):
        config.gan[optimizer] = dict(fn="optax:sgd", learning_rate=0.01)
    batch = np.resize(images, (2, 8, 16, 16, 3))

    def spy(critic_step, generator_step, *_):
        def one_by_one(state, images, rng):
            critic_rng, generator_rng = jax.random.split(rng)
            for batch, batch_rng in zip(images, jax.random.split(critic_rng, 2), strict=True):
                state, _ = critic_step(state, batch, batch_rng)
            return generator_step(state, images[-1], generator_rng)

        return one_by_one, (2, 8)

    spy.__module__ = schedule.__name__  # a config may name nothing that a test defines

    def state_after(schedule_fn):
        with mock.patch.object(schedule, "every_n_critic", schedule_fn):
            stage = build(config, 16).stages[0]
        step = jax.vmap(
            parallel.per_device(stage.step, 0),
            in_axes=(None, 0),
            out_axes=None,
            axis_name=parallel._AXIS,
        )
        return jax.jit(step)(jax.jit(stage.init)(jax.random.key(0), {}), batch[None])[0]

    looped, single = state_after(schedule.every_n_critic), state_after(spy)
    for a, b in zip(jax.tree.leaves(looped), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
