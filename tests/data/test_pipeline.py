"""From a folder to splits: what is read, decoded once, kept in a copy, and held out."""

import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import (
    SIZE,
    decoded_copy,
    fails,
    fails_own,
    forbid_opening,
    good_ones,
    load,
    load_own,
    make_product,
    make_tree,
    picture,
    pillow_resize,
    save,
    square,
    sums_of,
    watch_opening,
)

from data import decoded, images, pipeline, scan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return make_tree(tmp_path / "root")


@pytest.fixture
def product(tmp_path):
    return make_product(tmp_path / "product")


# ---------------------------------------------------------------- the layout of MVTec AD


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load(make_tree(tmp_path_factory.mktemp("data") / "root"))


def test_splits_hold_the_folders_images(loaded):
    assert len(loaded.train.paths) == 11 and len(loaded.calibration.paths) == 1
    every = sorted(loaded.train.paths + loaded.calibration.paths)
    assert every == [f"train/good/{index:03}.png" for index in range(12)]
    test = loaded.test
    assert test.paths == [f"test/broken/{i:03}.png" for i in range(3)] + [
        f"test/good/{i:03}.png" for i in range(2)
    ]
    assert test.defects == ["broken"] * 3 + ["good"] * 2
    assert test.labels.tolist() == [1, 1, 1, 0, 0]
    assert set(loaded.train.defects) == {"good"} and not loaded.train.labels.any()
    assert loaded.train.masks == [] and loaded.calibration.masks == []
    assert test.images.shape == (5, SIZE, SIZE, 3) and test.images.dtype == np.uint8
    for split in (loaded.train, loaded.calibration, test):
        assert split.sizes.dtype == np.int64
        assert split.sizes.tolist() == [[20, 18]] * len(split.paths)


def test_masks_belong_to_their_images_at_their_own_size(loaded):
    for index, mask in enumerate(loaded.test.masks):
        assert mask.dtype == bool and mask.shape == (20, 18)
        expected = square(at=index) > 0 if index < 3 else np.zeros((20, 18), bool)
        np.testing.assert_array_equal(mask, expected)


def test_resizing_is_pillows(loaded):
    for split, index_of in ((loaded.train, 0), (loaded.test, 200)):
        for path, resized in zip(split.paths[:3], split.images, strict=False):
            source = picture(index_of + int(Path(path).stem))
            np.testing.assert_array_equal(resized, pillow_resize(source))


@pytest.mark.parametrize("shape", [(97, 61, 3), (8, 9, 3), (16, 16, 3), (9, 1200, 3)])
def test_resizing_far_down_and_up_is_pillows(tmp_path, shape):
    folder = tmp_path / "root" / "parts"
    save(folder / "train/good/a.png", picture(0, shape))
    resized = load(folder).train
    np.testing.assert_array_equal(resized.images[0], pillow_resize(picture(0, shape)))
    assert resized.sizes.tolist() == [list(shape[:2])]


def test_jpeg_keeps_its_quality_through_the_copy(tmp_path):
    folder = tmp_path / "root" / "parts"
    path = save(folder / "train/good/a.jpg", picture(0, (SIZE, SIZE, 3)), quality=90)
    np.testing.assert_array_equal(load(folder).train.images[0], np.asarray(Image.open(path)))


def test_held_out_images_are_chosen_by_seed(folder):
    def held_out(**options):
        splits = load(folder, **options)
        assert not set(splits.train.paths) & set(splits.calibration.paths)
        assert len(splits.train.paths) + len(splits.calibration.paths) == 12
        assert splits.train.paths == sorted(splits.train.paths)
        return splits.calibration.paths

    assert held_out(calibration=0.25, seed=1) == held_out(calibration=0.25, seed=1)
    chosen = {tuple(held_out(calibration=0.25, seed=seed)) for seed in range(4)}
    assert len(chosen) > 1 and all(len(paths) == 3 for paths in chosen)
    assert held_out(calibration=0) == []
    assert len(held_out(calibration=0.01)) == 1
    assert len(held_out(calibration=0.999)) == 11


