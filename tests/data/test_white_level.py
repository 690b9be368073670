"""16 bits and EXIF orientation through a whole data set: its white level, its masks, its copy."""

import numpy as np
import pytest
from PIL import Image
from trees import SIZE, decoded_copy, load, load_own, oriented, picture, pillow_resize, save, square

from data import images, pipeline
from data.check import check_data

LARGEST = 3977  # of the training images; in the test set there are higher ones


def deep(seed, largest=LARGEST):
    values = np.random.default_rng(seed).integers(0, largest + 1, (20, 18)).astype(np.uint16)
    values[3, 4] = largest
    return values


def make_deep_tree(root, largest=LARGEST):
    """Training images of 12 bits but for two of 8; the brightest one is the last."""
    folder = root / "part"
    for index in range(6):
        save(folder / f"train/good/{index}.png", deep(index, largest if index == 5 else 500))
    save(folder / "train/good/6.png", picture(6))
    save(folder / "train/good/7.jpg", picture(7))
    save(folder / "test/good/0.png", deep(20, 4095))
    save(folder / "test/broken/1.png", deep(21, 300))
    save(folder / "ground_truth/broken/1_mask.png", square())
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_deep_tree(tmp_path / "root")


def by_name(splits):
    return {
        name: image
        for part in splits[:3]
        for name, image in zip(part.paths, part.images, strict=True)
    }


def scaled(values, level):
    """By hand, as the network sees it."""
    grey = np.rint(np.minimum(values, level) / level * 255).astype(np.uint8)
    return pillow_resize(np.repeat(grey[..., None], 3, axis=-1))


def assert_scaled(splits, level):
    found = by_name(splits)
    for index in range(6):
        values = deep(index, LARGEST if index == 5 else 500)
        np.testing.assert_array_equal(found[f"train/good/{index}.png"], scaled(values, level))
    np.testing.assert_array_equal(found["train/good/6.png"], pillow_resize(picture(6)))
    np.testing.assert_array_equal(found["test/good/0.png"], scaled(deep(20, 4095), level))
    np.testing.assert_array_equal(found["test/broken/1.png"], scaled(deep(21, 300), level))
    assert splits.white_level == level


def test_the_white_level_is_that_of_all_training_images(folder, warned):
    for _ in range(2):  # decoded, and from the copy
        assert_scaled(load(folder), 4095)
    assert_scaled(load(folder, seed=3, calibration=0.5), 4095)
    assert_scaled(load(folder, white_level=4095), 4095)
    assert warned == []
    without = load(folder, test=False)
    assert without.white_level == 4095 and len(without.test.paths) == 0


@pytest.mark.parametrize("level", [255, 1001, 65535])
def test_a_level_that_is_set_is_taken(folder, level):
    assert_scaled(load(folder, white_level=level), level)


def test_a_copy_of_another_level_is_not_taken(folder, monkeypatch):
    decode, calls = pipeline.decode, []
    monkeypatch.setattr(pipeline, "decode", lambda *how: calls.append(how) or decode(*how))
    for white_level, level, decodes in (
        *((0, 4095, 1), (4095, 4095, 0), (1023, 1023, 1), (1023, 1023, 0)),
        *((0, 4095, 1), (65535, 65535, 1), (0, 4095, 1), (0, 4095, 0)),
    ):
        calls.clear()
        assert_scaled(load(folder, white_level=white_level), level)
        assert len(calls) == decodes


def test_a_copy_by_itself_says_its_level(folder):
    load(folder)
    found, theirs = decoded_copy(folder), {"data_dir": folder / "none"}
    for level in (0, 4095):
        assert_scaled(pipeline.load_splits("part", found, SIZE, white_level=level, **theirs), 4095)
    message = "holds images of the white level 4095, not {}: name the folder .*white_level=4095"
    with pytest.raises(ValueError, match=message.format(1023)):
        pipeline.load_splits("part", found, SIZE, white_level=1023, **theirs)
    load(folder, white_level=4095)
    load(folder, white_level=1023)
    with pytest.raises(ValueError, match="level 1023, not what the training images have"):
        pipeline.load_splits("part", found, SIZE, **theirs)


def test_only_training_images_of_16_bits_are_decoded_twice(folder, monkeypatch):
    names, read = [], images._bytes
    monkeypatch.setattr(
        images, "_bytes", lambda path, how: names.append(path.name) or read(path, how)
    )
    load(folder, white_level=4095)
    once = [*names]
    names.clear()
    load(folder)
    assert len(once) == 11
    assert sorted(names) == sorted([*once, *(f"{index}.png" for index in range(6))])


def test_8_bits_have_no_level_and_16_that_come_later_are_said(folder, warned):
    for index in range(6):
        save(folder / f"train/good/{index}.png", picture(index))
    splits = load(folder)
    assert splits.white_level is None
    np.testing.assert_array_equal(by_name(splits)["test/good/0.png"], scaled(deep(20, 4095), 65535))
    (line,) = warned
    assert line.startswith("2 images do not fit the white level: test/broken/1.png: 16 bits, where")


def test_test_images_above_the_level_are_said(folder, warned):
    save(folder / "train/good/5.png", deep(5, 1000))
    splits = load(folder)
    assert splits.white_level == 1023
    (line,) = warned
    assert line == (
        "1 images do not fit the white level: test/good/0.png: values up to 4095 are above the "
        "white level 1023, and were cut off"
    )


