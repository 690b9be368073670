import builtins
import io
import itertools
import os
import shutil
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from data import decoded, images, mvtec_ad, pipeline, sampling, scan
from engine import batches

ROOT = Path(__file__).parents[2]
SIZE = 16


def picture(seed, shape=(20, 18, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def square(shape=(20, 18), at=5):
    mask = np.zeros(shape, np.uint8)
    mask[at : at + 4, 3:6] = 255
    return mask


def make_tree(root, category="bottle", num_train=12):
    folder = root / category
    for index in range(num_train):
        save(folder / f"train/good/{index:03}.png", picture(index))
    for index in range(2):
        save(folder / f"test/good/{index:03}.png", picture(100 + index))
    for index in range(3):
        save(folder / f"test/broken/{index:03}.png", picture(200 + index))
        save(folder / f"ground_truth/broken/{index:03}_mask.png", square(at=index))
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_tree(tmp_path / "root")


def load(folder, **options):
    return pipeline.load(
        folder.name, folder.parent, SIZE, data_dir=folder.parent.parent / "tfds", **options
    )


def decoded_copy(folder):
    return folder.parent.parent / "tfds" / "decoded" / f"{folder.name}_{SIZE}px.npz"


def fails(folder, kind=ValueError):
    """The message of the error that loading ends with: always one line."""
    with pytest.raises(kind) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pillow_resize(pixels):
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


# ---------------------------------------------------------------- loading


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


@pytest.mark.parametrize("options", [{"calibration": 1}, {"calibration": -0.1}])
def test_a_share_without_sense_is_refused(folder, options):
    with pytest.raises(ValueError, match="calibration"):
        load(folder, **options)


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


def test_preparing_is_silent_and_stays_off_the_network(folder, capsys, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load(folder)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_the_source_is_only_read_and_prepared_once(folder, monkeypatch):
    before = sorted(folder.parent.rglob("*"))
    first = load(folder)
    decoded_copy(folder).unlink()
    monkeypatch.setattr(mvtec_ad, "refuse_bad_files", None)  # would fail if it were called again
    second = load(folder)
    assert sorted(folder.parent.rglob("*")) == before
    np.testing.assert_array_equal(first.train.images, second.train.images)
    copy = folder.parent.parent / "tfds" / first.digest[:16] / "mvtec_ad" / "bottle" / "1.0.0"
    assert (copy / "dataset_info.json").is_file()


def test_changed_files_are_prepared_anew(folder):
    first = load(folder)
    save(folder / "test/good/000.png", picture(7))
    second = load(folder)
    assert second.digest != first.digest
    np.testing.assert_array_equal(second.test.images[3], pillow_resize(picture(7)))
    (folder / "test/good/001.png").rename(folder / "test/good/002.png")
    third = load(folder)
    assert third.digest != second.digest and third.test.paths[-1] == "test/good/002.png"


def test_a_crash_while_preparing_leaves_nothing_that_is_trusted(folder, monkeypatch):
    encode, calls = mvtec_ad._png, itertools.count()

    def crash(pixels):
        if next(calls) == 5:
            raise RuntimeError("crash")
        return encode(pixels)

    with monkeypatch.context() as patch:
        patch.setattr(mvtec_ad, "_png", crash)
        with pytest.raises(RuntimeError, match="crash"):
            load(folder)
    (copies,) = (folder.parent.parent / "tfds").glob("*/mvtec_ad/bottle")
    assert not (copies / "1.0.0").exists()
    (copies / "incomplete.ABC_1.0.0").mkdir()  # what kill -9 leaves
    (copies / "incomplete.ABC_1.0.0/mvtec_ad-train.tfrecord-00000-of-00001").write_text("junk")
    assert len(load(folder).train.paths) == 11


@pytest.mark.parametrize("damage", ["cut", "flip", "delete", "empty"])
def test_a_damaged_copy_is_named(folder, damage):
    load(folder)
    decoded_copy(folder).unlink()
    (record,) = (folder.parent.parent / "tfds").rglob("*train.tfrecord*")
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        record.unlink()
    else:
        record.write_bytes({"cut": data[:-100], "flip": data, "empty": b""}[damage])
    assert str(record.parent) in fails(folder, OSError)


def test_a_copy_without_its_description_is_named(folder):
    load(folder)
    decoded_copy(folder).unlink()
    (description,) = (folder.parent.parent / "tfds").rglob("dataset_info.json")
    for damage in (lambda: description.write_text(""), description.unlink):
        damage()
        assert str(description.parents[3]) in fails(folder, OSError)


def test_a_data_dir_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "tfds").write_text("a file in the way")
    message = fails(folder, OSError)
    assert str(tmp_path / "tfds") in message and "data_dir" in message


def test_another_process_may_prepare_at_the_same_time(folder, monkeypatch):
    prepare = mvtec_ad.MvtecAd.download_and_prepare

    def second(builder, **options):
        rival = mvtec_ad.MvtecAd(config="bottle", data_dir=builder._data_dir_root)
        prepare(rival, **options)
        raise OSError("Directory not empty")  # what TFDS's final renaming ends with

    monkeypatch.setattr(mvtec_ad.MvtecAd, "download_and_prepare", second)
    assert len(load(folder).train.paths) == 11


# ---------------------------------------------------------------- bad folders


def test_missing_data_names_folder_source_licence_and_demo(tmp_path):
    message = fails(tmp_path / "root" / "bottle", FileNotFoundError)
    assert str(tmp_path / "root" / "bottle") in message
    assert "https://www.mvtec.com/company/research/datasets/mvtec-ad" in message
    assert "CC BY-NC-SA 4.0" in message and ":demo" in message


@pytest.mark.parametrize("category", ["botle", "", ".", "../root/bottle"])
def test_an_unknown_category_lists_the_known(folder, category):
    with pytest.raises(ValueError) as caught:
        pipeline.load(category, folder.parent, SIZE, data_dir=folder.parent / "tfds")
    message = str(caught.value)
    assert repr(category) in message and "\n" not in message
    assert "any folder of the same layout" in message
    assert len(scan.CATEGORIES) == 15
    assert all(name in message for name in scan.CATEGORIES)


@pytest.mark.promise("R11", "no training images: an error that names the folder")
def test_an_empty_training_folder_is_named(folder):
    for path in folder.glob("train/good/*"):
        path.unlink()
    assert str(folder / "train/good") in fails(folder)
    (folder / "train/good").rmdir()
    assert str(folder / "train/good") in fails(folder)


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


@pytest.mark.promise("R10", "masks of no image: an error that names all")
def test_masks_that_belong_to_no_image_are_all_named(folder):
    save(folder / "ground_truth/broken/007_mask.png", square())
    save(folder / "ground_truth/scratched/000_mask.png", square())
    message = fails(folder)
    assert "broken/007_mask.png" in message and "scratched/000_mask.png" in message
    assert "broken/000_mask.png" not in message


@pytest.mark.promise("R10", "a mask of two images: an error that names it")
def test_a_mask_of_two_images_is_refused(folder):
    save(folder / "test/broken/000.jpg", picture(3))
    assert "broken/000_mask.png" in fails(folder)


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


# ---------------------------------------------------------------- bad images


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


def test_mutated_files_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    sources = []
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "ppm"):
        sources.append((tmp_path / f"x.{suffix}", save(tmp_path / f"x.{suffix}", picture(0))))
    for path, source in sources:
        whole = source.read_bytes()
        for _ in range(100):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 400), 4):
                data[place] = rng.integers(256)
            path.write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data)
            try:
                assert images.read_image(path).dtype == np.uint8
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error)


