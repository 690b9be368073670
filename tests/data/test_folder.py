"""A folder of own images: which are trained on, held out and tested with, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data import forbid_opening

from data import pipeline, scan

ROOT = Path(__file__).parents[2]
SIZE = 16


def picture(seed, shape=(20, 18, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def good_ones(root, count=20):
    """Images of ten heights, nested; returns name -> pixels as they are resized."""
    sources = {}
    for index in range(count):
        name = f"{'line 1/' if index % 2 else ''}{index:03}.png"
        pixels = picture(index, (20 + index % 10, 18, 3))
        save(root / name, pixels)
        sources[name] = pillow_resize(pixels)
    return sources


def pillow_resize(pixels):
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


@pytest.fixture
def product(tmp_path):
    """good/ with 20 images, bad/ with two of kind 'scratch' and one right in it."""
    root = tmp_path / "product"
    good_ones(root / "good")
    save(root / "bad/scratch/a.png", picture(100))
    save(root / "bad/scratch/deep/b.jpg", picture(101))
    save(root / "bad/c.bmp", picture(102, (30, 40, 3)))
    return root


def load(root, category="mine", **options):
    prepared = root.parent / "prepared"
    return pipeline.load(category, "/nowhere", SIZE, data_dir=prepared, folder=root, **options)


def fails(root, kind=ValueError, **options):
    with pytest.raises(kind) as caught:
        load(root, **options)
    message = str(caught.value)
    assert "\n" not in message and "[Errno" not in message
    return message


def assert_equal(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.sizes, other.sizes)
    assert (one.paths, one.defects) == (other.paths, other.defects)


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr(
        pipeline.logging, "warning", lambda text, *values: lines.append(text % values)
    )
    return lines


# ---------------------------------------------------------------- which images there are


def test_all_images_of_a_folder_are_good(tmp_path, warned):
    sources = good_ones(tmp_path / "parts")
    save(tmp_path / "parts/.trash/x.png", picture(0))
    save(tmp_path / "parts/.x.png", picture(0))
    splits = load(tmp_path / "parts")
    assert len(splits.train.paths) == 18 and len(splits.calibration.paths) == 2
    assert sorted(splits.train.paths + splits.calibration.paths) == sorted(sources)
    assert splits.test.images.shape == (0, SIZE, SIZE, 3) and [*splits.test.masks] == []
    for split in (splits.train, splits.calibration):
        assert split.paths == sorted(split.paths) and set(split.defects) == {"good"}
        assert not split.labels.any() and split.masks == [] and split.images.dtype == np.uint8
        for path, image, size in zip(split.paths, split.images, split.sizes, strict=True):
            np.testing.assert_array_equal(image, sources[path])
            assert size.tolist() == [20 + int(Path(path).stem) % 10, 18]
    assert warned == []


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("share", [0.1, 0.25])
def test_good_test_images_are_neither_trained_on_nor_held_out(product, seed, share, warned):
    """By hand: a permutation for the held-out images, another of the rest for those to test."""
    splits = load(product, seed=seed, calibration=share)
    names = sorted(
        f"good/{path.relative_to(product / 'good').as_posix()}"
        for path in (product / "good").rglob("*.png")
    )
    count = round(20 * share)
    order = np.random.default_rng((seed, 2)).permutation(20)
    rest = np.random.default_rng((seed, 5)).permutation(np.sort(order[count:]))
    expected = [order[:count], rest[:count], rest[count:]]
    held_out, tested, trained = ([names[index] for index in sorted(part)] for part in expected)
    assert splits.calibration.paths == held_out
    assert splits.train.paths == trained
    assert splits.test.paths == [
        *("bad/c.bmp", "bad/scratch/a.png", "bad/scratch/deep/b.jpg"),
        *tested,
    ]
    assert splits.test.defects == ["bad", "scratch", "scratch"] + ["good"] * count
    assert splits.test.labels.tolist() == [1] * 3 + [0] * count
    assert len({*trained, *held_out, *tested}) == 20
    assert splits.test.sizes[:3].tolist() == [[30, 40], [20, 18], [20, 18]]
    assert splits.test.masks[:3] == [None] * 3
    for mask, size in zip(splits.test.masks[3:], splits.test.sizes[3:], strict=True):
        assert mask.dtype == bool and mask.shape == tuple(size) and not mask.any()
    assert warned == []  # no masks are expected


def test_held_out_images_do_not_depend_on_bad_ones(product):
    with_bad = load(product)
    (product / "bad").rename(product.parent / "elsewhere")
    assert load(product).calibration.paths == with_bad.calibration.paths


@pytest.mark.parametrize(("count", "parts"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1))])
def test_some_image_is_always_trained_on(tmp_path, count, parts):
    good_ones(tmp_path / "p/good", count)
    (tmp_path / "p/bad").mkdir()  # empty, and there
    splits = load(tmp_path / "p")
    assert tuple(len(split.paths) for split in splits[:3]) == parts


def test_shares_that_leave_nothing_to_train_on(product):
    assert "calibration 0.5 leaves nothing" in fails(product, calibration=0.5)
    assert load(product, calibration=0).test.labels.tolist() == [1, 1, 1]


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / "p" / name, picture(0))
    for _ in range(2):  # decoded, and from the copy
        assert load(tmp_path / "p").train.paths == [name]


def test_files_of_other_suffixes_are_counted(product, warned):
    for name in ("good/a.heic", "good/b.HEIC", "bad/c.heic", "notes.txt", "good/README"):
        (product / name).write_text("no image")
    load(product)
    said = "; ".join(warned)
    assert "good: left out 3 files that are no PNG" in said and ".heic (2), no suffix (1)" in said
    assert ".txt (1)" in said and "bad: left out 1 files" in said


def test_symlinks_to_folders_are_not_followed(tmp_path, warned):
    good_ones(tmp_path / "real/good", 4)
    (tmp_path / "real/good/loop").symlink_to(tmp_path / "real")
    (tmp_path / "p").symlink_to(tmp_path / "real")  # what the user names is followed
    (tmp_path / "other").mkdir()
    (tmp_path / "other/good").symlink_to(tmp_path / "real/good")
    for name in ("p", "other"):
        splits = load(tmp_path / name)
        assert len(splits.train.paths) + len(splits.calibration.paths) == 4
    assert all("symlinked folder (1)" in line for line in warned) and len(warned) == 2


# ---------------------------------------------------------------- what is refused


def test_a_missing_folder_and_a_file(tmp_path):
    assert "lost does not exist" in fails(tmp_path / "lost", FileNotFoundError)
    path = save(tmp_path / "x.png", picture(0))
    assert "x.png is a file" in fails(path, FileNotFoundError)


def test_folders_without_good_images(tmp_path):
    (tmp_path / "p").mkdir()
    assert "p holds no PNG, JPEG, BMP, TIFF, WEBP or PPM file" in fails(tmp_path / "p")
    (tmp_path / "p/good").mkdir()
    assert "p/good holds no" in fails(tmp_path / "p")
    (tmp_path / "p/good").rmdir()
    save(tmp_path / "p/bad/x.png", picture(0))
    for test in (True, False):
        assert "a folder bad/ and none good/" in fails(tmp_path / "p", test=test)


@pytest.mark.parametrize("test", [True, False])
def test_images_beside_good_and_bad_are_named(product, test):
    save(product / "new.png", picture(0))
    for index in range(6):
        save(product / f"Bad/{index}.png", picture(0))
    message = fails(product, test=test)
    assert "7 images" in message and "Bad/0.png" in message and "and 2 more" in message


@pytest.mark.parametrize(
    "name", ["Bad/a.png", "line 1/bad/a.png", "good/bad/a.png", "x/ground_truth/y/a.png"]
)
def test_bad_images_are_not_taken_for_good(tmp_path, name):
    good_ones(tmp_path / "p" / ("good" if name.startswith("good") else "line 1"))
    save(tmp_path / "p" / name, picture(0))
    message = fails(tmp_path / "p")
    assert "1 images would be taken for good" in message and name in message


def test_bad_images_of_a_kind_called_good(product):
    save(product / "bad/good/x.png", picture(0))
    assert "bad/good/x.png is bad and called good" in fails(product)


def test_the_layout_of_mvtec_ad_is_pointed_to(tmp_path):
    save(tmp_path / "parts/train/good/0.png", picture(0))
    save(tmp_path / "parts/test/scratch/0.png", picture(0))
    message = fails(tmp_path / "parts")
    assert f"--config.data.root={tmp_path}" in message and ":parts" in message


@pytest.mark.parametrize("category", ["bottle", "demo", "", "a/b"])
def test_a_product_has_a_name_of_its_own(product, category):
    message = fails(product, category=category)
    assert repr(category) in message and "--config=configs/fanogan.py:mine" in message


def test_all_bad_files_are_listed_at_once(product):
    (product / "good/000.png").write_bytes(b"")
    (product / "good/002.png").write_text("<html>")
    save(product / "bad/c.bmp", picture(0, (4, 4, 3)))
    message = fails(product)
    assert message.startswith("3 bad files, repair or remove them: ")
    for name, reason in (
        ("good/000.png", "not a readable PNG"),
        ("good/002.png", "not a readable PNG"),
        ("bad/c.bmp", "4x4 px: too small"),
    ):
        assert f"{product / name}: {reason}" in message
    assert not (product.parent / "prepared").exists()


# ---------------------------------------------------------------- the decoded copy


def test_files_are_decoded_once(product, monkeypatch):
    decode, calls = pipeline.decode, []
    monkeypatch.setattr(pipeline, "decode", lambda *args: calls.append(args) or decode(*args))
    first, second = load(product), load(product)
    assert len(calls) == 1 and first.digest == second.digest != ""
    for one, other in zip(first[:3], second[:3], strict=True):
        assert_equal(one, other)
    save(product / "bad/c.bmp", picture(7))
    third = load(product)
    assert len(calls) == 2 and third.digest != first.digest
    np.testing.assert_array_equal(third.test.images[0], pillow_resize(picture(7)))
    for path in sorted((product / "bad").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    fourth = load(product)
    assert len(calls) == 3 and set(fourth.test.defects) == {"good"}
    (product / "bad").rmdir()  # the same files, and nothing is to be tested
    assert len(load(product).train.paths) == 18 and len(calls) == 4


def test_the_copy_of_a_folder_is_split_alike_on_another_machine(product):
    first = load(product, seed=2)
    path = product.parent / "prepared/decoded" / f"mine_{SIZE}px.npz"
    for test in (True, False):
        other = pipeline.load("mine", path, SIZE, seed=2, test=test)
        assert_equal(first.train, other.train)
        assert_equal(first.calibration, other.calibration)
    again = pipeline.load("mine", path, SIZE, seed=2)
    assert_equal(first.test, again.test)
    assert [mask is None for mask in again.test.masks] == [True] * 3 + [False] * 2
    assert again.digest == first.digest


# ---------------------------------------------------------------- without the test set


def test_without_the_test_set_bad_is_neither_opened_nor_listed(product, monkeypatch):
    healthy = load(product, seed=1)
    for path in (product / "bad").rglob("*.*"):
        path.write_text("no image")
    with monkeypatch.context() as patch:
        forbid_opening(["bad"], patch)
        with pytest.raises(pytest.fail.Exception, match="is opened"):
            load(product, seed=1)
        alone = load(product, seed=1, test=False)
    assert_equal(alone.train, healthy.train)
    assert_equal(alone.calibration, healthy.calibration)
    assert alone.digest == "" and alone.test.images.shape == (0, SIZE, SIZE, 3)
    assert fails(product).startswith("3 bad files")


def test_a_folder_needs_no_tensorflow(product):
    code = f"""
import sys
from data import photos, pipeline
options = dict(data_dir={str(product.parent / "p")!r}, folder={str(product)!r})
for test in (True, True, False):
    pipeline.load("mine", "", 16, test=test, **options)
assert len(list(photos.stream(photos.find({str(product)!r}), 16, 8))) == 3
assert not [name for name in sys.modules if name.startswith(("tensorflow", "jax"))]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_scanning_gives_names_and_kinds(product):
    files = scan.scan_folder(product)
    assert [sample.name for sample in files.test][0] == "bad/c.bmp"
    assert {sample.mask for sample in (*files.train, *files.test)} == {None}
    assert scan.scan_folder(product, test=False) == files._replace(test=[])
    assert scan.has_bad(product)
