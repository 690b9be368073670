"""New images: which files a pattern names, what is read from them, and in how much memory."""

import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import oriented, picture, save

from data import images, photos, pipeline
from data.photos import Photo

SIZE = 16


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a.JPG", "line 1/c.webp", "line 1/deep/d.tif", ".hidden/e.png", ".f.png"):
        save(tmp_path / name, picture(0))
    for name in ("1.heic", "2.HEIC", "line 1/3.heic", "notes.txt", "README", ".DS_Store"):
        (tmp_path / name).write_text("no image")
    return tmp_path


def found(tree, pattern):
    """Names relative to the tree of what a pattern in it names."""
    return [os.path.relpath(path, tree) for path in photos.find(str(tree / pattern))]


# ---------------------------------------------------------------- find


EVERY = ["a.JPG", "b.png", "line 1/c.webp", "line 1/deep/d.tif"]


def test_a_folder_gives_its_images_and_says_what_is_left_out(tree, warned):
    assert found(tree, "") == found(tree, "./") == EVERY
    expected = (
        f"{tree}: left out 5 files that are no PNG, JPEG, BMP, TIFF, WEBP or PPM: .heic (3), "
    )
    assert warned[0].startswith(expected) and ".txt (1)" in warned[0]
    assert "no suffix (1)" in warned[0] and len(warned) == 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b.png", ["b.png"]),
        ("notes.txt", ["notes.txt"]),  # tried, whatever it is called
        (".f.png", [".f.png"]),
        (".hidden", [".hidden/e.png"]),
        ("*.png", ["b.png"]),
        ("[ab].*", ["a.JPG", "b.png"]),
        ("*.heic", ["1.heic"]),
        ("**/*.heic", ["1.heic", "line 1/3.heic"]),
        ("line ?", ["line 1/c.webp", "line 1/deep/d.tif"]),
        ("line 1/**", ["line 1/3.heic", "line 1/c.webp", "line 1/deep/d.tif"]),
        ("**/deep", ["line 1/deep/d.tif"]),
        ("**.png", ["b.png"]),
        (".*/*.png", [".hidden/e.png"]),
        ("**/**/d.*", ["line 1/deep/d.tif"]),
        ("*/../b.png", ["line 1/../b.png"]),
    ],
)
def test_patterns(tree, pattern, expected, warned):
    assert photos.find(str(tree / pattern)) == [os.path.join(tree, name) for name in expected]


def test_relative_patterns_and_the_home_folder(tree, monkeypatch, warned):
    monkeypatch.chdir(tree)
    monkeypatch.setenv("HOME", str(tree))
    assert photos.find(".") == photos.find("./") == EVERY
    assert photos.find("*.png") == photos.find("./b.png") == ["b.png"]
    assert photos.find("~/*.png") == [str(tree / "b.png")]


def test_what_exists_is_taken_literally(tmp_path):
    for name in ("part[1].png", "part1.png", "line*/x.png", "line 2/x.png"):
        save(tmp_path / name, picture(0))
    assert found(tmp_path, "part[1].png") == ["part[1].png"]
    assert found(tmp_path, "line*") == ["line*/x.png"]


def test_nothing_found_is_an_error_with_a_way_out(tree, warned):
    for pattern in ("lost.png", "lost/*.png", "*.bmp", "lost"):
        with pytest.raises(ValueError, match="name a file, a folder, or a pattern") as caught:
            photos.find(str(tree / pattern))
        assert repr(str(tree / pattern)) in str(caught.value)
    with pytest.raises(ValueError, match="''"):
        photos.find("")
    (tree / "empty").mkdir()
    (tree / "empty/x.txt").write_text("no image")
    with pytest.raises(ValueError, match="empty' holds no PNG, JPEG, BMP, TIFF, WEBP or PPM file"):
        photos.find(str(tree / "empty"))
    assert "left out 1 files" in warned[-1] and ".txt (1)" in warned[-1]


