"""Evaluation of a scorer that is one formula, on every kind of test set."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from engine.method import Score
from evaluation import evaluate, official, threshold
from evaluation.results import write_results
from report import summary
from report.run import write_report

ABOUT = {"method": "mean", "category": "squares", "counts": {}}
NETWORK = {"folder": ".", "stage": "gan", "step": 1, "score": {}}


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
        images=images,
        paths=paths,
        defects=list(defects),
        labels=labels,
        masks=masks,
        sizes=np.array([(8, 8)] * len(defects)).reshape(-1, 2),
    )


def batches(images, size):
    for start in range(0, len(images), size):
        yield images[start : start + size].astype(np.float32) / 127.5 - 1


def run(workdir, test, calibration=2, save_maps=False, **options):
    good = labelled(["good"] * calibration)
    good.images[:, 0, 0] = np.arange(calibration)[:, None]  # no two scores are alike
    done = evaluate.evaluate_test_set(
        scorer,
        test,
        SimpleNamespace(**{**vars(good), "masks": []}),  # as those of training images
        str(workdir),
        batches=batches,
        batch_size=8,
        about=ABOUT,
        network=NETWORK,
        own={"images": lambda labels, *_: len(labels)},
        official_metrics=save_maps,
        **{"false_alarm_rate": 0.5, "false_regions": 1.0, "pixel_size": 0, **options},
    )
    results = done.results
    write_results(str(workdir), done, NETWORK)
    write_report(str(workdir / "report"), **done._asdict())
    if save_maps:
        turned = np.zeros(len(test.paths), int)
        named = {"paths": test.paths, "defects": test.defects, "sizes": test.sizes}
        official.write_maps(
            str(workdir), "squares", maps=done.scored.maps, orientations=turned, **named
        )
    text = (workdir / "results.json").read_text()
    assert json.loads(text) == results and "NaN" not in text
    with open(workdir / "scores.csv", newline="", encoding="utf-8-sig") as file:
        assert len(list(csv.DictReader(file))) == len(test.images)
    assert (workdir / "report" / "index.html").exists()
    return results


def test_both_kinds(tmp_path):
    results = run(tmp_path, labelled(["good", "good", "dot", "line"]))
    assert results["image"] == {"auroc": 1.0, "average_precision": 1.0, "prevalence": 0.5}
    assert results["image_terms"]["half"] == results["image"]
    assert results["own"] == {"images": 4.0} and "images 4.000" in summary.summary(results)
    assert {name: found["count"] for name, found in results["per_defect"].items()} == {
        "dot": 1,
        "line": 1,
    }
    assert results["pixel"]["auroc"] == pytest.approx(1.0)
    assert results["pixel"]["au_pro"] == pytest.approx(1.0)
    assert results["pixel"]["resolution"] == "each mask's own size"
    assert "image AUROC 1.000" in summary.summary(results)


@pytest.mark.promise(
    "R11", "no defects, no good or no test images: results.json has null and a reason"
)
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
    assert reason in summary.summary(results)


@pytest.mark.promise("R10", "a missing mask: image metrics are given, pixel metrics are null")
def test_missing_masks_leave_the_image_metrics(tmp_path):
    results = run(tmp_path, labelled(["good", "dot", "dot"], without_mask=[2]))
    assert results["image"]["auroc"] == 1.0
    assert results["pixel"]["auroc"] is None and results["pixel"]["au_pro"] is None
    assert "test/dot/2.png" in results["pixel"]["reason"]


def test_the_threshold_comes_from_good_images_alone(tmp_path):
    """Whatever the test images are, and however they are labelled."""
    first = run(tmp_path, labelled(["good", "good", "dot", "line"]), calibration=9)
    other = labelled(["dot", "good"])
    other.images[:] = 77
    second = run(tmp_path, other, calibration=9)
    assert first["threshold"] == second["threshold"]
    assert (
        threshold.read_threshold(str(tmp_path), NETWORK).threshold
        == first["threshold"]["threshold"]
    )
    assert first["threshold"]["held_out"] == 9 and "calibration_scores" not in first["threshold"]


def test_what_the_threshold_gets_wrong_is_counted(tmp_path):
    test = labelled(["good", "good", "dot", "line"])
    test.images[1] = 255  # a good image that looks bad
    test.images[3] = 0  # a defect that nobody sees
    results = run(tmp_path, test)
    wrong = {name: entry["wrong"] for name, entry in results["at_threshold"].items()}
    assert wrong == {"good": 1, "dot": 0, "line": 1}
    said = summary.summary(results)
    begin = "At the threshold, of the test images: "
    assert f"{begin}1 of 2 good called defective (95 % interval 1.3 % to 98.7 %)" in said
    assert "1 of 1 line missed" in said and "0 of 1 dot missed" in said
    assert all(sentence in said for sentence in results["threshold"]["statement"])


@pytest.mark.promise("R11", "no test images: the threshold is still set")
def test_no_test_images_and_the_threshold_is_there(tmp_path):
    results = run(tmp_path, labelled([]), calibration=3)
    assert results["at_threshold"] == {} and results["threshold"]["held_out"] == 3
    assert "of the test images" not in summary.summary(results)


def test_maps_for_the_official_evaluation(tmp_path):
    test = labelled(["good", "good", "dot", "line"])
    test.sizes[:] = (16, 24)
    test.masks = [mask.repeat(2, 0).repeat(3, 1) for mask in test.masks]
    results = run(tmp_path, test, save_maps=True)
    assert len(list((tmp_path / "maps" / "squares" / "test").rglob("*.tiff"))) == 4
    assert set(results["official"]) == {"au_pro", "classification_au_roc"}
    assert results["official"]["classification_au_roc"] == 1.0


@pytest.mark.promise("R11", "0 or 1 held-out image: an error, and nothing is written")
@pytest.mark.parametrize("held_out", [0, 1])
def test_too_few_held_out_images_write_nothing(tmp_path, held_out):
    with pytest.raises(ValueError, match="needs 2 held-out good images"):
        run(tmp_path, labelled(["good", "dot"]), calibration=held_out)
    assert not list(tmp_path.iterdir())
