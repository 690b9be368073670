"""Image files to arrays, with Pillow: what is accepted, what is refused and for which reason.

`H`, `W` are the image's own size; images are uint8 in [0, 255], masks bool (True = defective).
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

# What may be decoded, whatever a file is called: Pillow would hand an EPS file to Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name; none if there is no such folder.

    Hidden files and files of other extensions are no images.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_image_name(path) and not path.is_dir())


def images_below(folder: Path) -> list[Path]:
    """The image files of a folder's folders, by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    kinds = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for kind in kinds for path in images_in(kind)]


def read_image(path: Path) -> np.ndarray:
    """Decodes one image file to colour.

    Grey images get three equal channels, transparency is dropped, EXIF rotation is not applied.
    Images of 16 bits, and of 32 that hold 16, are scaled from [0, 65535] to [0, 255], all alike:
    what one image holds must not decide its brightness.

    Returns:
      uint8 [H, W, 3] in [0, 255].

    Raises:
      ValueError: one line with the file and the reason, whatever is wrong with it.
    """
    image = _decode(path)
    try:
        if image.mode == "F":
            raise ValueError("floating-point pixels have no fixed range, save 8 or 16 bits")
        if image.mode.startswith("I"):
            return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=-1)
        return _colours(image)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_mask(path: Path) -> np.ndarray:
    """Decodes one mask file: every pixel that is not 0 is defective.

    Returns:
      bool [H, W].

    Raises:
      ValueError: one line with the file and the reason, whatever is wrong with it.
    """
    image = _decode(path)
    # JPEG surrounds every edge with values a little above 0.
    threshold = 127 if image.format == "JPEG" else 0
    if image.mode[0] in "IF":
        return np.asarray(image) > threshold
    try:
        return _colours(image).max(axis=-1) > threshold
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def attempt(read: Callable[[Path], np.ndarray], path: Path, found: list[str]) -> np.ndarray | None:
    """What `read` makes of a file, or None, and then `found` has got the reason."""
    try:
        return read(path)
    except ValueError as error:
        found.append(str(error))
        return None


def faults(image: Path, mask: Path | None, *, defective: bool) -> list[str]:
    """What is wrong with an image and its mask, one line each with the file; empty if nothing."""
    found: list[str] = []
    pixels = attempt(read_image, image, found)
    marked = attempt(read_mask, mask, found) if mask else None
    if pixels is None or marked is None:
        return found
    height, width = pixels.shape[:2]
    if marked.shape != (height, width):
        found.append(
            f"{mask}: a mask of {marked.shape[1]}x{marked.shape[0]} pixels, but its image {image} "
            f"has {width}x{height}"
        )
    elif marked.any() != defective:
        marks = "no pixel of the defective" if defective else "pixels of the good"
        found.append(f"{mask}: a mask that marks {marks} image {image}")
    return found


def _is_image_name(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in _SUFFIXES


def _decode(path: Path) -> Image.Image:
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, which says nothing about the pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            image.load()
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not a readable PNG, JPEG, BMP or TIFF image") from error
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{path}: {reason or type(error).__name__}") from error
    if image.format == "PNG" and _PNG_END not in data:  # Pillow decodes it without a word
        raise ValueError(f"{path}: image file is truncated (no IEND at its end)")
    return image


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"values from {low} to {high} do not fit 16 bits")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _colours(image: Image.Image) -> np.ndarray:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow asks for before the transparency is dropped
    return np.asarray(image.convert("RGB"))
