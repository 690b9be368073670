"""Maps as pictures: the colours mean what they say, and regions are those of scipy and by hand."""

import matplotlib
import numpy as np
from PIL import Image

from evaluation import threshold
from evaluation.maps import Region, largest_region, resize_map
from report import heat


def test_the_colours_are_one_fixed_scale():
    values = np.array([[0.0, 1.5, 3.0, 99.0]])
    inferno = matplotlib.colormaps["inferno"]
    wanted = [inferno(share, bytes=True)[:3] for share in (0.0, 0.5, 1.0, 1.0)]
    assert (heat.coloured(values, 3.0)[0] == wanted).all()
    assert heat.coloured(values, 3.0).dtype == np.uint8


def test_a_good_part_stays_grey_and_a_defect_does_not():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), np.uint8)
    good = rng.random((8, 8))  # below 1, the highest that a good image had
    seen = heat.overlay(image, good, threshold.SCALE)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert (seen == grey[..., None]).all()
    bad = good.copy()
    bad[2:4, 2:4] = 2.5
    seen = heat.overlay(image, bad, threshold.SCALE).astype(int)
    coloured = np.ptp(seen, axis=-1) > 60
    assert coloured[2:4, 2:4].all() and coloured.sum() == 4
    assert (seen[2:4, 2:4, 0] > seen[2:4, 2:4, 2]).all()


def test_the_line_lies_around_what_is_marked():
    """By hand: the eight neighbours of a pixel; at the border the line is inside."""
    picture = np.full((8, 8, 3), 7, np.uint8)
    marked = np.zeros((8, 8), bool)
    marked[3, 4] = marked[7, 7] = True
    line = (heat.outlined(picture, marked) == heat.OUTLINE).all(-1)
    around = np.zeros((8, 8), bool)
    around[2:5, 3:6] = around[6:8, 6:8] = True
    around[3, 4] = False
    assert (line == around).all() and (picture == 7).all()
    everything = (heat.outlined(picture, np.ones((8, 8), bool)) == heat.OUTLINE).all(-1)
    assert everything.sum() == 28 and not everything[1:7, 1:7].any()
    assert (heat.outlined(picture, np.zeros((4, 4), bool)) == picture).all()


def test_marks_of_another_size_are_outlined_where_they_lie():
    marked = np.zeros((4, 4), bool)
    marked[1, 2] = True
    picture = heat.overlay(np.zeros((600, 600, 3), np.uint8), np.zeros((600, 600)), 3.0, marked)
    rows, columns = np.nonzero((picture == heat.OUTLINE).all(-1))
    assert (rows.min(), rows.max()) == (147, 302) and (columns.min(), columns.max()) == (297, 452)
    assert not picture[150:300, 300:450].any()


def test_no_good_image_looks_red():
    """Red, as eyes see it in the scale: bright, and more red than blue."""
    colours = heat.coloured(np.linspace(0, 1, 100)[None], threshold.SCALE)[0].astype(int)
    assert (colours[:, 0] < 140).all() and (colours[:, 0] - colours[:, 2] < 20).all()


def test_maps_are_brought_to_another_size_as_pillow_does():
    values = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    large = resize_map(values, (12, 20))
    assert large.shape == (12, 20) and large.dtype == np.float32
    assert (large == np.asarray(Image.fromarray(values).resize((20, 12), 2))).all()
    assert resize_map(values, (6, 4)) is values


def test_the_largest_region_by_hand():
    mask = np.zeros((7, 9), bool)
    mask[0, 0:3] = True  # three
    mask[3:5, 5] = mask[5, 6] = mask[5, 7] = True  # four: a corner joins them
    assert largest_region(mask) == Region(left=5, top=3, width=3, height=3, area=4)
    assert largest_region(np.zeros((3, 3), bool)) is None
    assert largest_region(np.ones((2, 5), bool)) == (0, 0, 5, 2, 10)