def test_a_jpeg_called_png_is_read(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(picture(0)).save(path, "JPEG", quality=95)
    np.testing.assert_array_equal(images.read_image(path), np.asarray(Image.open(path)))


@pytest.mark.parametrize("kind", ["GIF", "TGA", "JPEG2000", "PDF"])
def test_other_formats_called_png_are_refused(tmp_path, kind):
    path = tmp_path / "x.png"
    Image.fromarray(picture(0)).save(path, kind)
    expected = "x.png: not a readable PNG, JPEG, BMP, TIFF, WEBP or PPM image"
    with pytest.raises(ValueError, match=expected):
        images.read_image(path)


@pytest.mark.parametrize("name", ["a.webp", "a.ppm", "a.pgm", "a.pnm", "plain.pgm", "camera.jpg"])
def test_further_formats_are_what_pillow_reads(tmp_path, name):
    path = tmp_path / name
    image = Image.fromarray(picture(0, (9, 8, 3)))
    if name == "plain.pgm":
        path.write_text(f"P2\n# by hand\n9 8\n15\n{' '.join(str(i % 16) for i in range(72))}")
        expected = np.repeat(np.arange(72).reshape(8, 9, 1) % 16 * 17, 3, axis=-1)
    elif name == "camera.jpg":  # with a preview, as cameras write it
        image.save(path, "MPO", save_all=True, append_images=[image.rotate(180)])
        with Image.open(path) as opened:
            expected = np.asarray(opened)
    else:
        (image.convert("L") if name == "a.pgm" else image).save(path, lossless=True)
        expected = np.asarray(Image.open(path).convert("RGB"))
    np.testing.assert_array_equal(images.read_image(path), expected)


@pytest.mark.parametrize("name", ["x.webp", "x.tif", "x.png"])
def test_files_of_several_pictures_are_refused(tmp_path, name):
    image = Image.fromarray(picture(0))
    others = [image.rotate(90), image.rotate(180)]
    image.save(tmp_path / name, save_all=True, append_images=others)
    expected = f"{name}: several frames or pages: save each as a file of its own"
    for read in (images.read_image, images.read_mask):
        with pytest.raises(ValueError, match=expected):
            read(tmp_path / name)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (8, 8)])
