"""What `--mode=predict` and the Python call make of photos of other orientation, depth and size."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import oriented, save

import commands
from commands import inputs
from configs.workdir import get_config
from data import images
from engine.workdir import Facts

GOLDEN = Path(__file__).parents[1] / "golden/checkpoints_1"  # trained, at 16 px


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(GOLDEN / "workdir", tmp_path / "workdir")


@pytest.fixture(scope="module")
def parts():
    return np.load(GOLDEN / "images.npy")


def trained_on_16_bits(workdir, white_level):
    path = workdir / "facts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "white_level": white_level}))


def predicted(workdir, photos):
    """File name -> row."""
    output = workdir.parent / "output"
    unreadable = commands.predict(str(workdir), str(photos), str(output))
    with open(output / "predictions.csv", newline="", encoding="utf-8-sig") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert unreadable == sum(row["decision"] == "unreadable" for row in rows.values())
    return output, rows


NUMBERS = ("decision", "region_left", "region_top", "region_width", "region_area")


def test_a_part_gets_one_row_however_it_is_stored(workdir, parts, tmp_path):
    """Decision, score, box, map and mask are those of the upright file, for all eight tags."""
    seen = np.asarray(Image.fromarray(parts[3]).resize((48, 32)))
    for tag in range(1, 9):
        save(tmp_path / f"new/{tag}.png", images.turn_back(seen, tag), exif=oriented(tag))
    output, rows = predicted(workdir, tmp_path / "new")
    assert len(rows) == 8
    for row in rows.values():
        assert [row[name] for name in NUMBERS] == [rows["1.png"][name] for name in NUMBERS]
        for folder in ("heat_maps", "overlays", "masks"):
            shown, upright = (
                np.asarray(Image.open(output / folder / f"{each['pictures']}.png"))
                for each in (row, rows["1.png"])
            )
            assert shown.shape[:2] == (32, 48)
            np.testing.assert_array_equal(shown, upright)
    score = commands.restore_scorer(str(workdir))
    expected = score(seen)
    assert expected.region == score(str(tmp_path / "new/6.png")).region
    for row in rows.values():  # scored together, and alone
        assert float(row["score"]) == pytest.approx(expected.score, rel=1e-5)


def test_a_photo_of_12_bits_is_scaled_as_in_training(workdir, parts, tmp_path, capsys):
    trained_on_16_bits(workdir, 4095)
    grey = parts.mean(-1)
    for index, image in enumerate(grey):
        values = np.rint(image / 255 * 4095).astype(np.uint16)
        save(tmp_path / f"new/{index}.png", values)
    values[0, 0] = 4096
    save(tmp_path / "new/glaring.png", values)
    _, rows = predicted(workdir, tmp_path / "new")
    said = capsys.readouterr().out
    assert "Images of 16 bits are scaled from 0 to data.white_level, 4095, found by the" in said
    score = commands.restore_scorer(str(workdir))
    for index, image in enumerate(grey):
        level = np.rint(np.rint(image / 255 * 4095) / 4095 * 255).astype(np.uint8)
        expected = score(np.repeat(level[..., None], 3, axis=-1))
        row = rows[f"{index}.png"]
        assert (row["decision"], row["reason"]) == (expected.decision, "")
        assert float(row["score"]) == pytest.approx(expected.score, rel=1e-5)
    glaring = rows["glaring.png"]
    assert glaring["decision"] in ("good", "defective") and glaring["score"]
    reason = "values up to 4096 are above the white level 4095, and were cut off"
    assert glaring["reason"] == score(str(tmp_path / "new/glaring.png")).reason == reason


def test_16_bits_where_the_training_images_have_8_are_said(workdir, parts, tmp_path):
    save(tmp_path / "new/x.png", parts[0, ..., 0].astype(np.uint16) * 257)
    save(tmp_path / "new/y.png", parts[0, ..., 0])
    _, rows = predicted(workdir, tmp_path / "new")
    assert rows["x.png"]["score"] == rows["y.png"]["score"] and rows["y.png"]["reason"] == ""
    assert rows["x.png"]["reason"].startswith("16 bits, where the training images have 8: scaled")


def test_predict_says_once_what_is_too_coarse_to_be_seen(workdir, tmp_path, capsys):
    for name in ("a", "b"):
        save(tmp_path / f"new/{name}.png", np.zeros((30, 400, 3), np.uint8))
    save(tmp_path / "new/c.png", np.zeros((20, 18, 3), np.uint8))
    predicted(workdir, tmp_path / "new")
    said = capsys.readouterr().out
    assert said.count("Of an image of 400x30 px, shrunk to 16x16 px, the network sees 25x1.88") == 1


def test_predict_respects_the_limit_of_the_run(workdir, tmp_path):
    path = workdir / "config.json"
    config = json.loads(path.read_text())
    config["data"]["max_pixels"] = 1200
    path.write_text(json.dumps(config))
    for name, height in (("a", 30), ("b", 31)):
        save(tmp_path / f"new/{name}.png", np.zeros((height, 40, 3), np.uint8))
    _, rows = predicted(workdir, tmp_path / "new")
    assert rows["a.png"]["reason"] == "" and rows["b.png"]["decision"] == "unreadable"
    assert rows["b.png"]["reason"].startswith("40x31 px: too large")


def test_a_trained_run_keeps_its_level(workdir, tmp_path):
    """Whatever has been added to its images; another level is another run."""
    config = get_config(str(workdir))
    config.data.update(root=str(tmp_path / "root"), category="part", prepared=str(tmp_path))
    config.data.brightness = False
    for index in range(4):
        values = np.full((16, 16), 1000 + 1000 * index, np.uint16)
        save(tmp_path / f"root/part/train/good/{index}.png", values)
    assert inputs.read(config).white_level == 4095
    for level in (1023, None):
        facts = Facts(3, "", white_level=level)
        assert inputs.read(config, facts).white_level == level
        assert inputs.reading_of(config, facts).white_level == level
    config.data.white_level = 8191
    assert inputs.facts_of(config, inputs.read(config)).white_level == 8191
    with pytest.raises(ValueError, match="data.white_level 8191 is not that of the run, 1023"):
        inputs.read(config, Facts(3, "", white_level=1023))
