"""Labelled defects: which they are, that none is tested with, and how batches draw from them."""

import itertools
from collections import Counter

import jax
import numpy as np
import pytest
from trees import SIZE, load, load_own, make_product, make_tree, picture, save

from data import check, labelled, pipeline, sampling
from data.labelled import Asked
from engine import batches

KINDS = {"crack": 6, "dent": 6, "odd": 1}
PATHS = [f"test/{kind}/{i}.png" for kind, count in KINDS.items() for i in range(count)]
DEFECTS = [kind for kind, count in KINDS.items() for _ in range(count)]


def kinds_of(names):
    return Counter(name.split("/")[1] for name in names)


def test_the_general_choice_is_even_and_leaves_half_of_each_kind():
    chosen = [labelled.choose_labelled(3, PATHS, DEFECTS, number) for number in range(1, 7)]
    assert [len(names) for names in chosen] == [1, 2, 3, 4, 5, 6]
    assert kinds_of(chosen[3]) == {"crack": 2, "dent": 2}
    assert kinds_of(chosen[5]) == {"crack": 3, "dent": 3}  # of the single odd one nothing is taken
    assert all(set(few) < set(more) for few, more in itertools.pairwise(chosen))
    order = np.random.default_rng(0).permutation(len(PATHS))
    mixed = [PATHS[i] for i in order], [DEFECTS[i] for i in order]
    assert labelled.choose_labelled(3, *mixed, 4) == chosen[3]
    assert any(labelled.choose_labelled(seed, PATHS, DEFECTS, 4) != chosen[3] for seed in (4, 5))


def test_the_hard_choice_is_of_one_kind():
    assert kinds_of(labelled.choose_labelled(0, PATHS, DEFECTS, 3, "dent")) == {"dent": 3}


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (7, "", "more than half .* crack \\(6\\), dent \\(6\\), odd \\(1\\); choose 6 at most"),
        (4, "dent", "dent \\(6\\); choose 3 at most"),
        (1, "odd", "odd \\(1\\); a kind needs 2 images at least"),
        (1, "rust", "'rust' is no kind of defect of the test set: choose one of crack, dent, odd"),
    ],
)
def test_more_than_half_of_a_kind_is_refused(number, kind, said):
    with pytest.raises(ValueError, match=said):
        labelled.choose_labelled(0, PATHS, DEFECTS, number, kind)


def test_the_fields_of_a_config():
    assert labelled.asked("10", "dent") == Asked(10, "", "dent")
    assert labelled.asked("/some/where") == Asked(0, "/some/where", "")
    assert not labelled.asked("") and not labelled.asked("0")
    with pytest.raises(ValueError, match="set data.labelled to a number, or leave the kind out"):
        labelled.asked("", "dent")


@pytest.fixture
def folder(tmp_path):
    folder = make_tree(tmp_path / "root")
    save(folder / "test/broken/003.png", picture(203))
    return folder


def everyone(splits):
    return [path for part in splits[:3] for path in part.paths]


def test_labelled_images_are_those_that_are_not_tested(folder):
    whole = load(folder)
    for _ in range(2):  # decoded, and from the copy
        splits = load(folder, defects=Asked(2))
        assert len(splits.labelled.paths) == 2
        assert set(splits.labelled.paths).isdisjoint(everyone(splits))
        assert sorted(everyone(splits) + splits.labelled.paths) == sorted(everyone(whole))
        pairs = zip(whole.test.images, whole.test.masks, strict=True)
        by_path = dict(zip(whole.test.paths, pairs, strict=True))
        for part in (splits.test, splits.labelled):
            for path, image, mask in zip(part.paths, part.images, part.masks, strict=True):
                np.testing.assert_array_equal(image, by_path[path][0])
                assert (mask is None) == (by_path[path][1] is None)
                if mask is not None:
                    np.testing.assert_array_equal(mask, by_path[path][1])
    assert whole.labelled is None
    assert load(folder, defects=Asked(2), test=False).labelled is None