@pytest.mark.promise("R11", "one training image: it is trained on, nothing is held out")
def test_one_training_image_is_never_held_out(tmp_path):
    splits = load(make_tree(tmp_path / "root", num_train=1))
    assert len(splits.train.paths) == 1 and splits.calibration.images.shape == (0, SIZE, SIZE, 3)


def test_a_folder_of_any_name_and_all_formats(tmp_path):
    folder = make_tree(tmp_path / "root", category="my parts.v2 ü")
    for suffix in ("jpg", "JPEG", "bmp", "tif", "tiff", "webp", "ppm", "pgm", "pnm"):
        save(folder / f"train/good/x_{suffix}.{suffix}", picture(1))
    for name in ("Thumbs.db", "notes.txt", ".hidden.png", "._000.png"):
        (folder / "train/good" / name).write_text("no image")
    (folder / "ground_truth/.DS_Store").write_text("no image")
    splits = load(folder, calibration=0)
    assert len(splits.train.paths) == 12 + 9


@pytest.mark.promise("R11", "a test set without defects, and an empty one: read as such")
def test_test_sets_without_defects_and_empty_ones(folder):
    for path in [*folder.glob("test/broken/*"), *folder.glob("ground_truth/broken/*")]:
        path.unlink()
    assert load(folder).test.labels.tolist() == [0, 0]
    for path in folder.glob("test/good/*"):
        path.unlink()
    assert load(folder).test.images.shape == (0, SIZE, SIZE, 3)


@pytest.mark.promise("R10", "a missing mask: a warning that names the image")
def test_a_missing_mask_is_none_and_a_warning(folder, monkeypatch):
    lines = []
    monkeypatch.setattr(
        pipeline.logging, "warning", lambda text, *values: lines.append(text % values)
    )
    (folder / "ground_truth/broken/001_mask.png").unlink()
    masks = load(folder).test.masks
    assert [mask is None for mask in masks] == [False, True, False, False, False]
    assert len(lines) == 1 and "test/broken/001.png" in lines[0] and "000" not in lines[0]


@pytest.mark.promise("R10", "no masks at all: images are read, masks are absent")
def test_no_masks_at_all(folder):
    for path in folder.glob("ground_truth/broken/*"):
        path.unlink()
    (folder / "ground_truth/broken").rmdir()
    (folder / "ground_truth").rmdir()
    assert [mask is None for mask in load(folder).test.masks] == [True] * 3 + [False] * 2


def test_masks_of_the_images_own_name_and_other_formats(folder):
    for index, name in enumerate(("000.png", "001_mask.bmp", "002.tif")):
        (folder / f"ground_truth/broken/{index:03}_mask.png").unlink()
        save(folder / "ground_truth/broken" / name, square(at=index))
    for index, mask in enumerate(load(folder).test.masks[:3]):
        np.testing.assert_array_equal(mask, square(at=index) > 0)


@pytest.mark.promise(
    "R10", "masks of another size, empty, or that mark a good image: an error that names each"
)
def test_masks_of_another_size_empty_ones_and_marks_on_good_images(folder):
    save(folder / "ground_truth/broken/000_mask.png", square((18, 20)))
    save(folder / "ground_truth/broken/002_mask.png", np.zeros((20, 18), np.uint8))
    save(folder / "ground_truth/good/001_mask.png", square())
    message = fails(folder)
    assert message.startswith("3 bad files")
    for part in ("000_mask.png", "20x18", "18x20", "no pixel", "002_mask.png", "good/001.png"):
        assert part in message


