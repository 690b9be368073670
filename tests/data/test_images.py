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
from PIL import Image, PngImagePlugin
from trees import as_seen, deep_png, oriented, picture, save, square

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


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif", "lzw.tif", "xmp.png"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_is_turned_as_a_person_sees_it(tmp_path, name, tag):
    options = {"exif": oriented(tag)}
    if name == "xmp.png":
        xmp = PngImagePlugin.PngInfo()
        xmp.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{tag}"/>')
        options = {"pnginfo": xmp}
    elif name.endswith("webp"):
        options["lossless"] = True
    elif name == "lzw.tif":
        options["compression"] = "tiff_lzw"
    stored = picture(0, (9, 12, 3))
    path = save(tmp_path / name, stored, **options)
    seen = images.read_raster(path)
    assert (seen.orientation, seen.size) == (tag, (12, 9) if tag > 4 else (9, 12))
    np.testing.assert_array_equal(seen.pixels, as_seen(path))
    if name != "x.jpg":
        np.testing.assert_array_equal(seen.pixels, images.turn(stored, tag))
        np.testing.assert_array_equal(images.turn_back(seen.pixels, tag), stored)


@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_of_16_bits_is_turned_too(tmp_path, tag):
    stored = np.arange(108, dtype=np.uint16).reshape(9, 12) * 600
    path = save(tmp_path / "x.png", stored, exif=oriented(tag))
    seen, measured = (images.read_raster(path, images.Reading(level)) for level in (None, 0))
    expected = images.turn(np.rint(stored / 257).astype(np.uint8), tag)
    np.testing.assert_array_equal(seen.pixels[..., 0], expected)
    assert measured.pixels is None and seen[1:] == measured[1:] == (expected.shape, tag, 64200)


ODD_EXIF = {
    "no orientation": b"Exif\0\0II*\0\x08\0\0\0\0\0",
    "cut": b"Exif\0\0II*\0\x08\0\0\0",
    "no TIFF header": b"Exif\0\0garbage",
    "beyond its end": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "a text that is not there": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\xff\xff\xff\x7f" + bytes(8),
    "orientation 0": oriented(0).tobytes(),
    "orientation 9": oriented(9).tobytes(),
}


@pytest.mark.filterwarnings("ignore")  # as data.images does, outside of pytest
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("name", ODD_EXIF)
def test_odd_metadata_end_no_read_and_turn_nothing(tmp_path, kind, name):
    path = tmp_path / "x.png"
    Image.fromarray(picture(0, (9, 12, 3))).save(path, kind, exif=ODD_EXIF[name])
    read = images.read_raster(path)
    assert (read.size, read.orientation) == ((9, 12), 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tag", [700, 34377, 33723])
@pytest.mark.parametrize("orientation", [1, 6])
def test_odd_metadata_of_a_tiff_end_no_read(tmp_path, tag, orientation):
    path = tmp_path / "x.tif"
    stored = picture(0, (9, 12, 3))
    odd = [(tag, 4, 1, 2**32 - 9, True), (274, 3, 1, orientation, True)]
    tifffile.imwrite(path, stored, photometric="rgb", extratags=odd)
    np.testing.assert_array_equal(images.read_image(path), images.turn(stored, orientation))


@pytest.mark.filterwarnings("ignore")
def test_damaged_pointers_of_a_tiff_end_no_read(tmp_path):
    """Pillow follows them when it loads the image."""
    path = tmp_path / "x.tif"
    stored = picture(0, (9, 12, 3))
    for pointer in (34665, 34853, 40965):
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[(65000, 4, 1, 5, True)])
        data = path.read_bytes()
        assert data.count(struct.pack("<H", 65000)) == 1
        for place in (0, 3, 8, len(data) - 3, 2**32 - 1):
            old, new = (
                struct.pack("<HHII", 65000, 4, 1, 5),
                struct.pack("<HHII", pointer, 4, 1, place),
            )
            path.write_bytes(data.replace(old, new))
            np.testing.assert_array_equal(images.read_image(path), stored)


def looked_at(tmp_path, tag, mask, **options):
    """What is found of a defective image 12 wide and 9 high as stored, and of its mask."""
    image = save(tmp_path / "x.png", picture(0, (9, 12, 3)), exif=oriented(tag))
    return images.inspect(image, save(tmp_path / "m.png", mask, **options), defective=True)


