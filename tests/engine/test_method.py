import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from engine import parallel
from engine.make import make
from engine.method import Aux, descend, init_state, num_updates, steps_of


def square_loss(variables, images, rng):
    """Mean of (w * x)^2, with b along for the ride."""
    value = jnp.mean(jnp.square(variables["a"]["params"]["w"] * images))
    moved = {"b": {"batch_stats": {"mean": jnp.mean(images)}}}
    return value, Aux({"seen": jnp.mean(images)}, moved)


@pytest.fixture
def state():
    variables = {
        "a": {"params": {"w": jnp.array(3.0)}},
        "b": {"params": {"v": jnp.array(5.0)}, "batch_stats": {"mean": jnp.array(0.0)}},
    }
    return init_state(variables, {"a": optax.sgd(0.1)})


def test_descend_moves_its_network_by_the_gradient(state):
    """d/dw mean((w x)^2) = 2 w mean(x^2), by hand, over the images of all eight devices."""
    images = np.arange(8, dtype=np.float32).reshape(8, 1)

    def step(state, images, rng):
        return descend(square_loss, optax.sgd(0.1), "a", state, images, rng)

    run = parallel.data_parallel(step, 0, lambda held, sent: sent)
    new, metrics = run(parallel.replicate(state), (), images[:, None])
    mean_square = np.mean(images**2)
    np.testing.assert_allclose(new.variables["a"]["params"]["w"], 3 - 0.1 * 6 * mean_square)
    np.testing.assert_allclose(metrics["a_loss"], 9 * mean_square)
    np.testing.assert_allclose(metrics["seen"], 3.5)
    assert new.variables["b"]["params"]["v"] == 5.0
    assert new.variables["b"]["batch_stats"]["mean"] == 3.5
    assert new.step == 1


def test_a_network_that_rests_has_no_optimizer(state):
    assert set(state.opt_state) == {"a"}
    assert state.step == 0


def test_make_passes_fields_and_turns_lists_to_tuples(tmp_path, monkeypatch):
    (tmp_path / "my_note.py").write_text("def note(first, *, a, b=()): return first, a, b\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert make(dict(fn="my_note:note", a=1, b=[1, 2]), "x") == ("x", 1, (1, 2))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (dict(fn="optax:adma"), "adma"),
        (dict(fn="no_such_module:f"), "no_such_module"),
        (dict(fn="optax:adam", learning_rat=1.0), "learning_rat"),
    ],
)
def test_make_says_what_is_wrong_in_one_line(section, words):
    with pytest.raises(ValueError, match=words) as caught:
        make(section)
    assert "\n" not in str(caught.value)


def test_epochs_to_updates():
    """shared/reference/fanogan.md, table of section 4: bottle has 7 batches an epoch."""
    assert num_updates(1500, 209, 32) == 10500
    assert num_updates(200, 209, 32) == 1400
    assert num_updates(1500, 60, 32) == 3000
    assert num_updates(3, 64, 32) == 6


def test_key_depends_on_seed_and_step_alone(state):
    def step(state, images, rng):
        return state, {"draw": jax.random.uniform(rng)}

    def draws(seed, at, devices=8):
        run = jax.vmap(
            lambda images: parallel.per_device(step, seed)(
                state.replace(step=jnp.array(at)), images
            ),
            axis_name=parallel._AXIS,
        )
        return float(run(jnp.zeros((devices, 1)))[1]["draw"][0])

    assert draws(0, 0) == draws(0, 0) == draws(0, 0, devices=1)
    assert len({draws(0, 0), draws(1, 0), draws(0, 1)}) == 3


@pytest.mark.parametrize(
    ("fields", "batches", "steps"),
    [
        ({"num_steps": 7}, 1, 7),  # whatever the epochs are
        ({"num_steps": 0}, 1, 3 * 4),  # 10 images are 4 batches of 3
        ({"num_steps": 0}, 5, 12 // 5),
        ({"num_steps": 0, "samples": 31}, 1, 3 * 11),
        ({"num_steps": 0, "samples": 0}, 1, 3 * 4),
    ],
)
def test_how_many_steps_a_section_means(fields, batches, steps):
    section = ConfigDict({"epochs": 3, "batch_size": 3, **fields})
    assert steps_of(section, 10, batches) == steps
    section.update(epochs=0, num_steps=0)
    with pytest.raises(ValueError, match="0 epochs of .* images are no step of"):
        steps_of(section, 10, batches)
