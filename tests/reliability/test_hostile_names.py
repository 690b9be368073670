"""Files and folders of a data set may have any name that a file system takes."""

import csv
import json
import os
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import shrink
from ml_collections import ConfigDict
from PIL import Image
from test_main import picture

import commands
from configs import fanogan
from evaluation.results import write_scores
from report.page import text
from storage.files import FORMULA

NAMES = [
    "a b",
    "=cmd|' C'!A0",
    "+1",
    "-rf",
    "@sum",
    "\tx",
    "<script>x<",
    "x' onerror='y",
    'x" onerror="y',
    "--><u>",
    "new\nline",
    "\x1b[2Jx",
    "a..b",
    "a\\..\\..\\b",
    "$\\frac{",
    "`a`|b",
    "{x!r}%s%n",
    "日本é\u202e",
    os.fsdecode(b"\xff\xfe"),
]
LONG = "x" * 250  # the map of it, a .tiff, has the longest name that there can be


def save(path, bright=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:  # Pillow would look at the name
        rng = np.random.default_rng(len(os.fsencode(path)))
        Image.fromarray(picture(rng, bright)).save(file, "PNG")


def files(folder):
    """All files below, and when they were changed last."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder, and which files training, evaluation with maps and prediction wrote into it.

    Each of the names is that of a good image in its photos/, of a defect, and of a bad image.
    """
    folder = tmp_path_factory.mktemp("names")
    for name in [*NAMES, LONG]:
        save(folder / "photos/good" / f"{name}.png")
        save(folder / "photos/bad" / name / f"{name}.png", bright=6)
    before = files(folder)
    config = shrink(fanogan.get_config("mine"))
    places = {"folder": str(folder / "photos"), "prepared": str(folder / "prepared")}
    config.data.update(**places, calibration=0.3)
    commands.train(config, str(folder / "w"))
    config = ConfigDict(json.loads((folder / "w/config.json").read_text()))
    commands.evaluate(config, str(folder / "w"), save_maps=True)
    assert commands.predict(str(folder / "w"), places["folder"], str(folder / "predicted")) == 0
    return folder, {path for path, _ in files(folder).items() - before.items()}


class Page(HTMLParser):
    """What a browser makes of the report."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.attributes, self.comments, self.text = [], set(), [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_data(self, data):
        self.text += data


@pytest.mark.promise("R15", "names of files: all that is written lies in the folders named")
def test_nothing_is_written_elsewhere(written):
    folder, new = written
    places = Counter(path.relative_to(folder).parts[:2] for path in new)
    assert {place for place, *_ in places} == {"w", "prepared", "predicted"}
    count = 2 * len([*NAMES, LONG])
    assert places["predicted", "heat_maps"] == places["predicted", "masks"] == count
    safe = re.compile("[A-Za-z0-9_.-]+")  # but in maps/, where MVTec's script looks for the names
    for path in new:
        parts = path.relative_to(folder).parts
        assert parts[:2] == ("w", "maps") or all(map(safe.fullmatch, parts)), path


@pytest.mark.promise("R15", "names of files: the report shows them as text, as they are")
def test_no_name_is_markup(written):
    page = Page(written[0] / "w/report/index.html")
    assert page.tags.count("script") == 1 and "u" not in page.tags and not page.comments
    assert not [name for name in page.attributes if name.startswith("on")]
    for name in [*NAMES, LONG]:
        assert text(name) in page.text, ascii(name)


@pytest.mark.promise("R15", "names of files: no cell of a table is a formula")
@pytest.mark.parametrize("table", ["w/scores.csv", "predicted/predictions.csv"])
def test_no_cell_is_a_formula(written, table):
    path = written[0] / table
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > len(NAMES)
    for row in rows:
        for column in ("path", "defect", "decision", "pictures", "reason"):
            assert not row.get(column, "").startswith(FORMULA), ascii(row)


def test_a_carriage_return_in_a_name_begins_no_row(tmp_path):
    one, label = np.ones(1), np.zeros(1, int)
    path = str(tmp_path / "scores.csv")
    write_scores(path, paths=["x\r=1"], defects=["good"], labels=label, scores=one, terms={})
    with open(path, newline="") as file:
        assert len(list(csv.reader(file))) == 2


def test_rows_name_the_files(written):
    lines = (written[0] / "predicted/predictions.jsonl").read_text().splitlines()
    paths = {json.loads(line)["path"] for line in lines}
    assert paths == set(map(str, (written[0] / "photos").rglob("*.png")))