def test_a_bad_file_of_16_bits_is_named_once(folder):
    save(folder / "train/good/3.tif", np.full((20, 18), 70000, np.int32))
    with pytest.raises(ValueError, match="1 bad files, .*3.tif: values from 70000 to 70000 do not"):
        load(folder)


def test_the_limit_holds_in_training_and_check(folder):
    save(folder / "train/good/large.png", picture(0, (30, 40)))
    check = {"calibration": 0.25, "seed": 0}
    with pytest.raises(ValueError, match=r"1 bad files, .*large.png: 40x30 px: too large"):
        load(folder, max_pixels=1199)
    (problem,) = check_data("part", folder.parent, SIZE, max_pixels=1199, **check).problems
    assert "large.png: 40x30 px: too large" in problem
    assert "train/good/large.png" in by_name(load(folder, max_pixels=1200))
    assert check_data("part", folder.parent, SIZE, max_pixels=1200, **check).problems == []


# ---------------------------------------------------------------- what --mode=check says


def findings(folder, **options):
    report = check_data("part", folder.parent, SIZE, calibration=0.25, seed=0, **options)
    assert report.problems == []
    return "\n".join(report.findings), report.warnings


def test_check_says_the_level_and_what_is_above_it(folder):
    found, warnings = findings(folder)
    expected = "Images of 16 bits are scaled from 0 to data.white_level, {}{}"
    assert expected.format(4095, ", found by the largest value of the training images.") in found
    assert warnings == []
    found, (warning,) = findings(folder, white_level=1023)
    assert expected.format(1023, ".") in found
    assert warning.startswith("2 images do not fit the white level: train/good/5.png: values up to")
    load(folder)
    copy = check_data("part", decoded_copy(folder), SIZE, calibration=0.25, seed=0)
    assert expected.format(4095, ", found by the") in "\n".join(copy.findings)


def test_check_says_nothing_of_levels_where_there_are_8_bits(tmp_path):
    save(tmp_path / "part/train/good/0.png", picture(0))
    found, warnings = findings(tmp_path / "part")
    assert "16 bits" not in found and "Turned" not in found and warnings == []
    assert "as one" not in found


def test_check_says_what_is_turned_and_too_coarse(tmp_path):
    for index, tag in enumerate((1, 3, 6, 6)):
        save(tmp_path / f"part/train/good/{index}.jpg", picture(0, (20, 18, 3)), exif=oriented(tag))
    save(tmp_path / "part/train/good/long.png", picture(0, (30, 400, 3)))
    found, _ = findings(tmp_path / "part")
    assert "1 of orientation 3, 2 of orientation 6." in found
    save(tmp_path / "part/test/broken/0.png", picture(0, (20, 18, 3)))
    save(tmp_path / "part/ground_truth/broken/0.png", square())
    found, _ = findings(tmp_path / "part")
    assert (
        "as a person sees them: 1 of orientation 3, 2 of orientation 6; a mask without a tag"
        in found
    )
    assert "Of an image of 400x30 px, shrunk to 16x16 px, the network sees 25x1.88 px" in found


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_part_is_the_same_however_it_is_stored(tmp_path, tag):
    """Stored with any tag, image, mask and size are those of the upright file; so is its copy."""
    upright, mask = picture(0, (20, 12, 3)), square((20, 12), at=2)
    for name, orientation in (("upright", 1), ("turned", tag)):
        stored, marks = (images.turn_back(each, orientation) for each in (upright, mask))
        for place in ("train/good", "test/broken"):
            save(tmp_path / "root" / name / place / "x.png", stored, exif=oriented(orientation))
        save(tmp_path / "root" / name / "ground_truth/broken/x_mask.png", marks)
    expected = load(tmp_path / "root/upright")
    for _ in range(2):  # decoded, and from the copy
        found = load(tmp_path / "root/turned")
        for part, other in ((found.train, expected.train), (found.test, expected.test)):
            np.testing.assert_array_equal(part.images, other.images)
            assert part.sizes.tolist() == other.sizes.tolist() == [[20, 12]]
            assert part.orientations.tolist() == [tag]
        np.testing.assert_array_equal(found.test.masks[0], mask > 0)


def test_orientations_stay_with_their_images(tmp_path):
    for index in range(8):
        for place in ("good", "bad"):
            pixels = picture(index, (20, 12, 3))
            save(tmp_path / f"own/{place}/{index}.png", pixels, exif=oriented(index + 1))
    splits = load_own(tmp_path / "own", calibration=0.25)
    for part in splits[:3]:
        tags = [int(name.split("/")[-1][0]) + 1 for name in part.paths]
        assert part.orientations.tolist() == tags and len(tags)
        for tag, size in zip(tags, part.sizes.tolist(), strict=True):
            assert size == ([12, 20] if tag > 4 else [20, 12])


def test_textures_are_read_as_training_images_are(tmp_path):
    from data.textures import read_textures

    save(tmp_path / "x.png", deep(0, 4095), exif=oriented(3))
    (square_,) = read_textures(tmp_path, 18, images.Reading(4095))
    upright = np.rint(deep(0, 4095)[::-1, ::-1] / 4095 * 255).astype(np.uint8)
    middle = Image.fromarray(upright).crop((0, 1, 18, 19))
    np.testing.assert_array_equal(square_[..., 0], np.asarray(middle))
