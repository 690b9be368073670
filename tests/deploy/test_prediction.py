"""Decisions on new images: what is written for each, also for the bad one in ten thousand."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from data.photos import Photo
from deploy import prediction
from engine.method import Score
from evaluation import threshold
from evaluation.false_alarms import calibrate_marks
from report import heat
from storage.outputs import PREDICTIONS

SIDE = 8
FOUND = threshold.calibrate(  # of 19 good images: score 0.2 at the most, and 0.5 in a pixel
    np.linspace(0.1, 0.2, 19), np.linspace(0.4, 0.5, 19)[:, None, None] * np.ones((1, 2, 2)), 0.05
)


def scorer(pixels):
    """Score: the mean brightness, in [0, 1]; map: the brightness."""
    assert pixels.dtype == np.uint8
    maps = pixels.mean(-1) / 255
    return Score(maps.mean((1, 2)), maps.astype(np.float32))


def photo(path, bright=(), size=(SIDE, SIDE)):
    """A dark image with bright pixels; its file is as large as `size`."""
    pixels = np.full((SIDE, SIDE, 3), 13, np.uint8)
    for row, column in bright:
        pixels[row, column] = 255
    shown = np.asarray(Image.fromarray(pixels).resize(size[::-1]))
    return Photo(path, pixels, shown, size, "")


def unreadable(path, reason="not a readable image"):
    return Photo(path, None, None, (0, 0), reason)


def rows(folder):
    with open(folder / "predictions.csv", newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file))
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    assert len(table) == len(lines)
    return table, [json.loads(line) for line in lines]


def predict_all(output, *photos, size=2):
    batches = [photos[start : start + size] for start in range(0, len(photos), size)]
    counts, watch = prediction.predict_all(
        scorer, iter(batches), FOUND, str(output), batch_size=size, done=0, total=len(photos)
    )
    assert watch.parts == len(photos) and watch.called_defective == counts["defective"]
    return counts


BRIGHT = [(row, column) for row in range(4) for column in range(3)]


def test_a_row_by_hand(tmp_path):
    """12 of 64 pixels are bright: a score of (52 x 13 + 12 x 255) / 64 / 255 = 0.229."""
    assert predict_all(tmp_path, photo("in/a part.png", BRIGHT)) == {"defective": 1}
    (row,), (line,) = rows(tmp_path)
    assert line["path"] == row["path"] == "in/a part.png"
    assert line["decision"] == row["decision"] == "defective"
    assert line["score"] == pytest.approx((52 * 13 + 12 * 255) / 64 / 255)
    assert float(row["score"]) == line["score"] and float(row["threshold"]) == FOUND.threshold
    assert line["p_value"] == 1 / 20
    region = {name: line[f"region_{name}"] for name in ("left", "top", "width", "height", "area")}
    assert region == {"left": 0, "top": 0, "width": 3, "height": 4, "area": 12}
    assert line["pictures"] == "000000_a_part" and line["reason"] is None and row["reason"] == ""
    assert list(row) == list(line) == list(prediction.ROW_COLUMNS)


def test_a_good_part_has_no_region_and_grey_pictures(tmp_path):
    assert predict_all(tmp_path, photo("good.png")) == {"good": 1}
    _, (line,) = rows(tmp_path)
    assert line["region_area"] is None and line["p_value"] == 1.0
    overlay, mask = (
        np.asarray(Image.open(tmp_path / folder / "000000_good.png"))
        for folder in ("overlays", "masks")
    )
    assert (overlay == 13).all() and not mask.any()
    assert mask.dtype == bool


def test_pictures_are_as_large_as_the_file(tmp_path):
    predict_all(tmp_path, photo("large.png", BRIGHT, size=(24, 40)))
    _, (line,) = rows(tmp_path)
    pictures = {
        folder: np.asarray(Image.open(tmp_path / folder / "000000_large.png"))
        for folder in prediction.PICTURES
    }
    assert pictures["heat_maps"].shape == pictures["overlays"].shape == (24, 40, 3)
    mask = pictures["masks"]
    outline = (pictures["overlays"] == heat.OUTLINE).all(-1)
    assert outline.any() and not outline[1:-1, 1:-1][mask[1:-1, 1:-1]].any()
    assert mask.shape == (24, 40) and mask.sum() == line["region_area"]
    top, left = np.argwhere(mask).min(axis=0)
    assert (top, left) == (line["region_top"], line["region_left"]) == (0, 0)
    assert line["region_height"] == pytest.approx(12, abs=2)
    assert line["region_width"] == pytest.approx(15, abs=3)


def test_one_bad_file_costs_its_own_row(tmp_path):
    photos = [photo("0.png"), unreadable("1.png"), photo("2.png", BRIGHT), unreadable("3.png")]
    counts = predict_all(tmp_path, *photos, photo("4.png"))
    assert counts == {"good": 2, "defective": 1, "unreadable": 2}
    table, lines = rows(tmp_path)
    assert [line["path"] for line in lines] == [f"{i}.png" for i in range(5)]
    assert lines[1]["reason"] == table[1]["reason"] == "not a readable image"
    assert lines[1]["score"] is lines[1]["pictures"] is None and table[1]["score"] == ""
    assert sorted(path.stem for path in (tmp_path / "masks").iterdir()) == [
        "000000_0",
        "000002_2",
        "000004_4",
    ]


def test_a_score_does_not_depend_on_its_neighbours():
    batch = [photo("a"), unreadable("b"), photo("c", BRIGHT)]
    together = prediction.decide_on(scorer, batch, FOUND, 4)
    alone = [prediction.decide_on(scorer, [one], FOUND, 1)[0] for one in batch]
    assert [one.score for one in together] == [one.score for one in alone]
    assert [one.decision for one in together] == ["good", "unreadable", "defective"]
    assert prediction.decide_on(scorer, [unreadable("x")], FOUND, 4)[0].reason


def test_scores_that_are_not_finite_are_no_decision():
    def broken(pixels):
        score = scorer(pixels)
        return score._replace(image=score.image * np.nan)

    (made,) = prediction.decide_on(broken, [photo("a")], FOUND, 1)
    assert made.decision == "unreadable" and "no finite score" in made.reason


def test_hostile_names(tmp_path):
    names = [
        "../../etc/passwd.png",
        "=1+1.png",
        "a/\udcff\n.png",
        "x" * 200 + ".png",
        "..",
        "a,b.png",
    ]
    predict_all(tmp_path, *(photo(name) for name in names))
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == names
    options = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    with open(tmp_path / "predictions.csv", **options) as file:
        table = list(csv.DictReader(file))
    assert table[1]["path"] == "'=1+1.png" and table[2]["path"] == names[2]
    files = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert files == sorted(f"{line['pictures']}.png" for line in lines) and len(files) == len(names)
    assert {path.name for path in tmp_path.iterdir()} == {*PREDICTIONS, *prediction.PICTURES}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_are_not_mixed_with_others(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileExistsError, match=f"{name} exists: choose another --output"):
        prediction.rows_done(str(tmp_path), ["a"], FOUND, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_was_decided_before_a_crash_is_kept(tmp_path):
    def batches():
        yield [photo("0.png"), photo("1.png")]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prediction.predict_all(
            scorer, batches(), FOUND, str(tmp_path), batch_size=2, done=0, total=4
        )
    assert len(rows(tmp_path)[1]) == 2


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("rows_left", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("cut", [0, 20])
def test_the_same_command_ends_with_the_files_of_an_unbroken_run(tmp_path, rows_left, cut):
    """Whatever of the two tables a crash has left: whole rows, and a part of one more."""
    names = ["ä.png", "=1.png", "2\n.png", os.fsdecode(b"caf\xe9.png"), "4.png"]
    photos = [photo(name, BRIGHT if name == "4.png" else ()) for name in names]
    photos[1] = unreadable(names[1])
    predict_all(tmp_path / "whole", *photos)
    predict_all(tmp_path / "broken", *photos)
    lines = tmp_path / "broken/predictions.jsonl"
    parts = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join(parts[:rows_left]) + parts[rows_left][:cut])
    table = tmp_path / "broken/predictions.csv"
    table.write_bytes(table.read_bytes()[: 90 * (5 - rows_left)])
    for path in (tmp_path / "broken").rglob("*_4.png"):
        path.write_bytes(b"half a picture")
    done = prediction.rows_done(str(tmp_path / "broken"), names, FOUND, 2)
    assert done == rows_left // 2 * 2
    rest = [photos[start : start + 2] for start in range(done, 5, 2)]
    counts, _ = prediction.predict_all(
        scorer, rest, FOUND, str(tmp_path / "broken"), batch_size=2, done=done, total=5
    )
    assert counts == {"good": 3, "defective": 1, "unreadable": 1}
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")
    assert (tmp_path / "whole/predictions.csv").read_bytes().startswith("\ufeffpath".encode())


@pytest.mark.parametrize("change", ["finished", "other images", "fewer", "another threshold"])
def test_another_run_is_not_gone_on_with(tmp_path, change):
    predict_all(tmp_path, photo("0.png"), photo("1.png"))
    names, threshold = ["0.png", "1.png", "2.png"], FOUND
    if change == "another threshold":
        threshold = FOUND._replace(threshold=FOUND.threshold + 1)
    else:
        names = {"finished": names[:2], "other images": ["0.png", "x", "y"], "fewer": ["0.png"]}[
            change
        ]
    with pytest.raises(FileExistsError, match="exists: choose another --output"):
        prediction.rows_done(str(tmp_path), names, threshold, 1)


def test_marks_by_the_number_of_false_alarms(tmp_path):
    """Where the threshold has marks they make mask and region, and the row says how improbable."""
    rng = np.random.default_rng(0)
    maps = rng.uniform(0.03, 0.06, (20, SIDE, SIDE)).astype(np.float32)
    marks = calibrate_marks(maps, 1.0, 0.05)
    by_marks = FOUND._replace(marks=marks)
    photos = [photo("good.png"), photo("bad.png", [(2, 2), (2, 3)], size=(16, 16))]
    good, bad = prediction.decide_on(scorer, photos, by_marks, 2)
    assert good.region is None and good.log10_nfa is None and not good.marked.any()
    assert bad.log10_nfa < -1 and bad.marked.shape == (16, 16) and bad.marked[4:6, 4:8].all()
    counts, _ = prediction.predict_all(
        scorer, iter([photos]), by_marks, str(tmp_path), batch_size=2, done=0, total=2
    )
    assert counts.total() == 2
    _, lines = rows(tmp_path)
    assert [line["region_log10_nfa"] for line in lines] == [None, bad.log10_nfa]
    mask = np.asarray(Image.open(tmp_path / "masks" / f"{lines[1]['pictures']}.png"))
    np.testing.assert_array_equal(mask > 0, bad.marked)
