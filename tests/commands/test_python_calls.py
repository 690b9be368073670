"""The commands called from Python, by the names that a person gives to folders."""

import json
import shutil
from pathlib import Path

import pytest

import commands
from configs.workdir import get_config


@pytest.mark.slow
def test_a_workdir_may_be_named_as_in_a_shell(trained, tmp_path, monkeypatch):
    """No folder called ~ is made: a run below the user's own folder is the one that is used."""
    run = shutil.copytree(trained[1], tmp_path / "home/run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = get_config(str(run))
    config.threshold.false_alarm_rate = 0.2
    for workdir in ("~/run", Path("~/run"), "../home/run"):
        (run / "results.json").unlink()
        results = commands.evaluate(config, workdir)
        assert json.loads((run / "results.json").read_text()) == results
        assert results["threshold"]["false_alarm_rate"] == 0.2
        assert commands.restore_scorer(workdir) is not None
    (run / "results.json").unlink()
    assert commands.train(config, Path("~/run"))["image"] == results["image"]
    assert (run / "results.json").exists()
    assert not any(elsewhere.iterdir())
