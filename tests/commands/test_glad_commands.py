"""GLAD's runs: trained, tuned, evaluated with the chain in the report, exported."""

import json

import numpy as np
import pytest
from conftest import make_parts, shrink

import commands
from configs import glad
from configs.workdir import get_config
from deploy import forms
from engine import checkpoint

pytestmark = pytest.mark.slow  # the chain takes long to compile


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The results and the workdir of a tiny run, which tests that write leave as it is."""
    root = make_parts(tmp_path_factory.mktemp("parts"))
    config = shrink(glad.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"), calibration=0.3)
    config.denoiser.features = (8,)
    config.corruption.max_patches = 1
    config.tuning.update(
        starts=(40,), steps=(2,), noise_draws=(1,), residuals=("squared",), smoothing=(1.0,)
    )
    workdir = root / "run"
    return commands.train(config, str(workdir)), workdir


def test_a_run_has_both_stages_and_says_each_images_level(finished):
    results, workdir = finished
    assert set(results["steps"]) == {"denoiser", "limits"}
    assert set(results["image_terms"]) == {"max", "top", "sum", "level"}
    limits = checkpoint.newest(str(workdir), "limits")["variables"]["limits"]
    assert all(np.isfinite(each).all() and each.shape == (2,) for each in limits.values())
    assert (limits["largest"] >= limits["centre"]).all() and limits["width"].min() > 0
    # No calibration image has had a say in the score: the promise stands as the images are many.
    assert "tun" not in " ".join(results["threshold"]["statement"])


def test_the_report_shows_the_chain_of_a_good_and_a_bad_image(finished):
    _, workdir = finished
    assert (workdir / "report/chains.png").stat().st_size > 1000
    assert "How an image is repaired" in (workdir / "report/index.html").read_text()


def test_an_export_scores_as_the_run_does(finished, tmp_path):
    _, workdir = finished
    commands.export(str(workdir), str(tmp_path / "exported"))
    detector = commands.restore_scorer(str(workdir))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    scores, *_ = forms.read_stablehlo(tmp_path / "exported")(pixels)
    assert scores == pytest.approx([detector(image).score for image in pixels], rel=1e-3)


def test_tuning_measures_calibration_images_and_promises_no_rate(finished):
    _, workdir = finished
    content = commands.tune(get_config(str(workdir)), str(workdir))
    assert len(content["candidates"]) == 1 + 3 + 1  # image scores
    fields = content["chosen"]["score"]
    assert fields["start"] == 40 and len(fields["limits"]) == 2
    after = commands.evaluate(get_config(str(workdir)), str(workdir))
    assert after["score"] == json.loads(json.dumps(fields))
    assert not after["threshold"]["guaranteed"]
    (workdir / "tuning.json").unlink()
