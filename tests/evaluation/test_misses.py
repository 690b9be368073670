"""Misses by labelled defects and a threshold by cost, against counting by brute force."""

import json

import numpy as np
import pytest
from scipy import stats

from data.decoded import no_images
from evaluation import misses, threshold
from evaluation.misses import Costs, LabelledDefects, Misses

RNG = np.random.default_rng(0)
NETWORK = {"step": 1, "score": {}}


def calibrated(scores, **options):
    maps = scores[:, None, None] * np.ones((1, 2, 2))
    return threshold.calibrate(scores, maps, 0.1, **options)


@pytest.mark.parametrize("point", [1, 3, 20])
def test_a_defect_is_missed_where_its_rank_is_above_the_point(point):
    normal, defects = RNG.normal(size=20), RNG.normal(1, 1, size=200)
    found = calibrated(normal, point=point)
    assert found.guaranteed_rate == pytest.approx(point / 21)
    ranks = misses.ranks_of(normal, defects)
    expected = int((defects <= found.threshold).sum())
    # The threshold lies a little above a score: what is between is missed, too.
    assert abs(misses.misses_at(ranks, point) - expected) <= 1
    np.testing.assert_allclose(ranks / 21, threshold.p_values(found, defects))


@pytest.mark.parametrize("seed", range(5))
def test_the_cheapest_point_is_the_cheapest_of_all(seed):
    rng = np.random.default_rng(seed)
    ranks, costs = rng.integers(1, 12, 6), Costs(float(rng.uniform(1, 500)), 1.0, 0.05)
    prices = [
        0.05 * costs.miss * np.mean([rank > k for rank in ranks]) + 0.95 * k / 11
        for k in range(1, 11)
    ]
    assert misses.cheapest(ranks, 10, costs) == 1 + int(np.argmin(prices))


def test_dear_misses_lower_the_threshold_and_dear_alarms_raise_it():
    ranks = [1, 2, 5, 9]
    points = [misses.cheapest(ranks, 19, Costs(cost, 1.0, 0.01)) for cost in (1, 30, 100, 10**4)]
    assert points == sorted(points) and points[0] == 1 and points[-1] == 9


def test_each_miss_is_counted_at_the_point_that_the_others_choose():
    """Without the one of rank 9 the others choose 1; with it, 9: it is missed, and no other."""
    costs = Costs(1000.0, 1.0, 0.01)
    assert misses.cheapest([1, 1, 1, 9], 19, costs) == 9
    assert misses.cheapest([1, 1, 1], 19, costs) == 1
    assert misses.misses_by_cost([1, 1, 1, 9], 19, costs) == 1
    few = LabelledDefects(no_images(8), trained_on=True, costs=costs)
    found = misses.judged(few, [1, 1, 1, 9], 19, 9)
    assert found.missed == 1
    assert found.interval == pytest.approx(stats.beta.ppf([0.025, 0.975], [1, 2], [4, 3]))


def test_what_is_said_depends_on_what_training_has_seen(tmp_path):
    seen = Misses(5, trained_on=True)
    (line,) = misses.misses_statement(seen)
    assert "Nothing is known of misses" in line and "leave_one_out=True" in line
    unseen = Misses(5, False, 1, (0.005, 0.716))
    assert "which training has not seen, 1 would be missed" in misses.misses_statement(unseen)[0]
    chosen = Misses(5, True, 1, (0.005, 0.716), Costs(100.0, 1.0, 0.01))
    lines = misses.misses_statement(chosen)
    assert "trained without it" in lines[0]
    assert "100 for a miss, 1 for a false alarm" in lines[1] and "no promise" in lines[1]
    for found in (seen, unseen, chosen):
        whole = calibrated(np.arange(19.0))._replace(misses=found)
        threshold.write_threshold(str(tmp_path), whole, NETWORK)
        assert threshold.read_threshold(str(tmp_path), NETWORK) == whole
        content = json.loads((tmp_path / threshold.THRESHOLD_FILE).read_text())
        assert content["guaranteed"] == (found is not chosen)
        assert lines[0] in content["statement"] or found is not chosen


@pytest.mark.parametrize(
    ("costs", "labelled", "tested", "said"),
    [
        ((1.0, 0.0), 5, True, "set both above 0, or neither"),
        ((1.0, 1.0), 0, True, "takes 2 labelled defects at least, and there are 0"),
        ((1.0, 1.0), 1, True, "takes 2 labelled defects at least, and there are 1"),
        ((1.0, 1.0), 5, False, "add --config.threshold.leave_one_out=True"),
    ],
)
def test_costs_that_rest_on_nothing_are_refused(costs, labelled, tested, said):
    with pytest.raises(ValueError, match=said):
        misses.require_costs(Costs(*costs, 0.01), labelled, tested=tested)
    assert misses.require_costs(Costs(0.0, 0.0, 0.01), labelled, tested=tested) is None
