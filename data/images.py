"""Image files to arrays, with Pillow: what is accepted, what is refused and for which reason.

`H`, `W` are the image's own size as a person sees it, EXIF orientation applied; images are uint8
in [0, 255], masks bool (True = defective). docs/data.md says it to users. Everything here may be
called from several threads at once.
"""

import contextlib
import hashlib
import io
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from storage import files

KINDS = "PNG, JPEG, BMP, TIFF, WEBP or PPM"
# What may be decoded, whatever a file is called: Pillow would hand an EPS file to Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
_SUFFIXES = frozenset(".png .jpg .jpeg .bmp .tif .tiff .webp .ppm .pgm .pnm".split())
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_SHORTEST_SIDE = 8  # pixels; a smaller picture is an icon or a mistake, and no part can be seen
_BYTES_A_PIXEL = 12  # more than a file takes, even of 16 bits and four channels
MOST_PIXELS = 2**30 // 12  # where no config says otherwise; Pillow warns of a bomb beyond it
FULL = 65535  # the white level of 16 bits that use their whole range
_DARKEST_WHITE = 255  # no camera has fewer than 8 bits
_LARGE_SHRINK, _UNEVEN = 8, 2
# Of 16-bit colours Pillow keeps the upper bytes; with the other byte order it keeps the lower ones.
_LOWER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_T = TypeVar("_T")

# Pillow warns of odd metadata, which says nothing about the pixels. Not in a `catch_warnings` round
# each call: that exchanges the filters of all threads, and would leave them exchanged.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Reading(NamedTuple):
    """How the files of a data set become pixels."""

    # The value of 16 bits that becomes 255. None: none is known, and they use their whole range;
    # 0: it is still to be found, and they are measured alone.
    white_level: int | None = None
    max_pixels: int = MOST_PIXELS  # of an image; a larger one is refused


PLAIN = Reading()


class Raster(NamedTuple):
    """What an image file holds."""

    pixels: np.ndarray | None  # uint8 [H, W, 3]; None where its white level is not yet known
    size: tuple[int, int]  # height, width
    orientation: int  # its EXIF tag, by which it was turned, 1 to 8; 0 where it has none
    largest: int | None  # the largest value, where it has 16 bits; None where it has 8


class Inspected(NamedTuple):
    """What an image file and that of its mask hold."""

    raster: Raster | None  # None where the image cannot be read
    mask: np.ndarray | None  # bool, [H, W] if nothing is at fault; None where there is none
    sums: dict[Path, str]  # SHA-256, in hex, of each file that can be read
    faults: list[str]  # one line each, with the file
    # The orientation by which the mask's file was turned, or the image's where there is none.
    orientation: int


def is_image_name(path: Path) -> bool:
    """Whether a file's extension is one of an image, and the file not hidden."""
    return not path.name.startswith(".") and path.suffix.lower() in _SUFFIXES


def read_raster(path: Path, reading: Reading = PLAIN) -> Raster:
    """Decodes one image file to colour, as a person sees it.

    Grey images get three equal channels, transparency is dropped, EXIF orientation is applied.
    Images of 16 bits, and of 32 that hold 16, are scaled from [0, white level] to [0, 255], all
    alike, and cut off there: what one image holds must not decide its brightness.

    Raises:
      ValueError: one line with the file and the reason, whatever is wrong with it.
    """

    def read(path: Path) -> Raster:
        return _raster(_decode(_bytes(path, reading), reading), reading)

    return _try(read, path)


def read_bytes(data: bytes, reading: Reading = PLAIN) -> Raster:
    """As `read_raster`, of what a file holds.

    Raises:
      Exception: any, whose text is the reason why not.
    """
    _require_length(len(data), reading)
    return _raster(_decode(data, reading), reading)


def raster_of(image: Image.Image, reading: Reading = PLAIN) -> Raster:
    """As `read_raster`, of what Pillow has opened, which stays as it is.

    Raises:
      ValueError: it has less than 8 pixels a side, or floating-point ones.
    """
    image = image.copy()
    values = np.asarray(image) if image.mode.startswith("I") else None
    return _raster(_File(image, values, _orientation(image), False, False), reading)


def read_image(path: Path, reading: Reading = PLAIN) -> np.ndarray:
    """The pixels of `read_raster`, uint8 [H, W, 3], H and W at least 8; raises as it does."""
    pixels = read_raster(path, reading).pixels
    if pixels is None:
        raise ValueError(f"{one_line(path)}: 16 bits, of which the white level is not known")
    return pixels


