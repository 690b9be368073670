"""Image files to arrays, with Pillow: what is accepted, what is refused and for which reason.

`H`, `W` are the image's own size; images are uint8 in [0, 255], masks bool (True = defective).
Everything here may be called from several threads at once.
"""

import hashlib
import io
import stat
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from storage import files

KINDS = "PNG, JPEG, BMP, TIFF, WEBP or PPM"
# What may be decoded, whatever a file is called: Pillow would hand an EPS file to Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
_SUFFIXES = frozenset(".png .jpg .jpeg .bmp .tif .tiff .webp .ppm .pgm .pnm".split())
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_SHORTEST_SIDE = 8  # pixels; a smaller picture is an icon or a mistake, and no part can be seen
_MOST_PIXELS = 2**30 // 12  # beyond it, Pillow warns of a decompression bomb
_MOST_BYTES = 2**30  # more than that many pixels take, even of 16 bits and four channels
_T = TypeVar("_T")

# Pillow warns of odd metadata, which says nothing about the pixels. Not in a `catch_warnings` round
# each call: that exchanges the filters of all threads, and would leave them exchanged.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Inspected(NamedTuple):
    """What an image file and that of its mask hold."""

    pixels: np.ndarray | None  # uint8 [H, W, 3]; None where the image cannot be read
    mask: np.ndarray | None  # bool, [H, W] if nothing is at fault; None where there is none
    sums: dict[Path, str]  # SHA-256, in hex, of each file that can be read
    faults: list[str]  # one line each, with the file


def is_image_name(path: Path) -> bool:
    """Whether a file's extension is one of an image, and the file not hidden."""
    return not path.name.startswith(".") and path.suffix.lower() in _SUFFIXES


def read_image(path: Path) -> np.ndarray:
    """Decodes one image file to colour.

    Grey images get three equal channels, transparency is dropped, EXIF rotation is not applied.
    Images of 16 bits, and of 32 that hold 16, are scaled from [0, 65535] to [0, 255], all alike:
    what one image holds must not decide its brightness.

    Returns:
      uint8 [H, W, 3] in [0, 255], H and W at least 8.

    Raises:
      ValueError: one line with the file and the reason, whatever is wrong with it.
    """
    return _try(lambda path: _image(_decode(_bytes(path))), path)


def read_mask(path: Path) -> np.ndarray:
    """Decodes one mask file: every pixel that is not 0 is defective.

    Returns:
      bool [H, W].

    Raises:
      ValueError: one line with the file and the reason, whatever is wrong with it.
    """
    return _try(lambda path: _mask(_decode(_bytes(path))), path)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Stretches uint8 [H, W, 3] to uint8 [size, size, 3], as every network sees an image.

    Pillow's BILINEAR, antialiased where the image shrinks; one of that size stays as it is.
    """
    return _resize(image, size, size)


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """uint8 [H, W, 3] at the same ratio, its longer side at most `longest`; never enlarged."""
    height, width = image.shape[:2]
    scale = min(longest / max(height, width), 1)
    return _resize(image, max(round(height * scale), 1), max(round(width * scale), 1))


def attempt(read: Callable[[Path], _T], path: Path, faults: list[str]) -> _T | None:
    """What `read` makes of a file, or None, and then `faults` has got the reason."""
    try:
        return read(path)
    except ValueError as error:
        faults.append(str(error))
        return None


def refuse_bad_files(faults: Sequence[str], setting: str = "") -> None:
    """Raises ValueError, one line that lists all `faults`, if there are any.

    The line begins with the name of the `setting` that led to the files, if there is one.
    """
    if faults:
        whose = f"{setting}: " if setting else ""
        raise ValueError(
            f"{whose}{len(faults)} bad files, repair or remove them: {'; '.join(faults)}"
        )


def inspect(image: Path, mask: Path | None, *, defective: bool) -> Inspected:
    """Reads and decodes an image and its mask, each once, and holds one against the other."""
    faults: list[str] = []
    sums: dict[Path, str] = {}

    def look(path: Path, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray | None:
        def content(path: Path) -> np.ndarray:
            data = _bytes(path)
            array = convert(_decode(data))
            sums[path] = hashlib.sha256(data).hexdigest()
            return array

        return attempt(partial(_try, content), path, faults)

    pixels = look(image, _image)
    marked = look(mask, _mask) if mask else None
    if pixels is not None and marked is not None:
        height, width = pixels.shape[:2]
        if marked.shape != (height, width):
            faults.append(
                f"{one_line(mask)}: a mask of {marked.shape[1]}x{marked.shape[0]} pixels, but its "
                f"image {one_line(image)} has {width}x{height}"
            )
        elif marked.any() != defective:
            marks = "no pixel of the defective" if defective else "pixels of the good"
            faults.append(f"{one_line(mask)}: a mask that marks {marks} image {one_line(image)}")
    return Inspected(pixels, marked, sums, faults)


def sha256_of_image(path: Path) -> str:
    """SHA-256, in hex, of a file that may be an image.

    Raises:
      ValueError: one line with the file and the reason, where it cannot be read to its end.
    """
    return _try(_sha256, path)


def one_line(text: object) -> str:
    """A path, say, as errors name it: what cannot be printed, such as a line break, is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def _try(read: Callable[[Path], _T], path: Path) -> _T:
    try:
        return read(path)
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{one_line(path)}: {reason or type(error).__name__}") from error


def _require_file(path: Path) -> None:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # to read a pipe might never end
        raise ValueError("a folder" if stat.S_ISDIR(about.st_mode) else "no regular file")
    if about.st_size > _MOST_BYTES:
        raise ValueError(f"{about.st_size:,} bytes: too large, an image has at most 1 GiB")


def _sha256(path: Path) -> str:
    _require_file(path)
    return files.sha256(path)


def _bytes(path: Path) -> bytes:
    _require_file(path)
    return path.read_bytes()


def _decode(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(_unreadable(data)) from error
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(
            f"{image.width}x{image.height} px: too large, taken for a decompression bomb"
        )
    # The second picture in a JPEG file (MPO) is a camera's preview or depth of the first.
    # To count the pages of a TIFF file takes Pillow a time that grows as their square.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError("several frames or pages: save each as a file of its own")
    image.load()
    if image.format == "PNG" and _PNG_END not in data:  # Pillow decodes it without a word
        raise ValueError("image file is truncated (no IEND at its end)")
    return image


def _unreadable(data: bytes) -> str:
    if data[:4] in (b"II*\0", b"MM\0*"):  # whole, perhaps: of a microscope or a spectral camera
        return "a TIFF image that cannot be decoded: save 1, 3 or 4 channels of 8 bits, or 1 of 16"
    return f"not a readable {KINDS} image"


def _image(image: Image.Image) -> np.ndarray:
    if min(image.size) < _SHORTEST_SIDE:
        raise ValueError(
            f"{image.width}x{image.height} px: too small, an image has sides of at least "
            f"{_SHORTEST_SIDE} px"
        )
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range, save 8 or 16 bits")
    if image.mode.startswith("I"):
        return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=-1)
    return _colours(image)


def _mask(image: Image.Image) -> np.ndarray:
    # JPEG and WEBP surround every edge with values a little above 0.
    threshold = 127 if image.format in ("JPEG", "MPO", "WEBP") else 0
    if image.mode[0] in "IF":
        return np.asarray(image) > threshold
    return _colours(image).max(axis=-1) > threshold


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"values from {low} to {high} do not fit 16 bits")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _colours(image: Image.Image) -> np.ndarray:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow asks for before the transparency is dropped
    return np.asarray(image.convert("RGB"))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
