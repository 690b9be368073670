"""Areas of pixels sorted some at a time, against scikit-learn and a loop over all thresholds."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from test_metrics import brute_force_au_pro

from evaluation import pixel_curve
from storage import rows


def example(seed, digits, count=6, side=11):
    """Masks of many regions, and maps, which tie where `digits` are few; one image is good."""
    rng = np.random.default_rng(seed)
    masks = [rng.random((side, side + i)) < 0.1 for i in range(count)]
    masks[0][:] = False
    maps = [np.round(rng.normal(size=mask.shape) + 0.5 * mask, digits) for mask in masks]
    return masks, [values.astype(np.float32) for values in maps]


def measured(masks, maps, limit=0.3):
    return pixel_curve.areas(pixel_curve.collect(zip(masks, maps, strict=True)), limit)


@pytest.fixture(params=[(1, 1), (100, 1), (300, 7), (500, 64), (10**6, 10**3)])
def sizes(request, monkeypatch):
    """From a pixel at a time to all at once."""
    run, step = request.param
    monkeypatch.setattr(pixel_curve, "_RUN", run)
    monkeypatch.setattr(pixel_curve, "_PIECE", run)
    monkeypatch.setattr(pixel_curve, "_STEP", step)
    return request.param


@pytest.mark.parametrize("digits", [0, 1, 8])
@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
def test_pieces_of_any_size_give_the_exact_areas(sizes, digits, limit):
    masks, maps = example(digits, digits)
    found = measured(masks, maps, limit)
    truth = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([values.ravel() for values in maps])
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(
        average_precision_score(truth, scores), abs=1e-12
    )
    assert found.au_pro == pytest.approx(brute_force_au_pro(masks, maps, limit), abs=1e-9)


def test_all_pixels_tie(sizes):
    masks, maps = example(0, 8)
    found = measured(masks, [np.full_like(values, 0.7) for values in maps])
    share = sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
    assert found == pytest.approx((0.5, share, 0.15))


def test_best_and_worst(sizes):
    masks, _ = example(0, 8)
    best = [mask.astype(np.float32) for mask in masks]
    assert measured(masks, best) == pytest.approx((1.0, 1.0, 1.0))
    worst = measured(masks, [-values for values in best])
    assert worst.auroc == pytest.approx(0) and worst.au_pro == pytest.approx(0)


def test_pieces_are_no_larger_than_asked_for(monkeypatch):
    """Neither where pixels tie, nor where all lie in a narrow range of a wide one."""
    monkeypatch.setattr(pixel_curve, "_RUN", 400)
    monkeypatch.setattr(pixel_curve, "_PIECE", 400)
    monkeypatch.setattr(pixel_curve, "_STEP", 10)
    rng = np.random.default_rng(0)
    masks = [rng.random((20, 20)) < 0.5 for _ in range(20)]
    maps = [np.where(rng.random((20, 20)) < 0.5, 1e30, 1 + rng.random((20, 20)) / 1e4)] * 20
    taken, take = [], pixel_curve._Runs.take

    def counted(runs, cost):
        records = take(runs, cost)
        taken.append(records.size)
        return records

    monkeypatch.setattr(pixel_curve._Runs, "take", counted)
    measured(masks, maps)
    runs = 2 * len(masks)
    assert len(taken) > 10 and max(taken) <= 400 + runs * 10


def test_temporary_files_lie_where_they_should_and_go(tmp_path, monkeypatch):
    opened = []
    make = rows.temporary
    monkeypatch.setattr(rows, "temporary", lambda folder: opened.append(folder) or make(folder))
    masks, maps = example(0, 8)
    pixels = pixel_curve.collect(zip(masks, maps, strict=True), str(tmp_path))
    assert set(opened) == {str(tmp_path)} and not list(tmp_path.iterdir())
    assert pixels.positives + pixels.negatives == sum(mask.size for mask in masks)
