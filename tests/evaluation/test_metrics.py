"""Metrics against numbers worked out by hand, scikit-learn, and a loop over all thresholds."""

import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation import metrics


def brute_force_au_pro(masks, maps, limit):
    """The official definition, one threshold after the other."""
    regions, outside = [], np.concatenate([m[~k] for k, m in zip(masks, maps, strict=True)])
    for mask, values in zip(masks, maps, strict=True):
        components, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [values[components == i + 1] for i in range(count)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlap = np.mean([(region >= threshold).mean() for region in regions])
        points.append(((outside >= threshold).mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return area / limit


def random_set(rng, count=4, side=12):
    """Maps with many ties; the first image is good."""
    masks = [rng.random((side, side)) < 0.12 for _ in range(count)]
    masks[0][:] = False
    maps = [np.round(rng.random((side, side)) + 0.3 * mask, 1) for mask in masks]
    return masks, [values.astype(np.float32) for values in maps]


def test_image_metrics_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([0.1, 0.4, 0.2, 0.3, 0.8, 0.9])
    # Of the 9 pairs only (0.4 good, 0.3 defective) is in the wrong order. Precision where
    # recall rises: 1, 1, 3/4.
    result = metrics.image_metrics(labels, scores)
    assert result["auroc"] == pytest.approx(8 / 9)
    assert result["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert result["prevalence"] == 0.5
    assert "reason" not in result


@pytest.mark.promise("R11", "one class or none: image metrics are null with a reason")
@pytest.mark.parametrize(
    ("labels", "reason", "prevalence"),
    [
        ([0, 0], "no defective test images", 0.0),
        ([1, 1], "no good test images", 1.0),
        ([], "no test images", None),
    ],
)
def test_one_class_gives_none_and_a_reason(labels, reason, prevalence):
    result = metrics.image_metrics(np.array(labels, int), np.linspace(0, 1, len(labels)))
    assert result == {
        "auroc": None,
        "average_precision": None,
        "prevalence": prevalence,
        "reason": reason,
    }


def test_broken_scores_are_refused():
    with pytest.raises(ValueError, match="2 of 3 image scores are NaN or infinite"):
        metrics.image_metrics(np.array([0, 1, 1]), np.array([np.nan, 1.0, np.inf]))
    with pytest.raises(ValueError, match="must be"):
        metrics.image_metrics(np.array([0, 1, 1]), np.array([1.0, 2.0]))


def test_per_defect_is_each_defect_against_all_good():
    labels = np.array([0, 0, 1, 1, 1])
    scores = np.array([0.1, 0.5, 0.9, 0.3, 0.4])
    result = metrics.per_defect(labels, ["good", "good", "hole", "cut", "cut"], scores)
    assert list(result) == ["cut", "hole"]
    assert result["hole"]["auroc"] == 1.0
    assert (result["cut"]["auroc"], result["cut"]["count"]) == (0.5, 2)
    assert result["hole"]["prevalence"] == pytest.approx(1 / 3)


@pytest.mark.promise("R11", "no good test images: null with a reason for each defect")
def test_per_defect_without_good_images():
    result = metrics.per_defect(np.array([1]), ["cut"], np.array([0.3]))
    assert (result["cut"]["auroc"], result["cut"]["reason"]) == (None, "no good test images")
    assert result["cut"]["count"] == 1
    assert metrics.per_defect(np.array([0]), ["good"], np.array([0.3])) == {}


def test_pro_by_hand_on_two_blobs():
    mask = np.zeros((5, 4), bool)
    mask[0, 0] = mask[3:5, 2:4] = True  # one pixel, and four: 15 pixels are outside
    scores = np.zeros((5, 4), np.float32)
    scores[0, 0] = 3  # finds the small blob whole: PRO 1/2 at no false positive
    scores[0, 3] = scores[1, 3] = scores[2, 0] = 2  # three false positives: 0.2
    scores[3, 2:4] = 1  # half of the large blob: PRO 3/4 at 0.2
    # Then all the rest at once: from (0.2, 3/4) straight to (1, 1), which at 0.3 is 3/4 + 1/32.
    area = 0.2 * 0.5 + 0.1 * (3 / 4 + 1 / 64)
    assert metrics.au_pro([mask], [scores]) == pytest.approx(area / 0.3)


@pytest.mark.promise("R13", "AU-PRO equals a loop over all thresholds")
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_au_pro_equals_brute_force_with_ties(seed, limit):
    masks, maps = random_set(np.random.default_rng(seed))
    expected = brute_force_au_pro(masks, maps, limit)
    assert metrics.au_pro(masks, maps, limit) == pytest.approx(expected, abs=1e-9)


def test_au_pro_without_ties_and_with_several_sizes():
    rng = np.random.default_rng(7)
    masks = [rng.random((9, 14)) < 0.2, rng.random((11, 6)) < 0.2]
    maps = [rng.normal(size=mask.shape) + mask for mask in masks]
    expected = brute_force_au_pro(masks, maps, 0.3)
    assert metrics.au_pro(masks, maps) == pytest.approx(expected, abs=1e-9)


def test_regions_that_touch_at_a_corner_are_one():
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = mask[1:4, 1:4] = True
    scores = np.zeros((10, 10), np.float32)
    scores[0, 0] = 1
    pro = 1 / 10  # two regions would give 1/2
    assert metrics.au_pro([mask], [scores]) == pytest.approx(pro + (1 - pro) * 0.3 / 2)


@pytest.mark.promise("R13", "constant maps")
def test_constant_maps():
    mask = np.zeros((6, 6), bool)
    mask[2:4, 2:4] = True
    assert metrics.au_pro([mask], [np.full((6, 6), 0.7)]) == pytest.approx(0.15)


def test_a_perfect_map_and_its_opposite():
    mask = np.zeros((6, 6), bool)
    mask[2:4, 2:4] = True
    assert metrics.au_pro([mask], [mask.astype(float)]) == pytest.approx(1.0)
    assert metrics.au_pro([mask], [-mask.astype(float)]) == pytest.approx(0.0)


@pytest.mark.promise("R11", "no defective or no good pixels: AU-PRO is refused, not 0")
def test_au_pro_refuses_what_has_no_answer():
    empty, values = np.zeros((3, 3), bool), np.ones((3, 3))
    with pytest.raises(ValueError, match="no defective pixels"):
        metrics.au_pro([empty], [values])
    with pytest.raises(ValueError, match="no good pixels"):
        metrics.au_pro([~empty], [values])
    with pytest.raises(ValueError, match="1 of 9 pixels"):
        metrics.au_pro([empty], [np.where(np.eye(3) * np.arange(3) == 2, np.nan, values)])
    with pytest.raises(ValueError, match="not one"):
        metrics.au_pro([empty], [np.ones((4, 4))])


@pytest.mark.promise("R13", "pixel metrics equal scikit-learn's")
def test_pixel_metrics_equal_scikit_learn():
    masks, maps = random_set(np.random.default_rng(3), count=6)
    result = metrics.pixel_metrics(masks, maps)
    truth = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([values.ravel() for values in maps])
    assert result["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    expected = average_precision_score(truth, scores)
    assert result["average_precision"] == pytest.approx(expected, abs=1e-12)
    assert result["prevalence"] == pytest.approx(truth.mean())
    assert result["au_pro"] == pytest.approx(brute_force_au_pro(masks, maps, 0.3), abs=1e-9)
    assert (result["au_pro_limit"], result["resolution"]) == (0.3, "each mask's own size")


def test_maps_are_brought_to_each_masks_size():
    rng = np.random.default_rng(1)
    masks = [rng.random((20, 30)) < 0.2, rng.random((16, 16)) < 0.2]
    maps = [rng.random((8, 8)).astype(np.float32) for _ in masks]
    large = [
        np.asarray(Image.fromarray(values).resize(mask.shape[::-1], Image.Resampling.BILINEAR))
        for mask, values in zip(masks, maps, strict=True)
    ]
    assert metrics.pixel_metrics(masks, maps) == metrics.pixel_metrics(masks, large)


def test_masks_and_maps_are_brought_to_one_size():
    mask = np.zeros((40, 60), bool)
    mask[:20] = True
    scores = np.linspace(1, 0, 8, dtype=np.float32)[:, None] * np.ones((1, 8), np.float32)
    result = metrics.pixel_metrics([mask], [scores], 16)
    assert (result["auroc"], result["au_pro"], result["prevalence"]) == (1.0, 1.0, 0.5)
    assert result["resolution"] == "16 x 16"


@pytest.mark.promise("R10", "missing masks: pixel metrics are null, the reason names the images")
def test_missing_masks_are_named():
    mask = np.eye(4, dtype=bool)
    masks = [np.zeros((4, 4), bool), mask, None, None]
    maps = [np.ones((4, 4), np.float32)] * 4
    result = metrics.pixel_metrics(masks, maps, names=["g", "a.png", "b.png", "c.png"])
    assert result["reason"] == "2 of 3 defective images have no mask: b.png, c.png"
    assert result["auroc"] is result["average_precision"] is result["au_pro"] is None
    assert metrics.pixel_metrics(masks, maps)["reason"] == "2 of 3 defective images have no mask"
    many = metrics.pixel_metrics([None] * 7, [maps[0]] * 7, names=list("abcdefg"))
    assert many["reason"].endswith("a, b, c and 4 more")


@pytest.mark.promise("R11", "no defects: pixel metrics are null with a reason")
def test_good_images_alone_have_no_pixel_metrics():
    result = metrics.pixel_metrics([np.zeros((4, 4), bool)], [np.ones((2, 2))])
    assert result["reason"].startswith("no defective pixels: no defective test images")
    assert metrics.pixel_metrics([], [])["auroc"] is None


def test_broken_maps_are_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        metrics.pixel_metrics([np.eye(2, dtype=bool)], [np.full((2, 2), np.nan)])


def test_own_metrics_get_what_the_readme_says():
    labels, scores = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3])
    maps = np.zeros((3, 2, 2), np.float32)
    masks = [np.zeros((4, 4), bool), None, np.ones((4, 4), bool)]
    seen = []

    def note(*arguments):
        seen.append(arguments)
        return np.float32(0.5)

    values = metrics.own_values({"note": note, "no": lambda *_: None}, labels, scores, maps, masks)
    assert values == {"note": 0.5, "no": None} and type(values["note"]) is float
    pairs = zip(seen[0], (labels, scores, maps, masks), strict=True)
    assert all(given is wanted for given, wanted in pairs)
    nothing = metrics.own_values({"note": note}, labels[:0], scores[:0], maps[:0], [])
    assert nothing == {"note": None} and len(seen) == 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda *_: 1 / 0, "broken raised ZeroDivisionError"),
        (lambda: 1, "broken raised TypeError"),
        (lambda *_: "high", "broken raised ValueError"),
        (lambda *_: np.nan, "broken is nan: let it return None"),
        (lambda *_: np.inf, "broken is inf: let it return None"),
    ],
)
def test_an_own_metric_that_fails_is_one_line(function, words):
    one = np.array([1])
    with pytest.raises(ValueError, match=f"^evaluation.metrics: {words}") as caught:
        metrics.own_values({"broken": function}, one, one, one, [None])
    assert "\n" not in str(caught.value)


def test_own_metrics_are_named_by_a_config(tmp_path, monkeypatch):
    (tmp_path / "some_metrics.py").write_text("def a(*_): return 1\ndef b(*_): return 2\nc = 3\n")
    (tmp_path / "other_metrics.py").write_text("def a(*_): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert metrics.own_metrics("") == {}
    functions = metrics.own_metrics("some_metrics:a, some_metrics:b")
    assert list(functions) == ["a", "b"] and functions["b"]() == 2
    for names, words in (
        ("some_metrics:a,other_metrics:a", "names two a"),
        ("some_metrics:c", "is no function"),
        ("some_metrics:d", "names nothing"),
        ("os:system", "not for a config to name"),
    ):
        with pytest.raises(ValueError, match=f"^evaluation.metrics.*{words}"):
            metrics.own_metrics(names)
