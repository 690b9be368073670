"""The figures of a page, by matplotlib; whoever asks for one saves it or embeds it.

`labels` are int `[N]`, 1 = defective; scores float `[N]`, higher = more anomalous. The colours are
those of Okabe and Ito, which colour-blind readers can tell apart; line styles differ as well.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics

from evaluation.maps import resize_map
from evaluation.threshold import SCALE
from report.heat import HEAT, overlay

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")
GREY = "#6B6B6B"
DPI = 150
EXAMPLES_DPI = 100  # a page holds many examples
NOT_METRICS = ("stage", "step", "steps_per_second", "seconds")
# Inches on a page of examples.
CELL = 2.0  # a picture with its gap
SIDE = 1.92  # without
CAPTION = 0.34
MARGIN = 0.15
HEAD = 1.0  # the titles
BAR = 1.3  # the colour bar
PAIR = 1.9  # a picture with its caption, where runs stand side by side
PANELS = 3  # histograms in a row
MAP = "anomaly map"
Scores = Mapping[str, np.ndarray]  # by name, float [N]


def printable(text: str) -> str:
    """At most 64 characters of `text`, with ? for those that matplotlib's own font may lack."""
    return "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in text[:64])


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _axes(width: float, height: float) -> Axes:
    """All of a new figure of so many inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained").add_subplot()


def roc(
    labels: np.ndarray,
    scores: Scores,
    title: str,
    *,
    axes: Axes | None = None,
    alike: bool = False,
) -> Figure:
    """The ROC curve of each score by name, AUROC in the legend.

    The first is drawn strongest, or all `alike`; into `axes`, or a figure of its own.
    """
    axes = axes or _axes(5.6, 5.6)
    _square(axes, title, "false-positive rate", "true-positive rate")
    for i, (name, values) in enumerate(scores.items()):
        x, y, _ = metrics.roc_curve(labels, values)
        label = f"{printable(name)}: AUROC {metrics.roc_auc_score(labels, values):.3f}"
        axes.plot(x, y, label=label, **_line(i, alike))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)), label="chance: 0.500")
    _legend(axes)
    return cast(Figure, axes.get_figure(root=True))


def precision_recall(
    labels: np.ndarray,
    scores: Scores,
    title: str,
    *,
    axes: Axes | None = None,
    alike: bool = False,
) -> Figure:
    """The precision-recall curve of each score by name, as `roc`; the prevalence is dotted."""
    axes = axes or _axes(5.6, 5.6)
    _square(axes, title, "recall (defective parts found)", "precision")
    for i, (name, values) in enumerate(scores.items()):
        y, x, _ = metrics.precision_recall_curve(labels, values)
        area = metrics.average_precision_score(labels, values)
        label = f"{printable(name)}: average precision {area:.3f}"
        axes.plot(x, y, drawstyle="steps-post", label=label, **_line(i, alike))
    prevalence = float(np.mean(labels))
    label = f"prevalence (chance): {prevalence:.3f}"
    axes.axhline(prevalence, color=GREY, linewidth=1, linestyle=(0, (2, 3)), label=label)
    _legend(axes)
    return cast(Figure, axes.get_figure(root=True))


def curves(labels: np.ndarray, scores: Scores) -> Figure:
    """ROC and precision-recall curves of all runs, side by side; needs both classes."""
    figure = Figure(figsize=(11.2, 5.6), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    roc(labels, scores, "ROC curve", axes=left, alike=True)
    precision_recall(labels, scores, "Precision and recall", axes=right, alike=True)
    return figure


def histogram(
    labels: np.ndarray,
    scores: np.ndarray,
    title: str,
    *,
    calibration: Any = (),
    threshold: float | None = None,
    axes: Axes | None = None,
) -> Figure:
    """How the image scores of good, defective and calibration images are spread.

    A group per label, in shared bins, and one of the scores `calibration`; into `axes`, or a figure
    of its own.
    """
    axes = axes or _axes(6.4, 4.2)
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}")
    bins = np.histogram_bin_edges([*scores, *calibration], bins=30)
    if 0 < 50 * bins[0] < bins[-1]:  # else all good images would be in the first bin
        bins = np.geomspace(bins[0], bins[-1], bins.size)
        axes.set_xscale("log")
    groups = (
        ("good", scores[labels == 0], ""),
        ("defective", scores[labels == 1], "////"),
        ("held-out good", np.asarray(calibration), "...."),
    )
    for colour, (name, mine, hatch) in zip(COLOURS, groups, strict=False):
        if mine.size:
            bars = axes.stairs(np.histogram(mine, bins)[0], bins, fill=True, hatch=hatch)
            bars.set(fc=f"{colour}66", ec=colour, lw=1.4, label=f"{name} ({mine.size} images)")
    axes.set(xlabel="image score (higher = more anomalous)", ylabel="images", ymargin=0.45)
    axes.set_title(printable(title), fontsize=11, loc="left", parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, framealpha=0.85, edgecolor="none")
    return cast(Figure, axes.get_figure(root=True))


def histograms(labels: np.ndarray, scores: Scores) -> Figure:
    """A `histogram` per run; N > 0."""
    columns = min(PANELS, len(scores))
    rows = math.ceil(len(scores) / columns)
    figure = Figure(figsize=(4.0 * columns, 2.9 * rows), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(panels, scores.items(), strict=False):
        histogram(labels, values, textwrap.shorten(printable(name), 44), axes=axes)
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    return figure


def training_curves(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Small multiples of the lines of metrics.jsonl: a block per stage, a panel per metric."""
    stages: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in history:
        metrics_of = stages.setdefault(line["stage"], {})
        for name in line.keys() - NOT_METRICS:
            points = metrics_of.setdefault(name, [])
            points.extend([(line["step"], line[name])] if line[name] is not None else [])
    columns = min(4, max(1, *(len(names) for names in stages.values())))
    rows = [max(1, math.ceil(len(names) / columns)) for names in stages.values()]
    size = (max(2.6 * columns, 6.4), sum(rows) * 2.0 + len(rows) * 0.35 + 0.4)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(printable(title), fontsize=12, x=0.01, ha="left", parse_math=False)
    blocks = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=[r + 0.2 for r in rows])
    for block, (stage, names), count in zip(blocks.ravel(), stages.items(), rows, strict=True):
        block.suptitle(printable(f"stage {stage}"), fontsize=10, x=0.01, ha="left", color=GREY)
        panels = block.subplots(count, columns, sharex=True, squeeze=False).ravel()
        for axes, name in zip(panels, sorted(names), strict=False):
            _curve(axes, name, names[name])
        for axes in panels[len(names) :]:
            axes.set_visible(False)
    return figure