def test_images_without_anything_to_see_are_refused(tmp_path, shape):
    path = save(tmp_path / "x.png", picture(0, (*shape, 3)))
    if min(shape) == 8:
        assert images.read_image(path).shape == (8, 8, 3)
        return
    with pytest.raises(ValueError, match=f"x.png: {shape[1]}x{shape[0]} px: too small"):
        images.read_image(path)


def test_tiffs_of_other_instruments(tmp_path):
    pixels = picture(0, (9, 8, 5))
    tifffile.imwrite(tmp_path / "rgb.tif", pixels, photometric="rgb")
    np.testing.assert_array_equal(images.read_image(tmp_path / "rgb.tif"), pixels[..., :3])
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "five.tif", pixels, **options)
    tifffile.imwrite(tmp_path / "double.tif", np.linspace(0, 1, 72).reshape(9, 8))
    for name in ("five.tif", "double.tif"):
        with pytest.raises(ValueError, match=f"{name}: a TIFF image that cannot be decoded: save"):
            images.read_image(tmp_path / name)


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # to open it would never end
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 2**40)
    for name, reason in (
        ("pipe.png", "no regular file"),
        ("folder.png", "a folder"),
        ("huge.png", "1,099,511,627,776 bytes: too large"),
    ):
        with pytest.raises(ValueError, match=f"{name}: {reason}"):
            images.read_image(tmp_path / name)


def test_bombs_are_refused_whatever_is_done_with_warnings(tmp_path):
    Image.new("1", (12000, 12000)).save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="x.png: 12000x12000 px: .* decompression bomb"):
            images.read_image(tmp_path / "x.png")