def test_all_bad_files_are_listed_with_their_reasons(folder):
    good = (folder / "train/good/000.png").read_bytes()
    jpeg = save(folder / "x.jpg", picture(0)).read_bytes()
    flipped = bytearray(good)
    flipped[good.index(b"IDAT") + 40] ^= 255
    tree = {
        "train/good/001.png": good[: len(good) // 2],
        "train/good/002.png": good[:-12],
        "train/good/003.png": b"",
        "train/good/004.png": b"<html>not found</html>",
        "train/good/005.png": bytes(flipped),
        "train/good/006.jpg": jpeg[:-40],
        "test/broken/000.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "ground_truth/broken/001_mask.png": good[:50],
    }
    for name, data in tree.items():
        (folder / name).write_bytes(data)
    Image.new("1", (12000, 12000)).save(folder / "train/good/007.png")
    (folder / "train/good/008.png").unlink()
    (folder / "train/good/008.png").symlink_to(folder / "nowhere.png")
    message = fails(folder)
    assert message.startswith("10 bad files")
    for name in (*tree, "train/good/007.png", "train/good/008.png"):
        assert str(folder / name) in message
    assert "no IEND" in message and "not a readable PNG" in message
    assert "decompression bomb" in message and "No such file" in message
    assert "000.png: " not in message.replace("broken/000.png", "")
    assert not list((folder.parent.parent / "tfds").rglob("dataset_info.json"))


# ---------------------------------------------------------------- a folder of own images


def assert_equal_images(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.sizes, other.sizes)
    assert (one.paths, one.defects) == (other.paths, other.defects)


def test_all_images_of_a_folder_are_good(tmp_path, warned):
    sources = good_ones(tmp_path / "parts")
    save(tmp_path / "parts/.trash/x.png", picture(0))
    save(tmp_path / "parts/.x.png", picture(0))
    splits = load_own(tmp_path / "parts")
    assert len(splits.train.paths) == 18 and len(splits.calibration.paths) == 2
    assert sorted(splits.train.paths + splits.calibration.paths) == sorted(sources)
    assert splits.test.images.shape == (0, SIZE, SIZE, 3) and [*splits.test.masks] == []
    for split in (splits.train, splits.calibration):
        assert split.paths == sorted(split.paths) and set(split.defects) == {"good"}
        assert not split.labels.any() and split.masks == [] and split.images.dtype == np.uint8
        for path, image, size in zip(split.paths, split.images, split.sizes, strict=True):
            np.testing.assert_array_equal(image, sources[path])
            assert size.tolist() == [20 + int(Path(path).stem) % 10, 18]
    (line,) = warned
    assert "no folder in it is called good" in line and ": line 1/ (10);" in line


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("share", [0.1, 0.25])
def test_good_test_images_are_neither_trained_on_nor_held_out(product, seed, share, warned):
    """By hand: a permutation for the held-out images, another of the rest for those to test."""
    splits = load_own(product, seed=seed, calibration=share)
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
    with_bad = load_own(product)
    (product / "bad").rename(product.parent / "elsewhere")
    assert load_own(product).calibration.paths == with_bad.calibration.paths


@pytest.mark.parametrize(("count", "parts"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1))])
def test_some_image_is_always_trained_on(tmp_path, count, parts):
    good_ones(tmp_path / "p/good", count)
    (tmp_path / "p/bad").mkdir()  # empty, and there
    splits = load_own(tmp_path / "p")
    assert tuple(len(split.paths) for split in splits[:3]) == parts


def test_shares_that_leave_nothing_to_train_on(product):
    assert "calibration 0.5 leaves nothing" in fails_own(product, calibration=0.5)
    assert load_own(product, calibration=0).test.labels.tolist() == [1, 1, 1]


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / "p" / name, picture(0))
    for _ in range(2):  # decoded, and from the copy
        assert load_own(tmp_path / "p").train.paths == [name]


def test_files_of_other_suffixes_are_counted(product, warned):
    for name in ("good/a.heic", "good/b.HEIC", "bad/c.heic", "notes.txt", "good/README"):
        (product / name).write_text("no image")
    load_own(product)
    said = "; ".join(warned)
    assert f"{product}: left out 5 files that are no PNG" in said
    assert ".heic (3), .txt (1), no suffix (1)" in said


