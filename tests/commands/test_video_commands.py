"""Clips through main.py's modes: one tiny run serves all tests, which write into copies alone."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import commands
from commands.serve import served_workdir
from configs import video
from data.clip_demo import generate_clips
from deploy.forms import read_stablehlo


def tiny(root, workdir_root):
    config = video.get_config("belt")
    config.data.update(image_size=16, width=16, root=str(root), prepared=str(workdir_root))
    config.data.calibration = 0.4
    config.clips.update(frames=4, strides=(2,), blur=0.0, gain=2.0)
    for branch in (config.spatial, config.temporal):
        branch.update(features=(4,), convolutions=0, bottleneck=3, fold=2)
    config.pseudo.move = 2
    config.training.update(spatial_steps=3, temporal_steps=3, batch_size=8)
    config.training.schedule.warmup_steps = 1
    config.statistics.update(num_steps=2, smoothing=1.0)
    config.evaluation.pixel_size = 16
    config.every = dict(log=1, save=2, pictures=0)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(root of the data set 'belt', a finished workdir, its config)."""
    root = tmp_path_factory.mktemp("clips")
    generate_clips(str(root), size=32, frames=12, train=6, good=2, bad=1)
    (root / "demo").rename(root / "belt")
    config = tiny(root, root / "prepared")
    workdir = root / "run"
    commands.train(config, str(workdir))
    return root, workdir, config


def rows_of(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return [*csv.DictReader(file)]


def test_results_say_all_ways_of_taking_the_auroc_and_the_promise_of_clips(run):
    results = json.loads((run[1] / "results.json").read_text())
    assert results["counts"]["calibration_clips"] == 2 and results["counts"]["test_clips"] == 6
    for name in ("both", "spatial", "temporal"):
        metrics = results["frames"]["scores"][name]
        assert 0 <= metrics["micro"] <= 1 and metrics["left_out"] == 2
    assert results["frames"]["scores"]["both"]["micro"] == results["image"]["auroc"]
    spatial = results["frames"]["scores"]["spatial"]["micro"]
    assert spatial == results["image_terms"]["spatial"]["auroc"]
    assert results["threshold"]["held_out"] == 2 and results["threshold"]["clip_frames"] == 12
    assert results["at_threshold"]["good"]["count"] == 2
    assert results["pixel"]["auroc"] is not None
    assert len(rows_of(run[1] / "scores.csv")) == 72


def test_the_threshold_is_the_largest_score_of_a_held_out_clip(run):
    threshold = json.loads((run[1] / "threshold.json").read_text())
    assert threshold["threshold"] >= max(threshold["calibration_scores"])
    assert len(threshold["calibration_scores"]) == 2


def test_the_page_has_each_clip_over_time_and_a_video_beside_it(run):
    report = run[1] / "report"
    page = (report / "index.html").read_text()
    assert "Score over time, clip by clip" in page and "AUROC of frames" in page
    assert len([*report.glob("clip_*.png")]) == 6
    videos = [*report.glob("overlay_*.webp"), *report.glob("overlay_*.mp4")]
    assert len(videos) == 6
    if webp := [path for path in videos if path.suffix == ".webp"]:
        with Image.open(webp[0]) as picture:
            assert 1 < picture.n_frames <= 12  # equal neighbours become one


def test_a_run_that_was_cut_off_ends_with_the_same_networks(run, tmp_path):
    root, workdir, config = run
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints/statistics")
    shutil.rmtree(copy / "checkpoints/temporal/3")
    commands.train(config, str(copy))
    before, after = (rows_of(path / "scores.csv") for path in (workdir, copy))
    assert before == after
    assert root.is_dir()


def test_new_clips_get_the_scores_of_the_evaluation_and_intervals(run, tmp_path, capsys):
    root, workdir, _ = run
    output = tmp_path / "out"
    assert commands.predict(str(workdir), str(root / "belt/testing/frames"), str(output)) == 0
    assert "Watch, of which a part is a clip" in capsys.readouterr().out
    rows, wanted = rows_of(output / "predictions.csv"), rows_of(workdir / "scores.csv")
    assert [Path(row["path"]).parts[-2:] for row in rows] == [
        Path(row["path"]).parts[-2:] for row in wanted
    ]
    scores = [[float(row["score"]) for row in part] for part in (rows, wanted)]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)
    intervals = rows_of(output / "intervals.csv")
    above = sum(row["decision"] == "defective" for row in rows)
    assert sum(int(row["frames"]) for row in intervals) == above
    assert len([*(output / "videos").iterdir()]) == 6
    with pytest.raises(FileExistsError, match="choose another --output"):
        commands.predict(str(workdir), str(root / "belt/testing/frames"), str(output))


