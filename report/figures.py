"""The figures of a page, by matplotlib; whoever asks for one saves it or embeds it.

`labels` are int `[N]`, 1 = defective; scores float `[N]`, higher = more anomalous. The colours are
those of Okabe and Ito, which colour-blind readers can tell apart; line styles differ as well.
"""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn import metrics

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")
GREY = "#6B6B6B"
DPI = 150
NOT_METRICS = ("stage", "step", "steps_per_second", "seconds")
PANELS = 3  # histograms in a row
_COMPRESSION = 4  # of PNG files: 9 takes six times as long, for 4 % less
# Inches.
_SQUARE = 5.6  # of a curve
_AROUND = (0.65, 0.5, 0.2, 0.3)  # axes: labels left and below, half a label right, a title above
Scores = Mapping[str, np.ndarray]  # by name, float [N]


def printable(text: str) -> str:
    """At most 64 characters of `text`, with ? for those that matplotlib's own font may lack."""
    return "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in text[:64])


def png(drawn: Figure | Image.Image) -> bytes:
    """A figure or a sheet (report/sheets.py) as a PNG file."""
    if isinstance(drawn, Figure):
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    file = io.BytesIO()
    drawn.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes with room for their labels, in so many inches right of and below a place of `figure`.

    Places are fixed: matplotlib draws a figure twice to find better ones.
    """
    wide, tall = figure.get_size_inches()
    before, below, after, above = _AROUND
    bottom = tall - top - height + below
    size = (width - before - after) / wide, (height - below - above) / tall
    return figure.add_axes(((left + before) / wide, bottom / tall, *size))


def _axes(width: float, height: float) -> Axes:
    """All of a new figure of so many inches."""
    return panel(Figure(figsize=(width, height), dpi=DPI), 0, 0, width, height)


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
    axes = axes or _axes(_SQUARE, _SQUARE)
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
    axes = axes or _axes(_SQUARE, _SQUARE)
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
    figure = Figure(figsize=(2 * _SQUARE, _SQUARE), dpi=DPI)
    left, right = (panel(figure, place, 0, _SQUARE, _SQUARE) for place in (0, _SQUARE))
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
    width, height = 4.0, 2.9
    size = (width * columns, height * math.ceil(len(scores) / columns))
    figure = Figure(figsize=size, dpi=DPI)
    for place, (name, values) in enumerate(scores.items()):
        axes = panel(figure, place % columns * width, place // columns * height, width, height)
        histogram(labels, values, textwrap.shorten(printable(name), 44), axes=axes)
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
    width, height, heading = max(2.6, 6.4 / columns), 2.0, 0.3
    tall = heading + sum(rows) * height + len(rows) * heading
    figure = Figure(figsize=(width * columns, tall), dpi=DPI)
    _write(figure, 0.2, title, fontsize=12)
    top = heading
    for (stage, names), count in zip(stages.items(), rows, strict=True):
        _write(figure, top + 0.17, f"stage {stage}", fontsize=10, color=GREY)
        top += heading
        for place, name in enumerate(sorted(names)):
            down, left = top + place // columns * height, place % columns * width
            _curve(panel(figure, left, down, width, height), name, names[name])
        top += count * height
    return figure


def _write(figure: Figure, top: float, text: str, **style: Any) -> None:
    """Writes `text` at the left, above so many inches from the top."""
    tall = figure.get_size_inches()[1]
    figure.text(0.01, 1 - top / tall, printable(text), parse_math=False, **style)


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
