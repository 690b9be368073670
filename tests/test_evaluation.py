"""Evaluation of a scorer that is one formula, on every kind of test set."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from engine import evaluation
from engine.method import Score

ABOUT = {"method": "mean", "category": "squares", "counts": {}}


def scorer(images):
    """Score: the mean brightness; map: the brightness."""
    images = np.asarray(images)
    brightness = images.mean(-1)
    return Score(brightness.mean((1, 2)), brightness, {"half": brightness.mean((1, 2)) / 2})


def labelled(defects, without_mask=()):
    """8 px images, dark where good, with a bright square where not."""
    images = np.zeros((len(defects), 8, 8, 3), np.uint8)
    masks = []
    for index, defect in enumerate(defects):
        mask = np.zeros((8, 8), bool)
        if defect != "good":
            mask[2:4, 2:5] = True
            images[index][mask] = 200 + index
        masks.append(None if index in without_mask else mask)
    paths = [f"test/{defect}/{index}.png" for index, defect in enumerate(defects)]
    labels = np.array([defect != "good" for defect in defects], int)
    return SimpleNamespace(
        images=images, paths=paths, defects=list(defects), labels=labels, masks=masks
    )


def run(workdir, test):
    def batches(images):
        return iter([images.astype(np.float32) / 127.5 - 1]) if len(images) else iter([])

    normal = np.zeros((2, 8, 8, 3), np.uint8)
    results = evaluation.evaluate(
        scorer,
        test,
        batches(test.images),
        batches(normal),
        str(workdir),
        about=ABOUT,
        pixel_size=0,
        batch_size=8,
    )
    text = (workdir / "results.json").read_text()
    assert json.loads(text) == results and "NaN" not in text
    with open(workdir / "scores.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(test.images)
    assert (workdir / "report" / "index.html").exists()
    return results


def test_both_kinds(tmp_path):
    results = run(tmp_path, labelled(["good", "good", "dot", "line"]))
    assert results["image"] == {"auroc": 1.0, "average_precision": 1.0, "prevalence": 0.5}
    assert results["image_terms"]["half"] == results["image"]
    assert {name: found["count"] for name, found in results["per_defect"].items()} == {
        "dot": 1,
        "line": 1,
    }
    assert results["pixel"]["auroc"] == pytest.approx(1.0)
    assert results["pixel"]["au_pro"] == pytest.approx(1.0)
    assert results["pixel"]["resolution"] == "each mask's own size"
    assert "image AUROC 1.000" in evaluation.summary(results)


@pytest.mark.parametrize(
    ("defects", "reason"),
    [
        (["good", "good"], "no defective test images"),
        (["dot", "dot"], "no good test images"),
        ([], "no test images"),
    ],
)
def test_one_kind_or_none(tmp_path, defects, reason):
    results = run(tmp_path, labelled(defects))
    assert results["image"]["auroc"] is None
    assert results["image"]["reason"] == reason
    assert reason in evaluation.summary(results)


def test_missing_masks_leave_the_image_metrics(tmp_path):
    results = run(tmp_path, labelled(["good", "dot", "dot"], without_mask=[2]))
    assert results["image"]["auroc"] == 1.0
    assert results["pixel"]["auroc"] is None and results["pixel"]["au_pro"] is None
    assert "test/dot/2.png" in results["pixel"]["reason"]