MARKED = square((9, 12), at=2)


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_mask_without_a_tag_belongs_to_the_stored_pixels(tmp_path, tag):
    found = looked_at(tmp_path, tag, MARKED)
    assert found.faults == [] and found.orientation == tag
    expected = as_seen(save(tmp_path / "turned.png", MARKED, exif=oriented(tag))) > 0
    np.testing.assert_array_equal(found.mask, expected)
    assert found.mask.shape == found.raster.size


@pytest.mark.parametrize("tag", range(5, 9))
def test_a_mask_that_fits_the_image_as_seen_alone_is_as_seen(tmp_path, tag):
    found = looked_at(tmp_path, tag, square((12, 9)))
    assert found.faults == [] and found.orientation == 0
    np.testing.assert_array_equal(found.mask, square((12, 9)) > 0)


@pytest.mark.parametrize("own", range(1, 9))
@pytest.mark.parametrize("tag", [3, 6])
def test_a_mask_with_a_tag_is_turned_by_it_alone(tmp_path, own, tag):
    shape = (9, 12) if (own > 4) == (tag > 4) else (12, 9)
    found = looked_at(tmp_path, tag, square(shape), exif=oriented(own))
    assert found.faults == [] and found.orientation == own
    np.testing.assert_array_equal(found.mask, as_seen(tmp_path / "m.png") > 0)


def test_a_mask_that_fits_neither_way_is_refused(tmp_path):
    (fault,) = looked_at(tmp_path, 6, square((12, 12))).faults
    assert "a mask of 12x12 pixels, but its image" in fault and fault.endswith("has 9x12")


# ---------------------------------------------------------------- more than 8 bits


@pytest.mark.parametrize(
    ("largest", "level"),
    [(0, 255), (255, 255), (256, 511), (1000, 1023), (1023, 1023), (3977, 4095), (65535, 65535)],
)
def test_the_white_level_has_all_the_bits_of_the_largest_value(largest, level):
    assert images.white_level_of([None, largest, 0, None]) == level


def test_8_bits_have_no_white_level():
    assert images.white_level_of([]) is images.white_level_of([None, None]) is None


def deep_file(path, kind, values):
    """A file of 16 bits: grey [9, 12] or colours [9, 12, 3]."""
    if kind in ("png", "alpha.png"):
        if kind == "alpha.png":
            opaque = np.full((9, 12, 1), 65535, np.uint16)
            values = np.concatenate([values.reshape(9, 12, -1), opaque], axis=-1)
        path.write_bytes(deep_png(values))
    elif kind == "ppm":
        head = b"P%d 12 9 65535\n" % (6 if values.ndim == 3 else 5)
        path.write_bytes(head + values.astype(">u2").tobytes())
    else:
        photometric = "rgb" if values.ndim == 3 else "minisblack"
        order = ">" if kind.startswith("big") else "<"
        packed = "zlib" if kind.endswith("zip.tif") else None
        options = {"byteorder": order, "compression": packed}
        tifffile.imwrite(path, values, photometric=photometric, **options)
    return path


KINDS = ["png", "alpha.png", "ppm", "tif", "zip.tif", "big.tif", "big zip.tif"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3)])
@pytest.mark.parametrize("level", [255, 1023, 4095, 10000, 65535, None])
def test_16_bits_are_scaled_from_the_white_level(tmp_path, kind, shape, level):
    values = np.random.default_rng(0).integers(0, (level or 65535) + 1, shape).astype(np.uint16)
    values[0, 0] = level or 65535
    path = deep_file(tmp_path / f"x.{kind}", kind, values)
    read = images.read_raster(path, images.Reading(level))
    expected = values / (level or 65535) * 255  # each channel, to the nearest number
    expected = np.rint(expected) if values.ndim == 3 else np.rint(expected)[..., None].repeat(3, -1)
    np.testing.assert_array_equal(read.pixels, expected)
    assert read.largest == (level or 65535) == values.max()


