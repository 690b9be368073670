"""Bootstrap metrics against scikit-learn on images that are really copied, and on pixels."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from evaluation import bootstrap, metrics


def scored(rng, good=15, defective=25, shift=1.0):
    """Scores with ties."""
    labels = rng.permutation(np.repeat([0, 1], [good, defective]))
    return labels, np.round(rng.normal(labels * shift, 1.0), 1)


def best_f1(labels, scores):
    precision, recall, _ = precision_recall_curve(labels, scores)
    return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))


def pixel_set(rng, good=4, defective=6, side=24, lift=1.0):
    """Smooth maps, each a third larger than its mask; squares of several sizes as defects."""
    masks = np.zeros((good + defective, side, side), bool)
    for i in range(good, good + defective):
        masks[i, 2 : 4 + i, 3 : 3 + i] = True
        masks[i, -3:, -3:] = True
    noise = rng.random((len(masks), side, side)).astype(np.float32)
    return list(masks), list((noise + lift * masks).astype(np.float32).repeat(2, 1).repeat(2, 2))


def test_resamples_keep_both_classes_and_repeat():
    labels = np.array([0, 1, 1, 0, 1, 1, 1])
    weights = bootstrap.resamples(labels)
    assert weights.shape == (bootstrap.RESAMPLES, 7) == (1000, 7)
    assert (weights[:, labels == 1].sum(1) == 5).all()
    assert (weights[:, labels == 0].sum(1) == 2).all()
    assert weights.std(0).min() > 0.5 and np.allclose(weights.mean(0), 1, atol=0.15)
    assert np.array_equal(weights, bootstrap.resamples(labels))
    assert bootstrap.resamples(np.zeros(3, int)).sum(1).tolist() == [3.0] * 1000


@pytest.mark.parametrize("seed", range(5))
def test_a_resample_equals_scikit_learn_on_copied_images(seed):
    labels, scores = scored(np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, 40)), bootstrap.resamples(labels, 20)])
    result = bootstrap.curve_metrics(bootstrap.image_counts(labels, scores), weights)
    assert set(result) == {"auroc", "average_precision", "best_f1"}
    for i, row in enumerate(weights):
        copies = np.repeat(np.arange(40), row.astype(int))
        for name, metric in (
            ("auroc", roc_auc_score),
            ("average_precision", average_precision_score),
            ("best_f1", best_f1),
        ):
            expected = metric(labels[copies], scores[copies])
            assert result[name][i] == pytest.approx(expected, abs=1e-12), name


def test_image_metrics_by_hand():
    counts = bootstrap.image_counts(np.array([1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1]))
    assert counts.defective.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert counts.good.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    result = bootstrap.curve_metrics(counts, np.array([[1.0, 1, 1, 1], [1, 2, 1, 0]]))
    assert result["auroc"].tolist() == [0.875, 0.75]  # of 4 pairs one ties; of 4 two
    assert result["average_precision"].tolist() == pytest.approx([0.5 + 0.5 * 2 / 3, 0.75])
    assert result["best_f1"].tolist() == pytest.approx([0.8, 2 / 3])


@pytest.mark.parametrize(("lift", "size"), [(0.1, 0), (0.5, 24), (0.9, 16), (2.0, 0)])
def test_pixels_equal_the_exact_metrics(lift, size):
    rng = np.random.default_rng(1)
    masks, maps = pixel_set(rng, side=64, lift=lift)
    counts = bootstrap.pixel_counts(masks, maps, size)
    copies = np.repeat(np.arange(10), [0, 2, 1, 1, 0, 1, 3, 1, 0, 1])
    weights = np.stack([np.ones(10), np.bincount(copies, minlength=10)])
    result = bootstrap.curve_metrics(counts, weights)
    for i, chosen in enumerate((range(10), copies)):
        exact = metrics.pixel_metrics([masks[j] for j in chosen], [maps[j] for j in chosen], size)
        for name in ("auroc", "average_precision", "au_pro"):
            assert result[name][i] == pytest.approx(exact[name], abs=1e-3), name


def test_a_constant_map_is_chance():
    masks, maps = pixel_set(np.random.default_rng(0))
    counts = bootstrap.pixel_counts(masks, [np.zeros_like(values) for values in maps], 0)
    result = bootstrap.curve_metrics(counts, np.ones((1, 10)))
    prevalence = np.mean(masks)
    assert result["auroc"][0] == pytest.approx(0.5)
    assert result["average_precision"][0] == pytest.approx(prevalence)
    assert result["au_pro"][0] == pytest.approx(metrics.LIMIT / 2)


def test_frames_are_drawn_by_whole_clips():
    labels = np.array([0, 0, 0, 1, 1, 0, 0, 1, 0, 0])
    clips = [slice(0, 2), slice(2, 5), slice(5, 8), slice(8, 10)]
    weights = bootstrap.clip_resamples(labels, clips)
    for place in clips:
        assert (weights[:, place] == weights[:, place.start : place.start + 1]).all()
    # Two clips have an abnormal frame and two have none, in every resample.
    assert (weights[:, [2, 5]].sum(1) == 2).all() and (weights[:, [0, 8]].sum(1) == 2).all()
    # As many copies of each frame as it has neighbours like it: the interval is that of the clips.
    rng = np.random.default_rng(0)
    scores, of_clips = rng.normal(size=20), np.repeat([0, 1], 10)
    copies = [slice(9 * i, 9 * i + 9) for i in range(20)]
    few = bootstrap.curve_metrics(
        bootstrap.image_counts(of_clips, scores), bootstrap.resamples(of_clips)
    )
    many = bootstrap.curve_metrics(
        bootstrap.image_counts(np.repeat(of_clips, 9), np.repeat(scores, 9)),
        bootstrap.clip_resamples(np.repeat(of_clips, 9), copies),
    )
    assert bootstrap.interval(many["auroc"]) == pytest.approx(bootstrap.interval(few["auroc"]))


def test_resamples_without_defective_pixels_are_left_out():
    masks, maps = pixel_set(np.random.default_rng(0), good=1, defective=2)
    masks[1] = np.zeros_like(masks[1])
    weights = np.array([[1.0, 1, 1], [1, 2, 0]])
    result = bootstrap.curve_metrics(bootstrap.pixel_counts(masks, maps, 0), weights)
    assert {name: values.shape for name, values in result.items()} == dict.fromkeys(result, (1,))
    assert all(np.isfinite(values).all() for values in result.values())


def test_the_interval_holds_the_estimate_and_is_wider_with_fewer_images():
    def bounds(count):
        labels, scores = scored(np.random.default_rng(3), count, count)
        again = bootstrap.curve_metrics(
            bootstrap.image_counts(labels, scores), bootstrap.resamples(labels)
        )
        return roc_auc_score(labels, scores), *bootstrap.interval(again["auroc"])

    (value, low, high), (_, low_few, high_few) = bounds(200), bounds(20)
    assert 0 < low < value < high < 1
    # Like 1 / sqrt(N): a tenth of the images, about 3.2 times the width.
    assert 2 < (high_few - low_few) / (high - low) < 5


def test_interval_is_the_middle_95_percent():
    assert bootstrap.interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
