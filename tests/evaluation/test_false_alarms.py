"""Marks of made-up maps: what is promised, what is observed, and where what is assumed is wrong."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from evaluation.false_alarms import (
    LEVELS,
    calibrate_marks,
    fit_background,
    log_nfa,
    marks_of,
    marks_statement,
)
from evaluation.threshold import calibrate, read_threshold, write_threshold


def noise(count, side=48, seed=0, sigma=1.0):
    """Squares of smooth Gaussian noise: neighbours are alike, no value is negative."""
    white = np.random.default_rng(seed).standard_normal((count, side, side))
    smooth = ndimage.gaussian_filter(white, (0, sigma, sigma))
    return np.square(smooth / smooth.std()).astype(np.float32)


def regions(maps, marks):
    return [ndimage.label(each < marks.limit, np.ones((3, 3)))[1] for each in marked(maps, marks)]


def marked(maps, marks):
    return log_nfa(maps, marks.background)


@pytest.fixture(scope="module")
def marks():
    return calibrate_marks(noise(30), 1.0, 0.05)


def test_good_images_have_no_more_regions_than_promised(marks):
    """200 more images of the same smooth noise, by each of three calibrations; a tenth of that."""
    assert marks.limit == 0 and 0 < marks.observed <= 1.2
    more = noise(200, seed=1)
    others = [calibrate_marks(noise(30, seed=seed), 1.0, 0.05) for seed in (10, 11)]
    assert np.mean([regions(more, each) for each in (marks, *others)]) <= 1
    few = calibrate_marks(noise(30), 0.1, 0.05)
    assert few.limit == -1 and np.mean(regions(more, few)) <= 0.1


def test_peaks_and_faint_wide_regions_are_found(marks):
    """A speck that is far above all, and a third of the image that is a little brighter."""
    maps = noise(3, seed=2)
    maps[0, 20:23, 20:23] = 60
    maps[1, :, :16] = maps[1, :, :16] / 4 + 3
    found = marked(maps, marks) < marks.limit
    assert found[0, 21, 21] and found[0].sum() < 60
    assert found[1, :, :16].mean() > 0.5 and found[1, :, 20:].sum() < 40
    raised = maps.copy()
    raised[2, 30:33, 30:33] += 50
    assert (marked(raised, marks)[2] <= marked(maps, marks)[2] + 1e-6)[31, 31]


def test_places_have_levels_of_their_own_where_that_predicts_better():
    """An edge that is bright in each good image: marked by no image, and a defect beside it is."""
    edge = np.ones((48, 48), np.float32)
    edge[:, 20:28] = 30
    maps = noise(30) * edge
    placed = calibrate_marks(maps, 1.0, 0.05)
    assert placed.background.usual and not calibrate_marks(noise(30), 1.0, 0.05).background.usual
    alike = fit_background(maps, by_place=False)
    new = noise(1, seed=3) * edge
    new[0, 8:14, 5:11] = 60
    found = log_nfa(new, placed.background)[0]
    assert found[11, 8] < -2 and found[11, 8] < log_nfa(new, alike)[0, 11, 8]
    assert "what is usual at each place" in " ".join(marks_statement(placed))


def test_where_chance_is_otherwise_the_conformal_limit_takes_over():
    """Every second good image has six specks, which those of the other kind do not foretell."""
    maps = noise(40)
    rng = np.random.default_rng(5)
    for values in maps[:20]:
        values *= 3
    maps[::10, 5:44:13, 5:44:13] = 10 ** rng.uniform(2, 4, (4, 3, 3))
    found = calibrate_marks(maps, 0.05, 0.05)
    assert found.conformal and found.observed > 0.05 and found.limit < math.log10(0.05)
    assert "That is clearly more" in " ".join(marks_statement(found))
    share = np.mean([each > 0 for each in regions(maps, found)])
    assert share <= 0.05


def test_too_few_good_pixels_for_a_level_are_told():
    few = calibrate_marks(noise(2, 16, sigma=2), 1.0, 0.05)
    used = few.background.probabilities
    assert used[-1] == 0 and few.losses[1] is None
    said = [line for line in marks_statement(few) if line.startswith("Levels not used")]
    assert len(said) == 1 and f"{100 * LEVELS[-1]:g} %" in said[0]


def test_maps_of_one_value_mark_nothing_and_are_told_to_use_no_level():
    flat = calibrate_marks(np.zeros((4, 16, 16), np.float32), 1.0, 0.05)
    assert flat.background.rarest == -1
    assert np.isfinite(marked(noise(2, 16), flat)).all()
    assert sum(regions(noise(2, 16), flat)) == 0
    assert "10 %, 1 %, 0.1 %" in " ".join(marks_statement(flat))


def test_jax_marks_as_numpy_does(marks):
    maps = noise(2, seed=4)
    found = jax.jit(lambda values: log_nfa(values, marks.background))(jnp.asarray(maps))
    np.testing.assert_allclose(found, marked(maps, marks), rtol=1e-4, atol=1e-4)


def test_the_file_brings_back_what_was_written(marks, tmp_path):
    threshold = calibrate(np.arange(20.0), np.ones((20, 2, 2)), 0.05)._replace(marks=marks)
    write_threshold(str(tmp_path), threshold, {})
    assert read_threshold(str(tmp_path), {}) == threshold
    path = tmp_path / "threshold.json"
    content = json.loads(path.read_text())
    assert marks_of(content["marks"]) == marks
    assert content["statement"][-1] == marks_statement(marks)[-1]
    content["marks"]["background"]["sides"] = [3]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"threshold.json is damaged \(.*make no sense.*: run "):
        read_threshold(str(tmp_path), {})


@pytest.mark.parametrize("expected", [0, -1, math.inf])
def test_a_number_of_regions_that_is_none(expected):
    with pytest.raises(ValueError, match="false_regions=.* is not in .*: set how many"):
        calibrate_marks(noise(2, 16), expected, 0.05)