def _curve(axes: Axes, name: str, points: Sequence[tuple[int, float]]) -> None:
    steps, values = zip(*points, strict=True) if points else ((), ())
    axes.plot(steps, values, color=COLOURS[0], linewidth=1.3, marker="." if len(steps) < 3 else "")
    axes.set_title(printable(name), fontsize=9, parse_math=False)
    axes.set_xlabel("step", fontsize=8)
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=8, labelbottom=True)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter("{x:.6g}")  # a common factor above the axis meets the title
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def examples(
    *,
    images: np.ndarray,
    reconstructions: np.ndarray | None,
    maps: np.ndarray,
    masks: Sequence[np.ndarray | None],
    captions: Sequence[str],
    title: str,
    note: str,
    map_max: float,
) -> Figure:
    """Rows of image, reconstruction, anomaly map over the image, and mask, with a caption each.

    `images` are uint8 [K, H, W, 3], `reconstructions` the same or None for no such column, `maps`
    float [K, h, w], `masks` K of bool [h, w] or None where one is missing. The colour scale goes
    from 0 to `map_max`; `note` is a smaller line below the title.
    """
    columns: dict[str, Sequence[np.ndarray | None]] = {"image": list(images)}
    if reconstructions is not None:
        columns["reconstruction"] = list(reconstructions)
    columns |= {MAP: list(images), "mask": masks}
    size = (CELL * len(columns) + BAR, (CELL + CAPTION) * len(captions) + HEAD)
    figure = Figure(figsize=size, dpi=EXAMPLES_DPI)
    for text, font, down in ((title, 12, 0.25), (note, 9, 0.48)):
        left, bottom = MARGIN / size[0], 1 - down / size[1]
        figure.text(left, bottom, printable(text), fontsize=font, va="center", parse_math=False)
    for column, (name, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            axes = _box(figure, MARGIN + CELL * column, (CELL + CAPTION) * row, SIDE)
            _draw_picture(axes, picture, maps[row] if name == MAP else None, map_max)
            axes.set_title("" if row else name, fontsize=10, pad=5)
            caption = "" if column else printable(captions[row])
            axes.set_xlabel(caption, fontsize=9, loc="left", parse_math=False)
    _scale(figure, map_max)
    return figure


def _box(figure: Figure, left: float, top: float, width: float) -> Axes:
    """Axes at so many inches from the left and below the titles, one picture tall."""
    wide, tall = figure.get_size_inches()
    bottom = tall - HEAD - top - SIDE
    return figure.add_axes((left / wide, bottom / tall, width / wide, SIDE / tall))


def _scale(figure: Figure, map_max: float) -> None:
    """The colour bar of all pictures, right of the first row."""
    axes = _box(figure, figure.get_size_inches()[0] - BAR + 0.2, 0, 0.14)
    _colour_bar(axes, map_max, labelsize=8)
    axes.axhline(map_max / SCALE, color="white", linewidth=1)
    axes.set_ylabel("same for all pictures; coloured above the line", fontsize=8)


def _colour_bar(axes: Axes, map_max: float, labelsize: int) -> None:
    """The colours of anomaly maps from 0 to `map_max`, filling `axes`."""
    heat = ScalarMappable(Normalize(0, map_max), HEAT)
    figure = cast(Figure, axes.get_figure(root=True))
    figure.colorbar(heat, cax=axes, extend="max", ticks=MaxNLocator(4), format="{x:.3g}")
    axes.tick_params(labelsize=labelsize)


def strips(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A row of pictures, uint8 [H, W, 3], a heading; all rows have the same number of them.

    Each picture's name stands above it, for that which is seen may differ from row to row.
    """
    columns = max(map(len, rows.values()))
    size = (PAIR * columns, (PAIR + 0.5) * len(rows))
    figure = Figure(figsize=size, dpi=EXAMPLES_DPI, layout="constrained")
    blocks = figure.subfigures(len(rows), 1, squeeze=False)
    for block, (heading, pictures) in zip(blocks.ravel(), rows.items(), strict=True):
        block.suptitle(printable(heading), fontsize=10, x=0.01, ha="left", parse_math=False)
        panels = block.subplots(1, columns, squeeze=False).ravel()
        for axes, (name, picture) in zip(panels, pictures.items(), strict=True):
            _draw_picture(axes, picture, None, 1.0)
            axes.set_title(printable(name), fontsize=9, parse_math=False)
    return figure


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


def side_by_side(examples: Sequence[Example], runs: Sequence[Outputs]) -> Figure:
    """Examples side by side: above the image and its mask, below reconstruction and map per run.

    Every run has its own colour scale, from 0 to its `map_max`.
    """
    width = 2 * PAIR * len(examples) + 0.9
    height = PAIR * (1 + len(runs)) + 0.3
    figure = Figure(figsize=(width, height), dpi=EXAMPLES_DPI, layout="constrained")
    ratios = [*[1.0] * (2 * len(examples)), 0.06]
    grid = figure.subplots(1 + len(runs), len(ratios), width_ratios=ratios, squeeze=False)
    grid[0, -1].set_visible(False)
    for place, example in enumerate(examples):
        left, right = grid[0, 2 * place : 2 * place + 2]
        _draw_picture(left, example.image, None, 1.0)
        _draw_picture(right, example.mask, None, 1.0)
        left.set_title(printable(example.heading), fontsize=10, loc="left", parse_math=False)
        right.set_title("mask", fontsize=9, loc="right")
    for row, run in zip(grid[1:], runs, strict=True):
        for place, example in enumerate(examples):
            _draw_outputs(row[2 * place : 2 * place + 2], example, run, place)
        name = textwrap.fill(textwrap.shorten(printable(run.name), 60), 22)
        row[0].set_ylabel(name, fontsize=9, parse_math=False)
        _colour_bar(row[-1], run.map_max, labelsize=7)
    return figure


def _draw_outputs(axes: Sequence[Axes], example: Example, run: Outputs, place: int) -> None:
    """One run's reconstruction and map of one example."""
    _draw_picture(axes[0], run.reconstructions[place], None, 1.0, missing="no reconstruction")
    _draw_picture(axes[1], example.image, run.maps[place], run.map_max)
    axes[0].set_box_aspect(1)  # also where nothing is drawn
    axes[1].set_xlabel(f"score {run.scores[place]:.4g}", fontsize=8, loc="left", labelpad=2)


def _draw_picture(
    axes: Axes,
    picture: np.ndarray | None,
    anomaly: np.ndarray | None,
    map_max: float,
    missing: str = "no mask",
) -> None:
    """Draws a picture, or what `report.heat.overlay` makes of it and of a float map [h, w].

    `picture` is bool [H, W] or uint8 [H, W, 3]; for None it says what is `missing`.
    """
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#B0B0B0")
    if picture is None:
        axes.text(0.5, 0.5, missing, ha="center", va="center", color=GREY, fontsize=10)
        return
    if anomaly is not None:
        picture = overlay(picture, resize_map(anomaly, picture.shape[:2]), map_max)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1 if picture.dtype == bool else 255)


def _square(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=xlabel, ylabel=ylabel)
    axes.set_title(printable(title), fontsize=11, loc="left", parse_math=False)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _line(i: int, alike: bool) -> dict[str, Any]:
    """How the i-th line is drawn."""
    width = 1.8 if alike else 1.4 if i else 2.4
    colour, style = COLOURS[i % len(COLOURS)], STYLES[i % len(STYLES)]
    return {"color": colour, "linewidth": width, "linestyle": style, "zorder": 3 - bool(i)}


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", fontsize=8.5, framealpha=0.92, edgecolor="none")
