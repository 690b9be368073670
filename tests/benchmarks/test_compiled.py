"""What benchmarks measure, on tiny networks: that they run, and that what they count is right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from benchmarks import corruption, scoring
from benchmarks.compiled import training
from benchmarks.roofline import PEAKS, Cost, cost_of, share_of_roofline
from engine.method import Aux, Method, Score, Stage, descend, init_state


def test_cost_of_a_matrix_product():
    a, b = np.zeros((32, 64), np.float32), np.zeros((64, 16), np.float32)
    lowered = jax.jit(jnp.dot).lower(a, b)
    cost = cost_of(lowered, lowered.compile())
    assert cost.flops == 2 * 32 * 64 * 16
    assert cost.bytes == 4 * (32 * 64 + 64 * 16 + 32 * 16)
    assert cost.memory >= cost.bytes


def test_share_of_the_roofline():
    h100, a100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"
    assert share_of_roofline(Cost(989.4e12, 1e9, 0), 4.0, h100, "bfloat16") == pytest.approx(0.25)
    assert share_of_roofline(Cost(989.4e12, 1e9, 0), 4.0, h100, "float32") == pytest.approx(0.5)
    assert share_of_roofline(Cost(1e12, 1.555e12, 0), 2.0, a100, "float32") == pytest.approx(0.5)
    assert share_of_roofline(Cost(1.0, 1.0, 0), 1.0, "cpu", "float32") is None
    assert share_of_roofline(Cost(1.0, 1.0, 0), 1.0, h100, "float64") is None
    assert {name.split()[0] for name in PEAKS} == {"NVIDIA"}


@pytest.fixture
def toy(monkeypatch) -> ConfigDict:
    """A config of a network with three parameters, which compiles at once."""
    tx = optax.sgd(0.1)

    def loss(variables, images, rng):
        return jnp.mean(jnp.square(images - variables["toy"]["params"]["bias"])), Aux()

    def init(rng, variables):
        return init_state({"toy": {"params": {"bias": jnp.zeros((1, 1, 1, 3))}}}, {"toy": tx})

    def score(variables, images):
        residual = jnp.mean(jnp.square(images - variables["toy"]["params"]["bias"]), axis=-1)
        return Score(jnp.mean(residual, axis=(1, 2)), residual)

    stage = Stage("toy", init, partial(descend, loss, tx, "toy"), 1, (8,), lambda *_: {})
    config = ConfigDict({"name": "toy", "method": {"fn": "toy"}})
    config.data, config.training = dict(image_size=16), dict(batch_size=8)
    config.autoencoder, config.corruption = dict(dtype="float32"), dict(fn="corrupt", textures="")

    def corrupt(rng, images):
        return -images, jnp.ones(images.shape[:3])

    def make(section, *_):
        return corrupt if section["fn"] == "corrupt" else Method((stage,), score)

    for module in (corruption, scoring):
        monkeypatch.setattr(module, "make", make)
    return config


def test_a_step_and_its_corruption(toy):
    row = corruption.step_and_corruption(toy, 2)
    assert row["size"] == 16 and row["batch"] == 8 and row["dtype"] == "float32"
    assert row["share"] == row["corruption_seconds"] / row["step_seconds"] > 0
    assert row["images_per_second"] == 8 / row["step_seconds"]
    values = 8 * 16 * 16 * 3  # subtracted, squared and summed, and their gradient likewise
    assert 3 * values <= row["flops"] <= 12 * values
    assert row["bytes"] >= 4 * values and row["roofline_share"] is None
    assert (corruption.replaced(toy) == np.ones(1000)).all()


def test_a_step_goes_on_from_where_it_was(toy):
    stage = corruption.make(toy.method).stages[0]
    state = stage.init(None, {})
    step = training(stage.step, state, np.ones((2, 4, 4, 3), np.float32))
    step.run()
    step.run()
    assert float(state.variables["toy"]["params"]["bias"].max()) == 0  # the caller's own is kept


def test_images_that_are_scored_in_a_second(toy):
    row = scoring.throughput(toy, 2, 0.0)
    assert row["images_per_second"] == 2 / row["batch_seconds"] > 0
    assert scoring.named("ssae:bfloat16").autoencoder.dtype == "bfloat16"