def test_a_clip_that_is_too_short_is_reported_at_its_frames(run, tmp_path):
    root, workdir, _ = run
    shutil.copytree(root / "belt/testing/frames/good_00", tmp_path / "new/a")
    shutil.copytree(root / "belt/testing/frames/good_00", tmp_path / "new/b")
    for number in range(4, 13):
        (tmp_path / f"new/a/{number:04d}.png").unlink()
    assert commands.predict(str(workdir), str(tmp_path / "new"), str(tmp_path / "out")) == 3
    rows = rows_of(tmp_path / "out/predictions.csv")
    assert [row["decision"] for row in rows[:3]] == 3 * ["unreadable"]
    assert "has 3 frames, fewer than the 4 of a window" in rows[0]["reason"]
    assert rows[3]["decision"] != "unreadable"


@pytest.mark.slow
def test_an_export_is_a_function_of_a_window(run, tmp_path, no_onnx):
    root, workdir, _ = run
    commands.export(str(workdir), str(tmp_path / "export"))
    form = read_stablehlo(tmp_path / "export")
    names = sorted((root / "belt/testing/frames/good_00").iterdir())[:4]
    frames = [Image.open(n).convert("L").resize((16, 16), Image.Resampling.BILINEAR) for n in names]
    scores, maps = form(np.stack([np.asarray(frame) for frame in frames], axis=-1)[None])
    wanted = rows_of(workdir / "scores.csv")
    row = next(row for row in wanted if row["path"].endswith("good_00/0003.png"))
    assert scores[0] == pytest.approx(float(row["score"]), rel=1e-3, abs=1e-4)
    assert maps.shape == (1, 16, 16)
    card = (tmp_path / "export/README.md").read_text()
    assert "Decode 4 consecutive frames to grey" in card and 'convert("RGB")' not in card


def test_check_says_how_clips_are_used_and_what_is_wrong(run, tmp_path, capsys):
    root, _, config = run
    assert commands.check(config, "") == 0
    told = capsys.readouterr().out
    assert "4 clips trained on: 48 frames, 12 a clip" in told
    assert "2 clips held out for the threshold" in told and "6 clips have masks" in told
    shutil.copytree(root / "belt", tmp_path / "belt")
    (tmp_path / "belt/training/frames/001/0005.png").unlink()
    (tmp_path / "belt/testing/frames/good_00/0012.png").unlink()
    config = tiny(tmp_path, tmp_path / "prepared")
    assert commands.check(config, "") == 2
    told = capsys.readouterr().out
    assert "jump from 4 to 6" in told and "has 11 frames" in told and "labels of 12" in told


@pytest.mark.parametrize(
    ("field", "value"), [("rotation", 180), ("brightness", True), ("resident", False)]
)
def test_what_is_done_to_images_alone_is_refused(run, tmp_path, field, value):
    config = tiny(run[0], tmp_path)
    config.data[field] = value
    with pytest.raises(ValueError, match=f"data.{field}={value} is for images"):
        commands.train(config, str(tmp_path / "run"))


def test_what_decides_on_images_is_refused_in_one_line(run):
    root, workdir, config = run
    for refused in (
        lambda: commands.restore_scorer(str(workdir)),
        lambda: served_workdir(str(workdir)),
        lambda: commands.recalibrate(str(workdir), str(root / "belt/training/frames/000")),
    ):
        with pytest.raises(ValueError, match="is for images.*--mode=predict decides on clips"):
            refused()
    with pytest.raises(ValueError, match="leaves nothing to tune"):
        commands.tune(config, str(workdir))


@pytest.mark.slow
def test_runs_of_clips_are_compared(run, tmp_path):
    _, workdir, config = run
    config = config.copy_and_resolve_references()
    config.score.weight = 0.0
    other = tmp_path / "spatial"
    commands.train(config, str(other), reuse=str(workdir))
    commands.compare([str(workdir), str(other)], str(tmp_path / "compared"))
    text = (tmp_path / "compared/compare.md").read_text()
    assert "neighbouring frames" in text
    results = json.loads((other / "results.json").read_text())
    scores = results["frames"]["scores"]
    assert scores["both"]["micro"] == pytest.approx(scores["spatial"]["micro"])
