"""Sheets: pictures side by side, and what is said of each, drawn by Pillow.

With axes of matplotlib's for each picture, drawing took half the time of an evaluation of few
images. Pictures are uint8 `[H, W, 3]`, masks bool `[h, w]`, maps float `[h, w]`, higher = more
anomalous. Lengths are pixels, places `(left, top)` from the upper left corner.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from evaluation.maps import resize_map
from evaluation.threshold import SCALE
from report.figures import GREY, printable
from report.heat import coloured, outlined, overlay

SIDE = 192  # of a picture
CELL = 200  # a picture with its gap
CAPTION = 34  # below a picture
HEADING = 24  # above one
MARGIN = 15
TITLES = 100  # the titles
BAR = 115  # the colour bar and what is said of it
_LARGE, _MEDIUM, _SMALL, _TINY = 16.5, 14.0, 12.5, 11.0  # letters
_FONT = os.path.join("fonts", "ttf", "DejaVuSans.ttf")  # matplotlib's own
_EDGE = (176, 176, 176)  # around a picture
_Pictures = Mapping[tuple[int, int], np.ndarray | str]


def examples(
    *,
    images: np.ndarray,
    reconstructions: np.ndarray | None,
    maps: np.ndarray,
    masks: Sequence[np.ndarray | None],
    marked: Sequence[np.ndarray] | None = None,
    captions: Sequence[str],
    title: str,
    note: str,
    map_max: float,
) -> Image.Image:
    """Rows of image, reconstruction, anomaly map over the image, what is marked, and mask.

    `images` are uint8 [K, H, W, 3], `reconstructions` the same or None for no such column, `maps`
    float [K, h, w], `masks` K of bool [h, w] or None where one is missing, `marked` K of bool
    [h, w] or None for no such column. Each row has one of the `captions`. The colour scale goes
    from 0 to `map_max`; `note` is a smaller line below the title.
    """
    columns: dict[str, Sequence[np.ndarray | str]] = {"image": list(images)}
    if reconstructions is not None:
        columns["reconstruction"] = list(reconstructions)
    pairs = zip(images, maps, strict=True)
    columns["anomaly map"] = [_heated(image, heat, map_max) for image, heat in pairs]
    if marked is not None:
        columns["marked"] = [_marked(*pair) for pair in zip(images, marked, strict=True)]
    columns["mask"] = ["no mask" if mask is None else mask for mask in masks]
    lefts = [MARGIN + CELL * column for column in range(len(columns) + 1)]
    tops = [TITLES + (CELL + CAPTION) * row for row in range(len(captions) + 1)]
    sheet = _sheet(
        (lefts[-1] + BAR, tops[-1]),
        {
            (left, top): picture
            for left, pictures in zip(lefts, columns.values(), strict=False)
            for top, picture in zip(tops, pictures, strict=False)
        },
    )
    _write(sheet, (MARGIN, 25), title, _LARGE, "lm")
    _write(sheet, (MARGIN, 48), note, _SMALL, "lm")
    for left, name in zip(lefts, columns, strict=False):
        _write(sheet, (left + SIDE // 2, TITLES - 7), name, _MEDIUM, "ms")
    for top, caption in zip(tops, captions, strict=False):
        _write(sheet, (MARGIN, top + SIDE + 5), caption, _SMALL, "la")
    _colour_bar(sheet, (lefts[-1] + 5, TITLES), 14, map_max)
    label = "same for all pictures; coloured above the line"
    _write_upwards(sheet, (lefts[-1] + 72, TITLES + SIDE // 2), label, _TINY)
    return sheet


def strips(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Image.Image:
    """A row of pictures, uint8 [H, W, 3], a heading; all rows have the same number of them.

    Each picture's name stands above it, for that which is seen may differ from row to row.
    """
    columns, height = max(map(len, rows.values())), CELL + 2 * HEADING
    places = [
        (MARGIN + CELL * column, height * row + 2 * HEADING, name, picture)
        for row, pictures in enumerate(rows.values())
        for column, (name, picture) in enumerate(pictures.items())
    ]
    size = (CELL * columns + 2 * MARGIN, height * len(rows))
    sheet = _sheet(size, {(left, top): picture for left, top, _, picture in places})
    for left, top, name, _ in places:
        _write(sheet, (left + SIDE // 2, top - 6), name, _SMALL, "ms")
    for row, heading in enumerate(rows):
        _write(sheet, (MARGIN, height * row + HEADING - 6), heading, _MEDIUM, "ls")
    return sheet


class Example(NamedTuple):
    """A test image."""

    heading: str
    image: np.ndarray  # uint8 [S, S, 3]
    mask: np.ndarray | None  # bool [h, w], None if missing


class Outputs(NamedTuple):
    """What a run made of each of E examples."""

    name: str
    map_max: float  # > 0, the top of the run's colour scale
    scores: Sequence[float]  # E
    maps: Sequence[np.ndarray]  # E of float [H, W]
    reconstructions: Sequence[np.ndarray | None]  # E of uint8 [H, W, 3]


def side_by_side(examples: Sequence[Example], runs: Sequence[Outputs]) -> Image.Image:
    """Examples side by side: above the image and its mask, below reconstruction and map per run.

    Every run has its own colour scale, from 0 to its `map_max`.
    """
    names = 60  # room for those of the runs
    lefts = [names + 2 * CELL * place for place in range(len(examples) + 1)]
    tops = [HEADING + CELL + (CELL + HEADING) * row for row in range(len(runs) + 1)]
    pictures: dict[tuple[int, int], np.ndarray | str] = {}
    for place, (example, left) in enumerate(zip(examples, lefts, strict=False)):
        pictures[left, HEADING] = example.image
        pictures[left + CELL, HEADING] = "no mask" if example.mask is None else example.mask
        for top, run in zip(tops, runs, strict=False):
            made = run.reconstructions[place]
            pictures[left, top] = "no reconstruction" if made is None else made
            pictures[left + CELL, top] = _heated(example.image, run.maps[place], run.map_max)
    sheet = _sheet((lefts[-1] + 80, tops[-1]), pictures)
    for example, left in zip(examples, lefts, strict=False):
        _write(sheet, (left, HEADING - 6), example.heading, _MEDIUM, "ls")
        _write(sheet, (left + CELL + SIDE, HEADING - 6), "mask", _SMALL, "rs")
    for top, run in zip(tops, runs, strict=False):
        name = textwrap.fill(textwrap.shorten(printable(run.name), 60), 22)
        _write_upwards(sheet, (names // 2, top + SIDE // 2), name, _SMALL)
        _colour_bar(sheet, (lefts[-1] + 5, top), 12, run.map_max)
        for left, score in zip(lefts, run.scores, strict=False):
            _write(sheet, (left + CELL, top + SIDE + 4), f"score {score:.4g}", _TINY, "la")
    return sheet


def _sheet(size: tuple[int, int], pictures: _Pictures) -> Image.Image:
    """A white sheet, and on it each picture right of and below its place.

    A picture is uint8 [H, W, 3] or bool [H, W]; or it is what is written where there is none.
    """
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for (left, top), picture in pictures.items():
        if isinstance(picture, str):
            draw.rectangle((left - 1, top - 1, left + SIDE, top + SIDE), outline=_EDGE)
            _write(sheet, (left + SIDE // 2, top + SIDE // 2), picture, _MEDIUM, "mm", GREY)
            continue
        shown = _fitted(picture)
        left, top = left + (SIDE - shown.width) // 2, top + (SIDE - shown.height) // 2
        edge = (left - 1, top - 1, left + shown.width, top + shown.height)
        draw.rectangle(edge, outline=_EDGE)
        sheet.paste(shown, (left, top))
    return sheet


def _fitted(picture: np.ndarray) -> Image.Image:
    """The picture with its longer side of `SIDE` pixels; much enlarged, its pixels are squares."""
    times = SIDE / max(picture.shape[:2])
    height, width = (max(1, round(length * times)) for length in picture.shape[:2])
    squares = times >= 3 or times == int(times)
    method = Image.Resampling.NEAREST if squares else Image.Resampling.HAMMING
    return Image.fromarray(picture).convert("RGB").resize((width, height), method)


def _heated(image: np.ndarray, heat: np.ndarray, map_max: float) -> np.ndarray:
    return overlay(image, resize_map(heat, image.shape[:2]), map_max)


def _marked(image: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """The image with a line around what is marked, as thin as the sheet has it."""
    return outlined(np.asarray(_fitted(image)), marked)


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), _FONT), size)


def _write(
    sheet: Image.Image,
    place: tuple[int, int],
    text: str,
    size: float,
    anchor: str,
    colour: str = "black",
) -> None:
    """Writes a line so that its `anchor`, as Pillow names them, is at the place."""
    ImageDraw.Draw(sheet).text(place, printable(text), colour, _font(size), anchor)


def _write_upwards(sheet: Image.Image, middle: tuple[int, int], text: str, size: float) -> None:
    """Writes printable lines from below to above, around their middle."""
    font, ink = _font(size), Image.new("L", (1, 1))
    box = ImageDraw.Draw(ink).multiline_textbbox((0, 0), text, font, align="center")
    ink = Image.new("L", (int(box[2]) + 1, int(box[3]) + 1))
    ImageDraw.Draw(ink).multiline_text((0, 0), text, 255, font, align="center")
    ink = ink.transpose(Image.Transpose.ROTATE_90)
    sheet.paste("black", (middle[0] - ink.width // 2, middle[1] - ink.height // 2), ink)


def _colour_bar(sheet: Image.Image, place: tuple[int, int], width: int, map_max: float) -> None:
    """The colours of maps from 0 to `map_max`, as tall as a picture; a line where good ones end."""
    (left, top), draw = place, ImageDraw.Draw(sheet)
    below, right = top + SIDE - 1, left + width - 1
    ramp = coloured(np.linspace(map_max, 0, SIDE)[:, None], map_max).repeat(width, axis=1)
    sheet.paste(Image.fromarray(ramp), place)
    tip = [(left, top), (left + width // 2, top - width // 2), (right, top)]  # values beyond
    draw.polygon(tip, fill=tuple(ramp[0, 0].tolist()))
    draw.line([(right, below), (left, below), *tip, (right, below)], fill="black")
    line = below - round((SIDE - 1) / SCALE)
    draw.line([(left + 1, line), (right - 1, line)], fill="white")
    for value in MaxNLocator(4).tick_values(0, map_max):
        if 0 <= value <= map_max:
            row = below - round(value / map_max * (SIDE - 1))
            draw.line([(right, row), (right + 4, row)], fill="black")
            _write(sheet, (right + 7, row), f"{value:.3g}", _TINY, "lm")
