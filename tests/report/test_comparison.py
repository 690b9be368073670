"""Comparison pages of workdirs written by hand: numbers, refusals, escaping, three equal files."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from evaluation import bootstrap, metrics
from evaluation.results import read_run, write_scores
from report import comparison, comparison_tables, page
from storage import files

SIDE = 16
DEFECTS = ["good"] * 6 + ["cut"] * 4 + ["hole"] * 5


def labelled(defects=DEFECTS, side=SIDE, masked=True):
    """Grey images; a bright square where they are defective."""
    labels = np.array([name != "good" for name in defects], int)
    masks = np.zeros((len(defects), side, side), bool)
    masks[labels == 1, 4:8, 4:8] = True
    images = np.full((len(defects), side, side, 3), 100, np.uint8)
    images[masks] = 255
    return SimpleNamespace(
        images=images,
        paths=[f"test/{name}/{i:03d}.png" for i, name in enumerate(defects)],
        defects=list(defects),
        labels=labels,
        masks=[
            mask if masked or not label else None for mask, label in zip(masks, labels, strict=True)
        ],
    )


def write_run(
    folder,
    *,
    name="AE",
    category="bottle",
    seed=0,
    size=8,
    test=None,
    made=True,
    **config,
):
    """A finished workdir of random scores and maps, different for each folder name."""
    test = test or labelled()
    rng = np.random.default_rng([seed, *folder.name.encode()])
    scores = np.round(rng.normal(test.labels, 1), 1)
    maps = rng.random((len(test.paths), size, size)).astype(np.float32)
    for place, mask in enumerate(test.masks):
        if mask is not None and mask.any():
            step = len(mask) // size
            maps[place] += 0.4 * np.asarray(mask[::step, ::step], np.float32)
    data = {"category": category, "image_size": size, "root": str(folder)}
    config = {
        "name": name,
        "seed": seed,
        "data": data,
        "evaluation": {"pixel_size": 0},
        "every": {"log": seed},
        "width": 1,
    } | config
    folder.mkdir(parents=True)
    files.write_json(str(folder / "config.json"), config)
    sources = {"train": {"train/good/0.png": "a" * 64}, "calibration": {}, "test": {}}
    files.write_json(str(folder / "sources.json"), sources)
    files.write_json(str(folder / "facts.json"), {"num_train": 1, "digest": "a" * 64})
    results = {
        "method": name,
        "category": category,
        "seed": seed,
        "image": metrics.image_metrics(test.labels, scores),
        "per_defect": metrics.per_defect(test.labels, test.defects, scores),
        "pixel": metrics.pixel_metrics(test.masks, maps, names=test.paths),
        "steps": {"train": 100},
        "devices": ["cpu"],
        "seconds_per_image": 0.0125,
    }
    files.write_json(str(folder / "results.json"), results)
    write_scores(
        str(folder / "scores.csv"),
        paths=test.paths,
        defects=test.defects,
        labels=test.labels,
        scores=scores,
        terms={"residual": scores},
    )
    arrays = {"maps": maps, "map_max": np.float32(1.5)}
    if made:
        arrays["reconstructions"] = np.full((len(maps), size, size, 3), 90, np.uint8)
    np.savez_compressed(folder / "predictions.npz", **arrays)
    return str(folder)


class Page(HTMLParser):
    """Titles, rows of cells and image sources; text of anything else."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.images, self.tags, self.text = {}, [], set(), ""
        self._title, self._place, self.sources = "", "", []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href", "data", "srcset")]
        self._place = tag
        if tag == "h2":
            self._title = ""
        if tag == "table":
            self.tables[self._title] = []
        if tag == "tr":
            self.tables[self._title].append([])
        if tag in ("td", "th"):
            self.tables[self._title][-1].append("")

    def handle_data(self, data):
        self.text += data
        if self._place == "h2":
            self._title += data
        if self._place in ("td", "th"):
            self.tables[self._title][-1][-1] += data

    def handle_endtag(self, tag):
        self._place = ""


def markdown_tables(text):
    """Title -> rows of cells, with the escapes undone."""
    tables, title = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            title = re.sub(r"\\(.)", r"\1", line[3:])
        if line.startswith("| "):
            cells = re.split(r"(?<!\\) ?\| ?", line)[1:-1]
            tables.setdefault(title, []).append([re.sub(r"\\(.)", r"\1", cell) for cell in cells])
    return {title: [rows[0], *rows[2:]] for title, rows in tables.items()}


