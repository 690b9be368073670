"""A network that is no longer finite stops the run; what was saved before is finite (R8)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shrink

from configs import fanogan
from engine import checkpoint
from engine.batches import Batches
from engine.make import make
from engine.train import Every, train_stages

_LOG, _SAVE = 4, 2  # steps


def poisoned(stage, network):
    """The stage, of which a parameter of `network` gets what of an image's first pixel is no grey.

    So one program, compiled once, does without and with poison of any kind at any step.
    """

    def step(state, images, rng):
        pixel = images.reshape(-1)[0]
        state, metrics = stage.step(state, jnp.clip(jnp.nan_to_num(images), -1, 1), rng)
        first, *rest = jax.tree.leaves(state.variables[network]["params"])
        bad = first + jnp.where(jnp.abs(pixel) <= 1, 0, pixel)
        structure = jax.tree.structure(state.variables[network]["params"])
        params = jax.tree.unflatten(structure, [bad, *rest])
        changed = {**state.variables[network], "params": params}
        return state.replace(variables={**state.variables, network: changed}), metrics

    return stage._replace(step=step, num_steps=12)


@pytest.mark.promise("R8")
@pytest.mark.parametrize("network", ["critic", "generator"])
def test_nothing_that_is_not_finite_is_kept(tmp_path, images, network, tries):
    config = shrink(fanogan.get_config())
    gan, *_ = (method := make(config.method, config, 16)).stages
    method = method._replace(stages=(poisoned(gan, network),))
    every = Every(_LOG, _SAVE, 100)
    for value in (np.nan, np.inf):
        for at in (3, 6):

            def batches(dims, seed, first_step, process, value=value, at=at):
                whole = np.resize(images, (*dims, *images.shape[1:]))
                for step in itertools.count(first_step + 1):
                    yield np.full_like(whole, value) if step == at else whole

            workdir = str(tmp_path / f"{value} {at}")
            with tries("NaN or infinity in critic or generator: stops, the saved step is finite"):
                sent = Batches((), batches, lambda _, images: images, grouped=False)
                with pytest.raises(FloatingPointError) as error:
                    train_stages(method, sent, workdir, seed=0, every=every, examples=images[:4])
                said = str(error.value)
                assert "\n" not in said and any(f"step {at + late}" in said for late in range(_LOG))
                saved = checkpoint.newest(workdir, "gan")
                assert saved["step"] == (at - 1) // _SAVE * _SAVE
                assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))
