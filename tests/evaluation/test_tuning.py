"""What --mode=tune chooses, on networks and settings whose merit is known."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from engine.method import Score, Tuning
from evaluation import made_up, tuning
from evaluation.tuning import Candidate, Found


def corrupt(rng, images):
    """A square that is brighter by 1 in the images' corner; it differs in no draw."""
    mask = jnp.zeros(images.shape[:3]).at[:, :4, :4].set(1)
    return images + mask[..., None], mask


def scores(variables, images):
    """Setting 0: the brightness times the network's sign. Setting 1: the same everywhere."""
    bright = variables["sign"] * images.mean(axis=-1)
    flat = jnp.full_like(bright, 3.0)

    def score(maps):
        terms = {"max": maps.max((1, 2)), "constant": jnp.zeros(maps.shape[0])}
        return Score(terms["max"], maps, terms)

    return score(bright), score(flat)


TUNING = Tuning(
    corrupt=corrupt,
    settings=({"smoothing": 0.0}, {"smoothing": 9.0}),
    rules={"max": {"image_score": "max"}, "constant": {"image_score": "constant"}},
    scores=scores,
    score=lambda fields: lambda variables, images: scores(variables, images)[0],
)
NETWORKS = {"wrong": {"sign": jnp.array(-1.0)}, "right": {"sign": jnp.array(1.0)}}


def ranked_of(images, tuned=TUNING, networks=NETWORKS, draws=1):
    return tuning.rank_candidates(networks, dict.fromkeys(networks, tuned), images, draws=draws)


@pytest.fixture
def normal():
    return np.random.default_rng(0).uniform(-0.5, 0.5, (5, 8, 8, 3)).astype(np.float32)


def test_the_network_setting_and_rule_that_find_the_defects_are_chosen(normal):
    ranked = ranked_of(normal, draws=2)
    best = ranked[0]
    assert (best.network, best.setting, best.rule) == ("right", 0, "max")
    assert len(ranked) == 2 * 2 * 2
    assert best.mean().image_auroc == 1.0


def test_the_metrics_are_those_of_scikit_learn(normal):
    found = {(c.network, c.setting, c.rule): c for c in ranked_of(normal, draws=3)}
    made, mask = corrupt(None, normal)
    maps = -np.asarray(made).mean(axis=-1)
    labels = [0] * 5 + [1] * 15
    good = (-normal.mean(axis=-1)).max((1, 2))
    candidate = found["wrong", 0, "max"].kinds["corruption"]
    scored = np.concatenate([good, *[maps.max((1, 2))] * 3])
    assert candidate.image_auroc == pytest.approx(roc_auc_score(labels, scored), abs=1e-6)
    pixels = np.asarray(mask).ravel() > 0, maps.ravel()
    assert candidate.pixel_auroc == pytest.approx(roc_auc_score(*pixels), abs=1e-6)
    precision = average_precision_score(*pixels)
    assert candidate.pixel_average_precision == pytest.approx(precision, abs=1e-6)
    assert candidate.merit == pytest.approx((candidate.image_auroc + precision) / 2, abs=1e-6)


def test_what_is_near_the_best_everywhere_comes_before_what_wins_one_kind():
    def candidate(*merits):
        kinds = zip(("blot", "scratch", "stain"), merits, strict=True)
        return Candidate("own", 0, "max", {kind: Found(m, 0.0, m) for kind, m in kinds})

    steady, winner = candidate(0.8, 0.7, 0.8), candidate(1.0, 1.0, 0.4)
    both = [winner, steady]
    assert tuning.regrets(both) == pytest.approx([0.4, 0.3])
    assert tuning.regrets([winner]) == [0]


def test_where_no_corruption_is_named_the_kinds_of_defects_are_those_of_made_up(normal):
    images = np.tile(normal, (1, 4, 4, 1))
    ranked = ranked_of(images, TUNING._replace(corrupt=None))
    assert {tuple(candidate.kinds) for candidate in ranked} == {tuple(made_up.DEFECT_KINDS)}
    regrets = tuning.regrets(ranked)
    assert regrets == sorted(regrets)


def test_of_equals_the_first_is_chosen(normal):
    twins = {"first": NETWORKS["right"], "second": NETWORKS["right"]}
    assert ranked_of(normal, networks=twins)[0].network == "first"


def test_what_cannot_be_seen_is_no_defect(normal):
    def faint(rng, images):
        made, mask = corrupt(rng, images)
        return images + 0.04 * (made - images), mask

    with pytest.raises(ValueError, match="tuning.corruption.opacity"):
        ranked_of(normal, TUNING._replace(corrupt=faint))


def test_the_choice_is_written_and_read(normal, tmp_path):
    assert tuning.read_choice(str(tmp_path)) == (str(tmp_path), {})
    ranked = ranked_of(normal)
    folders = {"right": "tuning/right", "wrong": "."}
    content = tuning.write_tuning(
        str(tmp_path), ranked, dict.fromkeys(NETWORKS, TUNING), folders, "why"
    )
    assert json.loads((tmp_path / "tuning.json").read_text()) == content
    assert len(content["candidates"]) == 8
    folder, fields = tuning.read_choice(str(tmp_path))
    assert folder == str(tmp_path / "tuning" / "right")
    assert fields == {"smoothing": 0.0, "image_score": "max"}
    assert "right: image AUROC 1.000" in tuning.tuning_summary(content)


@pytest.mark.parametrize("text", ["{", "[]", '{"chosen": {}}', '{"chosen": {"folder": 1}}'])
def test_a_damaged_choice_is_told(tmp_path, text):
    (tmp_path / "tuning.json").write_text(text)
    with pytest.raises(ValueError, match=r"tuning\.json is damaged.*tune again"):
        tuning.read_choice(str(tmp_path))
