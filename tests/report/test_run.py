"""Scores, JSON, pictures and the page: read back and compared with what went in."""

import base64
import csv
import hashlib
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import logging
from matplotlib.figure import Figure
from PIL import Image

from deploy import model_card
from evaluation import false_alarms, metrics, threshold
from evaluation.results import Scored, write_scores
from report import comparison_tables, figures, run, sheets, summary
from storage import files

ROOT = Path(__file__).parents[2]
SIDE = 16


def scored_set(good=4, defects=("cut", "cut", "hole"), reconstructions=True):
    """Grey images with a bright square where they are defective."""
    rng = np.random.default_rng(0)
    names = ["good"] * good + list(defects)
    labels = np.array([name != "good" for name in names], int)
    masks = np.zeros((len(names), SIDE, SIDE), bool)
    masks[labels == 1, 4:8, 4:8] = True
    images = rng.integers(90, 110, (len(names), SIDE, SIDE, 3)).astype(np.uint8)
    images[masks] = 255
    maps = (masks + rng.random(masks.shape) / 10).astype(np.float32)
    scores = maps.mean((1, 2))
    return Scored(
        paths=[f"test/{name}/{i:03d}.png" for i, name in enumerate(names)],
        defects=names,
        labels=labels,
        images=images,
        masks=list(masks),
        scores=scores,
        terms={"residual": scores / 2, "features": rng.random(len(names)).astype(np.float32)},
        maps=maps,
        reconstructions=images if reconstructions else None,
    )


def results_of(scored):
    return {
        "method": "fanogan",
        "category": "bottle",
        "counts": {"train": 209, "test_good": 4},
        "image": metrics.image_metrics(scored.labels, scored.scores),
        "image_terms": {name: {"auroc": 0.25, "average_precision": 0.75} for name in scored.terms},
        "per_defect": metrics.per_defect(scored.labels, scored.defects, scored.scores),
        "pixel": metrics.pixel_metrics(scored.masks, scored.maps, names=scored.paths),
        "steps": {"gan": 1800},
        "seconds": {"gan": 840.0},
        "versions": {"jax": "0.10.2"},
        "devices": ["TFRT_CPU_0"],
        "threshold": threshold.content(FOUND, {}) | {"held_out": 19},
        "at_threshold": threshold.rates(FOUND, scored.labels, scored.defects, scored.scores),
    }


FOUND = threshold.calibrate(  # all of 19 held-out good images have lower scores than a defect
    np.linspace(0.02, 0.06, 19), np.linspace(0.2, 1 / 3, 19)[:, None, None] * np.ones((2, 2)), 0.05
)


HISTORY = [
    {"stage": stage, "step": step, "seconds": 1.0, "steps_per_second": 2.0, **values}
    for stage, values in (("gan", {"critic_loss": 0.5, "nan": None}), ("encoder", {"loss": 0.1}))
    for step in (10, 20, 30)
]


def write(folder, scored, history=HISTORY, found=FOUND, results=None, **changes):
    run.write_report(
        str(folder),
        scored=scored,
        calibration=scored_set(good=3, defects=())._replace(masks=[None] * 3),
        results=(results_of(scored) if results is None else results) | changes,
        history=history,
        threshold=found,
    )


