"""Images that are broken, odd or hostile: each is read right, or is one line with the reason."""

import io
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from test_main import ROOT
from trees import picture, save

from data import images, photos, pipeline
from data.check import check_data

SIZE = 16
PIXELS = picture(0)
UNREADABLE = "not a readable PNG, JPEG, BMP, TIFF, WEBP or PPM image"


def encoded(kind="PNG", pixels=PIXELS, mode=None, **options):
    file, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def png(width, height, data, *, depth=1, colour=0):
    """A PNG file by hand: `data` is compressed already."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bomb(side):
    """A whole black PNG file, made without as much memory as reading it would take."""
    compress, rest = zlib.compressobj(1), side * (-(-side // 8) + 1)
    parts = []
    while rest:
        parts.append(compress.compress(bytes(min(rest, 2**20))))
        rest -= min(rest, 2**20)
    return png(side, side, b"".join([*parts, compress.flush()]))


def pages(count):
    """A TIFF file of so many grey pages of 8x8 px, none of which has any pixels."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 278: 8, 279: 64}
    page = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    for index in range(count):
        data += struct.pack("<H", len(tags)) + page
        data += struct.pack("<I", len(data) + 4 if index < count - 1 else 0)
    return bytes(data)


WHOLE = encoded()
FLIPPED = bytearray(WHOLE)
FLIPPED[WHOLE.index(b"IDAT") + len(WHOLE) // 2] ^= 1
JPEG, TIFF = encoded("JPEG"), encoded("TIFF")
EPS = encoded("EPS")
SEVERAL = "several frames or pages: save each as a file of its own"
BROKEN = {
    "empty": (b"", UNREADABLE),
    "zeros": (bytes(5000), UNREADABLE),
    "a web page": (b"<html><body>404 not found</body></html>", UNREADABLE),
    "no width": (png(0, 20, zlib.compress(bytes(20))), UNREADABLE),
    "half of a PNG": (WHOLE[: len(WHOLE) // 2], "image file is truncated"),
    "a PNG without its last 12 bytes": (WHOLE[:-12], "image file is truncated (no IEND"),
    "half of a JPEG": (JPEG[: len(JPEG) // 2], "runcated"),
    "half of a TIFF": (TIFF[: len(TIFF) // 2], ""),
    "a flipped bit": (bytes(FLIPPED), "broken"),
    "1x1": (encoded(pixels=picture(0, (1, 1, 3))), "1x1 px: too small"),
    "EPS": (EPS, UNREADABLE),
    "GIF": (encoded("GIF"), UNREADABLE),
    "PDF": (encoded("PDF"), UNREADABLE),
    "animated PNG": (encoded(save_all=True, append_images=[Image.new("RGB", (18, 20))]), SEVERAL),
    "40,000 pages": (pages(40_000), SEVERAL),
}

GREY = np.linspace(0, 65535, 360).reshape(20, 18).astype(np.uint16)
INKS = picture(1, (20, 18, 4))
COLOURS = Image.fromarray(PIXELS).quantize(16)
PALETTE = np.reshape(COLOURS.getpalette()[:48], (16, 3))
WITH_ALPHA = picture(2, (20, 18, 4))


def inked(inks):
    """Cyan, magenta, yellow and black as red, green and blue."""
    paper = 255 - inks.astype(float)
    return np.round(paper[..., :3] * paper[..., 3:] / 255)


def palette_file():
    file = io.BytesIO()
    COLOURS.save(file, "PNG", transparency=bytes(range(16)))
    return file.getvalue()


def cmyk_file():
    file = io.BytesIO()
    Image.fromarray(INKS, "CMYK").save(file, "TIFF")
    return file.getvalue()


ODD = {
    "JPEG": (JPEG, np.asarray(Image.open(io.BytesIO(JPEG)))),
    "TIFF": (TIFF, PIXELS),
    "16-bit grey": (encoded(pixels=GREY), np.round(GREY / 257)[..., None].repeat(3, -1)),
    "8-bit grey": (encoded(pixels=PIXELS[..., 0]), PIXELS[..., :1].repeat(3, -1)),
    "CMYK": (cmyk_file(), inked(INKS)),
    "palette": (palette_file(), PALETTE[np.asarray(COLOURS)]),
    "alpha": (encoded(pixels=WITH_ALPHA), WITH_ALPHA[..., :3]),
    "8x8": (encoded(pixels=PIXELS[:8, :8]), PIXELS[:8, :8]),
    "extended by other bytes": (WHOLE + b"PK\3\4" * 9, PIXELS),
}


@pytest.fixture
def root(tmp_path):
    """A folder of MVTec's layout, of whole images."""
    for index in range(3):
        save(tmp_path / f"part/train/good/{index}.png", picture(10 + index))
    return tmp_path


def check(root):
    return check_data("part", root, SIZE, calibration=0.34, seed=0)


def assert_refused(root, path, reason):
    """One line in the check of the data set, and of a new photo, with file and reason."""
    (problem,) = check(root).problems
    assert problem.startswith(f"{images.one_line(path)}: ") and "\n" not in problem
    assert reason in problem and len(problem) > len(str(path)) + 5
    photo = photos.read_photo(str(path), SIZE)
    assert (photo.path, photo.pixels) == (str(path), None)
    assert f"{images.one_line(path)}: {photo.reason}" == problem


def assert_read(root, path, expected):
    report = check(root)
    assert report.problems == []
    assert len(report.images) == 4
    photo = photos.read_photo(str(path), SIZE, images.Reading(images.FULL))
    assert photo.reason == "" and photo.size == expected.shape[:2]
    assert np.abs(photo.shown - expected).max() <= 1  # as different roundings of inks are


@pytest.mark.promise("R9")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line_with_its_reason(root, kind, tries):
    data, reason = BROKEN[kind]
    path = root / "part/train/good/x.png"
    path.write_bytes(data)
    with tries("a broken file, or one of another format, called .png: one line, file and reason"):
        start = time.monotonic()
        assert_refused(root, path, reason)
        assert time.monotonic() - start < 5


@pytest.mark.promise("R9")
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_is_read_right(root, kind, tries):
    data, expected = ODD[kind]
    path = root / "part/train/good/x.png"
    path.write_bytes(data)
    with tries("a whole file of odd depth, colours, format or length: its pixels"):
        assert_read(root, path, expected)


@pytest.mark.promise("R9")
def test_postscript_starts_no_interpreter(root, monkeypatch, tries):
    trace, program = root / "trace", root / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho called >> {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    path = root / "part/train/good/x.png"
    path.write_bytes(EPS)
    with tries("EPS called .png: Ghostscript is not started"):
        assert_refused(root, path, UNREADABLE)
        assert not trace.exists()
    # The trap works: without a list of formats, Pillow starts it.
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with pytest.raises(OSError), Image.open(path) as image:  # noqa: PT011 (Pillow says anything)
        image.load()
    assert trace.exists()


WATCH = """
import pathlib, sys
from data import photos
from data.check import check_data

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

root, file = sys.argv[1:]
photos.read_photo(root + "/part/train/good/0.png", 16)
before = peak()
print(photos.read_photo(file, 16).reason)
print(*check_data("part", root, 16, calibration=0, seed=0).problems)
print(peak() - before)
"""


def watched(root, path):
    """The reason of a new photo, the problems of the data set, and how many MB these took."""
    command = [sys.executable, "-c", WATCH, root, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    reason, problems, rise = done.stdout.splitlines()
    return reason, problems, int(rise)


def with_large_header(kind):
    """A small file that says it has 60,000 x 60,000 pixels."""
    data = bytearray(b"P6 60000 60000 255\n" + bytes(99) if kind == "PPM" else encoded(kind))
    if kind == "JPEG":
        frame = data.index(b"\xff\xc0") + 5
        data[frame : frame + 4] = struct.pack(">HH", 60_000, 60_000)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    elif kind == "TIFF":
        for tag in (256, 257):
            place = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
            data[place : place + 4] = struct.pack("<I", 60_000)
    return bytes(data)


@pytest.mark.promise("R9")
@pytest.mark.parametrize("what", [12_000, 20_000, 65_535, "JPEG", "BMP", "TIFF", "PPM"])
def test_bombs_are_refused_before_they_are_unpacked(root, what, tries):
    path = root / "part/train/good/x.png"
    path.write_bytes(with_large_header(what) if isinstance(what, str) else bomb(what))
    with tries("a decompression bomb of up to 65,535 x 65,535 px: refused, under 200 MB"):
        reason, problems, rise = watched(root, path)
        assert re.search("too large|exceeds limit", reason), reason
        assert problems == f"{path}: {reason}"
        assert rise < 200


def test_what_is_just_no_bomb_is_seen_to_take_memory(root):
    path = root / "part/train/good/x.png"
    path.write_bytes(bomb(9_400))
    reason, problems, rise = watched(root, path)
    assert reason == problems == "" and rise > 200


def links(root):
    """What a symlink may lead to, and the reason why it is no image."""
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    return [
        (root / "gone", "No such file or directory"),
        (root / "loop", "Too many levels of symbolic links"),
        (Path("/etc/passwd"), UNREADABLE),
        (Path("/dev/zero"), "no regular file"),
        (root / "pipe", "no regular file"),
    ]


@pytest.mark.promise("R9")
def test_symlinks_to_what_is_no_image(root, tries):
    path = root / "part/train/good/x.png"
    for target, reason in links(root):
        path.symlink_to(target)
        with tries("a symlink to nothing, a loop, a folder, a device, a pipe, or out of the data"):
            assert_refused(root, path, reason)
            with pytest.raises(ValueError, match=f"1 bad files.*x.png: {reason}"):
                pipeline.load_splits("part", root, SIZE, data_dir=root / "prepared")
        path.unlink()


@pytest.mark.promise("R9")
def test_a_symlink_to_a_folder_is_no_image(root, tries):
    path = root / "part/train/good/x.png"
    path.symlink_to(root)
    with tries("a symlink to nothing, a loop, a folder, a device, a pipe, or out of the data"):
        report = check(root)
        assert (
            len(report.images) == 3 and "Left out 1 files: symlinked folder (1)." in report.findings
        )
        assert photos.read_photo(str(path), SIZE).reason == "a folder"


@pytest.mark.promise("R9")
def test_a_symlink_out_of_the_data_is_followed_and_said(root, tries):
    outside = save(root / "elsewhere/photo.png", PIXELS)
    path = root / "part/train/good/x.png"
    path.symlink_to(outside)
    (root / "part/train/good/within.png").symlink_to("0.png")
    with tries("a symlink to nothing, a loop, a folder, a device, a pipe, or out of the data"):
        said = [line for line in check(root).findings if line.startswith("Followed")]
        assert said == [f"Followed 1 symlinks that lead out of the folder: {path}."]
        np.testing.assert_array_equal(photos.read_photo(str(path), SIZE).shown, PIXELS)


NAMES = [
    "a\nb.png",
    "a\r\x1b[2Jb.png",
    "-rf.png",
    "=cmd|'!A0.png",
    "a..\\..\\b.png",
    " .png",
    "ü 日本\u202e.png",
    os.fsdecode(b"caf\xe9.png"),
    f"{'x' * 251}.png",
]
HIDDEN = ["..png", "..\\x.png", "...png"]


@pytest.mark.promise("R9")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_of_any_kind(root, name, tries):
    path = root / "part/train/good" / name
    path.write_bytes(WHOLE)
    with tries("a file name with line breaks, .., no text, or that looks like a flag or formula"):
        assert_read(root, path, PIXELS)
        path.write_bytes(b"")
        assert_refused(root, path, UNREADABLE)


@pytest.mark.promise("R9")
@pytest.mark.parametrize("name", HIDDEN)
def test_names_that_begin_with_a_dot_are_hidden(root, name, tries):
    path = root / "part/train/good" / name
    path.write_bytes(WHOLE)
    with tries("a file name with line breaks, .., no text, or that looks like a flag or formula"):
        report = check(root)
        assert len(report.images) == 3 and "Left out 1 files: hidden (1)." in report.findings
        np.testing.assert_array_equal(photos.read_photo(str(path), SIZE).shown, PIXELS)
