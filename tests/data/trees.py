"""Small images and trees of them, as tests write them, and how tests load them: made of noise."""

import builtins
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from data import pipeline

SIZE = 16


def picture(seed, shape=(20, 18, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def oriented(tag):
    """EXIF metadata of an orientation, for `save`."""
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


def as_seen(path):
    """What Pillow makes of a file for a person to look at."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def deep_png(values):
    """A PNG file by hand, of 16 bits: [H, W] grey, or [H, W, 2, 3 or 4] with alpha or colours."""
    height, width, channels = (*values.shape, 1)[:3]
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    rows[:, 2 * channels :] -= rows[:, : -2 * channels].copy()  # as the filter Sub has it

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    data = b"".join(b"\1" + row.tobytes() for row in rows)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def square(shape=(20, 18), at=5):
    mask = np.zeros(shape, np.uint8)
    mask[at : at + 4, 3:6] = 255
    return mask


def pillow_resize(pixels):
    return np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


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


def load(folder, **options):
    return pipeline.load_splits(
        folder.name, folder.parent, SIZE, data_dir=folder.parent.parent / "tfds", **options
    )


def sums_of(splits):
    """The name and the sum of each file, of each split."""
    return [dict(zip(split.paths, split.sums, strict=True)) for split in splits[:3]]


def decoded_copy(folder):
    return folder.parent.parent / "tfds" / "decoded" / f"{folder.name}_{SIZE}px.npz"


def fails(folder, kind=ValueError):
    """The message of the error that loading ends with: always one line."""
    with pytest.raises(kind) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def good_ones(root, count=20):
    """Images of ten heights, nested; returns name -> pixels as they are resized."""
    sources = {}
    for index in range(count):
        name = f"{'line 1/' if index % 2 else ''}{index:03}.png"
        pixels = picture(index, (20 + index % 10, 18, 3))
        save(root / name, pixels)
        sources[name] = pillow_resize(pixels)
    return sources


def make_product(root):
    """good/ with 20 images, bad/ with two of kind 'scratch' and one right in it."""
    good_ones(root / "good")
    save(root / "bad/scratch/a.png", picture(100))
    save(root / "bad/scratch/deep/b.jpg", picture(101))
    save(root / "bad/c.bmp", picture(102, (30, 40, 3)))
    return root


def load_own(root, category="mine", **options):
    prepared = root.parent / "prepared"
    return pipeline.load_splits(
        category, "/nowhere", SIZE, data_dir=prepared, folder=root, **options
    )


def fails_own(root, kind=ValueError, **options):
    with pytest.raises(kind) as caught:
        load_own(root, **options)
    message = str(caught.value)
    assert "\n" not in message and "[Errno" not in message
    return message


def forbid_opening(names, monkeypatch):
    """Whatever Python opens or lists below folders of these names is an error."""

    def forbid(path):
        if set(names) & set(path.parts):
            pytest.fail(f"{path} is opened")  # no Exception, which may be caught

    _on_opening(forbid, monkeypatch)


def watch_opening(monkeypatch):
    """The files and folders that Python opens or lists from now on, as often as it does."""
    opened = []
    _on_opening(opened.append, monkeypatch)
    return opened


def _on_opening(call, monkeypatch):
    def watched(function):
        def opens(path=".", *args, **options):
            if isinstance(path, str | os.PathLike):
                call(Path(path))
            return function(path, *args, **options)

        return opens

    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