def test_symlinks_to_folders_are_not_followed(tmp_path, warned):
    good_ones(tmp_path / "real/good", 4)
    (tmp_path / "real/good/loop").symlink_to(tmp_path / "real")
    (tmp_path / "p").symlink_to(tmp_path / "real")  # what the user names is followed
    (tmp_path / "other").mkdir()
    (tmp_path / "other/good").symlink_to(tmp_path / "real/good")
    for name in ("p", "other"):
        splits = load_own(tmp_path / name)
        assert len(splits.train.paths) + len(splits.calibration.paths) == 4
    assert all("symlinked folder (1)" in line for line in warned) and len(warned) == 2


def test_all_bad_files_are_listed_at_once(product):
    (product / "good/000.png").write_bytes(b"")
    (product / "good/002.png").write_text("<html>")
    save(product / "bad/c.bmp", picture(0, (4, 4, 3)))
    message = fails_own(product)
    assert message.startswith("3 bad files, repair or remove them: ")
    for name, reason in (
        ("good/000.png", "not a readable PNG"),
        ("good/002.png", "not a readable PNG"),
        ("bad/c.bmp", "4x4 px: too small"),
    ):
        assert f"{product / name}: {reason}" in message
    assert not (product.parent / "prepared").exists()


# ---------------------------------------------------------------- the decoded copy


def assert_equal_splits(a, b):
    for left, right in zip(a[:3], b[:3], strict=True):
        np.testing.assert_array_equal(left.images, right.images)
        np.testing.assert_array_equal(left.labels, right.labels)
        np.testing.assert_array_equal(left.sizes, right.sizes)
        assert (left.paths, left.defects) == (right.paths, right.defects)
        for mask, other in zip(left.masks, right.masks, strict=True):
            np.testing.assert_array_equal(mask, other)
    assert sums_of(a) == sums_of(b)


def in_memory(splits):
    """The same without the file that the images lie in."""
    here = [
        split._replace(images=np.asarray(split.images), masks=[*split.masks])
        for split in splits[:3]
    ]
    return pipeline.Splits(*here, splits.white_level)


def refuse(*_, **__):
    raise AssertionError("files are decoded again")


def test_the_decoded_copy_is_what_was_decoded(folder, monkeypatch):
    (folder / "ground_truth/broken/001_mask.png").unlink()  # one image without a mask
    first = load(folder)
    monkeypatch.setattr(pipeline, "decode", refuse)
    assert_equal_splits(load(folder), first)
    assert [mask is None for mask in load(folder).test.masks] == [False, True] + [False] * 3
    assert load(folder).test.masks[0].dtype == bool


@pytest.mark.parametrize("kind", ["layout", "own"])
def test_each_file_is_read_once_and_decoded_once(kind, tmp_path, monkeypatch):
    root = make_tree(tmp_path / "root") if kind == "layout" else make_product(tmp_path / "mine")
    load_it = load if kind == "layout" else load_own
    sources = sorted(path for path in root.rglob("*") if path.is_file())
    decode, decoded_files = images._decode, []
    monkeypatch.setattr(
        images, "_decode", lambda data, how: decoded_files.append(data) or decode(data, how)
    )
    digests = set()
    for decodes in (len(sources), 0):
        decoded_files.clear()
        with monkeypatch.context() as patch:
            opened = watch_opening(patch)
            digests.add(str(sums_of(load_it(root))))
        assert sorted(path for path in opened if path in sources) == sources
        assert len(decoded_files) == decodes
    assert len(digests) == 1


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    image = save(tmp_path / "a.png", np.zeros((600, 600, 3), np.uint8))
    mask = save(tmp_path / "b.png", np.full((600, 600), 255, np.uint8))
    load(make_tree(tmp_path / "root"))  # what is imported is in memory

    def peak(count):
        folder = tmp_path / "root" / str(count)
        for name in ("train/good", "test/x", "ground_truth/x"):
            (folder / name).mkdir(parents=True)
        for index in range(count):
            for name, source in (
                ("train/good", image),
                ("test/x", image),
                ("ground_truth/x", mask),
            ):
                os.link(source, folder / name / f"{index}.png")
        files = scan.scan_layout(tmp_path / "root", str(count))
        tracemalloc.start()
        train, test, _ = pipeline.decode(files, SIZE, images.Reading(0))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(train.images) == len(test.images) == len(test.masks) == count
        assert test.masks[count - 1].all() and test.masks[0].shape == (600, 600)
        return highest

    few, many = peak(10), peak(100)
    assert many < 1.5 * few and many < 100 * 600 * 600


