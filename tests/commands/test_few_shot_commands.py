"""The program learns from labelled defects, says what it knows of misses, and joins two runs."""

import json
import shutil

import jax
import numpy as np
import pytest
from conftest import make_parts, shrink
from PIL import Image

import commands
from commands import inputs
from configs import ensemble, few_shot, few_shot_encoder
from engine import checkpoint
from engine.sources import read_sources
from evaluation.results import read_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Parts with bright dents and, as another kind, dark stripes: 6 of each."""
    root = make_parts(tmp_path_factory.mktemp("few"))
    rng = np.random.default_rng(1)
    for i in range(6):
        for kind in ("dent", "stripe"):
            pixels = rng.integers(60, 120, (16, 16, 3)).astype(np.uint8)
            if kind == "dent":
                pixels[4:9, 4:9] = 250
            else:
                pixels[:, 7:9] = 0
            path = root / f"nut/test/{kind}/{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def config_of(root, **data):
    config = shrink(few_shot.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"), calibration=0.3, **data)
    config.training.num_steps = 20
    config.training.schedule.peak_value = 0.01
    config.every.pictures = 0
    return config


@pytest.fixture(scope="module")
def run(root):
    """A workdir that has learnt three dents, and its results."""
    workdir = str(root / "run")
    config = config_of(root, labelled="3", labelled_kind="dent")
    return workdir, commands.train(config, workdir)


pytestmark = pytest.mark.slow


def test_labelled_images_are_stored_and_not_tested(run):
    workdir, results = run
    sources, done = read_sources(workdir), read_run(workdir)
    assert len(sources.labelled) == 3 and all("/dent/" in name for name in sources.labelled)
    assert not set(sources.labelled) & set(done.paths)
    assert results["labelled"] == {"dent": 3}
    assert results["by_label"]["seen"]["count"] == 3 and results["by_label"]["unseen"]["count"] == 6
    assert results["by_label"]["seen"]["auroc"] > 0.9  # what it was shown, it finds
    assert results["by_label"]["unseen"]["auroc"] is not None
    assert "Nothing is known of misses" in " ".join(results["threshold"]["statement"])


def test_a_run_is_bound_to_its_labels(root, run):
    workdir, results = run
    with pytest.raises(ValueError, match="holds another experiment .*data.labelled: '3' -> '2'"):
        commands.train(config_of(root, labelled="2", labelled_kind="dent"), workdir)
    again = commands.evaluate(config_of(root, labelled="3", labelled_kind="dent"), workdir)
    assert again["image"] == results["image"]


def test_two_runs_as_one_evaluate_and_predict(root, run, tmp_path):
    """The same run twice decides as it does alone; what is not to be joined is refused."""
    workdir, results = run
    config = ensemble.get_config("nut")
    with pytest.raises(ValueError, match="members.unsupervised is empty: name a finished workdir"):
        commands.evaluate(config, tmp_path / "joined")
    config.members.update(unsupervised=workdir, few_shot=workdir)
    joined = str(tmp_path / "joined")
    outcome = commands.evaluate(config, joined)
    assert outcome["image"] == results["image"]
    scores = read_run(workdir).scores
    calibration = json.loads((root / "run/threshold.json").read_text())["calibration_scores"]
    expected = (scores - np.mean(calibration)) / np.std(calibration)
    np.testing.assert_allclose(read_run(joined).scores, expected, rtol=1e-3, atol=1e-3)
    photo = root / "nut/test/dent/0.png"
    said = commands.restore_scorer(joined)(str(photo)), commands.restore_scorer(workdir)(str(photo))
    assert said[0].decision == said[1].decision
    with pytest.raises(ValueError, match="an ensemble is not trained"):
        commands.train(config, tmp_path / "trained")
    config.members.few_shot = joined
    with pytest.raises(ValueError, match="is itself an ensemble: name a trained run"):
        commands.evaluate(config, tmp_path / "other")
    other = shutil.copytree(workdir, tmp_path / "moved")
    facts = json.loads((other / "facts.json").read_text())
    (other / "facts.json").write_text(json.dumps({**facts, "digest": "0" * 64}))
    config.members.few_shot = str(other)
    with pytest.raises(ValueError, match="were trained on other good images"):
        commands.evaluate(config, tmp_path / "other")


@pytest.mark.long
def test_two_runs_as_one_are_exported(root, run, tmp_path):
    config = ensemble.get_config("nut")
    config.members.update(unsupervised=run[0], few_shot=run[0])
    commands.evaluate(config, str(tmp_path / "joined"))
    commands.export(tmp_path / "joined", tmp_path / "exported")  # which compares decisions
    assert (tmp_path / "exported" / "model.stablehlo").exists()


def test_nothing_to_learn_from_and_nothing_to_leave_out(root, tmp_path):
    config = config_of(root, labelled="")
    config.training.loss.corrupted = 0.0
    with pytest.raises(ValueError, match="there is no defect to learn from: .*labelled=10, or"):
        commands.train(config, tmp_path / "none")
    config.training.loss.corrupted = 0.5  # the way out
    inputs.require_method(config)
    config = config_of(root, labelled="1")
    config.threshold.leave_one_out = True
    with pytest.raises(ValueError, match="takes 2 labelled images at least, and there are 1"):
        commands.train(config, tmp_path / "one")
    assert not (tmp_path / "one" / "checkpoints").exists()


@pytest.mark.long
def test_each_labelled_image_is_left_out_once(root, run, tmp_path):
    workdir = shutil.copytree(run[0], tmp_path / "run")
    config = config_of(root, labelled="3", labelled_kind="dent")
    config.threshold.update(leave_one_out=True, cost_of_miss=100.0, cost_of_false_alarm=1.0)
    results = commands.evaluate(config, workdir)
    misses = results["threshold"]["misses"]
    assert misses["labelled"] == 3 and misses["trained_on"] and misses["missed"] is not None
    left = [read_sources(str(workdir / "leave_one_out" / str(i))).labelled for i in range(3)]
    everyone = set(read_sources(str(workdir)).labelled)
    assert [len(each) for each in left] == [2, 2, 2]
    assert {name for each in left for name in everyone - set(each)} == everyone
    assert not results["threshold"]["guaranteed"]


@pytest.mark.long
def test_the_encoder_of_a_self_supervised_run_rests(root, tmp_path):
    config = few_shot_encoder.get_config("nut")
    config.data.update(image_size=16, root=str(root), prepared=str(root / "prepared"))
    config.data.update(calibration=0.3, labelled="2")
    config.every = dict(log=2, save=2, pictures=0)
    config.autoencoder.update(features=(4, 8), convolutions=1, blocks=1, branch=2, dilations=(1, 2))
    config.trunk.update(features=(4,), blocks=1)
    for section in (config.training, config.labelled_training):
        section.update(num_steps=2, batch_size=8)
        section.schedule.warmup_steps = 1
    config.labelled_training.corruption.weights.seamless = 0.0
    results = commands.train(config, tmp_path / "run")
    assert results["steps"] == {"autoencoder": 2, "deviation": 2}
    workdir = str(tmp_path / "run")
    parts = [checkpoint.newest(workdir, stage)["variables"] for stage in results["steps"]]
    encoders = [jax.tree.leaves(part["averaged"]) for part in parts]
    for one, other in zip(*encoders, strict=True):
        np.testing.assert_array_equal(one, other)
