"""The watch on the line: false alarms as promised, delays, restarts, words."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks.drift import capital_of, cut_of, jumper, p_values_of, p_values_of_lines
from evaluation import drift
from evaluation.quality import Quality, qualities, quality_of
from evaluation.threshold import calibrate

LINES = 2000
SAME = Quality(0.5, 0.2, 0.8)


def calibrated(scores, quality=()):
    found = calibrate(np.asarray(scores), np.ones((len(scores), 2, 2)), 0.05)
    return found._replace(quality=quality)


def photo_qualities(rng, count, **shift):
    """Of `count` photos, with three numbers around SAME."""
    each = [rng.normal(getattr(SAME, n) + shift.get(n, 0), 0.02, count) for n in Quality._fields]
    return tuple(map(tuple, each))


def run(watch, threshold, scores, photos):
    for score, *quality in zip(scores, *photos, strict=True):
        defective = score > threshold.threshold
        watch = drift.observe(watch, float(score), Quality(*quality), defective=defective)
    return watch


@pytest.fixture(scope="module")
def unchanged():
    """p-values of 2,000 lines of 600 good parts, 40 calibration images."""
    return p_values_of_lines(np.random.default_rng(0), lines=LINES, calibration=40, good=600)


def test_false_alarms_of_2000_lines_are_no_more_than_promised(unchanged):
    alarms = int((capital_of(unchanged).first > 0).sum())
    assert stats.binomtest(alarms, LINES, 0.01, alternative="greater").pvalue > 0.025
    # Ville's inequality at other limits, where there is more to see.
    for limit in (2, 5, 20):
        reached = int((capital_of(unchanged).highest >= limit).sum())
        assert stats.binomtest(reached, LINES, 1 / limit, alternative="greater").pvalue > 0.025
        assert reached > 0  # the bets are made


def test_p_values_are_independent_and_even(unchanged):
    values = unchanged[np.isfinite(unchanged)]
    assert stats.kstest(values[:100_000], "uniform").pvalue > 0.001
    both = np.isfinite(unchanged[:, :-1]) & np.isfinite(unchanged[:, 1:])
    correlation = np.corrcoef(unchanged[:, :-1][both], unchanged[:, 1:][both])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(both.sum())


def test_scores_held_against_calibration_images_alone_would_break_the_promise():
    """Why parts join those that the next are held against: a few images are not the truth."""
    rng = np.random.default_rng(0)
    known, parts = rng.standard_normal((200, 20)), rng.standard_normal((200, 1000))
    ranks = (known[:, None] > parts[..., None]).sum(-1)
    fixed = (ranks + rng.random(ranks.shape)) / 21
    assert (capital_of(fixed).first > 0).mean() > 0.1


@pytest.mark.parametrize("shift", [1, -1])
def test_a_shift_of_one_deviation_is_found_soon(shift):
    lines = {"lines": 200, "calibration": 60, "changed": 300}
    p = p_values_of_lines(np.random.default_rng(1), good=200, shift=shift, **lines)
    first = capital_of(p).first
    delays = np.where(first > 200, first - 200, np.inf)[(first == 0) | (first > 200)]
    assert np.median(delays) < 100 and np.isfinite(delays).mean() > 0.95


def test_a_line_that_was_good_for_long_is_still_watched():
    """Where the Simple Jumper has lost the capital that it would need."""
    p = np.random.default_rng(0).random((100, 4000))
    p[:, 3000:] = np.random.default_rng(1).random((100, 1000)) ** 1.5  # as of half a deviation
    ours, theirs = capital_of(p).first, jumper(p).first
    assert np.median(np.where(ours == 0, 9999, ours)) < 3300
    assert np.median(np.where(ours == 0, 9999, ours)) < np.median(
        np.where(theirs == 0, 9999, theirs)
    )


@pytest.mark.parametrize("defects", [0.01, 0.05])
def test_true_defects_raise_no_more_alarms(defects):
    """One in eight of them is missed, and lies among the scores that are bet on."""
    lines = {"lines": 1000, "calibration": 60, "good": 400}
    p = p_values_of_lines(np.random.default_rng(2), defects=defects, **lines)
    alarms = int((capital_of(p).first > 0).sum())
    assert stats.binomtest(alarms, 1000, 0.01, alternative="greater").pvalue > 0.025


def test_the_watch_does_what_was_simulated():
    """The state of one line against arrays of many: ranks, ties, capital, alarm."""
    rng = np.random.default_rng(3)
    known = np.round(rng.standard_normal(30), 1)
    parts = np.round(rng.standard_normal(150) + np.where(np.arange(150) < 50, 0, 1.2), 1)
    threshold = calibrated(known)
    watch = run(drift.start_watch(threshold), threshold, parts, np.ones((3, 150)))
    cut = cut_of(known[None])
    assert watch.cut == cut
    chance = [np.random.default_rng((0, part)).random() for part in range(1, 151)]
    below = np.where(parts < cut, parts, np.nan)
    p = p_values_of(np.where(known < cut, known, np.nan), below, np.array([chance]))
    outcome = capital_of(p)
    assert watch.scores.alarm == outcome.first[0] > 50
    upto = capital_of(p[:, : watch.scores.alarm]).highest[0]
    assert watch.scores.highest == pytest.approx(upto)
    assert 35 <= watch.scores.since[0] <= 65  # where it was changed: after part 50
    assert watch.parts == 150 and watch.called_defective == (parts > threshold.threshold).sum()


def test_a_watch_goes_on_after_json():
    rng = np.random.default_rng(4)
    threshold = calibrated(rng.standard_normal(25), photo_qualities(rng, 25))
    scores, photos = rng.standard_normal(40), np.array(photo_qualities(rng, 40))
    start = drift.start_watch(threshold)
    assert drift.watch_of(json.loads(json.dumps(drift.watch_content(start)))) == start
    half = run(start, threshold, scores[:20], photos[:, :20])
    read = drift.watch_of(json.loads(json.dumps(drift.watch_content(half), allow_nan=False)))
    whole = run(start, threshold, scores, photos)
    assert run(read, threshold, scores[20:], photos[:, 20:]) == whole


def test_memory_does_not_grow_with_the_number_of_parts():
    rng = np.random.default_rng(5)
    threshold = calibrated(rng.uniform(1, 2, 50), ((0.5,) * 50,) * 3)
    watch = start = drift.start_watch(threshold)
    for score in rng.uniform(1, 1.01, 400):
        watch = drift.observe(watch, float(score), Quality(0.5, 0.5, 0.5), defective=False)
    assert len(watch.scores.values) <= len(start.scores.values) + 11  # 1.000 to 1.010
    assert [len(state.values) for state in watch.photos] == [1, 1, 1]
    assert max(state.highest for state in watch.photos) < 10  # ties alone say nothing


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ({"brightness": -0.03}, "the photos are darker than at calibration: check the lamp, or"),
        ({"brightness": 0.03}, "the photos are brighter than"),
        ({"sharpness": -0.03}, "the photos are less sharp than at calibration: check the focus"),
        ({"contrast": -0.03}, "the photos are flatter than"),
    ],
)
def test_a_lamp_is_told_from_a_product(shift, words):
    rng = np.random.default_rng(6)
    threshold = calibrated(rng.standard_normal(60), photo_qualities(rng, 60))
    watch = start = drift.start_watch(threshold)
    watch = run(watch, threshold, rng.standard_normal(100), photo_qualities(rng, 100))
    said = drift.drift_of(watch, threshold)
    assert said.light == "green" and "100 parts seen" in said.sentences[0]
    lamp = run(watch, threshold, rng.standard_normal(150), photo_qualities(rng, 150, **shift))
    said = drift.drift_of(lamp, threshold)
    assert said.light == "red" and len(said.sentences) == 1
    assert words in said.sentences[0] and said.sentences[0].startswith("Since about part ")
    product = run(start, threshold, rng.standard_normal(150) + 1.2, photo_qualities(rng, 150))
    said = drift.drift_of(product, threshold)
    assert said.light == "red" and "the photos themselves are as they were" in said.sentences[0]
    assert "score higher than at calibration" in said.sentences[0]


def test_where_the_change_began_is_estimated_well():
    rng, off = np.random.default_rng(9), []
    for _ in range(40):
        threshold = calibrated(rng.standard_normal(60))
        scores = rng.standard_normal(260) + np.where(np.arange(260) < 100, 0, -1)
        watch = run(drift.start_watch(threshold), threshold, scores, np.ones((3, 260)))
        if watch.scores.alarm > 100:
            off.append(watch.scores.since[1] - 101)
    assert len(off) > 35 and np.median(np.abs(off)) <= 20


def test_what_the_bets_cannot_see_is_said():
    rng = np.random.default_rng(7)
    threshold = calibrated(rng.standard_normal(30))
    watch = run(drift.start_watch(threshold), threshold, np.full(25, 9.0), np.ones((3, 25)))
    said = drift.drift_of(watch, threshold)
    assert (
        said.light == "amber" and "None of the last 25 parts was clearly good" in said.sentences[0]
    )


def test_quality_against_numpy():
    rng = np.random.default_rng(8)
    pixels = rng.integers(0, 256, (12, 14, 3), np.uint8)
    luma = (pixels / 255) @ np.array([0.299, 0.587, 0.114])
    found = quality_of(pixels)
    assert found.brightness == pytest.approx(luma.mean(), abs=2e-6)
    assert found.contrast == pytest.approx(luma.std() / luma.mean(), rel=1e-5)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    windows = np.lib.stride_tricks.sliding_window_view(luma, (3, 3))
    laplacian = (windows * kernel).sum((2, 3))
    assert found.sharpness == pytest.approx(laplacian.std() / luma.std(), rel=1e-4)
    dimmer = quality_of((pixels // 2).astype(np.uint8))
    assert dimmer.brightness < 0.51 * found.brightness
    assert dimmer.contrast == pytest.approx(found.contrast, rel=0.02)
    assert dimmer.sharpness == pytest.approx(found.sharpness, rel=0.02)
    assert qualities([pixels, pixels])[0] == (found.brightness, found.brightness)
    assert quality_of(np.zeros((8, 8, 3), np.uint8)) == (0, 0, 0)