def read_mask(path: Path) -> np.ndarray:
    """Decodes one mask file: every pixel that is not black is defective.

    Returns:
      bool [H, W], turned by the file's own EXIF orientation alone.

    Raises:
      ValueError: one line with the file and the reason, whatever is wrong with it.
    """
    return _try(lambda path: _mask(_decode(_bytes(path, PLAIN), PLAIN))[0], path)


def require_side(height: int, width: int) -> None:
    """Raises ValueError for a picture of which a side has less than 8 pixels."""
    if min(height, width) < _SHORTEST_SIDE:
        raise ValueError(
            f"{width}x{height} px: too small, an image has sides of at least {_SHORTEST_SIDE} px"
        )


def white_level_of(largest: Iterable[int | None]) -> int | None:
    """The white level of images whose `Raster.largest` is given: all the bits of the largest.

    A camera of 10, 12 or 14 bits fills 0 to 1023, 4095 or 16383 of a file of 16. None where no
    image has 16 bits; at least 255.
    """
    values = [value for value in largest if value is not None]
    return max(2 ** max(values).bit_length() - 1, _DARKEST_WHITE) if values else None


def white_level_line(white_level: int, *, found: bool) -> str:
    """What is done to images of 16 bits, in one line."""
    source = ", found by the largest value of the training images" if found else ""
    return f"Images of 16 bits are scaled from 0 to data.white_level, {white_level}{source}."


def above_white(largest: int | None, white_level: int | None) -> str:
    """What is odd about an image of 16 bits with that largest value, in one line; '' if nothing."""
    if largest is None:
        return ""
    if white_level is None:
        return f"16 bits, where the training images have 8: scaled from 0 to {FULL}"
    if largest > white_level:
        return f"values up to {largest} are above the white level {white_level}, and were cut off"
    return ""


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [h, w, ...] as a person sees them, [H, W, ...], by EXIF orientation 0 to 8."""
    if orientation < 2:
        return array
    if orientation > 4:
        array = array.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(array[::rows, ::columns])


def turn_back(array: np.ndarray, orientation: int) -> np.ndarray:
    """What a person sees, [H, W, ...], as the file stores it, [h, w, ...]: undoes `turn`."""
    return turn(array, {6: 8, 8: 6}.get(orientation, orientation))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Stretches uint8 [H, W, 3] to uint8 [size, size, 3], as every network sees an image.

    Pillow's BILINEAR, antialiased where the image shrinks; one of that size stays as it is.
    """
    return _resize(image, size, size)


def hardly_seen(sizes: Iterable[tuple[int, int]], image_size: int) -> str:
    """What of images of so many pixels, (height, width), the network cannot see, in one line.

    About the largest of those that shrink much, or more in one direction than in the other; ''
    where there is none.
    """
    coarse = []
    for height, width in sizes:
        low, high = sorted((height / image_size, width / image_size))
        if high > _LARGE_SHRINK or (high > 2 and high > _UNEVEN * low):
            coarse.append((height, width))
    if not coarse:
        return ""
    height, width = max(coarse, key=lambda size: (size[0] * size[1], size))
    return (
        f"Of an image of {width}x{height} px, shrunk to {image_size}x{image_size} px, the network "
        f"sees {width / image_size:.3g}x{height / image_size:.3g} px as one: do not expect it to "
        "find a smaller defect. Cut such images into pieces, or train with a larger "
        "data.image_size."
    )


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


def inspect(
    image: Path, mask: Path | None, *, defective: bool, reading: Reading = PLAIN
) -> Inspected:
    """Reads and decodes an image and its mask, each once, and holds one against the other.

    A mask that has an orientation of its own is turned by it. One without belongs to the stored
    pixels and is turned as its image is, unless it fits the image as seen alone.
    """
    faults: list[str] = []
    sums: dict[Path, str] = {}

    def look(path: Path, convert: Callable[[_File], _T]) -> _T | None:
        def content(path: Path) -> _T:
            data = _bytes(path, reading)
            value = convert(_decode(data, reading))
            sums[path] = hashlib.sha256(data).hexdigest()
            return value

        return attempt(partial(_try, content), path, faults)

    raster = look(image, partial(_raster, reading=reading))
    marked, orientation = (look(mask, _mask) if mask else None) or (None, 0)
    if raster is None:
        return Inspected(None, marked, sums, faults, orientation)
    if marked is None:
        return Inspected(raster, None, sums, faults, raster.orientation)
    height, width = raster.size
    if not orientation and marked.shape == _stored_size(raster):
        orientation = raster.orientation
        marked = turn(marked, orientation)
    if marked.shape != (height, width):
        faults.append(
            f"{one_line(mask)}: a mask of {marked.shape[1]}x{marked.shape[0]} pixels, but its "
            f"image {one_line(image)} has {width}x{height}"
        )
    elif marked.any() != defective:
        marks = "no pixel of the defective" if defective else "pixels of the good"
        faults.append(f"{one_line(mask)}: a mask that marks {marks} image {one_line(image)}")
    return Inspected(raster, marked, sums, faults, orientation)


