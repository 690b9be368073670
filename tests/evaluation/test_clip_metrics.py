"""Metrics of frames by hand, and thresholds from the maxima of clips."""

import numpy as np
import pytest
from scipy import ndimage

from evaluation.clips import (
    calibrate_clips,
    clip_rates,
    frame_metrics,
    intervals_above,
    normalised,
    smoothed,
)
from evaluation.threshold import read_threshold, statement, write_threshold

PATHS = ["a/1", "a/2", "b/1", "b/2"]
LABELS = np.array([0, 1, 0, 1])
SCORES = np.array([0.1, 0.9, 0.8, 0.2])


def test_micro_and_macro_by_hand():
    """Of the four pairs (normal, abnormal) of both clips three are in order."""
    metrics = frame_metrics(PATHS, LABELS, SCORES, 0.0)
    assert metrics["micro"] == 0.75 and metrics["macro"] == 0.5 and metrics["left_out"] == 0
    assert metrics["micro_normalised"] == 0.5  # 0, 1 | 1, 0: one pair in order, one not, two equal
    assert metrics["micro_smoothed"] == metrics["micro"]


def test_a_clip_of_one_class_is_left_out_of_the_macro_mean_and_counted():
    metrics = frame_metrics([*PATHS[:2], "c/1", "c/2"], np.array([0, 1, 1, 1]), SCORES, 1.0)
    assert metrics["macro"] == 1.0 and metrics["left_out"] == 1
    none = frame_metrics(PATHS, np.ones(4, int), SCORES, 1.0)
    assert none["micro"] is None and none["macro"] is None and none["left_out"] == 2


def test_each_clip_is_normalised_by_its_own_extremes():
    assert normalised(np.array([10.0, 20.0, 30.0])).tolist() == [0, 0.5, 1]
    assert normalised(np.array([2.0, 2.0])).tolist() == [0, 0]


def test_smoothing_is_scipys_and_the_causal_one_knows_nothing_of_what_comes():
    scores = np.random.default_rng(0).normal(size=40)
    wanted = ndimage.gaussian_filter1d(scores, 2.0, mode="nearest", truncate=4)
    np.testing.assert_allclose(smoothed(scores, 2.0), wanted, atol=1e-6)
    changed = scores.copy()
    changed[21:] += 100
    causal, later = (smoothed(values, 2.0, causal=True) for values in (scores, changed))
    np.testing.assert_array_equal(causal[:21], later[:21])
    assert (later[21:] > causal[21:]).all()
    weights = np.exp(-0.5 * (np.arange(9) / 2.0) ** 2)
    assert causal[20] == pytest.approx(weights @ scores[20:11:-1] / weights.sum())


def test_smoothing_crosses_no_clip():
    paths = ["a/1", "a/2", "b/1", "b/2"]
    metrics = frame_metrics(paths, np.array([1, 1, 0, 0]), np.array([1.0, 1.0, 0.0, 0.0]), 5.0)
    assert metrics["micro_smoothed"] == metrics["micro_causal"] == 1.0


def test_intervals_above_a_limit():
    assert intervals_above(np.array([3, 0, 3, 3, 1]), 1.0) == [(0, 0), (2, 3)]
    assert intervals_above(np.zeros(3), 1.0) == []


@pytest.fixture(scope="module")
def of_clips():
    """19 clips of 5 frames, whose highest scores are 1, 2, ..., 19."""
    paths = [f"{clip}/{frame}" for clip in range(19) for frame in range(5)]
    scores = np.concatenate([np.linspace(0, clip, 5) for clip in range(1, 20)])
    maps = np.broadcast_to(scores[:, None, None], (95, 4, 4)) / 10
    return calibrate_clips(paths, scores, maps, 0.05)


def test_a_threshold_comes_from_the_maxima_of_clips(of_clips, tmp_path):
    assert of_clips.calibration_scores == tuple(range(1, 20))
    assert of_clips.guaranteed_rate == 0.05 and of_clips.threshold == pytest.approx(19, rel=1e-3)
    assert of_clips.pixel_threshold == pytest.approx(1.9, rel=1e-3)
    text = " ".join(statement(of_clips))
    assert "19 held-out clips" in text and "5 frames at most" in text and "single frames" in text
    write_threshold(str(tmp_path), of_clips, {})
    assert read_threshold(str(tmp_path), {}) == of_clips


def test_of_new_good_clips_no_more_exceed_it_than_promised():
    """Frames of a clip are alike, so that a threshold of frames would break its promise."""
    rng = np.random.default_rng(0)

    def clips(count):
        level = rng.normal(size=(count, 1))
        return (level + 0.3 * rng.normal(size=(count, 20))).ravel()

    paths = [f"{clip}/{frame}" for clip in range(19) for frame in range(20)]
    above = []
    for _ in range(300):
        limit = calibrate_clips(paths, clips(19), np.zeros((380, 1, 1)), 0.05).threshold
        above.append((clips(20).reshape(20, 20).max(axis=1) > limit).mean())
    assert 0.03 < np.mean(above) < 0.065


def test_an_abnormal_clip_is_found_by_its_abnormal_frames_alone(of_clips):
    paths = ["x/1", "x/2", "y/1", "y/2", "z/1", "z/2"]
    labels, kinds = np.array([0, 1, 0, 1, 0, 0]), ["good", "fast", "good", "fast", "good", "good"]
    scores = np.array([0.0, 30.0, 30.0, 0.0, 30.0, 0.0])
    rates = clip_rates(of_clips, paths, labels, kinds, scores)
    assert {name: (row["wrong"], row["count"]) for name, row in rates.items()} == {
        "good": (1, 1),
        "fast": (1, 2),
    }


def test_one_clip_sets_no_threshold():
    with pytest.raises(ValueError, match="2 held-out good clips at least, and there are 1: record"):
        calibrate_clips(["a/1", "a/2"], np.zeros(2), np.zeros((2, 1, 1)), 0.05)
