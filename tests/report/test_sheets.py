"""Sheets: each picture is where it belongs, as it is, and what is missing is said."""

import numpy as np
import pytest
from PIL import Image

from report import sheets
from report.heat import OUTLINE, overlay

RNG = np.random.default_rng(0)
TWELVE = np.ones((12, 12, 1), np.uint8)  # 16 pixels become 192


def pictures(count, side=16):
    return RNG.integers(0, 256, (count, side, side, 3), np.uint8)


def at(sheet, row, column):
    """The picture there, without what stands around it."""
    left = sheets.MARGIN + sheets.CELL * column
    top = sheets.TITLES + (sheets.CELL + sheets.CAPTION) * row
    return np.asarray(sheet)[top : top + sheets.SIDE, left : left + sheets.SIDE]


def examples(**changes):
    given = {
        "images": pictures(2),
        "reconstructions": pictures(2),
        "maps": RNG.random((2, 16, 16), np.float32) * 3,
        "masks": [np.eye(16, dtype=bool), None],
        "captions": ["score 1", "score 2"],
        "title": "AE, bottle: cut",
        "note": "2 of 2",
        "map_max": 3.0,
    }
    return given | changes


def test_every_picture_is_in_its_place():
    given = examples()
    sheet = sheets.examples(**given)
    for row in range(2):
        image = given["images"][row]
        made = given["reconstructions"][row]
        shown = overlay(image, given["maps"][row], 3.0)
        for column, picture in enumerate((image, made, shown)):
            assert (at(sheet, row, column) == np.kron(picture, TWELVE)).all()
    mask = np.kron(np.eye(16, dtype=np.uint8)[..., None] * 255, TWELVE)
    assert (at(sheet, 0, 3) == mask).all()
    assert 0.9 < (at(sheet, 1, 3) == 255).mean() < 1  # 'no mask' is written there


def test_what_is_marked_stands_beside_the_mask():
    marked = np.zeros((2, 16, 16), bool)
    marked[0, 4:8, 4:8] = True
    given = examples()
    sheet = sheets.examples(**given, marked=marked)
    seen = at(sheet, 0, 3)
    line = (seen == OUTLINE).all(-1)
    image = np.kron(given["images"][0], TWELVE)
    assert line[47, 47:97].all() and line[96, 47:97].all() and line.sum() == 4 * 49
    assert (seen[~line] == image[~line]).all()
    assert (at(sheet, 1, 3) == np.kron(given["images"][1], TWELVE)).all()
    mask = np.kron(np.eye(16, dtype=np.uint8)[..., None] * 255, TWELVE)
    assert (at(sheet, 0, 4) == mask).all()


def test_without_reconstructions_there_is_no_column_of_them():
    narrow = sheets.examples(**examples(reconstructions=None))
    assert narrow.width + sheets.CELL == sheets.examples(**examples()).width


@pytest.mark.parametrize("side", [64, 100, 192, 256, 1000])
def test_pictures_of_any_size_keep_their_look(side):
    """Against a mean over blocks of the original: a left half that is dark, a right half bright."""
    images = np.zeros((2, side, side, 3), np.uint8)
    images[:, :, side // 2 :] = 200
    shown = at(sheets.examples(**examples(images=images)), 0, 0)
    assert (shown[:, :90] == 0).all() and (shown[:, 102:] == 200).all()


def test_a_mask_of_another_shape_is_not_stretched():
    shown = at(sheets.examples(**examples(masks=[np.zeros((10, 40), bool), None])), 0, 3)
    rows = np.flatnonzero((shown == 0).all((1, 2)))
    assert rows.tolist() == [*range(72, 120)]


def test_runs_stand_side_by_side():
    images, made = pictures(2), pictures(2)
    maps = RNG.random((2, 16, 16), np.float32)
    shown = [
        sheets.Example("cut: median", images[0], None),
        sheets.Example("cut: hardest", images[1], np.eye(16, dtype=bool)),
    ]
    runs = [
        sheets.Outputs("AE", 1.0, [0.1, 0.2], list(maps), list(made)),
        sheets.Outputs("a long\nname \ud55c" * 9, 2.0, [0.1, 0.2], list(maps), [None, None]),
    ]
    sheet = np.asarray(sheets.side_by_side(shown, runs))

    def holds(picture):
        """Whether it is part of the sheet."""
        large = np.kron(picture, TWELVE)
        first = (sheet == large[0, 0]).all(-1)
        places = zip(*np.nonzero(first), strict=True)
        side = sheets.SIDE
        return any(np.array_equal(sheet[y : y + side, x : x + side], large) for y, x in places)

    assert all(holds(picture) for picture in [*images, *made])
    for place in range(2):
        for run in runs:
            assert holds(overlay(images[place], maps[place], run.map_max))


def test_strips_show_each_picture():
    first, second = pictures(2)
    sheet = sheets.strips({"good": {"image": first, "repaired": second}})
    top, left = 2 * sheets.HEADING, sheets.MARGIN
    for place, picture in enumerate((first, second)):
        at_x = left + sheets.CELL * place
        part = np.asarray(sheet)[top : top + sheets.SIDE, at_x : at_x + sheets.SIDE]
        assert (part == np.kron(picture, TWELVE)).all()


def test_the_colour_bar_is_the_scale_of_the_maps():
    sheet = np.asarray(sheets.examples(**examples()))
    column = sheet[:, sheets.MARGIN + 4 * sheets.CELL + 8]
    bar = column[sheets.TITLES + 1 : sheets.TITLES + sheets.SIDE - 1].astype(int)
    line = np.flatnonzero((bar == 255).all(-1))
    assert line.size == 1 and abs(line[0] / len(bar) - 2 / 3) < 0.01  # where good images end
    luminance = np.asarray(Image.fromarray(bar[:, None].astype(np.uint8)).convert("L"), int)[:, 0]
    assert luminance[0] > 230 and luminance[-1] < 5
