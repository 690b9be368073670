"""Maps over what is usual at each place, beside the same in NumPy; and their choice by tuning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score

from engine import usual
from engine.method import Score
from evaluation.tuning import rank_candidates, write_tuning


def edges(side=64):
    """Where a map of good parts lights up: twenty times as much in a frame as elsewhere."""
    level = np.full((side, side), 0.1, np.float32)
    level[4:-4, 4:8] = level[4:-4, -8:-4] = 2.0
    return level


def test_a_cell_is_the_mean_of_its_pixels_and_no_quieter_than_a_quarter_of_all():
    mean = np.random.default_rng(0).uniform(0.0, 2.0, (64, 96)).astype(np.float32)
    mean[:2, :3] = 0.0
    expected = mean.reshape(32, 2, 32, 3).mean((1, 3))
    expected[0, 0] = mean.mean() / 4
    np.testing.assert_allclose(usual.usual_cells(mean), expected, rtol=1e-5)
    small = usual.usual_cells(1e-8 * mean)  # as a product of small numbers is
    np.testing.assert_allclose(small, 1e-8 * expected, rtol=1e-5)


def test_what_is_usual_becomes_one_and_twice_as_much_two():
    level = edges()
    cells = usual.usual_cells(level)
    maps = np.stack([level, 2 * level])
    over = usual.over_usual(maps, cells)
    # Within a cell, away from where the level changes; cells between are interpolated.
    assert over[0, 30, 30] == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(over[1], 2 * over[0], rtol=1e-6)
    assert over[0].std() / over[0].mean() < level.std() / level.mean() / 2
    np.testing.assert_allclose(usual.over_usual(jnp.asarray(maps), cells), over, rtol=1e-5)
    assert usual.over_usual(maps, ()) is maps


def test_what_is_asked_for_must_be_measured():
    assert usual.required_usual("none", ((1.0,),)) == ()
    assert usual.required_usual("pixel", ((1.0,),)) == ((1.0,),)
    with pytest.raises(ValueError, match="--mode=tune then measures it"):
        usual.required_usual("pixel", ())
    with pytest.raises(ValueError, match="'pixels' must be one of none, pixel"):
        usual.required_usual("pixels", ())


def score_with(fields):
    """A map that is the first colour, twenty times as bright at edges; two image scores of it."""
    cells = usual.required_usual(fields.get("normalise", "none"), fields.get("usual", ()))

    def score(variables, images):
        raw = variables["gain"] * jnp.abs(images[..., 0]) * edges(images.shape[1])[None]
        maps = usual.over_usual(raw, cells)
        rules = {"max": maps.max((1, 2)), "mean": maps.mean((1, 2))}
        return Score(rules[fields.get("image_score", "mean")], maps, rules)

    return score


@pytest.fixture(scope="module")
def tuned():
    rng = np.random.default_rng(0)
    images, training = (
        rng.uniform(-0.6, -0.4, (count, 64, 64, 3)).astype(np.float32) for count in (6, 19)
    )
    section = ConfigDict({"normalise": ("none", "pixel")})
    rules = {"mean": {"image_score": "mean"}, "max": {"image_score": "max"}}
    tuning = usual.place_tuning(section, score_with, rules)
    variables = {"gain": jnp.float32(3.0)}
    known = tuning.measured(variables, jnp.asarray(images), jnp.asarray(training))
    return variables, images, training, known


def test_the_usual_map_is_that_of_training_images(tuned):
    _, _, training, known = tuned
    expected = usual.usual_cells(3 * (np.abs(training[..., 0]) * edges()).mean(0))
    assert [bool(constants) for constants in known.constants] == [False, True]
    np.testing.assert_allclose(known.constants[1]["usual"], expected, rtol=1e-4)
    assert [dict(fields) for fields in known.settings] == [
        {"normalise": "none"},
        {"normalise": "pixel"},
    ]


def test_tuning_takes_the_map_that_finds_more(tuned, tmp_path):
    variables, images, _, known = tuned
    ranked = rank_candidates({"own": variables}, {"own": known}, images, draws=1)
    best = {"none": 0.0, "pixel": 0.0}
    for candidate in ranked:
        name = known.settings[candidate.setting]["normalise"]
        best[name] = max(best[name], candidate.mean().pixel_average_precision)
    assert best["pixel"] > 2 * best["none"]
    assert known.settings[ranked[0].setting]["normalise"] == "pixel"
    content = write_tuning(str(tmp_path), ranked, {"own": known}, {"own": "."}, "why")
    # The measured numbers are written once, with the choice, and not for each candidate.
    assert all("usual" not in candidate["score"] for candidate in content["candidates"])
    chosen = content["chosen"]["score"]
    score = jax.jit(known.score(chosen))(variables, images)
    tried = jax.jit(known.scores)(variables, images)[ranked[0].setting]
    np.testing.assert_allclose(score.map, tried.map, rtol=1e-4)
    np.testing.assert_allclose(score.image, tried.terms[ranked[0].rule], rtol=1e-4)
    spot = np.array(images)
    spot[:, 40:44, 30:34] = 1.0
    found = known.score(chosen)(variables, spot).map
    plain = known.score({"normalise": "none"})(variables, spot).map
    where = np.zeros(found.shape, bool)
    where[:, 40:44, 30:34] = True
    areas = [roc_auc_score(where.ravel(), np.asarray(maps).ravel()) for maps in (found, plain)]
    assert areas[0] > 0.999 > areas[1]
