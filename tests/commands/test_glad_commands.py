"""GLAD's runs: trained, tuned, evaluated with the chain in the report."""

import json

import numpy as np
import pytest
from conftest import make_parts, shrink

import commands
from configs import glad
from configs.workdir import get_config
from engine import checkpoint

OWN = """
import flax.linen as nn
import jax.numpy as jnp


class Dot(nn.Module):
    @nn.compact
    def __call__(self, noised, ratio):
        return nn.Dense(3)(noised)


def bright_square(textures):
    def corrupt(rng, images):
        mask = jnp.zeros(images.shape[:3]).at[:, 2:6, 2:6].set(1)
        return jnp.where(mask[..., None] > 0, 0.9, images), mask

    return corrupt
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The results and the workdir of a tiny run with a network and a corruption of one's own."""
    root = make_parts(tmp_path_factory.mktemp("parts"))
    own = tmp_path_factory.mktemp("own")
    (own / "my_denoiser.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(own)
        yield _trained(root)


def _trained(root):
    config = shrink(glad.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"), calibration=0.3)
    config.denoiser = {"fn": "my_denoiser:Dot"}
    config.corruption = {"fn": "my_denoiser:bright_square"}
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


def test_tuning_measures_calibration_images_and_promises_no_rate(finished):
    _, workdir = finished
    content = commands.tune(get_config(str(workdir)), str(workdir))
    assert len(content["candidates"]) == 2 * (1 + 3 + 1)  # normalisations, image scores
    fields = content["chosen"]["score"]
    assert fields["start"] == 40 and len(fields["limits"]) == 2
    after = commands.evaluate(get_config(str(workdir)), str(workdir))
    fields.pop("usual", None)
    assert after["score"] == json.loads(json.dumps(fields))
    assert not after["threshold"]["guaranteed"]
    (workdir / "tuning.json").unlink()
