"""The self-supervised autoencoder's runs: report and textures, and --mode=tune, which opens no test

file and whose choice scoring finds.
"""

import base64
import builtins
import io
import json
import os
import shutil

import pytest
from conftest import shrink
from PIL import Image

import commands
from configs import contrario, ssae
from configs.workdir import get_config


@pytest.fixture
def poisoned(trained, tmp_path, monkeypatch):
    """A copy of the run whose test files are no images, and fail the test when they are opened."""
    root, _ = trained
    copy = tmp_path / "parts"
    shutil.copytree(root, copy)
    test = str(copy / "nut" / "test")
    for path in (copy / "nut" / "test").rglob("*.png"):
        path.write_text("poison")
    for module in (builtins, io):
        real = module.open

        def guarded(file, *args, real=real, **options):
            if str(file).startswith(test):
                pytest.fail(f"{file} was opened")  # no Exception, which may be caught
            return real(file, *args, **options)

        monkeypatch.setattr(module, "open", guarded)
    config_path = copy / "run" / "config.json"
    config_path.write_text(config_path.read_text().replace(str(root), str(copy)))
    return str(copy / "run")


@pytest.mark.slow
def test_tuning_opens_no_test_file_and_writes_its_choice(poisoned):
    content = commands.tune(get_config(poisoned), poisoned)
    networks = {candidate["network"] for candidate in content["candidates"]}
    assert networks == {"corrupted_weight=0.5", "corrupted_weight=0.1"}
    assert len(content["candidates"]) == 2 * 2 * 2 * 3  # networks, places, smoothings, rules
    assert content["chosen"]["network"] == content["candidates"][0]["network"]
    assert "no test image was seen" in content["why"]
    assert os.path.isdir(os.path.join(poisoned, "tuning", "corrupted_weight=0.1", "checkpoints"))
    again = commands.tune(get_config(poisoned), poisoned)
    assert again == content


def test_the_guard_of_the_test_above_works(poisoned):
    with pytest.raises(pytest.fail.Exception, match="was opened"):
        commands.evaluate(get_config(poisoned), poisoned)


def test_scoring_finds_what_was_chosen(trained, tmp_path):
    workdir = str(tmp_path / "run")
    shutil.copytree(trained[1], workdir)
    before = commands.evaluate(get_config(workdir), workdir)
    fields = {"smoothing": 0.0, "image_score": "sum"}
    choice = {
        "chosen": {"network": "own", "folder": ".", "score": fields},
        "why": "",
        "candidates": [],
    }
    (tmp_path / "run" / "tuning.json").write_text(json.dumps(choice))
    after = commands.evaluate(get_config(workdir), workdir)
    assert "score" not in before and after["score"] == fields
    assert after["image"] == after["image_terms"]["sum"]
    choice["chosen"]["folder"] = "elsewhere"
    (tmp_path / "run" / "tuning.json").write_text(json.dumps(choice))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        commands.evaluate(get_config(workdir), workdir)


def test_the_report_has_the_checks_and_what_was_trained_on(trained):
    with open(os.path.join(trained[1], "report", "index.html")) as file:
        page = file.read()
    with open(os.path.join(trained[1], "report", "inputs_autoencoder.png"), "rb") as file:
        picture = base64.b64encode(file.read()).decode()
    assert "idempotence" in page and picture in page
    with Image.open(os.path.join(trained[1], "report", "inputs_autoencoder.png")) as picture:
        assert picture.size == (8 * (32 + 2) - 2, 8 * (16 + 2) - 2)
    with open(os.path.join(trained[1], "results.json")) as file:
        checks = json.load(file)["checks"]
    with open(os.path.join(trained[1], "metrics.jsonl")) as file:
        last = json.loads(file.read().splitlines()[-1])
    assert last["held_out_idempotence"] == pytest.approx(checks["idempotence"], rel=1e-4)


def test_bad_textures_are_told_before_the_workdir_is_bound(trained, tmp_path):
    root, _ = trained
    config = shrink(ssae.get_config("nut"))
    config.data.update(root=str(root), prepared=str(root / "prepared"))
    config.corruption.textures = str(tmp_path / "none")
    with pytest.raises(ValueError, match=r"corruption\.textures: .*none is no folder"):
        commands.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run/config.json").exists()


def test_a_run_that_is_not_finished_is_not_tuned(trained, tmp_path):
    workdir = str(tmp_path / "run")
    shutil.copytree(trained[1], workdir)
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"num_steps": 2', '"num_steps": 9'))
    with pytest.raises(ValueError, match="step 2 of 9: train it to its end"):
        commands.tune(get_config(workdir), workdir)


def test_without_held_out_images_there_is_nothing_to_tune_on(trained, tmp_path):
    workdir = str(tmp_path / "run")
    shutil.copytree(trained[1], workdir)
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"calibration": 0.3', '"calibration": 0.0'))
    with pytest.raises(ValueError, match=r"train with data\.calibration > 0"):
        commands.tune(get_config(workdir), workdir)


def test_other_settings_than_those_of_the_workdir_are_refused(trained):
    config = get_config(trained[1])
    config.training.batch_size = 16
    with pytest.raises(ValueError, match="training.batch_size: 8 -> 16"):
        commands.tune(config, trained[1])


def test_a_method_without_open_settings_says_so(tmp_path):
    with pytest.raises(ValueError, match="leaves nothing to tune"):
        commands.tune(shrink(contrario.get_config("nut")), str(tmp_path))
