"""Image files with changes that no one thought of: each is read, or refused in one line."""

import contextlib
import gc
import io
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from trees import picture

from data.images import read_image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANGES = 6  # of one file, at most
NUMBERS = [
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    9_000,
    32_767,
    65_535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
]


def encoded(kind, image, **options):
    file = io.BytesIO()
    image.copy().save(file, kind, **options)  # Pillow leaves what it was saved with in it
    return file.getvalue()


def several(image):
    """Options to save a second picture with it."""
    return {"save_all": True, "append_images": [image.rotate(180)]}


def whole_files():
    """Small files of each format, and of each way to store pixels that Pillow can write."""
    colour = Image.fromarray(picture(0, (9, 10, 3)))
    clear = Image.fromarray(picture(1, (9, 10, 4)))
    deep = Image.fromarray(np.linspace(0, 65535, 90).reshape(9, 10).astype(np.uint16))
    palette, grey, dots, inks = (colour.convert(mode) for mode in ("P", "L", "1", "CMYK"))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(encoded("PNG", image) for image in (colour, clear, deep, palette, grey, dots)),
        encoded("PNG", palette, transparency=3, dpi=(72, 72), exif=exif),
        encoded("PNG", colour, **several(colour)),
        *(encoded("JPEG", image) for image in (colour, grey, inks)),
        encoded("JPEG", colour, progressive=True, exif=exif, comment="x"),
        encoded("MPO", colour, **several(colour)),
        *(encoded("BMP", image) for image in (colour, clear, palette, dots)),
        *(encoded("TIFF", image) for image in (colour, clear, deep, palette, dots, inks)),
        *(
            encoded("TIFF", colour, compression=compression)
            for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        encoded("TIFF", dots, compression="group4"),
        encoded("TIFF", colour, **several(colour)),
        *(encoded("WEBP", image, lossless=True) for image in (colour, clear)),
        encoded("WEBP", colour, quality=50, exif=exif),
        encoded("WEBP", colour, **several(colour)),
        *(encoded("PPM", image) for image in (colour, grey, deep, dots)),
        b"P3\n# by hand\n9 8\n15\n" + b" ".join(b"%d" % (i % 16) for i in range(216)),
    ]


FILES = whole_files()


def chunks(data):
    """The chunks of a PNG file: name and content each."""
    found, place = [], len(SIGNATURE)
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def joined(parts):
    """A PNG file of chunks, whose checksums are right."""
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


@st.composite
def changed(draw, data):
    """A few bytes changed, lost, repeated or put in."""
    data, end = bytearray(data), st.integers(0, len(data))
    # Headers, where a change does most, are at the beginning.
    place = draw(end if draw(st.booleans()) else st.integers(0, min(len(data), 64)))
    match draw(st.sampled_from(["bit", "number", "cut", "repeat", "insert", "drop", "splice"])):
        case "bit" if place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        case "number":
            form = draw(st.sampled_from(["<I", ">I", "<H", ">H", "B"]))
            most = 2 ** (8 * struct.calcsize(form)) - 1
            number = struct.pack(form, min(draw(st.sampled_from(NUMBERS)), most))
            data[place : place + len(number)] = number
        case "cut":
            del data[place:]
        case "repeat":
            data[place:place] = data[place : place + draw(st.integers(1, 64))]
        case "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=64))
        case "drop":
            del data[place : place + draw(st.integers(1, 64))]
        case "splice":
            data[place:] = draw(st.sampled_from(FILES))[place:]
    return bytes(data)


@st.composite
def changed_chunk(draw, data):
    """A PNG file of which one chunk is changed, lost or repeated, with its checksum made right."""
    parts = chunks(data)
    if not parts:
        return draw(changed(data))
    index = draw(st.integers(0, len(parts) - 1))
    name, content = parts[index]
    match draw(st.sampled_from(["size", "content", "pixels", "drop", "repeat", "move", "name"])):
        case "size":
            width_or_height = struct.pack(">I", draw(st.sampled_from(NUMBERS)))
            head, size = parts[0][0], bytearray(parts[0][1])
            place = draw(st.sampled_from([0, 4]))
            size[place : place + 4] = width_or_height
            parts[0] = head, bytes(size)
        case "content":
            parts[index] = name, draw(changed(content))
        case "pixels" if name == b"IDAT":  # behind the compression, whose checksum is right too
            with contextlib.suppress(zlib.error):
                parts[index] = name, zlib.compress(draw(changed(zlib.decompress(content))))
        case "drop":
            del parts[index]
        case "repeat":
            parts.insert(index, (name, content))
        case "move":
            parts.insert(draw(st.integers(0, len(parts))), parts.pop(index))
        case "name":
            names = [
                b"IHDR",
                b"PLTE",
                b"tRNS",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"iCCP",
                b"zTXt",
                b"eXIf",
            ]
            parts[index] = draw(st.sampled_from(names)), content
    return joined(parts)


@st.composite
def files(draw):
    """What became of a whole file."""
    data = draw(st.sampled_from(FILES))
    for _ in range(draw(st.integers(1, CHANGES))):
        is_png = data.startswith(SIGNATURE)
        data = draw(changed_chunk(data) if is_png and draw(st.booleans()) else changed(data))
    return data


def peak():
    """The most memory that this process has had, in MB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024


def is_read_or_refused(path):
    """Whether it was read; anything but pixels or one line is an error."""
    start = time.monotonic()
    try:
        image = read_image(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path}: ") and "\n" not in message and message.isprintable()
        assert len(message) < len(str(path)) + 300
        return False
    finally:
        assert time.monotonic() - start < 10
    assert image.dtype == np.uint8 and image.ndim == 3
    assert image.shape[2] == 3 and min(image.shape[:2]) >= 8
    return True


@pytest.mark.promise("R9")
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path, count, tries, capfd):
    path, outcomes, before = tmp_path / "x.png", [], peak()

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files())
    def one(data):
        path.write_bytes(data)
        with tries("a mutated PNG, JPEG, BMP, TIFF, WEBP or PPM: pixels, or one line"):
            outcomes.append(is_read_or_refused(path))

    gc.collect()  # what tests before have left open warns now, not below
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as data/images.py has it
        one()
    # What libtiff, a library in C, says of the files that it refuses is left on standard error.
    assert [str(one.message) for one in warned] == [] and capfd.readouterr().out == ""
    # They get past the first look, and not unharmed.
    assert 0.05 < np.mean(outcomes) < 0.95 and len(outcomes) >= count
    # An image of 89 million pixels may be read, and takes so much.
    assert peak() - before < 1200
