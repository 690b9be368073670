"""From a folder of good parts to a decision on a new photo, as an engineer runs the program."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import QUICK
from ml_collections import ConfigDict
from PIL import Image
from test_main import ROOT, SMALL, example_of_the_page, fails, picture, program, save

import commands
from evaluation import threshold


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty good parts in sub-folders, and new photos of other formats, one of a bad part."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(30):
        save(folder / f"good/day{index % 2}/{index:03}.png", picture(rng))
    new = folder / "new"
    save(new / "a.jpg", np.asarray(Image.fromarray(picture(rng)).resize((40, 40))))
    save(new / "line 2/b.bmp", picture(rng, bright=7))
    save(new / "line 2/c.webp", picture(rng))
    return folder


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """The workdir of a run on good parts and nothing else, and what the program printed."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    done = program(*arguments(photos / "good", workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done


def arguments(folder, workdir, *others):
    return [
        "--config=configs/fanogan.py:mine",
        f"--config.data.folder={folder}",
        f"--config.data.prepared={workdir.parent}/prepared",
        "--config.data.calibration=0.34",
        "--config.threshold.false_alarm_rate=0.1",
        f"--workdir={workdir}",
        *SMALL,
        *others,
    ]


def predict(workdir, images, output):
    """What the program does of new photos; its exit code and output."""
    paths = (f"--workdir={workdir}", f"--images={images}", f"--output={output}")
    return program("--mode=predict", *paths)


