"""One file to pixels: what is read, as which numbers, and what is refused with which reason."""

import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from trees import picture, save

from data import images

ROOT = Path(__file__).parents[2]


# ---------------------------------------------------------------- what is refused


def test_mutated_files_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in ("png", "jpg", "bmp", "tif", "webp", "ppm"):
        path = save(tmp_path / f"x.{suffix}", picture(0))
        whole = path.read_bytes()
        for _ in range(100):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 400), 4):
                data[place] = rng.integers(256)
            path.write_bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.3 else data)
            message = str(path)
            try:
                assert images.read_image(path).dtype == np.uint8
            except ValueError as error:
                message = str(error)
            assert str(path) in message and "\n" not in message


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
        with pytest.raises(ValueError, match=r"x.png: 12000x12000 px: .* decompression bomb"):
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


# ---------------------------------------------------------------- numbers


def test_shrinking_keeps_the_ratio_and_never_enlarges():
    for shape, expected in (((300, 200), (100, 67)), ((10, 3000), (1, 100)), ((100, 9), (100, 9))):
        pixels = picture(0, (*shape, 3))
        shrunk = images.shrink(pixels, 100)
        resized = Image.fromarray(pixels).resize(expected[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(shrunk, np.asarray(resized))


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
    with pytest.raises(ValueError, match=r"x.tif: floating-point"):
        images.read_image(path)
    for value in (-1, 70000):
        save(path, np.full((8, 8), value, np.int32))
        with pytest.raises(ValueError, match=f"x.tif: values from {value}"):
            images.read_image(path)


@pytest.mark.parametrize(
    ("mode", "suffix"),
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