def compare(tmp_path, *workdirs, test=None):
    """The page, the Markdown and the JSON of a comparison."""
    out = tmp_path / "out"
    markdown = comparison.write_comparison(workdirs, lambda run: test or labelled(), str(out))
    assert sorted(os.listdir(out)) == ["compare.html", "compare.json", "compare.md"]
    assert (out / "compare.md").read_text() == markdown
    content = json.loads((out / "compare.json").read_text(), parse_constant=pytest.fail)
    return Page(out / "compare.html"), markdown, content


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(comparison.figures, "DPI", 30)


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time, and thresholds of pixels; few tests need them."""
    monkeypatch.setattr(bootstrap, "QUANTILES", 20)
    for name in ("curves", "histograms"):
        monkeypatch.setattr(comparison.figures, name, lambda *_: Figure())
    monkeypatch.setattr(comparison.sheets, "side_by_side", lambda *_: Figure())


def test_page_of_three_methods(tmp_path):
    runs = [
        write_run(tmp_path / "ae", made=False),
        write_run(tmp_path / "fanogan", name="f-AnoGAN"),
        write_run(tmp_path / "anogan", name="AnoGAN", size=4),
    ]
    asked = []

    def load(run):
        asked.append(run.config["data"]["image_size"])
        return labelled()

    comparison.write_comparison(runs, load, str(tmp_path / "out"))
    assert asked == [8]
    found = Page(tmp_path / "out" / "compare.html")
    assert len(found.sources) == 5  # curves, histograms, three types of images
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in found.sources)
    assert "://" not in (tmp_path / "out" / "compare.html").read_text()
    assert "script" not in found.tags
    assert list(found.tables) == [
        "bottle: metrics",
        "bottle: image AUROC by defect type",
        "Runs",
    ]
    header, *rows = found.tables["bottle: metrics"]
    assert [row[0] for row in rows] == ["AE", "f-AnoGAN", "AnoGAN"]
    assert {row[header.index("seconds per image")] for row in rows} == {"0.0125"}
    for text in ("training is not repeated", "upper bound", "median image", "own colour scale"):
        assert text in found.text.lower()


def test_numbers_are_those_of_the_runs(tmp_path, no_pictures):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    table = compare(tmp_path, *runs)[2]["tables"][0]
    for workdir, row in zip(runs, table["rows"], strict=True):
        cells = dict(zip(table["header"], row, strict=True))
        run = read_run(workdir)
        assert cells["image AUROC"]["value"] == run.results["image"]["auroc"]
        again = bootstrap.curve_metrics(
            bootstrap.image_counts(run.labels, run.scores), bootstrap.resamples(run.labels)
        )
        low, high = np.quantile(again["auroc"], [0.025, 0.975])
        assert cells["image AUROC"] == {
            "value": run.results["image"]["auroc"],
            "low": low,
            "high": high,
        }
        assert cells["AU-PRO up to 0.3"]["value"] == run.results["pixel"]["au_pro"]
        assert cells["AU-PRO up to 0.3"]["low"] < cells["AU-PRO up to 0.3"]["high"]
        assert cells["F1 if all are called defective"] == pytest.approx(2 * 0.6 / 1.6)
        assert cells["prevalence"] == 0.6
        assert cells["pixel prevalence"] == run.results["pixel"]["prevalence"]


def test_a_row_of_metrics_and_own_ones_are_columns(tmp_path, no_pictures, monkeypatch):
    """None has an interval, since no bootstrap knows them; who lacks an own one gets a dash."""
    lowest = metrics.Metric("image", "lowest", "lowest score", lambda _, scores: scores.min())
    half = metrics.Metric("pixel", "half", "half a pixel", lambda *_: 0.5, chance=True)
    rows = (*metrics.METRICS, lowest, half)
    for module in (metrics, comparison_tables):
        monkeypatch.setattr(module, "METRICS", rows)
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", seed=1),
        write_run(tmp_path / "c", name="B"),
    ]
    for workdir, own in zip(runs, ({"my_recall": 0.25}, {"my_recall": 0.75}, {}), strict=True):
        path = Path(workdir) / "results.json"
        results = json.loads(path.read_text())
        files.write_json(path, results | ({"own": own} if own else {}))
    found, markdown, content = compare(tmp_path, *runs)
    tables = {table["title"]: table for table in content["tables"]}
    table = tables["bottle: metrics"]
    assert table["header"][4:6] == ["lowest score", "best F1 (upper bound)"]
    assert table["header"][-4:-2] == ["half a pixel", "my recall"]
    for workdir, row, recall in zip(runs, table["rows"], (0.25, 0.75, None), strict=True):
        cells = dict(zip(table["header"], row, strict=True))
        assert cells["lowest score"] == read_run(workdir).scores.min()
        assert (cells["half a pixel"], cells["my recall"]) == (0.5, recall)
        assert set(cells["image AUROC"]) == {"value", "low", "high"}
    cells = dict(zip(tables["Over seeds"]["header"], tables["Over seeds"]["rows"][0], strict=True))
    assert cells["my recall"] == {"mean": 0.5, "std": pytest.approx(0.125**0.5)}
    assert cells["half a pixel"] == 0.5
    assert found.tables["bottle: metrics"][3][-3] == "–"
    assert markdown_tables(markdown)["bottle: metrics"] == found.tables["bottle: metrics"]


def test_precision_and_f1_stand_beside_chance_in_every_table(tmp_path, no_pictures):
    runs = [write_run(tmp_path / f"{c}{s}", seed=s, category=c) for c in "xy" for s in (0, 1)]
    tables = compare(tmp_path, *runs)[2]["tables"]
    pairs = {
        "average precision": "prevalence",
        "best F1 (upper bound)": "F1 if all are called defective",
        "pixel average precision": "pixel prevalence",
    }
    seen = 0
    for table in tables:
        for name, chance in pairs.items():
            if name in table["header"]:
                seen += 1
                place = table["header"].index(name)
                assert table["header"][place + 1] == chance
                assert all(isinstance(row[place + 1], float) for row in table["rows"])
                assert any("upper bound" in note for note in table["notes"])
    assert seen == 3 * 4  # two categories, over seeds, over categories


def test_three_files_hold_the_same_tables(tmp_path, no_pictures):
    runs = [
        write_run(tmp_path / f"{c}{n}{s}", name=n, seed=s, category=c)
        for c, n, s in [("x", "A", 0), ("x", "A", 1), ("x", "B_", 0), ("y", "A", 0), ("y", "C", 0)]
    ]
    found, markdown, content = compare(tmp_path, *runs)
    types = {("value", "low", "high"): page.Interval, ("mean", "std"): page.Spread}

    def text(cell):
        return page.text(types[tuple(cell)](**cell) if isinstance(cell, dict) else cell)

    listed = {
        table["title"]: [table["header"], *[[text(cell) for cell in row] for row in table["rows"]]]
        for table in content["tables"]
    }
    assert listed == found.tables == markdown_tables(markdown)
    assert len(listed) == 7
    for table in content["tables"]:
        for line in [table["about"], *table["notes"]]:
            assert line in found.text


def test_seeds_and_categories_by_hand(tmp_path, no_pictures):
    runs = [write_run(tmp_path / f"s{s}", seed=s, category="x") for s in (2, 0, 1)]
    runs += [write_run(tmp_path / "other", name="B", category="x")]
    runs += [write_run(tmp_path / "y", category="y")]
    tables = {table["title"]: table for table in compare(tmp_path, *runs)[2]["tables"]}
    aurocs = [read_run(run).results["image"]["auroc"] for run in runs]
    (row,) = tables["Over seeds"]["rows"]
    cells = dict(zip(tables["Over seeds"]["header"], row, strict=True))
    mean = sum(aurocs[:3]) / 3
    std = (sum((value - mean) ** 2 for value in aurocs[:3]) / 2) ** 0.5
    assert row[:3] == ["x", "AE", [0, 1, 2]]
    assert cells["image AUROC"] == {"mean": pytest.approx(mean), "std": pytest.approx(std)}
    assert cells["prevalence"] == pytest.approx(0.6)
    first, second = tables["Mean over categories"]["rows"]
    assert first[:3] == ["AE", "all 2", pytest.approx((mean + aurocs[4]) / 2)]
    assert second[:3] == ["B", "1 of 2 categories", pytest.approx(aurocs[3])]


def test_per_defect_table(tmp_path, no_pictures):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    table = compare(tmp_path, *runs)[2]["tables"][1]
    assert table["header"] == ["method", "seed", "cut (4)", "hole (5)"]
    for workdir, row in zip(runs, table["rows"], strict=True):
        entries = read_run(workdir).results["per_defect"]
        assert row[2:] == [entries["cut"]["auroc"], entries["hole"]["auroc"]]


def test_choice_is_the_median_and_the_hardest_by_mean_rank():
    defects = ["good"] * 3 + ["cut"] * 3 + ["one"]
    scores = [
        np.array([0.1, 0.2, 0.3, 5.0, 1.0, 2.0, 0.0]),
        np.array([10.0, 30.0, 20.0, 0.3, 0.1, 0.2, 0.0]),
        np.array([1.0, 2.0, 3.0, 9.0, 7.0, 8.0, 0.0]),
    ]
    chosen = comparison.choose(defects, scores)
    # Mean ranks of good: 1, 7/3, 8/3; of cut: 3, 1, 2. One scale does not outweigh the others.
    assert chosen == {"cut": [5, 4], "one": [6], "good": [1, 2]}
    assert list(chosen) == ["cut", "one", "good"]
    assert comparison.choose(["cut"] * 7, [np.arange(7.0)]) == {"cut": [3, 0]}
    assert comparison.choose(["good"] * 7, [np.arange(7.0)]) == {"good": [3, 6]}


def test_pictures_show_the_chosen_images(tmp_path, no_pictures, monkeypatch):
    seen = []
    monkeypatch.setattr(
        comparison.sheets, "side_by_side", lambda *given: seen.append(given) or Figure()
    )
    runs = [write_run(tmp_path / "a", made=False), write_run(tmp_path / "b", name="B")]
    test = labelled()
    test.images[:, 0, 0, 0] = np.arange(15)
    compare(tmp_path, *runs, test=test)
    read = [read_run(run) for run in runs]
    chosen = comparison.choose(read[0].defects, [run.scores for run in read])
    for (examples, shown), (defect, places) in zip(seen, chosen.items(), strict=True):
        extreme = "highest-ranked" if defect == "good" else "hardest"
        assert [e.heading for e in examples] == [f"{defect}: median", f"{defect}: {extreme}"]
        assert [int(e.image[0, 0, 0]) for e in examples] == places
        assert [one.name for one in shown] == ["AE", "B"]
        assert shown[0].reconstructions == [None, None]
        for workdir, one, run in zip(runs, shown, read, strict=True):
            with np.load(os.path.join(workdir, "predictions.npz")) as arrays:
                assert np.array_equal(one.maps, arrays["maps"][places])
            assert one.scores == run.scores[places].tolist()
            assert one.map_max == 1.5


def test_labels_tell_configs_of_one_name_apart(tmp_path, no_pictures):
    runs = [
        write_run(tmp_path / "p" / "w"),
        write_run(tmp_path / "q" / "w", width=2),
        write_run(tmp_path / "wide", width=3),
        write_run(tmp_path / "wide1", width=3, seed=1),
        write_run(tmp_path / "large", size=16, test=labelled(side=32)),
        write_run(tmp_path / "b", name="B"),
    ]
    table = compare(tmp_path, *runs)[2]["tables"]
    titles = {entry["title"]: entry for entry in table}
    assert [row[0] for row in titles["bottle: metrics"]["rows"]] == [
        f"AE ({tmp_path / 'p' / 'w'})",
        f"AE ({tmp_path / 'q' / 'w'})",
        "AE (wide)",
        "AE (wide1)",
        "AE (large)",
        "B",
    ]
    ((_, label, seeds, *_),) = titles["Over seeds"]["rows"]
    assert (label, seeds) == ("AE (wide), AE (wide1)", [0, 1])


def test_one_class_and_missing_masks(tmp_path, no_pictures):
    good = labelled(["good"] * 5)
    runs = [write_run(tmp_path / n, name=n, test=good, category="x") for n in "ab"]
    found, *_ = compare(tmp_path, *runs, test=good)
    assert found.tables["x: metrics"][1][1:6] == ["–", "–", "0", "–", "–"]
    assert found.text.count("There are no image metrics: no defective test images.") == 1
    assert len(found.sources) == 2  # a histogram, the good images
    bare = labelled(masked=False)
    runs = [write_run(tmp_path / f"{n}2", name=n, test=bare, category="x") for n in "ab"]
    found, *_ = compare(tmp_path, *runs, test=bare)
    assert found.tables["x: metrics"][1][6:10] == ["–"] * 4
    assert found.text.count("There are no pixel metrics: 9 of 9 defective images have no mask") == 1
    assert "(" in found.tables["x: metrics"][1][1]


def test_one_class_is_drawn(tmp_path):
    good = labelled(["good"])
    runs = [write_run(tmp_path / n, name=n, test=good) for n in "ab"]
    found, *_ = compare(tmp_path, *runs, test=good)
    assert len(found.sources) == 2


def test_no_mean_where_a_category_lacks_the_number(tmp_path, no_pictures):
    good = labelled(["good"] * 5)
    runs = [write_run(tmp_path / "x0", category="x"), write_run(tmp_path / "y0", category="y")]
    runs[1] = write_run(tmp_path / "y1", category="y", test=good)
    tests = {"x": labelled(), "y": good}
    comparison.write_comparison(runs, lambda run: tests[run.category], str(tmp_path / "o"))
    row = Page(tmp_path / "o" / "compare.html").tables["Mean over categories"][1]
    assert row[:4] == ["AE", "all 2", "–", "–"]


def test_resolutions_that_differ_are_said(tmp_path, no_pictures):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    path = tmp_path / "b" / "results.json"
    path.write_text(path.read_text().replace("each mask's own size", "16 x 16"))
    assert "do not compare: maps and masks are brought to" in compare(tmp_path, *runs)[0].text


def test_hostile_names_are_escaped(tmp_path):
    name = "<script>x</script>|`a`\n# b"
    hostile = labelled(["good", "good", "a|b\n\n| c", "=1+1", os.fsdecode(b"\xff")])
    runs = [
        write_run(tmp_path / "a", category="<b>", test=hostile),
        write_run(tmp_path / "b", category="<b>", test=hostile, name=name),
    ]
    found, markdown, content = compare(tmp_path, *runs, test=hostile)
    assert not {"script", "b"} & found.tags
    assert found.tables["<b>: metrics"][2][0] == name
    header = ["method", "seed", "'=1+1 (1)", "a|b | c (1)", "? (1)"]
    rows = markdown_tables(markdown)["<b>: image AUROC by defect type"]
    assert sorted(rows[0][2:]) == sorted(["=1+1 (1)", *header[3:]])
    assert all(len(row) == 5 for row in rows)
    assert not re.search(r"(?<!\\)<", markdown)
    assert content["tables"][0]["rows"][1][0] == name


@pytest.mark.parametrize("file", ["config.json", "results.json", "scores.csv", "predictions.npz"])
def test_unfinished_workdirs_are_refused(tmp_path, file):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    os.remove(tmp_path / "b" / file)
    way_out = "--config=" if file == "config.json" else f"--mode=evaluate --workdir={runs[1]}"
    with pytest.raises(ValueError, match=f"{re.escape(runs[1])}/{file} is missing.*{way_out}"):
        compare(tmp_path, *runs)
    assert not (tmp_path / "out").exists()


def edit_json(file, *keys):
    """Takes an entry out of a JSON file."""

    def edit(folder):
        content = json.loads((folder / file).read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        (folder / file).write_text(json.dumps(content))

    return edit


def edit_npz(**changes):
    def edit(folder):
        with np.load(folder / "predictions.npz") as arrays:
            content = {**arrays, **changes}
        np.savez(folder / "predictions.npz", **{k: v for k, v in content.items() if v is not None})

    return edit


def rewrite(file, change):
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


DAMAGES = {
    "not JSON": ("config.json", rewrite("config.json", lambda b: b[:50])),
    "not text": ("results.json", rewrite("results.json", lambda b: b"\xff\xfe" + b)),
    "a list": ("results.json", rewrite("results.json", lambda b: b"[]")),
    "NaN": ("results.json", rewrite("results.json", lambda b: b.replace(b"0.0125", b"NaN"))),
    "no sums": ("sources.json", edit_json("sources.json", "train")),
    "no pixel size": ("config.json", edit_json("config.json", "evaluation", "pixel_size")),
    "no AU-PRO": ("results.json", edit_json("results.json", "pixel", "au_pro")),
    "empty table": ("scores.csv", rewrite("scores.csv", lambda b: b"")),
    "columns": ("scores.csv", rewrite("scores.csv", lambda b: b.replace(b"label", b"class"))),
    "short row": ("scores.csv", rewrite("scores.csv", lambda b: b + b"test/x.png,good\n")),
    "no number": ("scores.csv", rewrite("scores.csv", lambda b: b + b"x,good,0,high,1\n")),
    "nan score": ("scores.csv", rewrite("scores.csv", lambda b: b + b"x,good,0,nan,1\n")),
    "label": ("scores.csv", rewrite("scores.csv", lambda b: b + b"x,good,2,1.0,1\n")),
    "empty npz": ("predictions.npz", rewrite("predictions.npz", lambda b: b"")),
    "cut npz": ("predictions.npz", rewrite("predictions.npz", lambda b: b[: len(b) // 2])),
    "flipped": ("predictions.npz", rewrite("predictions.npz", lambda b: b[:90] + b"?!" + b[92:])),
    "no maps": ("predictions.npz", edit_npz(maps=None)),
    "pickled": ("predictions.npz", edit_npz(maps=np.array([{}], object))),
    "map count": ("predictions.npz", edit_npz(maps=np.zeros((14, 8, 8), np.float32))),
    "map NaN": ("predictions.npz", edit_npz(maps=np.full((15, 8, 8), np.nan, np.float32))),
    "picture count": ("predictions.npz", edit_npz(reconstructions=np.zeros((9, 8, 8, 3), "u1"))),
    "picture type": ("predictions.npz", edit_npz(reconstructions=np.zeros((15, 8, 8, 3)))),
    "map_max": ("predictions.npz", edit_npz(map_max=np.float32(0))),
}


@pytest.mark.parametrize(("file", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused_in_one_line(tmp_path, no_pictures, file, damage):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    damage(tmp_path / "b")
    with pytest.raises(ValueError, match=f"^{re.escape(runs[1])}/{file} is damaged [(].*$"):
        compare(tmp_path, *runs)
    assert not (tmp_path / "out").exists()


def test_one_run_twice_is_refused(tmp_path):
    run = write_run(tmp_path / "a")
    with pytest.raises(ValueError, match="1 workdir to compare: name two or more"):
        compare(tmp_path, run)
    with pytest.raises(ValueError, match=f"{run} and {run}/ are one workdir"):
        compare(tmp_path, run, f"{run}/")
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(ValueError, match="are one workdir"):
        compare(tmp_path, run, str(tmp_path / "link"))


def test_copies_of_a_run_are_refused(tmp_path):
    runs = [write_run(tmp_path / n, every={"log": i}) for i, n in enumerate("ab")]
    with pytest.raises(
        ValueError,
        match=f"{runs[0]} and {runs[1]} have the same config, category bottle and seed 0",
    ):
        compare(tmp_path, *runs)


def test_different_images_are_refused(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    path = tmp_path / "b" / "sources.json"
    path.write_text(path.read_text().replace("a" * 64, "b" * 64))
    with pytest.raises(
        ValueError,
        match=f"{runs[0]} and {runs[1]} hold different test sets of bottle: "
        "from the former to the latter train/good: 1 changed .0.png.",
    ):
        compare(tmp_path, *runs)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (
            "test/hole/014.png,hole,",
            None,
            "15 and 14 images in scores.csv, first different at image 15: 'test/hole/014.png' "
            ".'hole', label 1. and none",
        ),
        (
            "good/001",
            "good/099",
            "15 and 15 images .* at image 2: 'test/good/001.png' .* and 'test/good/099.png'",
        ),
        ("001.png,good,0", "001.png,good,1", "image 2: .*'good', label 0. and .*'good', label 1"),
    ],
)
def test_different_rows_are_refused(tmp_path, old, new, what):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    path = tmp_path / "b" / "scores.csv"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new) if new else text[: text.index(old)])
    with pytest.raises(ValueError, match=what):
        compare(tmp_path, *runs)


def test_images_that_changed_since_are_refused(tmp_path, no_pictures):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", name="B")]
    what = "changed since .* .14 and 15 images, first different: None and 'test/hole/014.png'"
    with pytest.raises(ValueError, match=what):
        compare(tmp_path, *runs, test=labelled(DEFECTS[:-1]))
    assert not (tmp_path / "out").exists()
