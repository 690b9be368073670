"""The threshold keeps its promise, which a simulation and formulas by hand hold it to."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from data import sampling
from evaluation import threshold

NETWORK = {"folder": ".", "stage": "encoder", "step": 60, "score": {}}


def calibrated(scores, rate=0.05):
    scores = np.asarray(scores, np.float64)
    return threshold.calibrate(scores, scores[:, None, None] * np.array([[[0.5, 1.0]]]), rate)


@pytest.mark.promise("R12", "1,000 repeats: false alarms are no more than promised")
@pytest.mark.parametrize(
    ("count", "rate"), [(21, 0.05), (19, 0.05), (60, 0.1), (6, 0.05), (2, 0.3)]
)
def test_the_promise_holds_in_a_thousand_repeats(count, rate):
    """Each with its own good images and one new one; of heavy-tailed scores with ties."""
    rng = np.random.default_rng(count)
    repeats, alarms = 1000, 0
    for _ in range(repeats):
        scores = np.round(rng.lognormal(size=count + 1), 2)
        found = calibrated(scores[:-1], rate)
        alarms += scores[-1] > found.threshold
    assert found.guaranteed_rate <= max(rate, 1 / (count + 1))
    assert alarms <= stats.binom.ppf(0.999, repeats, found.guaranteed_rate)


@pytest.mark.parametrize(("count", "rate"), [(21, 0.05), (60, 0.1), (6, 0.05)])
def test_it_is_no_more_careful_than_need_be(count, rate):
    """Without ties the false-alarm rate is the guaranteed one, and it is spread as it is said."""
    rng = np.random.default_rng(1)
    repeats, inside, exact = 1000, 0, 0.0
    for _ in range(repeats):
        found = calibrated(rng.random(count), rate)
        exact += 1 - found.threshold  # of uniform scores: the rate in the long run
        inside += found.interval[0] <= 1 - found.threshold <= found.interval[1]
    assert exact / repeats == pytest.approx(found.guaranteed_rate, rel=0.1)
    low, high = stats.binom.ppf([0.001, 0.999], repeats, 0.95)
    assert low <= inside <= high


def test_the_quantile_by_hand():
    """Of nine scores and a tenth: k = ceil(10 x 0.9) = 9, the highest; a fifth: k = 8."""
    scores = np.arange(1.0, 10.0)
    tenth, fifth = calibrated(scores, 0.1), calibrated(scores, 0.2)
    assert tenth.threshold == pytest.approx(9.0, rel=2e-4) and tenth.threshold > 9.0
    assert fifth.threshold == pytest.approx(8.0, rel=2e-4) and fifth.threshold > 8.0
    assert (tenth.guaranteed_rate, fifth.guaranteed_rate) == (0.1, 0.2)
    assert fifth.pixel_threshold == pytest.approx(8.0, rel=2e-4)
    assert fifth.map_max == 3 * 9.0
    assert fifth.interval == pytest.approx(stats.beta.interval(0.95, 2, 8))
    assert fifth.calibration_scores == tuple(scores)


def test_a_rate_is_what_its_digits_say():
    """20 x 0.05 is 1, although 0.05 is no binary fraction; 0.1 + 0.2 is a little more than 0.3."""
    assert calibrated(range(19), 0.05).guaranteed_rate == 0.05
    assert calibrated(range(9), 0.3).guaranteed_rate == 0.3
    assert [threshold.needed(rate) for rate in (0.05, 0.01, 0.3, 0.5)] == [19, 99, 3, 1]


@pytest.mark.promise("R12", "too few images for the rate asked for: said")
def test_too_few_images_are_said_to_be_too_few():
    found = calibrated(range(1, 7), 0.05)
    assert found.guaranteed_rate == pytest.approx(1 / 7)
    assert found.threshold == pytest.approx(6, rel=2e-4)  # the highest, and nothing beyond it
    said = " ".join(threshold.statement(found))
    assert "5 % asked for are NOT guaranteed: that takes 19 held-out good images" in said
    assert "14.3 % at most" in said


def test_the_statement_is_in_plain_words():
    found = calibrated(range(21), 0.1)
    said = threshold.statement(found)
    assert "With 21 good images the lowest rate that can be guaranteed is 4.5 %." in said
    low, high = stats.beta.interval(0.95, 2, 20)
    assert f"between {100 * low:.1f} % and {100 * high:.1f} %" in " ".join(said)
    assert "NOT" not in " ".join(said) and "chosen" not in " ".join(said)
    assert "chosen with the help of the same images" in threshold.statement(found, tuned=True)[-1]


def test_percentages():
    rates = (0.05, 1 / 22, 0.0046, 0.5, 0.00042, 0.161)
    said = ["5 %", "4.5 %", "0.46 %", "50 %", "0.042 %", "16.1 %"]
    assert [threshold.percent(rate) for rate in rates] == said


def test_rounding_neither_flips_a_good_image_nor_reaches_the_next():
    wide, narrow = calibrated([1.0, 2.0, 3.0], 0.5), calibrated([1.0, 2.0, 2.00001], 0.5)
    assert 2.0 * (1 + 5e-5) < wide.threshold < 2.001
    assert 2.0 < narrow.threshold < 2.00001
    negative = calibrated([-3.0, -2.0, -1.0], 0.5)
    assert -2.0 < negative.threshold < -1.999
    tied = calibrated([1.0, 1.0, 1.0, 1.0], 0.5)
    assert not (np.array(tied.calibration_scores) > tied.threshold).any()


def test_p_values_by_hand_agree_with_the_decision():
    found = calibrated([1.0, 2.0, 2.0, 5.0], 0.4)
    scores = np.array([0.5, 1.0, 2.0, 4.0, 5.0, 9.0])
    values = threshold.p_values(found, scores)
    assert values == pytest.approx(np.array([5, 5, 4, 2, 2, 1]) / 5)
    assert ((values <= 0.4) == (scores > found.threshold)).all()


def test_rates_against_clopper_and_pearson():
    found = calibrated(range(1, 20), 0.05)
    labels = np.array([0] * 10 + [1] * 6)
    defects = ["good"] * 10 + ["scratch"] * 4 + ["dent"] * 2
    scores = np.array([1.0] * 9 + [30.0] + [3.0, 40.0, 50.0, 60.0] + [1.0, 2.0])
    rates = threshold.rates(found, labels, defects, scores)
    assert list(rates) == ["good", "dent", "scratch"]
    assert [(rates[name]["wrong"], rates[name]["count"]) for name in rates] == [
        (1, 10),
        (2, 2),
        (1, 4),
    ]
    low, high = stats.beta.ppf(0.025, 1, 10), stats.beta.ppf(0.975, 2, 9)
    assert rates["good"]["interval"] == pytest.approx([low, high])
    assert rates["dent"]["interval"] == pytest.approx([0.025**0.5, 1.0])
    assert threshold.rates(found, labels[:0], [], scores[:0]) == {}
    assert list(threshold.rates(found, labels[10:], defects[10:], scores[10:])) == [
        "dent",
        "scratch",
    ]


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=f"false_alarm_rate={rate} is not in"):
        calibrated(range(10), rate)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_for_any_threshold(count):
    with pytest.raises(ValueError, match=f"needs 2 .*there are {count}: photograph more"):
        threshold.calibrate(np.ones(count), np.ones((count, 2, 2)), 0.05)


def test_scores_that_are_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        calibrated([1.0, np.nan, 2.0])


def test_the_file_gives_the_same_bits(tmp_path):
    found = calibrated(np.random.default_rng(0).random(21))
    threshold.write_threshold(str(tmp_path), found, NETWORK)
    assert threshold.read_threshold(str(tmp_path), NETWORK) == found
    content = json.loads((tmp_path / "threshold.json").read_text())
    assert content["guaranteed"] and content["statement"] == threshold.statement(found)


def test_after_tuning_on_the_same_images_nothing_is_guaranteed():
    tuned = threshold.content(calibrated(range(21)), NETWORK | {"score": {"smoothing": 2.0}})
    assert not tuned["guaranteed"] and "chosen with the help" in tuned["statement"][-1]


def test_a_file_of_other_networks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="--mode=evaluate"):
        threshold.read_threshold(str(tmp_path), NETWORK)
    threshold.write_threshold(str(tmp_path), calibrated(range(21)), NETWORK)
    with pytest.raises(ValueError, match="other networks .*--mode=evaluate"):
        threshold.read_threshold(str(tmp_path), NETWORK | {"step": 80})


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", None), ("threshold", "NaN"), ("calibration_scores", [2, 1]), ("interval", 3)],
)
def test_a_damaged_file_is_refused(tmp_path, name, value):
    threshold.write_threshold(str(tmp_path), calibrated(range(21)), NETWORK)
    path = tmp_path / "threshold.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match="is damaged .*--mode=evaluate"):
        threshold.read_threshold(str(tmp_path), NETWORK)
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        threshold.read_threshold(str(tmp_path), NETWORK)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.01])
@pytest.mark.parametrize("good", [4, 10, 30, 57, 60, 209, 400])
def test_the_way_out_of_too_few_leads_out(rate, good):
    """Who follows the advice has enough, and no share that is set already is advised."""
    share, enough = 0.02, threshold.needed(rate)
    held_out = sampling.split(0, good, share, pick_test=False)[1].size
    try:
        said = threshold.shortfall(rate, held_out, good)
    except ValueError as error:
        said, enough = str(error), 2
    if f"for {good} are too few" in said:
        assert good < 3 * enough
        return
    advised = float(re.search(r"--config.data.calibration=([0-9.]+) ", said)[1])
    assert advised > share
    assert sampling.split(0, good, advised, pick_test=False)[1].size >= enough
    sampling.split(0, good, advised, pick_test=True)  # leaves images to train on