@pytest.mark.parametrize("kind", ["layout", "own"])
def test_no_tensorflow_is_imported(kind, tmp_path):
    """On the first run, on later ones, and without the test set."""
    options = {"image_size": SIZE, "data_dir": str(tmp_path / "prepared")}
    if kind == "layout":
        root = make_tree(tmp_path / "root")
        options |= {"category": "bottle", "root": str(root.parent)}
    else:
        root = make_product(tmp_path / "mine")
        options |= {"category": "mine", "root": "", "folder": str(root)}
    code = f"""
import sys
from data import photos, pipeline
for test in (True, True, False):
    pipeline.load_splits(**{options}, test=test)
assert len(list(photos.stream_photos(photos.find({str(root)!r}), 16, 8))) >= 3
assert not [name for name in sys.modules if name.startswith(("tensorflow", "jax"))]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_changed_files_are_decoded_anew(folder):
    first = load(folder)
    save(folder / "test/good/000.png", picture(7))
    second = load(folder)
    assert sums_of(second) != sums_of(first)
    np.testing.assert_array_equal(second.test.images[3], pillow_resize(picture(7)))
    (folder / "test/good/001.png").rename(folder / "test/good/002.png")
    third = load(folder)
    assert sums_of(third) != sums_of(second) and third.test.paths[-1] == "test/good/002.png"


@pytest.mark.parametrize("change", ["pixels", "name", "mask", "size"])
def test_a_stale_copy_is_known_by_content(folder, change, monkeypatch):
    load(folder)
    path = folder / "test/broken/000.png"
    times = path.stat()
    if change == "pixels":
        save(path, picture(7))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # the date says nothing
    elif change == "name":
        (folder / "train/good/003.png").rename(folder / "train/good/103.png")
    elif change == "mask":
        save(folder / "ground_truth/broken/000_mask.png", square(at=9))
    else:
        copy = decoded_copy(folder)
        copy.rename(copy.with_name(f"bottle_{SIZE // 2}px.npz"))
        half = pipeline.load_splits("bottle", folder.parent, SIZE // 2, data_dir=copy.parents[1])
        assert half.train.images.shape[1:] == (SIZE // 2, SIZE // 2, 3)
        return
    second = load(folder)
    if change == "pixels":
        np.testing.assert_array_equal(second.test.images[0], pillow_resize(picture(7)))
    elif change == "name":
        assert "train/good/103.png" in second.train.paths + second.calibration.paths
    else:
        np.testing.assert_array_equal(second.test.masks[0], square(at=9) > 0)
    monkeypatch.setattr(pipeline, "decode", refuse)
    assert_equal_splits(load(folder), second)  # the new copy is kept


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle"])
def test_a_damaged_copy_is_made_anew(folder, damage, monkeypatch):
    lines = []
    monkeypatch.setattr(
        pipeline.logging, "warning", lambda text, *values: lines.append(text % values)
    )
    first, copy = in_memory(load(folder)), decoded_copy(folder)
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes({"cut": data[:-100], "flip": data, "empty": b"", "pickle": b""}[damage])
    if damage == "pickle":
        with open(copy, "wb") as file:
            np.savez(file, format=np.array([{}], dtype=object))
    assert_equal_splits(load(folder), first)
    assert len(lines) == 1 and str(copy) in lines[0] and "\n" not in lines[0]


def test_a_copy_that_cannot_be_kept_is_a_warning(folder, monkeypatch):
    lines = []
    monkeypatch.setattr(
        pipeline.logging, "warning", lambda text, *values: lines.append(text % values)
    )
    (folder.parent.parent / "tfds").mkdir()
    decoded_copy(folder).parent.write_text("a file in the way")
    assert len(load(folder).train.paths) == 11
    assert any("are not kept" in line for line in lines)


def test_a_copy_from_another_machine(folder, tmp_path):
    """`root` may be the file itself, where the images are not at hand."""
    first = load(folder)
    path = tmp_path / "carried.npz"
    decoded_copy(folder).rename(path)
    shutil.rmtree(folder)
    assert_equal_splits(
        pipeline.load_splits("bottle", path, SIZE, data_dir=tmp_path / "none"), first
    )
    for category, size in (("carpet", SIZE), ("bottle", SIZE + 1)):
        with pytest.raises(ValueError, match=f"holds bottle at {SIZE} px, not {category}"):
            pipeline.load_splits(category, path, size, data_dir=tmp_path / "none")
    path.write_text("no images")
    with pytest.raises(ValueError, match=r"carried.npz holds no decoded images"):
        pipeline.load_splits("bottle", path, SIZE)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_copy_of_an_older_version(folder, version, tmp_path, monkeypatch):
    """Made anew where the images are, else refused."""
    lines = []
    monkeypatch.setattr(
        pipeline.logging, "warning", lambda text, *values: lines.append(text % values)
    )
    first, copy = in_memory(load(folder)), decoded_copy(folder)
    with np.load(copy) as archive:
        arrays = {name: archive[name] for name in archive if not name.endswith("_sizes")}
    with open(copy, "wb") as file:
        np.savez_compressed(file, **{**arrays, "format": np.array(version)})
    shutil.copy(copy, tmp_path / "old.npz")
    assert_equal_splits(load(folder), first)
    assert len(lines) == 1 and "Decoding the images anew" in lines[0]
    assert f"{copy} was written by another version" in lines[0] and "delete" not in lines[0]
    with pytest.raises(
        ValueError, match=f"old.npz was written by another .*format {version}, not 4"
    ):
        pipeline.load_splits("bottle", tmp_path / "old.npz", SIZE)


def test_files_are_decoded_once(product, monkeypatch):
    decode, calls = pipeline.decode, []
    monkeypatch.setattr(pipeline, "decode", lambda *args: calls.append(args) or decode(*args))
    first, second = load_own(product), load_own(product)
    assert len(calls) == 1 and sums_of(first) == sums_of(second)
    for one, other in zip(first[:3], second[:3], strict=True):
        assert_equal_images(one, other)
    save(product / "bad/c.bmp", picture(7))
    third = load_own(product)
    assert len(calls) == 2 and sums_of(third) != sums_of(first)
    np.testing.assert_array_equal(third.test.images[0], pillow_resize(picture(7)))
    for path in sorted((product / "bad").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    fourth = load_own(product)
    assert len(calls) == 3 and set(fourth.test.defects) == {"good"}
    (product / "bad").rmdir()  # the same files, and nothing is to be tested
    assert len(load_own(product).train.paths) == 18 and len(calls) == 4


def test_the_copy_of_a_folder_is_split_alike_on_another_machine(product):
    first = load_own(product, seed=2)
    path = product.parent / "prepared/decoded" / f"mine_{SIZE}px.npz"
    for test in (True, False):
        other = pipeline.load_splits("mine", path, SIZE, seed=2, test=test)
        assert_equal_images(first.train, other.train)
        assert_equal_images(first.calibration, other.calibration)
    again = pipeline.load_splits("mine", path, SIZE, seed=2)
    assert_equal_images(first.test, again.test)
    assert [mask is None for mask in again.test.masks] == [True] * 3 + [False] * 2
    assert sums_of(again) == sums_of(first)


# ---------------------------------------------------------------- without the test set


def assert_training_alone(splits, expected):
    nothing = decoded.no_images(SIZE)
    assert splits.test.sums == [] and splits.test.images.dtype == np.uint8
    assert_equal_splits(splits, expected._replace(test=nothing))
    assert splits.test.images.shape == (0, SIZE, SIZE, 3) and splits.test.labels.dtype == np.int64


def test_training_files_are_decoded_to_the_same_bits(folder):
    for suffix, shape in (("jpg", (97, 61, 3)), ("webp", (8, 40, 3)), ("tif", (SIZE, SIZE))):
        save(folder / f"train/good/x.{suffix}", picture(1, shape))
    healthy = load(folder)
    assert_training_alone(load(folder, test=False), healthy)


@pytest.mark.parametrize("calibration", [0.25, 0])
def test_without_the_test_set_no_file_of_it_is_opened(folder, calibration, monkeypatch):
    for index, mode in enumerate(("L", "RGBA", "I;16")):  # as they come, not only RGB
        grey = picture(index, (97, 61)).astype(np.uint16 if mode == "I;16" else np.uint8)
        image = Image.fromarray(grey)
        (image.convert(mode) if mode == "RGBA" else image).save(folder / f"train/good/x{index}.png")
    healthy = load(folder, calibration=calibration, seed=3)
    for path in (*folder.glob("test/*/*"), *folder.glob("ground_truth/*/*")):
        path.write_text("no image")
    shutil.rmtree(folder.parent.parent / "tfds")
    with monkeypatch.context() as patch:
        forbid_opening(("test", "ground_truth"), patch)
        with pytest.raises(pytest.fail.Exception, match="is opened"):
            load(folder)
        alone = load(folder, calibration=calibration, seed=3, test=False)
    assert_training_alone(alone, healthy)
    assert "8 bad files" in fails(folder)  # five images, three masks
    # Nor by TensorFlow, which Python does not see: what is gone cannot be read.
    shutil.rmtree(folder / "test")
    shutil.rmtree(folder / "ground_truth")
    assert_training_alone(load(folder, calibration=calibration, seed=3, test=False), healthy)


def test_without_the_test_set_a_copy_gives_its_training_arrays(folder, tmp_path, monkeypatch):
    healthy, read = load(folder), []
    get = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile,
        "open",
        lambda file, name, *mode: (
            read.append(getattr(name, "filename", name)) or get(file, name, *mode)
        ),
    )
    splits = pipeline.load_splits("bottle", decoded_copy(folder), SIZE, test=False)
    assert_training_alone(splits, healthy)
    assert "train_images.npy" in read
    assert not [name for name in read if name.startswith(("test", "mask"))]


def test_without_the_test_set_bad_training_files_are_named_alike(folder):
    (folder / "train/good/003.png").write_text("no image")
    (folder / "train/good/004.png").write_bytes(b"")
    message = fails(folder)
    with pytest.raises(ValueError, match="bad files") as caught:
        load(folder, test=False)
    assert str(caught.value) == message and message.startswith("2 bad files")
    shutil.rmtree(folder / "train")
    with pytest.raises(ValueError, match="No training images"):
        load(folder, test=False)


def test_without_the_test_set_bad_is_neither_opened_nor_listed(product, monkeypatch):
    healthy = load_own(product, seed=1)
    for path in (product / "bad").rglob("*.*"):
        path.write_text("no image")
    with monkeypatch.context() as patch:
        forbid_opening(["bad"], patch)
        with pytest.raises(pytest.fail.Exception, match="is opened"):
            load_own(product, seed=1)
        alone = load_own(product, seed=1, test=False)
    assert_equal_images(alone.train, healthy.train)
    assert_equal_images(alone.calibration, healthy.calibration)
    assert alone.test.sums == [] and alone.test.images.shape == (0, SIZE, SIZE, 3)
    assert fails_own(product).startswith("3 bad files")


# ---------------------------------------------------------------- batches to score


def test_evaluation_batches_are_in_order_and_end_short():
    pixels = picture(0, (60, 4, 4, 3))
    batches = list(pipeline.eval_batches(pixels, 25))
    assert [len(batch) for batch in batches] == [25, 25, 10]
    whole = np.concatenate(batches)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, pixels / np.float32(127.5) - 1, atol=1e-7)