def test_a_folder_of_own_photos_works_likewise(tmp_path):
    root = make_product(tmp_path / "photos")
    splits = load_own(root, defects=Asked(1))
    assert splits.labelled.defects == ["scratch"]
    assert set(splits.labelled.paths).isdisjoint(everyone(splits))
    report = check.check_data(
        "mine", "/nowhere", SIZE, calibration=0.1, seed=0, folder=root, defects=Asked(1)
    )
    uses = {image.name: image.use for image in report.images}
    assert [name for name, use in uses.items() if use == check.LABELLED] == splits.labelled.paths
    assert set(splits.test.paths) == {name for name, use in uses.items() if "tested as" in use}
    assert any("1 labelled as defective" in line for line in report.findings)


def test_photos_of_another_folder(folder, tmp_path):
    place = tmp_path / "defects"
    save(place / "rust/a.png", picture(900))
    save(place / "b.png", picture(901))
    splits = load(folder, defects=Asked(0, str(place)))
    assert (splits.labelled.paths, splits.labelled.defects) == (
        ["b.png", "rust/a.png"],
        ["defects", "rust"],
    )
    assert len(splits.test.paths) == 6
    with pytest.raises(ValueError, match="neither a number nor a folder"):
        load(folder, defects=Asked(0, str(place / "none")))


@pytest.mark.parametrize("same", ["train/good/003.png", "test/broken/001.png"])
def test_a_labelled_image_that_is_trained_on_or_tested_is_refused(folder, tmp_path, same):
    place = tmp_path / "defects"
    save(place / "a.png", picture({"train": 3, "test": 201}[same.split("/")[0]]))
    asked = Asked(0, str(place))
    with pytest.raises(ValueError, match=f"1 labelled images .* a.png and {same}; remove one"):
        load(folder, defects=asked)
    report = check.check_data(
        folder.name, folder.parent, SIZE, calibration=0.1, seed=0, defects=asked
    )
    (line,) = report.problems
    assert "the same file" in line and "a.png (labelled" in line and same in line
    (place / "a.png").unlink()  # the way out
    save(place / "c.png", picture(999))
    load(folder, defects=asked)


def test_draws_of_both_rows_are_pure_functions_of_seed_and_step():
    draws = sampling.labelled_draws(12, 3, flip=True)
    steps = list(itertools.islice(draws((1, 2, 6), 5, 0), 8))
    assert all(indices.shape == (1, 2, 6) for indices, *_ in steps)
    normal = np.concatenate([indices[0, 0] for indices, *_ in steps])
    few = np.concatenate([indices[0, 1] for indices, *_ in steps])
    assert sorted(normal[:12]) == list(range(12)) and set(few) == {12, 13, 14}
    assert Counter(few.tolist()) == {12: 16, 13: 16, 14: 16}
    for one, other in zip(next(draws((1, 2, 6), 5, 4)), steps[4], strict=True):
        np.testing.assert_array_equal(one, other)
    for local, count in ((2, 1), (1, 2), (2, 3)):  # devices a process, processes
        dims = (local, 2, 6 // (local * count))
        parts = [next(draws(dims, 5, 4, process=(i, count)))[0] for i in range(count)]
        joined = np.concatenate([*np.concatenate(parts)], axis=1)
        np.testing.assert_array_equal(joined, steps[4][0][0])
    alone = next(sampling.labelled_draws(12, 0, flip=True)((1, 2, 6), 5, 0))[0]
    assert alone.max() < 12


def test_streamed_batches_are_the_resident_ones_to_the_bit():
    pixels = picture(0, (15, 8, 8, 3))
    draws = pipeline.labelled_train_draws(pixels, 3, flip=True, crop=4, rotation=90)
    resident = batches.resident(pixels, draws, crop=4)
    streamed = batches.streamed(pipeline.train_images(pixels, draws), crop=4)
    pairs = zip(*(each.sent((2, 2, 4), 1, 3) for each in (resident, streamed)), strict=False)
    for one, other in itertools.islice(pairs, 3):
        both = [
            source.images(source.held, jax.tree.map(lambda x: x[0], sent))
            for source, sent in ((resident, one), (streamed, other))
        ]
        assert both[0].shape == (2, 4, 4, 4, 3)
        np.testing.assert_array_equal(*both)