class Page(HTMLParser):
    """Collects the texts of cells, the sources of images, scripts, and other addresses."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.images, self.tags, self._cell = [], [], [], False
        self.addresses, self.text = [], path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("href", "src", "action")]
        self._cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_data(self, data):
        if self._cell:
            self.rows[-1].append(data)

    def handle_endtag(self, tag):
        self._cell = False

    def pictures(self, folder):
        """The PNG files of `folder` that the page holds, in its order."""
        names = {embedded(folder / name): name for name in os.listdir(folder) if ".png" in name}
        return [names[source] for source in self.images if source in names]


def embedded(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_scores_round_trip(tmp_path):
    scored = scored_set()
    path = str(tmp_path / "scores.csv")
    columns = {key: getattr(scored, key) for key in ("paths", "defects", "labels", "terms")}
    write_scores(path, scores=scored.scores, **columns)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "defect", "label", "score", "residual", "features"]
    assert [row["path"] for row in rows] == scored.paths
    assert [int(row["label"]) for row in rows] == scored.labels.tolist()
    for name, values in {"score": scored.scores, **scored.terms}.items():
        assert np.array_equal(np.array([row[name] for row in rows], np.float32), values)
    assert os.listdir(tmp_path) == ["scores.csv"]


def test_float64_scores_keep_all_bits(tmp_path):
    values = np.array([1 / 3, 1e-300, 123456789.123456789])
    write_scores(
        str(tmp_path / "s.csv"),
        paths="abc",
        defects="abc",
        labels=[0, 1, 1],
        scores=values,
        terms={},
    )
    with open(tmp_path / "s.csv", newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == values.tolist()


def test_file_names_are_no_formulas(tmp_path):
    names = ["=1+1", "+a", "-b", "@c", 'a,"b\nc', "a=b", os.fsdecode(b"\xff.png")]
    write_scores(
        str(tmp_path / "s.csv"),
        paths=names,
        defects=names,
        labels=np.zeros(7, int),
        scores=-np.ones(7),
        terms={},
    )
    with open(tmp_path / "s.csv", newline="", errors="surrogateescape") as file:
        rows = list(csv.reader(file))[1:]
    expected = ["'=1+1", "'+a", "'-b", "'@c", 'a,"b\nc', "a=b", os.fsdecode(b"\xff.png")]
    assert [row[0] for row in rows] == [row[1] for row in rows] == expected
    assert rows[0][3] == "-1.0"


def test_columns_of_other_lengths_write_nothing(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        write_scores(
            str(tmp_path / "s.csv"), paths="ab", defects="a", labels=[0], scores=[0.0], terms={}
        )
    assert os.listdir(tmp_path) == []


def test_json_is_strict_and_atomic(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(str(path), {"auroc": None, "steps": {"gan": 3}})
    assert json.loads(path.read_text()) == {"auroc": None, "steps": {"gan": 3}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(str(path), {"auroc": float("nan")})
    assert json.loads(path.read_text())["steps"] == {"gan": 3}


def test_report_has_every_picture_and_number(tmp_path):
    scored = scored_set()
    write(tmp_path, scored)
    page = Page(tmp_path / "index.html")
    curves = ["roc.png", "precision_recall.png", "histogram.png", "training_curves.png"]
    names = [*curves, *(f"defect_{n}.png" for n in ("cut", "good", "hole"))]
    assert page.pictures(tmp_path) == names
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "index.html"])
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 300
    auroc = f"{results_of(scored)['image']['auroc']:.4f}"
    assert auroc in next(row for row in page.rows if row[0] == "image score")
    assert ["residual", "0.2500", "0.7500", "0.4286"] in page.rows
    assert ["gan", "1800", "14 min"] in page.rows
    assert ["jax", "0.10.2"] in page.rows
    pixel = next(row for row in page.rows if row[0] == "each mask's own size")
    assert pixel[-2:] == [f"{results_of(scored)['pixel']['au_pro']:.4f}", "0.3000"]


def test_one_class_skips_the_curves_and_says_why(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: warnings.append(text % args))
    write(tmp_path, scored_set(defects=()), history=[])
    page = Page(tmp_path / "index.html")
    assert page.pictures(tmp_path) == ["histogram.png", "defect_good.png"]
    assert warnings == [
        "No ROC curve is drawn: the test images are not of two classes.",
        "training_curves.png is not drawn: there is no training history",
    ]
    score = next(row for row in page.rows if row[0] == "image score")
    assert score[1:] == ["not available: no defective test images", "\u2013", "0.0000"]


def test_no_masks_no_reconstructions_no_results(tmp_path):
    scored = scored_set(reconstructions=False)
    scored = scored._replace(masks=[None] * 7, terms={})
    write(tmp_path, scored, history=[], results={})
    assert (tmp_path / "defect_cut.png").exists()


def test_hostile_names_stay_inside_and_are_escaped(tmp_path):
    folder = tmp_path / "report"
    hostile = ["../../up", "<script>x</script>", "$\\frac$", "\ud55c\n", os.fsdecode(b"\xff")]
    scored = scored_set(good=2, defects=hostile)
    write(folder, scored, category="<b>&")
    page = Page(folder / "index.html")
    assert page.tags.count("script") == 1 and "<script>x" not in page.text
    assert "&lt;script&gt;x" in page.text and "&lt;b&gt;&amp;" in page.text
    assert os.listdir(tmp_path) == ["report"]
    for name in os.listdir(folder):
        assert re.fullmatch("[A-Za-z0-9_-]+[.](png|html)", name)
    assert len([name for name in page.pictures(folder) if name.startswith("defect_")]) == 6


def test_safe_names_are_unique_where_case_is_ignored():
    safe = files.safe_names(["a/b", "a b", "A?B", "a_b_1", ""])
    assert list(safe.values()) == ["a_b", "a_b_1", "A_B_2", "a_b_1_1", ""]


def test_examples_are_evenly_spaced_by_score(tmp_path, monkeypatch):
    seen = {}

    def examples(**given):
        seen.update(given)
        return Figure()

    monkeypatch.setattr(sheets, "examples", examples)
    scored = scored_set(good=0, defects=["cut"] * 21)
    scored = scored._replace(scores=np.random.default_rng(0).permutation(21) / 100)
    write(tmp_path, scored)
    shown = [float(caption.split()[1]) for caption in seen["captions"]]
    assert shown == [0.0, 0.04, 0.08, 0.12, 0.16, 0.2]
    assert seen["note"] == "6 of 21 images, evenly spaced by score, lowest to highest"
    first = int(np.argmin(scored.scores))
    assert np.array_equal(seen["images"][0], scored.images[first])
    assert np.array_equal(seen["maps"][0], scored.maps[first])
    assert seen["marked"] is None and "outlined" not in Page(tmp_path / "index.html").text


def test_the_page_shows_what_is_marked(tmp_path, monkeypatch):
    """As the automatic marks of calibration maps have it, where predict writes them into masks/."""
    seen = {}

    def examples(**given):
        seen.update(given)
        return Figure()

    monkeypatch.setattr(sheets, "examples", examples)
    scored = scored_set(good=0, defects=["cut"] * 3)
    scored = scored._replace(scores=np.array([0.01, 0.02, 0.9]))
    normal = np.random.default_rng(1).random((20, SIDE, SIDE), np.float32) / 10
    marks = false_alarms.calibrate_marks(normal, 0.05, 0.05)
    write(tmp_path, scored, found=FOUND._replace(marks=marks))
    for mask, marked in zip(scored.masks, seen["marked"], strict=True):
        assert marked[mask].all() and marked.sum() < 3 * mask.sum()
    wanted = false_alarms.log_nfa(scored.maps, marks.background) < marks.limit
    assert np.array_equal(seen["marked"], wanted)
    text = Page(tmp_path / "index.html").text
    assert "Marked is what is outlined" in text and text.count("Outlined: what is marked.") == 1


@pytest.mark.parametrize("map_max", [0.0, -1.0, float("nan"), float("inf")])
def test_colour_scale_must_be_positive(tmp_path, map_max):
    with pytest.raises(ValueError, match="positive number"):
        write(tmp_path, scored_set(), found=FOUND._replace(map_max=map_max))


def test_the_page_needs_nothing_outside_itself(tmp_path):
    write(tmp_path, scored_set())
    page = Page(tmp_path / "index.html")
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    assert "://" not in page.text and "url(" not in page.text
    (script,) = re.findall("<script>(.*?)</script>", page.text, re.DOTALL)
    assert script == (ROOT / "report" / "templates" / "gallery.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"
    assert f"{policy} 'sha256-{digest}'" in page.text


def test_the_verdict_is_on_top(tmp_path):
    scored = scored_set()
    scores = scored.scores.copy()
    scores[0], scores[-1] = 0.9, 0.01  # a false alarm, and a hole that is missed
    write(tmp_path, scored._replace(scores=scores))
    top = Page(tmp_path / "index.html").text.split("<h2>Curves")[0]
    assert "<b>1 of 4</b>good test parts called defective" in top
    assert "<b>1 of 3</b>defective test parts not called so" in top
    assert "5 % false alarms: guaranteed" in top and "NOT" not in top
    for sentence in threshold.statement(FOUND):
        assert sentence in html.unescape(top)
    low, high = threshold.rates(FOUND, [1], ["hole"], np.array([0.01]))["hole"]["interval"]
    row = next(row for row in Page(tmp_path / "index.html").rows if row[0] == "hole")
    assert row[1:4] == ["1", "1 miss", "miss rate 100 %"]
    assert row[4] == f"{threshold.percent(low)} to {threshold.percent(high)}"


def test_a_rate_that_is_not_guaranteed_is_seen_to_be_none(tmp_path):
    few = threshold.calibrate(np.linspace(0.02, 0.06, 6), np.ones((6, 2, 2)), 0.05)
    told = threshold.content(few, {}) | {"held_out": 6}
    write(tmp_path, scored_set(), found=few, threshold=told)
    text = Page(tmp_path / "index.html").text
    assert 'class="promise broken"' in text and "5 % false alarms: NOT guaranteed" in text


def test_without_test_images_the_held_out_ones_are_shown(tmp_path):
    write(tmp_path, scored_set(good=0, defects=()))
    text = Page(tmp_path / "index.html").text
    assert "There are no test images, so how often defects are missed is not known." in text
    assert text.count("<figure data-type=") == 3 and 'class="worst"' not in text
    assert (tmp_path / "histogram.png").exists()


@pytest.mark.parametrize(("top", "scale"), [(1.0, "log"), (0.04, "linear"), (-1.0, "linear")])
def test_the_histogram_tells_good_scores_apart(top, scale):
    """Also where a defect has a score a hundred times as high: by a logarithmic scale."""
    scores = np.array([0.01, 0.02, 0.03, top])
    labels = np.array([0, 0, 0, 1])
    (axes,) = figures.histogram(labels, scores, "title", calibration=[0.01, 0.015]).axes
    assert axes.get_xscale() == scale
    good, defective, held_out = [patch.get_data().values for patch in axes.patches]
    assert (good.sum(), defective.sum(), held_out.sum()) == (3, 1, 2)
    assert top < 0 or (good > 0).sum() == 3


def test_a_row_of_metrics_is_shown_everywhere(tmp_path, monkeypatch):
    """A metric more is one more row of `METRICS`, and nothing else."""
    lowest = metrics.Metric("image", "lowest", "lowest score", lambda _, scores: scores.min(), True)
    half = metrics.Metric("pixel", "half", "half a pixel", lambda *_: 0.5)
    rows = (*metrics.METRICS, lowest, half)
    for module in (metrics, summary, run, comparison_tables):
        monkeypatch.setattr(module, "METRICS", rows)
    scored = scored_set()
    value = float(scored.scores.min())
    results = results_of(scored) | {"threshold": {"statement": []}, "at_threshold": {}}
    assert results["image"]["lowest"] == value  # as results.json has it
    assert summary.summary(results).count(f"lowest score {value:.3f}") == 1
    own = {"own_one": 0.25, "own_none": None}
    write(tmp_path, scored, own=own)
    page = Page(tmp_path / "index.html")
    assert next(row for row in page.rows if row[0] == "score")[-1] == "lowest score"
    assert next(row for row in page.rows if row[0] == "image score")[-1] == f"{value:.4f}"
    header = next(row for row in page.rows if row[0] == "resolution")
    assert header[-3:] == ["AU-PRO", "up to a false-positive rate of", "half a pixel"]
    assert ["own one", "0.25"] in page.rows and ["own none", "–"] in page.rows
    trial = model_card.Trial(5, {}, 0.0)
    options = {"shape": (SIDE, SIDE, 3), "trial": trial, "without_onnx": "", "files": []}
    card = model_card.card_text(results | {"own": own}, [], **options).splitlines()
    assert card.count(f"| image lowest | {value:.3f} |") == 1
    assert "| pixel half | 0.500 |" in card
    assert "| own own one | 0.250 |" in card and "| own own none | - |" in card
    compared = SimpleNamespace(results={"own": own})
    headings = [column.heading for column in comparison_tables.columns_of([compared])]
    assert headings[3] == "lowest score" and "lowest score" not in headings[4:]
    assert headings[-3:] == ["half a pixel", "own one", "own none"]
