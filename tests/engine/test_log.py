"""The training log: what is read back is what was written, and resuming leaves no trace."""

import glob
import io
import json
import os
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from PIL import Image

from engine import pixels
from engine.log import METRICS_FILE, TrainingLog, duration, read_metrics
from storage import files


def run(workdir, stage, first_step, last_step, num_steps=10):
    with TrainingLog(workdir, stage, first_step=first_step, num_steps=num_steps) as log:
        for step in range(first_step + 2, last_step + 1, 2):
            log.write(step, {"loss": np.float32(step) / 4})


def steps_of(workdir):
    return [(line["stage"], line["step"]) for line in read_metrics(workdir)]


def test_lines_read_back(tmp_path):
    workdir = str(tmp_path / "new")
    run(workdir, "gan", 0, 6)
    lines = read_metrics(workdir)
    assert steps_of(workdir) == [("gan", 2), ("gan", 4), ("gan", 6)]
    assert [line["loss"] for line in lines] == [0.5, 1.0, 1.5]
    assert list(lines[0]) == ["stage", "step", "steps_per_second", "seconds", "loss"]
    assert all(line["steps_per_second"] > 0 for line in lines)


def test_no_file_is_no_lines(tmp_path):
    assert read_metrics(str(tmp_path)) == []


def test_a_resumed_run_leaves_the_steps_of_an_unbroken_one(tmp_path):
    broken, unbroken = str(tmp_path / "broken"), str(tmp_path / "unbroken")
    run(unbroken, "gan", 0, 10)
    run(unbroken, "encoder", 0, 10)
    run(broken, "gan", 0, 8)
    run(broken, "gan", 4, 10)  # the newest checkpoint was older than the newest line
    run(broken, "encoder", 0, 6)
    with open(os.path.join(broken, METRICS_FILE), "a") as file:
        file.write('{"stage": "encoder", "st')  # killed while it wrote
    run(broken, "encoder", 2, 10)
    assert steps_of(broken) == steps_of(unbroken)
    assert glob.glob(f"{broken}/*.tmp") == []


def test_a_half_written_line_is_not_read(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"step": 2}')
    assert read_metrics(str(tmp_path)) == [{"step": 1}]


def test_a_foreign_line_is_named(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\nhello\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        read_metrics(str(tmp_path))


def test_seconds_go_on_over_a_resume(tmp_path):
    workdir = str(tmp_path)
    line = {"stage": "gan", "step": 4, "seconds": 100.0}
    later = {"stage": "gan", "step": 6, "seconds": 150.0}
    files.write_text(f"{workdir}/metrics.jsonl", f"{json.dumps(line)}\n{json.dumps(later)}\n")
    run(workdir, "gan", 4, 6)
    assert 100 < read_metrics(workdir)[-1]["seconds"] < 150
    run(workdir, "encoder", 0, 2)
    assert read_metrics(workdir)[-1]["seconds"] < 50


def test_not_a_number_becomes_null(tmp_path):
    with TrainingLog(str(tmp_path), "gan", first_step=0, num_steps=1) as log:
        log.write(1, {"loss": float("nan"), "other": 2.0})
    text = (tmp_path / METRICS_FILE).read_text()
    assert json.loads(text)["loss"] is None
    assert "NaN" not in text


def test_progress_as_log_lines(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *args: lines.append(text % args))
    with TrainingLog(str(tmp_path), "gan", first_step=0, num_steps=1800) as log:
        log._last_time -= 100  # 200 steps in 100 seconds
        log.write(200, {"critic_loss": 1.23456, "penalty": 3.0})
    assert lines == ["gan step 200/1800 critic_loss=1.235 (2 steps/s, 13 min left)"]


def test_progress_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with TrainingLog(str(tmp_path), "gan", first_step=4, num_steps=10) as log:
        time.sleep(0.15)  # tqdm draws ten times a second at most
        log.write(6, {"critic_loss": 1.5})
    shown = capsys.readouterr().err
    assert "6/10" in shown
    assert "critic_loss=1.5" in shown


def test_progress_bar_in_a_notebook(tmp_path, monkeypatch):
    """A cell is no terminal; on stderr the bar would look like an error."""
    cell = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(sys, "stdout", cell)
    with TrainingLog(str(tmp_path), "gan", first_step=4, num_steps=10) as log:
        assert "4/10" in cell.getvalue()  # before the first step is compiled
        time.sleep(0.15)  # tqdm draws ten times a second at most
        log.write(6, {"critic_loss": 1.5})
    assert "6/10" in cell.getvalue() and "critic_loss=1.5" in cell.getvalue()


def test_tensorboard_gets_scalars_and_hides_what_is_repeated(tmp_path):
    """Read by TensorFlow, as TensorBoard does."""
    run(str(tmp_path), "gan", 4, 6)
    (path,) = (tmp_path / "tensorboard" / "gan").iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(path)))
    values = {(v.tag, e.step): v.simple_value for e in events for v in e.summary.value}
    assert values.keys() == {(name, step) for name in ("loss", "steps_per_second") for step in (6,)}
    assert values["loss", 6] == 1.5
    assert [event.step for event in events if event.session_log.status] == [5]


def test_pictures(tmp_path):
    images = np.zeros((5, 8, 6, 3), np.float32)
    with TrainingLog(str(tmp_path), "gan", first_step=0, num_steps=9) as log:
        log.pictures(7, {"samples": images})
    with Image.open(tmp_path / "pictures" / "gan" / "samples_0000007.png") as picture:
        assert np.array_equal(np.asarray(picture), pixels.grid(images))


def test_grid():
    images = np.stack([np.full((4, 5, 1), v, np.float32) for v in (-1, 0, 1, 7, np.nan)])
    picture = pixels.grid(images)
    assert (picture.shape, picture.dtype) == ((4 + 2 + 4, 5 + 2 + 5 + 2 + 5, 3), np.uint8)
    assert picture[0, [0, 7, 14], 0].tolist() == [0, 128, 255]
    assert picture[6, [0, 7], 0].tolist() == [255, 0]
    assert (picture[4:6] == 255).all() and (picture[:, 5:7] == 255).all()
    assert pixels.grid(np.zeros((70, 2, 2, 3), np.float32)).shape == (8 * 4 - 2, 8 * 4 - 2, 3)


@pytest.mark.parametrize("shape", [(0, 2, 2, 3), (2, 2, 3), (1, 2, 2, 2)])
def test_grid_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="wanted"):
        pixels.grid(np.zeros(shape, np.float32))


def test_write_text_keeps_the_old_file_if_it_fails(tmp_path):
    path = str(tmp_path / "file")
    files.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "new \ud800")
    assert (tmp_path / "file").read_text() == "old"


def test_duration():
    words = [duration(s) for s in (0.4, 59, 61, 14 * 60, 3600, 7500)]
    assert words == ["0 s", "59 s", "1 min", "14 min", "1 h 0 min", "2 h 5 min"]