def test_symlinks_that_lead_in_circles(tmp_path, warned):
    save(tmp_path / "a/x.png", picture(0))
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path / "a")
    (tmp_path / "a/link.png").symlink_to(tmp_path / "a/x.png")
    (tmp_path / "a/self.png").symlink_to("self.png")
    here = ["a/link.png", "a/self.png", "a/x.png"]
    for pattern in ("a", "**/*.png", "a/**", "a/*"):
        assert found(tmp_path, pattern) == here
    assert any("symlinked folder (3)" in line for line in warned)
    assert found(tmp_path, "a/one") == [name.replace("a/", "a/one/") for name in here]
    assert photos.read_photo(str(tmp_path / "a/self.png"), SIZE).reason


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    save(tmp_path / "a/x.png", picture(0))
    scandir = os.scandir

    def denied(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(OSError, match="a: Permission denied: make the folder readable"):
        photos.find(str(tmp_path))


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    save(tmp_path / name, picture(0))
    (tmp_path / os.fsdecode(b"x.\xff")).write_text("no image")
    for pattern in ("", "*.png", name):
        (path,) = photos.find(str(tmp_path / pattern))
        assert path == str(tmp_path / name)
        assert photos.read_photo(path, SIZE).reason == ""


# ---------------------------------------------------------------- read


@pytest.mark.parametrize("shape", [(20, 18, 3), (1500, 700, 3), (8, 2000, 3), (1024, 16)])
def test_a_photo_is_what_training_sees_and_a_person(tmp_path, shape):
    pixels = picture(0, shape)
    path = str(save(tmp_path / "x.png", pixels))
    photo = photos.read_photo(path, SIZE)
    assert (photo.path, photo.size, photo.reason) == (path, shape[:2], "")
    image = Image.fromarray(pixels).convert("RGB")
    resized = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(photo.pixels, np.asarray(resized))
    thumbnail = image.copy()
    thumbnail.thumbnail((1024, 1024), Image.Resampling.BILINEAR, reducing_gap=None)
    np.testing.assert_array_equal(photo.shown, np.asarray(thumbnail))
    assert photo.pixels.dtype == photo.shown.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_training_and_test_images_come_back_to_the_bit(tmp_path, suffix):
    """Scored again as new images, those of MVTec's layout are the same."""
    for split in ("train", "test"):
        save(tmp_path / f"root/part/{split}/good/x.{suffix}", picture(len(split), (97, 61, 3)))
    splits = pipeline.load_splits("part", tmp_path / "root", SIZE, data_dir=tmp_path / "prepared")
    for images_ in (splits.train, splits.test):
        photo = photos.read_photo(str(tmp_path / "root/part" / images_.paths[0]), SIZE)
        np.testing.assert_array_equal(photo.pixels, images_.images[0])
        assert photo.size == tuple(images_.sizes[0])


def test_whatever_is_wrong_is_a_reason(tmp_path, monkeypatch):
    save(tmp_path / "cut.png", picture(0))
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x: y.heic").write_text("no image")
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("cut.png", "image file is truncated"),
        ("x: y.heic", "not a readable PNG, JPEG, BMP, TIFF, WEBP or PPM image"),
        ("gone.png", "No such file or directory"),
        ("folder", "a folder"),
        ("x" * 300, "File name too long"),
    ):
        path = str(tmp_path / name)
        assert photos.read_photo(path, SIZE) == Photo(path, None, None, (0, 0), reason)
    path = str(save(tmp_path / "x.png", picture(0)))

    def fail(error):
        def call(*_):
            raise error

        return call

    for error, reason in (
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("two\nlines"), "two lines"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", fail(error))
            assert photos.read_photo(path, SIZE).reason == reason
        with monkeypatch.context() as patch:
            patch.setattr(photos, "resize", fail(error))
            assert reason in photos.read_photo(path, SIZE).reason


def test_the_home_folder_and_the_like_are_not_read_twice(tmp_path):
    """A relative path is as good, and the path comes back as it was given."""
    path = save(tmp_path / "x.png", picture(0))
    relative = os.path.relpath(path)
    assert photos.read_photo(relative, SIZE).path == relative
    assert photos.read_photo(f"./{relative}/", SIZE).path == f"./{relative}/"


# ---------------------------------------------------------------- stream


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_photos_come_in_order(tmp_path, count, sizes):
    paths = [str(tmp_path / f"{index}.png") for index in range(count)]
    for index, path in enumerate(paths):
        if index % 3 != 1:
            save(Path(path), picture(index))
    lists = list(photos.stream_photos(paths, SIZE, 4))
    assert [len(each) for each in lists] == sizes
    every = [photo for each in lists for photo in each]
    assert [photo.path for photo in every] == paths
    assert [photo.reason != "" for photo in every] == [index % 3 == 1 for index in range(count)]


def test_one_list_is_read_ahead_and_no_more(tmp_path, monkeypatch):
    paths, started, enough = [str(index) for index in range(50)], [], threading.Event()

    def read(path, *_):
        started.append(path)
        if len(started) >= 8:
            enough.set()
        return photos.Photo(path, None, None, (0, 0), "")

    monkeypatch.setattr(photos, "read_photo", read)
    lists = photos.stream_photos(paths, SIZE, 4)
    assert started == []
    next(lists)
    assert enough.wait(10) and sorted(started, key=int) == paths[:8]
    before = threading.active_count()
    lists.close()  # whoever stops early leaves no thread behind
    assert threading.active_count() < before and len(started) == 8


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    path = str(save(tmp_path / "x.png", np.zeros((300, 400, 3), np.uint8)))
    assert images.read_image(Path(path)).nbytes == 360_000  # NumPy's memory is traced
    list(photos.stream_photos([path], SIZE, 4))

    def peak(count):
        tracemalloc.start()
        for photos_ in photos.stream_photos([path] * count, SIZE, 4):
            del photos_
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few, many = peak(20), peak(200)
    assert many < 1.5 * few and many < 20 * 360_000


def test_a_picture_in_memory_is_one_from_a_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    there, here = photos.read_photo(str(tmp_path / "a.png"), 16), photos.of_pixels(pixels, 16)
    assert (there.pixels == here.pixels).all() and (there.shown == here.shown).all()
    assert there.size == here.size == (30, 20) and here.path == ""


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 4), (0, 20, 3)])
def test_an_array_that_is_no_picture(shape):
    with pytest.raises(ValueError, match=r"give uint8 \[H, W, 3\]"):
        photos.of_pixels(np.zeros(shape, np.uint8), 16)
    with pytest.raises(ValueError, match="float64"):
        photos.of_pixels(np.zeros((30, 20, 3)), 16)


@pytest.mark.parametrize("form", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_what_pillow_has_opened_is_read_as_its_file(tmp_path, form, orientation):
    path = save(tmp_path / f"a.{form}", picture(1), exif=oriented(orientation))
    with Image.open(path) as image:
        opened = photos.of_image(image, 16)
        again = photos.of_image(image, 16)
    expected = photos.read_photo(str(path), 16)
    for photo in (opened, again):
        np.testing.assert_array_equal(photo.pixels, expected.pixels)
        assert photo.size == expected.size


def test_16_bits_of_pillow_are_scaled_and_small_ones_refused():
    deep = Image.fromarray(np.full((9, 9), 1023, np.uint16))
    assert photos.of_image(deep, 8, images.Reading(1023)).pixels.min() == 255
    for small in (Image.new("L", (3, 9)), np.zeros((3, 3, 3), np.uint8)):
        read = photos.of_pixels if isinstance(small, np.ndarray) else photos.of_image
        with pytest.raises(ValueError, match="too small"):
            read(small, 16)