@pytest.mark.parametrize("kind", [5, 6])
def test_ppm_says_itself_what_is_white(tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 4200, (9, 12, 3 if kind == 6 else 1))
    head = b"P%d 12 9 4095\n" % kind
    (tmp_path / "x.ppm").write_bytes(head + values.astype(">u2").tobytes())
    read = images.read_raster(tmp_path / "x.ppm")
    assert read.largest == 65535
    assert np.abs(read.pixels - np.minimum(values, 4095) / 4095 * 255).max() < 0.51


def test_what_is_above_the_white_level_is_cut_off_and_said(tmp_path):
    values = np.full((9, 12), 700, np.uint16)
    values[0, 0] = 3000
    path = save(tmp_path / "x.png", values)
    read = images.read_raster(path, images.Reading(1023))
    assert read.pixels[0, 0, 0] == 255 and read.pixels[1, 1, 0] == round(700 * 255 / 1023)
    assert images.above_white(read.largest, 1023).startswith("values up to 3000 are above the")
    assert images.above_white(read.largest, 4095) == images.above_white(None, 1023) == ""
    assert "the training images have 8" in images.above_white(read.largest, None)


@pytest.mark.parametrize("level", [None, 4095])
def test_white_may_be_zero(tmp_path, level):
    """PhotometricInterpretation 0, which Pillow overlooks in 16 bits."""
    values = np.random.default_rng(0).integers(0, 4096, (9, 12)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="miniswhite")
    read = images.read_image(tmp_path / "x.tif", images.Reading(level))[..., 0]
    assert np.abs(read - (255 - values / (level or 65535) * 255)).max() <= 0.5
    bytes_ = (values // 16).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", bytes_, photometric="miniswhite")
    np.testing.assert_array_equal(images.read_image(tmp_path / "x.tif")[..., 0], 255 - bytes_)
    white_on_black = np.where(MARKED, 0, 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", white_on_black, photometric="miniswhite")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.tif"), MARKED > 0)


def test_8_bits_know_no_white_level(tmp_path):
    path = save(tmp_path / "x.png", picture(0))
    for level in (None, 0, 255, 4095):
        read = images.read_raster(path, images.Reading(level))
        np.testing.assert_array_equal(read.pixels, picture(0))
        assert read.largest is None


def test_masks_of_16_bit_colours_are_seen_to_the_last_bit(tmp_path):
    mask = (MARKED > 0)[..., None] * np.array([0, 1, 0], np.uint16)
    (tmp_path / "m.png").write_bytes(deep_png(mask))
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.png"), MARKED > 0)


def test_colours_in_planes_of_their_own_are_refused(tmp_path):
    """Pillow takes their bytes for others."""
    values = np.zeros((3, 9, 12), np.uint16)
    for compression in (None, "zlib"):
        options = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
        tifffile.imwrite(tmp_path / "x.tif", values, **options)
        with pytest.raises(ValueError, match=r"x.tif: colours of 16 bits in planes"):
            images.read_image(tmp_path / "x.tif")


# ---------------------------------------------------------------- size


@pytest.mark.filterwarnings("ignore")
def test_the_largest_image_is_what_the_config_says(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # which Pillow doubles before it refuses
    path = save(tmp_path / "x.png", picture(0, (40, 40, 3)))
    with pytest.raises(ValueError, match=r"40x40 px: too large.* data.max_pixels, which is 1599"):
        images.read_image(path, images.Reading(max_pixels=1599))
    np.testing.assert_array_equal(
        images.read_image(path, images.Reading(max_pixels=1600)), picture(0, (40, 40, 3))
    )


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        (
            [(300, 4000)],
            "image of 4000x300 px, shrunk to 64x64 px, the network sees 62.5x4.69 px",
        ),
        (
            [(64, 64), (900, 900), (600, 600)],
            "900x900 px, shrunk to 64x64 px, the network sees 14",
        ),
        ([(100, 300), (10, 10)], "sees 4.69x1.56 px as one"),
        ([(512, 512), (500, 400)], ""),
        ([(16, 100)], ""),  # enlarged in one direction, hardly shrunk in the other
        ([], ""),
    ],
)
def test_what_is_too_small_to_be_seen(sizes, said):
    line = images.hardly_seen(sizes, 64)
    assert said in line and bool(line) == bool(said) and "\n" not in line