def read_rows(folder):
    with open(folder / "predictions.csv", newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def written_when(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_good_parts_alone_end_with_a_threshold_and_a_report(finished):
    workdir, done = finished
    content = json.loads((workdir / "threshold.json").read_text())
    assert len(content["calibration_scores"]) == 10 and content["guaranteed"]
    assert content["guaranteed_rate"] == 1 / 11
    for sentence in content["statement"]:
        assert sentence in done.stdout
    assert "With 10 good images the lowest rate that can be guaranteed is 9.1 %." in done.stdout
    assert "mine: no test images, so nothing is known of how often" in done.stdout
    results = json.loads((workdir / "results.json").read_text())
    assert results["counts"]["calibration"] == 10 and results["counts"]["test_good"] == 0
    assert "data:image" in (workdir / "report" / "index.html").read_text()


def test_new_photos_are_decided_on(finished, photos, tmp_path):
    done = predict(finished[0], f"{photos / 'new'}", f"{tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    rows = {os.path.basename(row["path"]): row for row in read_rows(tmp_path / "out")}
    assert {name: row["decision"] for name, row in rows.items()} == {
        "a.jpg": "good",
        "b.bmp": "defective",
        "c.webp": "good",
    }
    assert "3 images: 2 good, 1 defective, 0 unreadable (" in done.stdout
    bad = rows["b.bmp"]
    assert float(bad["p_value"]) == pytest.approx(1 / 11)
    # The square is at rows 7 to 13, columns 7 to 13 of 20.
    left, top = int(bad["region_left"]), int(bad["region_top"])
    right, bottom = left + int(bad["region_width"]), top + int(bad["region_height"])
    assert left < 12 and right > 8 and top < 12 and bottom > 8
    mask = np.asarray(Image.open(tmp_path / "out/masks" / f"{bad['pictures']}.png"))
    assert mask.shape == (20, 20) and mask[9:11, 9:11].any()


def test_a_pattern_and_a_file(finished, photos, tmp_path):
    for index, (images, count) in enumerate([("new/**/*.bmp", 1), ("new/a.jpg", 1), ("n*", 3)]):
        done = predict(finished[0], f"{photos}/{images}", f"{tmp_path}/{index}")
        assert done.returncode == 0, done.stderr
        assert len(read_rows(tmp_path / str(index))) == count


def test_one_bad_file_does_not_stop_the_others(finished, photos, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(photos / "new", images)
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("no image")
    Image.new("RGB", (1, 1)).save(images / "pixel.png")
    Image.new("1", (20000, 20000)).save(images / "bomb.png")
    Image.new("CMYK", (30, 20)).save(images / "print.jpg")
    Image.new("LA", (30, 20)).save(images / "grey.png")
    done = predict(finished[0], f"{images}", f"{tmp_path}/out")
    assert done.returncode == 2, done.stderr
    rows = {os.path.basename(row["path"]): row for row in read_rows(tmp_path / "out")}
    assert len(rows) == 9 and "4 unreadable" in done.stdout
    reasons = {name: row["reason"] for name, row in rows.items() if row["reason"]}
    assert set(reasons) == {"empty.png", "text.jpg", "pixel.png", "bomb.png"}
    assert "1x1 px: too small" in reasons["pixel.png"] and "bomb" in reasons["bomb.png"]
    assert rows["print.jpg"]["decision"] in ("good", "defective")
    assert rows["a.jpg"]["decision"] == "good" and "Traceback" not in done.stderr


def test_the_rate_is_changed_without_training(finished, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(finished[0], workdir)
    before = written_when(workdir / "checkpoints")
    done = program(
        "--mode=evaluate", "--workdir", workdir, "--config.threshold.false_alarm_rate=0.4"
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((workdir / "threshold.json").read_text())
    old = json.loads((finished[0] / "threshold.json").read_text())
    assert content["guaranteed_rate"] == pytest.approx(4 / 11)
    assert content["threshold"] < old["threshold"]
    assert content["calibration_scores"] == old["calibration_scores"]
    assert before == {
        path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*")
    }
    program("--mode=evaluate", f"--workdir={workdir}")  # the rate stays what it was set to
    assert json.loads((workdir / "threshold.json").read_text()) == content


def test_a_rate_that_ten_images_cannot_guarantee(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "w")
    done = program(
        "--mode=evaluate", f"--workdir={tmp_path}/w", "--config.threshold.false_alarm_rate=0.01"
    )
    assert done.returncode == 0, done.stderr
    assert "1 % asked for are NOT guaranteed: that takes 99 held-out good images" in done.stdout
    assert "can guarantee a false-alarm rate of 9.1 % at the lowest" in done.stderr
    content = json.loads((tmp_path / "w/threshold.json").read_text())
    assert not content["guaranteed"] and content["guaranteed_rate"] == 1 / 11


def test_three_lines_of_python(finished, photos):
    """Those of the page."""
    _, example = example_of_the_page(1, "docs/factory/predict.md")
    assert len([*filter(None, example.splitlines())]) == 3
    example = example.replace('"W"', repr(str(finished[0])))
    example = example.replace('"photo.jpg"', repr(str(photos / "new/line 2/b.bmp")))
    environment = {**os.environ, "XLA_FLAGS": QUICK}
    said = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    assert said.stdout.startswith("defective ")


def test_a_path_and_its_pixels_score_alike(finished, photos):
    score = commands.restore_scorer(finished[0])
    path = photos / "new/a.jpg"
    there, here = score(path), score(np.asarray(Image.open(path)))
    assert (there.score, there.decision, there.region) == (here.score, here.decision, here.region)
    with pytest.raises(ValueError, match=r"none.png: .*No such file"):
        score(photos / "none.png")


@pytest.mark.slow
def test_good_and_bad_are_evaluated(finished, photos, tmp_path):
    """With bad/, good parts that set no threshold are held out to be tested with, too."""
    folder, rng = tmp_path / "parts", np.random.default_rng(1)
    shutil.copytree(photos / "good", folder / "good")
    for index in range(4):
        save(folder / f"bad/square/{index}.png", picture(rng, bright=4 + index))
    workdir = tmp_path / "w"
    done = program(*arguments(folder, workdir, "--config.data.calibration=0.2"))
    assert done.returncode == 0, done.stderr
    results = json.loads((workdir / "results.json").read_text())
    assert results["counts"] == {
        "train": 18,
        "calibration": 6,
        "test_good": 6,
        "test_defective": 4,
    }
    assert results["image"]["auroc"] > 0.9 and results["pixel"]["auroc"] is None
    assert results["at_threshold"]["square"]["count"] == 4
    assert "of 4 square missed (95 % interval" in done.stdout
    predicted = predict(workdir, f"{folder}", f"{tmp_path}/out")
    assert predicted.returncode == 0, predicted.stderr
    with open(workdir / "scores.csv", newline="") as file:
        evaluated = {str(folder / row["path"]): float(row["score"]) for row in csv.DictReader(file)}
    limit = json.loads((workdir / "threshold.json").read_text())["threshold"]
    rows = {row["path"]: row for row in read_rows(tmp_path / "out")}
    assert set(evaluated) < set(rows) and len(evaluated) == 10
    for path, value in evaluated.items():  # predict = evaluate
        assert float(rows[path]["score"]) == pytest.approx(value, rel=1e-5)
        assert (rows[path]["decision"] == "defective") == (value > limit)


@pytest.mark.slow
def test_export_writes_a_folder_or_nothing(finished, photos, tmp_path):
    """What it scores is tested in test_export.py."""
    output = tmp_path / "models" / "model"
    command = ("--mode=export", f"--workdir={finished[0]}", f"--output={output}")
    done = program(*command)
    assert done.returncode == 0, done.stderr
    assert f"Exported: {output}" in done.stdout
    names = {"model.stablehlo", "weights.safetensors", "threshold.json", "config.json"}
    assert names | {"facts.json", "README.md", "SHA256SUMS"} <= {
        path.name for path in output.iterdir()
    }
    threshold_file = json.loads((output / "threshold.json").read_text())
    assert threshold_file == json.loads((finished[0] / "threshold.json").read_text())
    assert f"{output} exists: name a new folder" in fails(*command)
    shutil.copytree(photos / "good", tmp_path / "other")
    (tmp_path / "other/day0/000.png").unlink()
    shutil.copytree(finished[0], tmp_path / "w")
    config = json.loads((tmp_path / "w/config.json").read_text())
    config["data"]["folder"] = str(tmp_path / "other")
    (tmp_path / "w/config.json").write_text(json.dumps(config))
    none = ("--mode=export", f"--workdir={tmp_path}/w", f"--output={tmp_path}/none")
    line = fails(*none)
    assert "day0: 1 removed (000.png)" in line and f"--mode=evaluate --workdir={tmp_path}/w" in line
    assert not list(tmp_path.glob("none*"))


def test_what_is_said_of_changed_and_moved_photos_leads_out(
    finished, photos, tmp_path, monkeypatch, capsys
):
    """What an export writes takes long, and is tested elsewhere."""
    module = sys.modules[commands.export.__module__]
    monkeypatch.setattr(module, "write_export", lambda *_, **__: None)
    workdir, other = tmp_path / "w", tmp_path / "other"
    shutil.copytree(photos / "good", other)
    shutil.copytree(finished[0], workdir)
    config = ConfigDict(json.loads((workdir / "config.json").read_text()))
    config.data.folder = str(tmp_path / "lost")
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(FileNotFoundError, match="lost does not exist"):
        commands.export(str(workdir), str(tmp_path / "one"))
    config.data.folder = str(other)
    commands.export(str(workdir), str(tmp_path / "one"), config)
    assert f"Exported: {tmp_path}/one" in capsys.readouterr().out
    sources = json.loads((workdir / "sources.json").read_text())
    held_out, trained = min(sources["calibration"]), min(sources["train"])
    save(other / held_out, picture(np.random.default_rng(5)))
    changed = f"{os.path.dirname(held_out)}: 1 changed .{os.path.basename(held_out)}."
    with pytest.raises(ValueError, match=f"{changed}.*: python main.py --mode=evaluate"):
        commands.export(str(workdir), str(tmp_path / "two"), config)
    commands.train(config, str(workdir))  # which has nothing to train, and evaluates
    commands.export(str(workdir), str(tmp_path / "two"), config)
    assert f"Exported: {tmp_path}/two" in capsys.readouterr().out
    save(other / trained, picture(np.random.default_rng(6)))
    with pytest.raises(ValueError, match="was trained on have changed .*1 changed"):
        commands.train(config, str(workdir))


@pytest.mark.slow
def test_predict_needs_a_finished_workdir_with_a_threshold(finished, photos, tmp_path):
    command = ("--mode=predict", f"--images={photos}/new", f"--output={tmp_path}/out")
    assert "config.json does not exist" in fails(*command, f"--workdir={tmp_path}/none")
    workdir = tmp_path / "w"
    shutil.copytree(finished[0], workdir)
    (workdir / "threshold.json").unlink()
    assert "--mode=evaluate" in fails(*command, f"--workdir={workdir}")
    config = json.loads((workdir / "config.json").read_text())
    config["encoding"]["num_steps"] = 99
    (workdir / "config.json").write_text(json.dumps(config))
    assert "step 60 of 99: train it to its end" in fails(*command, f"--workdir={workdir}")
    shutil.rmtree(workdir / "checkpoints/encoder")
    assert "train this workdir first" in fails(*command, f"--workdir={workdir}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_predict_says_what_is_missing(finished, photos, tmp_path):
    command = ("--mode=predict", f"--workdir={finished[0]}")
    assert "needs --images" in fails(*command, f"--output={tmp_path}/out")
    assert "needs --output" in fails(*command, f"--images={photos}")
    nothing = fails(*command, f"--output={tmp_path}/out", f"--images={tmp_path}/none/*.png")
    assert "none/*.png" in nothing and not (tmp_path / "out").exists()
    rate = "--config.threshold.false_alarm_rate=0.2"
    command = (*command, f"--output={tmp_path}/out", f"--images={photos}/new", rate)
    assert "--config is not for --mode=predict" in fails(*command)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "predictions.csv").write_text("precious")
    command = ("--mode=predict", f"--workdir={finished[0]}", f"--images={photos}/new")
    assert "choose another --output" in fails(*command, f"--output={taken}")
    assert [path.name for path in taken.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("rate", ["0", "1.0", "-0.1", "nan"])
def test_rates_out_of_range_before_any_training(photos, tmp_path, rate):
    line = fails(
        *arguments(photos / "good", tmp_path / "w", f"--config.threshold.false_alarm_rate={rate}")
    )
    assert "is not a number in (0, 1)" in line and not (tmp_path / "w" / "config.json").exists()


@pytest.mark.parametrize(("share", "count"), [("0.0", 0), ("0.01", 1)])
def test_too_few_held_out_images_before_any_training(photos, tmp_path, share, count):
    line = fails(*arguments(photos / "good", tmp_path / "w", f"--config.data.calibration={share}"))
    assert f"there are {count}:" in line and "--config.data.calibration" in line
    assert not (tmp_path / "w" / "config.json").exists()


def test_a_threshold_of_other_networks_is_refused(finished, photos, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(finished[0], workdir)
    content = json.loads((workdir / threshold.THRESHOLD_FILE).read_text())
    content["network"]["step"] = 40
    (workdir / threshold.THRESHOLD_FILE).write_text(json.dumps(content))
    line = fails(
        "--mode=predict",
        f"--workdir={workdir}",
        f"--images={photos}/new",
        f"--output={tmp_path}/out",
    )
    assert "made with other networks" in line and "--mode=evaluate" in line
