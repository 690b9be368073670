"""The localising restorer's runs: corrected brightness, tuning, and sides that do not fold."""

import json
import os
import re

import numpy as np
import pytest
from conftest import make_parts, shrink

import commands
from configs import restorer
from configs.workdir import get_config
from engine.workdir import hold

pytestmark = pytest.mark.slow  # the step takes long to compile

SIDE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small category."""
    return make_parts(tmp_path_factory.mktemp("parts"), SIDE)


def small(config, root):
    config = shrink(config)
    config.data.update(
        image_size=SIDE, root=str(root), prepared=str(root / "prepared"), calibration=0.3
    )
    config.head.update(fold=2, features=(4, 4))
    return config


@pytest.fixture(scope="module")
def finished(root):
    """A run of the restorer with corrected brightness."""
    config = small(restorer.get_config("nut"), root)
    config.data.brightness = True
    config.corruption.weights.seamless = 0  # which takes long to compile
    config.tuning.update(smoothing=(1.0,), normalise=("pixel",))
    workdir = str(root / "run")
    return commands.train(config, workdir), workdir


def test_the_brightness_of_training_is_stored_and_said(root, finished, tmp_path, capsys):
    _, workdir = finished
    with open(os.path.join(workdir, "facts.json")) as file:
        brightness = json.load(file)["brightness"]
    assert 85 / 255 < brightness < 95 / 255
    commands.predict(workdir, str(root / "nut" / "test" / "good"), str(tmp_path / "out"))
    assert f"corrected to that of the training images, {255 * brightness:.0f} of 255" in (
        capsys.readouterr().out
    )
    assert commands.check(get_config(workdir), "") == 0
    assert "a part that is wholly too dark or too bright is not found" in capsys.readouterr().out


def test_a_lamp_that_ages_changes_no_score_where_brightness_is_corrected(finished):
    score = commands.restore_scorer(finished[1])
    rng = np.random.default_rng(1)
    image = 2 * rng.integers(30, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    darker = (image * 0.75).astype(np.uint8)
    assert score(darker).score == pytest.approx(score(image).score, rel=0.05)


def test_tuning_chooses_map_smoothing_and_rule_on_defects_that_training_does_not_make(finished):
    content = commands.tune(get_config(finished[1]), finished[1])
    assert len(content["candidates"]) == 3 * 1 * 5  # maps, smoothings, image scores
    fields = content["chosen"]["score"]
    assert set(fields) >= {"map", "smoothing", "image_score"}
    usual = fields.pop("usual")  # of corrected training images
    assert len(usual) == SIDE and fields["normalise"] == "pixel"
    assert list(content["candidates"][0]["kinds"])[:2] == ["blot", "scratch"]
    regrets = [candidate["regret"] for candidate in content["candidates"]]
    assert regrets == sorted(regrets)
    after = commands.evaluate(get_config(finished[1]), finished[1])
    assert after["score"] == fields


@pytest.mark.parametrize(
    ("section", "fields", "said"),
    [
        ("data", {"image_size": 36}, "36 is no multiple of 16.: choose 32 or 48 px"),
        ("training", {"batch_size": 1}, "the batch holds one image: choose a batch_size of 2"),
        ("head", {"features": (4,)}, "head.features=.* is not 2 values"),
    ],
)
def test_what_no_network_takes_is_told_before_anything_is_written(
    root, tmp_path, capsys, section, fields, said
):
    config = small(restorer.get_config("nut"), root)
    config[section].update(fields)
    with pytest.raises(ValueError, match=said):
        commands.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    if section != "head":  # whose rule check keeps as every command does
        assert commands.check(config, "") == 1
        assert re.search(said, capsys.readouterr().out)


def test_a_held_workdir_is_left_alone_by_the_python_calls_too(finished):
    config, workdir = get_config(finished[1]), finished[1]
    for command in (commands.train, commands.evaluate, commands.tune):
        with hold(workdir), pytest.raises(OSError, match="in use by process"):
            command(config, workdir)
