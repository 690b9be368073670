"""--mode=tune of an autoencoder: the map over what is usual at each place."""

import numpy as np
import pytest
from conftest import make_parts, shrink

import commands
from configs import ae_l2, fanogan
from configs.workdir import get_config


@pytest.mark.slow
def test_what_is_usual_is_measured_chosen_and_used(tmp_path):
    config = shrink(ae_l2.get_config("nut"))
    config.data.update(
        root=str(make_parts(tmp_path)), prepared=str(tmp_path / "prepared"), calibration=0.3
    )
    workdir = tmp_path / "run"
    commands.train(config, workdir)
    with np.load(workdir / "predictions.npz") as arrays:
        plain = arrays["maps"]
    config.tuning.normalise = ("pixel",)
    chosen = commands.tune(config, workdir)["chosen"]["score"]
    assert chosen["normalise"] == "pixel" and len(chosen["usual"]) == 16  # cells: 16 px have no 32
    results = commands.evaluate(get_config(str(workdir)), workdir)
    assert results["score"] == {name: chosen[name] for name in ("normalise", "image_score")}
    with np.load(workdir / "predictions.npz") as arrays:
        over = arrays["maps"]
    np.testing.assert_allclose(over, plain / np.asarray(chosen["usual"])[None], rtol=1e-3)
    # The page says what was chosen, and not the numbers of the places.
    page = (workdir / "report" / "index.html").read_text()
    assert "normalise" in page and "usual" not in page


def test_it_must_be_measured_before_it_is_asked_for(tmp_path):
    config = shrink(fanogan.get_config("nut"))
    config.data.update(root=str(make_parts(tmp_path)), prepared=str(tmp_path / "prepared"))
    config.score.normalise = "pixel"
    with pytest.raises(ValueError, match="train with 'none'; --mode=tune then measures it"):
        commands.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
