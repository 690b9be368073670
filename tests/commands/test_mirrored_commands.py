"""AMA's runs: a two-sided score is refused before training, and comes by tuning."""

import json

import numpy as np
import pytest
from conftest import make_parts, shrink

import commands
from configs import ama


@pytest.mark.slow
def test_the_two_sided_score_comes_as_the_refusal_says(tmp_path, capsys):
    config = shrink(ama.get_config("nut"))
    config.data.update(
        root=str(make_parts(tmp_path)), prepared=str(tmp_path / "prepared"), calibration=0.3
    )
    config.gan.update(num_steps=1, n_critic=1)
    workdir = tmp_path / "run"
    config.score.two_sided = True
    said = "train without it; --mode=tune then measures .* --config.tuning.sides=\"\\('two',\\)\""
    with pytest.raises(ValueError, match=said):
        commands.train(config, workdir)
    config.score.two_sided = False
    one_sided = commands.train(config, workdir)
    assert set(one_sided["image_terms"]) == {"one-sided", "pixels"}
    threshold = json.loads((workdir / "threshold.json").read_text())
    config.tuning.update(sides=("two",), smoothing=(0.0,))
    chosen = commands.tune(config, workdir)["chosen"]["score"]
    assert chosen["two_sided"]
    # The mean is that of the held-out images' scores, which set the first threshold.
    scores = threshold["calibration_scores"]
    assert chosen["mean"] == pytest.approx(np.mean(scores), rel=1e-4)
    assert chosen["deviation"] == pytest.approx(np.std(scores), rel=1e-2, abs=1e-5)
    results = commands.evaluate(config, workdir)
    assert set(results["image_terms"]) == {"one-sided", "two-sided", "pixels"}
    assert results["image"] == results["image_terms"]["two-sided"]
    assert results["image_terms"]["one-sided"] == one_sided["image_terms"]["one-sided"]
    # What helped to choose the score promises no rate.
    assert not results["threshold"]["guaranteed"]
    commands.predict(workdir, tmp_path / "nut/test/dent", tmp_path / "out")
