"""The pictures of a comparison, as the bytes of PNG files: they become part of one page.

`labels` are int `[N]`, 1 = defective; scores float `[N]` by the name of their run, higher = more
anomalous. The runs come in one order, and so in one colour, throughout.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from report.figures import DPI, draw_histogram, draw_picture, draw_precision_recall, draw_roc, plain
from report.heat import HEAT

PICTURE_DPI = 100  # a page holds dozens of pictures
COLUMNS = 3
CELL = 1.9  # inches of a picture with its caption


class Example(NamedTuple):
    """A test image."""

    heading: str
    image: np.ndarray  # uint8 [S, S, 3]
    mask: np.ndarray | None  # bool [h, w], None if missing


class Shown(NamedTuple):
    """What a run made of each of E examples."""

    name: str
    map_max: float  # > 0, the top of the run's colour scale
    scores: Sequence[float]  # E
    maps: Sequence[np.ndarray]  # E of float [H, W]
    reconstructions: Sequence[np.ndarray | None]  # E of uint8 [H, W, 3]


def curves(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> bytes:
    """ROC and precision-recall curves of all runs, side by side; needs both classes."""
    figure = Figure(figsize=(11.2, 5.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_roc(left, labels, scores, "ROC curve", alike=True)
    draw_precision_recall(right, labels, scores, "Precision and recall", alike=True)
    return _png(figure)


def histograms(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> bytes:
    """How the scores of good and defective images are spread, a panel per run; N > 0."""
    columns = min(COLUMNS, len(scores))
    rows = math.ceil(len(scores) / columns)
    figure = Figure(figsize=(4.0 * columns, 2.9 * rows), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, scores.items(), strict=False):
        draw_histogram(axes, labels, values, textwrap.shorten(plain(name), 44))
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    return _png(figure)


def pictures(examples: Sequence[Example], runs: Sequence[Shown]) -> bytes:
    """Examples side by side: above the image and its mask, below reconstruction and map per run.

    Every run has its own colour scale, from 0 to its `map_max`.
    """
    width, height = 2 * CELL * len(examples) + 0.9, CELL * (1 + len(runs)) + 0.3
    figure = Figure(figsize=(width, height), dpi=PICTURE_DPI, layout="constrained")
    ratios = [*[1.0] * (2 * len(examples)), 0.06]
    grid = figure.subplots(1 + len(runs), len(ratios), width_ratios=ratios, squeeze=False)
    grid[0, -1].set_visible(False)
    for place, example in enumerate(examples):
        left, right = grid[0, 2 * place : 2 * place + 2]
        draw_picture(left, example.image, None, 1.0)
        draw_picture(right, example.mask, None, 1.0)
        left.set_title(plain(example.heading), fontsize=10, loc="left", parse_math=False)
        right.set_title("mask", fontsize=9, loc="right")
    for row, run in zip(grid[1:], runs, strict=True):
        for place, example in enumerate(examples):
            _made(row[2 * place : 2 * place + 2], example, run, place)
        name = textwrap.fill(textwrap.shorten(plain(run.name), 60), 22)
        row[0].set_ylabel(name, fontsize=9, parse_math=False)
        _scale(figure, row[-1], run.map_max)
    return _png(figure)


def _made(axes: Sequence[Axes], example: Example, run: Shown, place: int) -> None:
    """One run's reconstruction and map of one example."""
    made = run.reconstructions[place]
    draw_picture(axes[0], made, None, 1.0, missing="no reconstruction")
    draw_picture(axes[1], example.image, run.maps[place], run.map_max)
    axes[0].set_box_aspect(1)  # also where nothing is drawn
    axes[1].set_xlabel(f"score {run.scores[place]:.4g}", fontsize=8, loc="left", labelpad=2)


def _scale(figure: Figure, axes: Axes, map_max: float) -> None:
    heat = ScalarMappable(Normalize(0, map_max), HEAT)
    figure.colorbar(heat, cax=axes, extend="max", ticks=MaxNLocator(4), format="{x:.3g}")
    axes.tick_params(labelsize=7)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