def test_odd_metadata_is_not_spoken_of_and_filters_stay(tmp_path):
    """`warnings.catch_warnings` in threads would leave the filters of one with the other."""
    path = save(tmp_path / "x.tif", picture(0, (9, 8)), dpi=(72, 72))
    one, two = (struct.pack("<HHI", 282, 5, count) for count in (1, 2))  # so many resolutions
    assert path.read_bytes().count(one) == 1
    path.write_bytes(path.read_bytes().replace(one, two))
    with pytest.warns(UserWarning, match="too many entries"), Image.open(path) as image:
        image.load()
    code = f"""
import pathlib, warnings
from concurrent.futures import ThreadPoolExecutor
from data.images import read_image
before = list(warnings.filters)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(read_image, [pathlib.Path({str(path)!r})] * 200))
assert warnings.filters == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_shrinking_keeps_the_ratio_and_never_enlarges():
    for shape, expected in (((300, 200), (100, 67)), ((10, 3000), (1, 100)), ((100, 9), (100, 9))):
        pixels = picture(0, (*shape, 3))
        shrunk = images.shrink(pixels, 100)
        resized = Image.fromarray(pixels).resize(expected[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(shrunk, np.asarray(resized))


def test_jpeg_keeps_its_quality_through_the_copy(tmp_path):
    folder = tmp_path / "root" / "parts"
    path = save(folder / "train/good/a.jpg", picture(0, (SIZE, SIZE, 3)), quality=90)
    np.testing.assert_array_equal(load(folder).train.images[0], np.asarray(Image.open(path)))


def test_exif_orientation_is_left_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.jpg", picture(0, (8, 12, 3)), exif=exif)
    assert images.read_image(path).shape == (8, 12, 3)


def grey(tmp_path, pixels, suffix="png"):
    read = images.read_image(save(tmp_path / f"x.{suffix}", pixels))
    assert read.shape == (*pixels.shape, 3) and read.dtype == np.uint8
    assert (read == read[..., :1]).all()
    return read[..., 0]


def test_greyscale_becomes_three_channels(tmp_path):
    pixels = picture(0, (9, 8))
    np.testing.assert_array_equal(grey(tmp_path, pixels), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_scaled_and_never_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    expected = np.round(ramp / 257)
    np.testing.assert_array_equal(grey(tmp_path, ramp, suffix), expected)
    if suffix == "tif":
        np.testing.assert_array_equal(grey(tmp_path, ramp.astype(np.int32), suffix), expected)
        np.testing.assert_array_equal(grey(tmp_path, ramp.astype(">u2"), suffix), expected)
    dark = ramp // 256  # all below 256, and dark all the same
    np.testing.assert_array_equal(grey(tmp_path, dark, suffix), np.round(dark / 257))


def test_floating_point_and_32_bit_values_are_refused(tmp_path):
    path = save(tmp_path / "x.tif", np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    with pytest.raises(ValueError, match="x.tif: floating-point"):
        images.read_image(path)
    for value in (-1, 70000):
        save(path, np.full((8, 8), value, np.int32))
        with pytest.raises(ValueError, match=f"x.tif: values from {value}"):
            images.read_image(path)


@pytest.mark.parametrize(
    "mode, suffix",
    [("1", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("CMYK", "tif")],
)
def test_other_modes_become_rgb(tmp_path, mode, suffix):
    image = Image.fromarray(picture(0, (9, 8, 3))).convert(mode)
    path = tmp_path / f"x.{suffix}"
    image.save(path)
    with Image.open(path) as saved:
        assert saved.mode == mode
        expected = np.asarray(saved.convert("RGB"))
    np.testing.assert_array_equal(images.read_image(path), expected)


def test_transparency_is_dropped_from_palettes_and_alpha(tmp_path):
    palette = Image.fromarray(picture(0, (9, 8, 3))).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    palette.save(tmp_path / "p.png", transparency=bytes(range(16)))
    np.testing.assert_array_equal(images.read_image(tmp_path / "p.png"), expected)
    rgba = picture(0, (9, 8, 4))
    np.testing.assert_array_equal(images.read_image(save(tmp_path / "a.png", rgba)), rgba[..., :3])


@pytest.mark.parametrize("kind", ["bool", "ones", "16-bit", "colour", "alpha", "palette", "jpeg"])
def test_masks_of_any_kind(tmp_path, kind):
    mask = np.zeros((32, 32), bool)
    mask[8:24, 16:24] = True
    path = tmp_path / ("x.jpg" if kind == "jpeg" else "x.png")
    colour = mask[..., None] * np.array([1, 0, 0], np.uint8)
    pixels = {
        "bool": mask,
        "ones": mask.astype(np.uint8),
        "16-bit": mask.astype(np.uint16),
        "colour": colour,
        "alpha": np.concatenate([colour, np.full((32, 32, 1), 255, np.uint8)], axis=-1),
        "palette": mask.astype(np.uint8) * 255,
        "jpeg": mask.astype(np.uint8) * 255,
    }[kind]
    image = Image.fromarray(pixels)
    (image.convert("P") if kind == "palette" else image).save(path)
    np.testing.assert_array_equal(images.read_mask(path), mask)


# ---------------------------------------------------------------- batches


NUMBERED = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 4, 4, 3))


def numbers(batch):
    """Which images a batch of NUMBERED holds."""
    return np.rint((batch[..., 0, 0, 0] + 1) * 127.5).astype(int)


@pytest.mark.parametrize("size", [1, 7, 60, 64, 150])
def test_each_epoch_sees_every_image_once(size):
    steps = [sampling.batch_indices(3, step, (size,), 60)[0] for step in range(300 // size + 2)]
    stream = np.concatenate(steps)
    for epoch in range(len(stream) // 60):
        assert sorted(stream[60 * epoch : 60 * (epoch + 1)]) == list(range(60))
    assert not np.array_equal(stream[:60], stream[60:120])


def test_indices_are_a_pure_function_of_seed_and_step():
    first, flips = sampling.batch_indices(1, 5, (5, 8), 60)
    assert first.shape == flips.shape == (5, 8) and flips.dtype == bool
    again, flips_again = sampling.batch_indices(1, 5, (5, 8), 60)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(flips, flips_again)
    for other in ((2, 5), (1, 6)):
        indices, other_flips = sampling.batch_indices(*other, (5, 8), 60)
        assert not np.array_equal(first, indices) and not np.array_equal(flips, other_flips)
    many = sampling.batch_indices(0, 0, (10000,), 60)[1]
    assert 0.47 < many.mean() < 0.53


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        sampling.batch_indices(0, 0, (4,), 0)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3)])
def test_the_images_of_a_step_do_not_depend_on_devices_and_processes(leading):
    batches = pipeline.train_batches(NUMBERED, flip=True)
    whole = next(batches((1, *leading, 16), 0, 7))[0]
    expected = sampling.batch_indices(0, 7, (*leading, 16), 60)[0]
    np.testing.assert_array_equal(numbers(whole), expected)
    for local, count in ((8, 1), (2, 1), (2, 2), (1, 4)):
        dims = (local, *leading, 16 // (local * count))
        parts = [next(batches(dims, 0, 7, process=(index, count))) for index in range(count)]
        assert all(part.shape == (*dims, 4, 4, 3) for part in parts)
        joined = np.concatenate([*np.concatenate(parts)], axis=len(leading))
        np.testing.assert_array_equal(joined, whole)


def test_batches_are_scaled_and_resume():
    pixels = picture(0, (10, 4, 6, 3))
    pixels[0, 0, 0] = [0, 255, 128]
    batches = pipeline.train_batches(pixels, flip=True)
    whole = list(itertools.islice(batches((2, 5), 4, 0), 6))
    assert all(batch.dtype == np.float32 for batch in whole)
    assert min(batch.min() for batch in whole) == -1 and max(b.max() for b in whole) == 1
    for batch, step in zip(batches((2, 5), 4, 3), range(3, 6), strict=False):
        np.testing.assert_array_equal(batch, whole[step])
        indices, flips = sampling.batch_indices(4, step, (10,), 10)
        expected = pixels[indices] / np.float32(127.5) - 1
        expected[flips] = expected[flips, :, ::-1]
        np.testing.assert_allclose(batch.reshape(10, 4, 6, 3), expected, atol=1e-7)
        if step == 5:
            break


def test_flips_only_when_asked():
    pixels = picture(0, (10, 4, 4, 3))
    batch = next(pipeline.train_batches(pixels, flip=False)((1, 10), 4, 0))[0]
    indices, flips = sampling.batch_indices(4, 0, (10,), 10)
    assert flips.any()
    np.testing.assert_allclose(batch, pixels[indices] / np.float32(127.5) - 1, atol=1e-7)


@pytest.mark.promise("R11", "a batch larger than the data set: each image as often as any other")
@pytest.mark.parametrize("batch", [60, 64, 200])
def test_sixty_images_and_any_batch(batch):
    drawn = numbers(next(pipeline.train_batches(NUMBERED, flip=True)((1, batch), 0, 0)))[0]
    counts = np.bincount(drawn, minlength=60)
    assert counts.min() >= batch // 60 and counts.max() <= -(-batch // 60)


def test_evaluation_batches_are_in_order_and_end_short():
    batches = list(pipeline.eval_batches(NUMBERED, 25))
    assert [len(batch) for batch in batches] == [25, 25, 10]
    whole = np.concatenate(batches)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, NUMBERED / np.float32(127.5) - 1, atol=1e-7)


@pytest.mark.parametrize(
    ("leading", "flip", "crop", "rotation"),
    [
        *[((), True, 0, 0), ((3,), True, 0, 0), ((), False, 0, 0), ((3,), True, 3, 0)],
        *[((), False, 4, 0), ((3,), True, 3, 90), ((), False, 4, 90), ((), True, 0, 180)],
    ],
)
def test_resident_batches_are_the_streamed_ones_to_the_bit(leading, flip, crop, rotation):
    pixels = picture(0, (10, 4, 6, 3))
    options = {"flip": flip, "crop": crop, "rotation": rotation}
    streamed = pipeline.train_batches(pixels, **options)
    draws = pipeline.train_draws(pixels, **options)
    held = batches.resident(pixels, draws, crop=crop)
    images_of = jax.jit(held.images)
    for dims, process in (((2, *leading, 8), (0, 1)), ((2, *leading, 4), (1, 2))):
        whole = streamed(dims, 7, 3, process)
        sent = held.sent(dims, 7, 3, process)
        for expected, draw in itertools.islice(zip(whole, sent, strict=True), 4):
            images = images_of(held.held, draw)
            assert images.dtype == np.float32
            np.testing.assert_array_equal(images, expected)


def test_crops_are_pieces_of_the_images_that_are_drawn():
    """By hand: cut at the corner, then mirrored; indices and flips are those of whole images."""
    pixels = picture(0, (10, 8, 9, 3))
    batch = next(pipeline.train_batches(pixels, flip=True, crop=5)((1, 40), 4, 3))[0]
    indices, flips = sampling.batch_indices(4, 3, (40,), 10)
    corners = sampling.batch_corners(4, 3, (40,), (3, 4))
    for found, index, flip, (top, left) in zip(batch, indices, flips, corners, strict=True):
        piece = pixels[index, top : top + 5, left : left + 5]
        np.testing.assert_array_equal(found, sampling.scale(piece[:, ::-1] if flip else piece))


def test_corners_reach_every_place_and_repeat():
    corners = sampling.batch_corners(0, 0, (20, 50), (3, 1))
    assert corners.shape == (20, 50, 2)
    assert set(map(tuple, corners.reshape(-1, 2))) == {(i, j) for i in range(4) for j in range(2)}
    np.testing.assert_array_equal(corners, sampling.batch_corners(0, 0, (20, 50), (3, 1)))
    assert not np.array_equal(corners, sampling.batch_corners(0, 1, (20, 50), (3, 1)))
    assert not sampling.batch_corners(0, 0, (7,), (0, 0)).any()


@pytest.mark.parametrize("crop", [-1, 5])
def test_crops_larger_than_the_images_are_refused(crop):
    with pytest.raises(ValueError, match=f"data.crop {crop} does not fit images of 4x6 px"):
        pipeline.train_draws(picture(0, (10, 4, 6, 3)), flip=True, crop=crop)


@pytest.mark.parametrize(
    ("side", "crop", "rotation"), [(5, 0, 90), (5, 0, 180), (8, 5, 90), (8, 5, 180), (8, 5, 0)]
)
@pytest.mark.parametrize("source", ["resident", "streamed"])
def test_turned_images_are_numpys(side, crop, rotation, source):
    """By hand: cut, mirrored, then turned; what else is drawn is as it is without turns."""
    pixels, dims = picture(0, (10, side, side, 3)), (2, 3, 20)
    draws = pipeline.train_draws(pixels, flip=True, crop=crop, rotation=rotation)
    draw = next(draws(dims, 4, 3))
    unturned = pipeline.train_draws(pixels, flip=True, crop=crop)
    for found, expected in zip(draw[:3], next(unturned(dims, 4, 3)), strict=False):
        np.testing.assert_array_equal(found, expected)
    if source == "resident":
        batch = jax.jit(batches.resident(pixels, draws, crop=crop).images)(pixels, draw)
    else:
        streamed = pipeline.train_batches(pixels, flip=True, crop=crop, rotation=rotation)
        batch = next(streamed(dims, 4, 3))
    size, parts = crop or side, [part.reshape(-1, *part.shape[3:]) for part in draw]
    assert batch.shape == (*dims, size, size, 3) and parts[3].dtype == np.int32
    images = np.asarray(batch).reshape(-1, size, size, 3)
    for image, index, flip, (top, left), turns in zip(images, *parts, strict=True):
        piece = pixels[index, top : top + size, left : left + size]
        piece = np.rot90(piece[:, ::-1] if flip else piece, turns)
        np.testing.assert_array_equal(image, sampling.scale(piece))


@pytest.mark.parametrize(("rotation", "quarters"), [(0, (0,)), (90, (0, 1, 2, 3)), (180, (0, 2))])
def test_turns_are_uniform_and_a_pure_function_of_seed_and_step(rotation, quarters):
    assert sampling.quarter_turns(rotation) == quarters
    turns = sampling.batch_turns(0, 0, (100, 60), quarters)
    shares = np.bincount(turns.ravel(), minlength=4)[list(quarters)] / turns.size
    assert shares.sum() == 1 and np.abs(shares - 1 / len(quarters)).max() < 0.03
    np.testing.assert_array_equal(turns, sampling.batch_turns(0, 0, (100, 60), quarters))
    for other in ((0, 1), (1, 0)) if rotation else ():
        assert not np.array_equal(turns, sampling.batch_turns(*other, (100, 60), quarters))
    flips = sampling.batch_indices(0, 0, (100, 60), 60)[1]
    assert 0.47 < flips[turns == 0].mean() < 0.53  # drawn independently


@pytest.mark.parametrize("rotation", [-90, 45, 270, 360])
def test_other_rotations_are_refused(rotation):
    with pytest.raises(ValueError, match=f"data.rotation {rotation} is not 0, 90 or 180"):
        pipeline.train_batches(picture(0, (10, 4, 4, 3)), flip=True, rotation=rotation)


def test_quarter_turns_need_squares():
    pixels = picture(0, (10, 4, 6, 3))
    with pytest.raises(ValueError, match="data.rotation 90 does not fit images of 4x6 px"):
        pipeline.train_draws(pixels, flip=True, crop=0, rotation=90)
    pipeline.train_draws(pixels, flip=True, crop=4, rotation=90)
    pipeline.train_draws(pixels, flip=True, crop=0, rotation=180)


@pytest.mark.parametrize("leading", [(), (3,)])
def test_crops_and_turns_of_a_step_do_not_depend_on_devices_and_processes(leading):
    draws = sampling.draws(60, flip=True, rotation=90, room=(9, 9))
    whole = [part[0] for part in next(draws((1, *leading, 16), 0, 7))]
    for local, count in ((8, 1), (2, 2)):
        dims = (local, *leading, 16 // (local * count))
        shares = [next(draws(dims, 0, 7, process=(index, count))) for index in range(count)]
        for expected, *parts in zip(whole, *shares, strict=True):
            joined = np.concatenate([*np.concatenate(parts)], axis=len(leading))
            np.testing.assert_array_equal(joined, expected)


def test_scaling_ends_at_the_ends():
    scaled = sampling.scale(np.array([0, 255], np.uint8))
    assert scaled.dtype == np.float32 and scaled.tolist() == [-1.0, 1.0]


# ---------------------------------------------------------------- the decoded copy


def assert_equal_splits(a, b):
    for left, right in zip(a[:3], b[:3], strict=True):
        np.testing.assert_array_equal(left.images, right.images)
        np.testing.assert_array_equal(left.labels, right.labels)
        np.testing.assert_array_equal(left.sizes, right.sizes)
        assert (left.paths, left.defects) == (right.paths, right.defects)
        for mask, other in zip(left.masks, right.masks, strict=True):
            np.testing.assert_array_equal(mask, other)
    assert a.digest == b.digest


def in_memory(splits):
    """The same without the file that the images lie in."""
    here = [
        split._replace(images=np.asarray(split.images), masks=[*split.masks])
        for split in splits[:3]
    ]
    return pipeline.Splits(*here, splits.digest)


def refuse(*_, **__):
    raise AssertionError("files are decoded again")


def test_the_decoded_copy_is_what_was_decoded(folder, monkeypatch):
    (folder / "ground_truth/broken/001_mask.png").unlink()  # one image without a mask
    first = load(folder)
    monkeypatch.setattr(mvtec_ad, "prepare", refuse)
    assert_equal_splits(load(folder), first)
    assert [mask is None for mask in load(folder).test.masks] == [False, True] + [False] * 3
    assert load(folder).test.masks[0].dtype == bool


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
        half = pipeline.load("bottle", folder.parent, SIZE // 2, data_dir=copy.parents[1])
        assert half.train.images.shape[1:] == (SIZE // 2, SIZE // 2, 3)
        return
    second = load(folder)
    if change == "pixels":
        np.testing.assert_array_equal(second.test.images[0], pillow_resize(picture(7)))
    elif change == "name":
        assert "train/good/103.png" in second.train.paths + second.calibration.paths
    else:
        np.testing.assert_array_equal(second.test.masks[0], square(at=9) > 0)
    monkeypatch.setattr(mvtec_ad, "prepare", refuse)
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
    assert_equal_splits(pipeline.load("bottle", path, SIZE, data_dir=tmp_path / "none"), first)
    for category, size in (("carpet", SIZE), ("bottle", SIZE + 1)):
        with pytest.raises(ValueError, match=f"holds bottle at {SIZE} px, not {category}"):
            pipeline.load(category, path, size, data_dir=tmp_path / "none")
    path.write_text("no images")
    with pytest.raises(ValueError, match="carried.npz holds no decoded images"):
        pipeline.load("bottle", path, SIZE)


@pytest.mark.parametrize("version", [1, 2])
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
        ValueError, match=f"old.npz was written by another .*format {version}, not 3"
    ):
        pipeline.load("bottle", tmp_path / "old.npz", SIZE)


# ---------------------------------------------------------------- without the test set


def assert_training_alone(splits, expected):
    nothing = decoded.no_images(SIZE)
    assert splits.digest == "" and splits.test.images.dtype == np.uint8
    assert_equal_splits(splits, expected._replace(test=nothing, digest=""))
    assert splits.test.images.shape == (0, SIZE, SIZE, 3) and splits.test.labels.dtype == np.int64


def forbid_opening(names, monkeypatch):
    """Whatever Python opens or lists below folders of these names is an error."""

    def guarded(function):
        def call(path=".", *args, **options):
            if isinstance(path, str | os.PathLike):
                if set(names) & set(Path(path).parts):
                    pytest.fail(f"{path} is opened")  # no Exception, which may be caught
            return function(path, *args, **options)

        return call

    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))


def test_training_files_are_decoded_without_tensorflow_to_the_same_bits(folder, monkeypatch):
    for suffix, shape in (("jpg", (97, 61, 3)), ("webp", (8, 40, 3)), ("tif", (SIZE, SIZE))):
        save(folder / f"train/good/x.{suffix}", picture(1, shape))
    healthy = load(folder)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # to import it is an error
    monkeypatch.delitem(sys.modules, "data.mvtec_ad")
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
    splits = pipeline.load("bottle", decoded_copy(folder), SIZE, test=False)
    assert_training_alone(splits, healthy)
    assert "train_images.npy" in read
    assert not [name for name in read if name.startswith(("test", "mask"))]


def test_without_the_test_set_bad_training_files_are_named_alike(folder):
    (folder / "train/good/003.png").write_text("no image")
    (folder / "train/good/004.png").write_bytes(b"")
    message = fails(folder)
    with pytest.raises(ValueError) as caught:
        load(folder, test=False)
    assert str(caught.value) == message and message.startswith("2 bad files")
    shutil.rmtree(folder / "train")
    with pytest.raises(ValueError, match="No training images"):
        load(folder, test=False)
