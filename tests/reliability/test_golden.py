"""What earlier versions wrote is still read, and scores as it did (R18)."""

import json
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pytest
from jax import export
from safetensors.numpy import load_file

import commands
from engine import checkpoint
from storage import files

GOLDEN = sorted(path for path in (Path(__file__).parents[1] / "golden").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: path.name)
@pytest.mark.promise("R18")
def test_old_workdirs_and_exports_score_as_they_did(folder, tries):
    expected = json.loads((folder / "expected.json").read_text())
    assert len(set(expected["scores"])) == 4 and set(expected["decisions"]) == {"good", "defective"}
    images = np.load(folder / "images.npy", allow_pickle=False)
    with tries("a checkpoint of an earlier version is loaded and scores as it did"):
        score = commands.restore_scorer(str(folder / "workdir"))
        found = [score(image) for image in images]
        np.testing.assert_allclose([p.score for p in found], expected["scores"], rtol=1e-4)
        assert [p.decision for p in found] == expected["decisions"]
    with tries("an exported StableHLO of an earlier version is loaded and scores as it did"):
        assert export_is_whole(folder)
        model = export.deserialize(bytearray((folder / "export/model.stablehlo").read_bytes()))
        out = model.call(load_file(folder / "export/weights.safetensors"), images)
        np.testing.assert_allclose(out["score"], expected["scores"], rtol=1e-4)
    with tries("an exported ONNX of an earlier version is loaded and scores as it did"):
        session = onnxruntime.InferenceSession(str(folder / "export/model.onnx"))
        (values,) = session.run(["score"], {"images": images})
        np.testing.assert_allclose(values, expected["scores"], rtol=1e-4)


def export_is_whole(folder):
    lines = (folder / "export" / "SHA256SUMS").read_text().splitlines()
    return len(lines) == len(list((folder / "export").iterdir())) - 1


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: path.name)
@pytest.mark.promise("R18", "training goes on from a checkpoint of an earlier version")
def test_old_states_are_read_with_their_optimisers(folder):
    from configs.workdir import get_config
    from engine.make import make
    from engine.workdir import read_facts

    config = get_config(str(folder / "workdir"))
    facts = read_facts(str(folder / "workdir"))
    stage = make(config.method, config, facts.num_train).stages[-1]
    saved = checkpoint.newest(str(folder / "workdir"), stage.name)
    fresh = jax.eval_shape(stage.init, jax.random.key(0), saved["variables"])
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), fresh)
    with checkpoint.Checkpoints(str(folder / "workdir"), stage.name) as checkpoints:
        state = checkpoints.restore(zeros)
    assert state.step == stage.num_steps
    moments = jax.tree.leaves(state.opt_state)
    assert any(np.any(leaf) for leaf in moments)
    for name, network in saved["variables"].items():
        for a, b in zip(
            jax.tree.leaves(network), jax.tree.leaves(state.variables[name]), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    (step,) = (folder / "workdir/checkpoints" / stage.name).iterdir()
    assert files.damage(step) == ""