def sha256_of_image(path: Path, reading: Reading = PLAIN) -> str:
    """SHA-256, in hex, of a file that may be an image.

    Raises:
      ValueError: one line with the file and the reason, where it cannot be read to its end.
    """

    def sha256(path: Path) -> str:
        _require_file(path, reading)
        return files.sha256(path)

    return _try(sha256, path)


def one_line(text: object) -> str:
    """A path, say, as errors name it: what cannot be printed, such as a line break, is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def _try(read: Callable[[Path], _T], path: Path) -> _T:
    try:
        return read(path)
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{one_line(path)}: {reason or type(error).__name__}") from error


def _require_file(path: Path, reading: Reading) -> None:
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # to read a pipe might never end
        raise ValueError("a folder" if stat.S_ISDIR(about.st_mode) else "no regular file")
    _require_length(about.st_size, reading)


def _require_length(length: int, reading: Reading) -> None:
    most = max(_BYTES_A_PIXEL * reading.max_pixels, 2**30)
    if length > most:
        raise ValueError(f"{length:,} bytes: too large, an image has at most {most:,}")


def _bytes(path: Path, reading: Reading) -> bytes:
    _require_file(path, reading)
    return path.read_bytes()


class _File(NamedTuple):
    """An image file, decoded."""

    image: Image.Image  # as Pillow gives it: of 8 bits in most modes
    values: np.ndarray | None  # [h, w] or [h, w, 3], where it has more than 8 bits
    orientation: int  # its EXIF tag, 1 to 8; 0 where it has none
    turned: bool  # whether Pillow has turned it already
    white_is_zero: bool  # in `values`


def _decode(data: bytes, reading: Reading) -> _File:
    image = _opened(data, reading)
    # The second picture in a JPEG file (MPO) is a camera's preview or depth of the first.
    # To count the pages of a TIFF file takes Pillow a time that grows as their square.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ValueError("several frames or pages: save each as a file of its own")
    tiff, tiles = image.format == "TIFF", list(image.tile)
    tags: Any = getattr(image, "tag_v2", {})
    white_is_zero = (
        image.mode.startswith("I") and tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    )
    orientation = _orientation(image) if tiff else 0  # Pillow turns it and drops the tag
    image.load()
    if image.format == "PNG" and _PNG_END not in data:  # Pillow decodes it without a word
        raise ValueError("image file is truncated (no IEND at its end)")
    if not tiff:
        orientation = _orientation(image)  # which may lie behind the pixels
    return _File(image, _values(image, tiles, data), orientation, tiff, white_is_zero)


def _opened(data: bytes, reading: Reading) -> ImageFile.ImageFile:
    """The image, none of whose pixels is decoded."""
    if Image.MAX_IMAGE_PIXELS and reading.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = reading.max_pixels  # Pillow's own limit, of the whole process
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(_unreadable(data)) from error
    if image.width * image.height > reading.max_pixels:
        raise ValueError(
            f"{image.width}x{image.height} px: too large, taken for a decompression bomb; "
            f"data.max_pixels, which is {reading.max_pixels}, allows more"
        )
    return image


def _orientation(image: Image.Image) -> int:
    """Its EXIF tag, 1 to 8; 0 where there is none, or one without sense."""
    # Where the metadata are damaged this raises, once; afterwards there is what could be read.
    with contextlib.suppress(Exception):
        image.getexif()
    exif = image.getexif()
    # Where it turns a TIFF image, Pillow would read and write other metadata, damaged ones too.
    for pointer in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
        exif.pop(pointer, None)
    image.info.pop("xmp", None)
    tag = exif.get(ExifTags.Base.Orientation)
    return next((number for number in range(1, 9) if number == tag), 0)


def _values(image: Image.Image, tiles: Sequence[Any], data: bytes) -> np.ndarray | None:
    """Values of more than 8 bits, [h, w] or [h, w, 3]; None where 8 are all there is."""
    if image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode not in ("RGB", "RGBA") or not tiles:
        return None
    codec, _, offset, arguments = tiles[0]
    rawmode: Any = arguments if isinstance(arguments, str) else (arguments or [""])[0]
    if codec == "ppm" and (highest := arguments[1]) > 255:
        shape = (image.height, image.width, 3)
        values = np.frombuffer(data, ">u2", image.height * image.width * 3, offset).reshape(shape)
        values = np.minimum(values, highest).astype(np.uint32)  # as Pillow does in grey
        return ((values * FULL + highest // 2) // highest).astype(np.uint16)
    if rawmode == "LA;16B":  # four bytes a pixel, the first two of them grey
        pairs = np.asarray(_decoded_as("RGBA", tiles, data))
        return _joined(pairs[..., 0], pairs[..., 1])
    if (
        getattr(image, "tag_v2", {}).get(ExifTags.Base.PlanarConfiguration) == 2
        and _bits(image) > 8
    ):
        raise ValueError("colours of 16 bits in planes of their own: save them pixel by pixel")
    colours, _, order = str(rawmode).partition(";16")
    if colours not in ("RGB", "RGBA", "RGBX") or order not in _LOWER:
        return None
    lower = _decoded_as(f"{colours};16{_LOWER[order]}", tiles, data)
    return _joined(np.asarray(image)[..., :3], np.asarray(lower)[..., :3])


def _joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    values = upper.astype(np.uint16)
    values <<= 8
    values |= lower
    return values


def _bits(image: Any) -> int:
    return int(np.max(image.tag_v2.get(ExifTags.Base.BitsPerSample, 8)))


def _decoded_as(rawmode: str, tiles: Sequence[Any], data: bytes) -> Image.Image:
    """The image once more, its bytes taken for pixels of another kind."""
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.format == "TIFF":
        _orientation(image)  # as before
    image.tile = [
        tile._replace(args=rawmode if isinstance(tile.args, str) else (rawmode, *tile.args[1:]))
        for tile in tiles
    ]
    image.load()
    return image


def _unreadable(data: bytes) -> str:
    if data[:4] in (b"II*\0", b"MM\0*"):  # whole, perhaps: of a microscope or a spectral camera
        return "a TIFF image that cannot be decoded: save 1, 3 or 4 channels of 8 bits, or 1 of 16"
    return f"not a readable {KINDS} image"


def _raster(file: _File, reading: Reading) -> Raster:
    image, values = file.image, file.values
    require_side(image.height, image.width)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range, save 8 or 16 bits")
    largest = None if values is None else _largest(values)
    if values is None:
        pixels = _colours(image)
    elif reading.white_level == 0:
        height, width = values.shape[:2]
        swapped = file.orientation > 4 and not file.turned
        size = (width, height) if swapped else (height, width)
        return Raster(None, size, file.orientation, largest)
    else:
        pixels = _to_8_bit(values, reading.white_level or FULL)
        pixels = 255 - pixels if file.white_is_zero else pixels
        pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    pixels = _seen(pixels, file)
    return Raster(pixels, pixels.shape[:2], file.orientation, largest)


def _seen(array: np.ndarray, file: _File) -> np.ndarray:
    return array if file.turned else turn(array, file.orientation)


def _stored_size(raster: Raster) -> tuple[int, int]:
    height, width = raster.size
    return (width, height) if raster.orientation > 4 else (height, width)


def _mask(file: _File) -> tuple[np.ndarray, int]:
    """What the mask marks, bool [H, W] by its own orientation, and that, or 0."""
    # JPEG and WEBP surround every edge with values a little above 0.
    threshold = 127 if file.image.format in ("JPEG", "MPO", "WEBP") else 0
    if file.white_is_zero:
        marked = np.asarray(file.values) < FULL
    elif file.image.mode == "F":
        marked = np.asarray(file.image) > threshold
    else:
        values = _colours(file.image) if file.values is None else file.values
        marked = (values if values.ndim == 2 else values.max(axis=-1)) > threshold
    return _seen(marked, file), file.orientation


def _largest(values: np.ndarray) -> int:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > FULL:
        raise ValueError(f"values from {low} to {high} do not fit 16 bits")
    return high


def _to_8_bit(values: np.ndarray, white_level: int) -> np.ndarray:
    cut = np.minimum(np.arange(FULL + 1), white_level)
    table = ((cut * 255 + white_level // 2) // white_level).astype(np.uint8)
    scaled = np.empty(values.shape, np.uint8)
    for row, stored in zip(scaled, values, strict=True):  # all at once takes 8 bytes a value
        row[:] = table[stored]
    return scaled


def _colours(image: Image.Image) -> np.ndarray:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow asks for before the transparency is dropped
    return np.asarray(image.convert("RGB"))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
