"""Clips on the page of a run: the score over time, key frames at its peaks, and overlay videos.

Frames are uint8 [H, W, 3], maps float32 [H, W], scores float [n] of one clip, labels int [n].
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.signal import find_peaks

from data.video_files import can_decode, write_mp4
from data.windows import clip_slices
from evaluation.clips import intervals_above
from evaluation.maps import resize_map
from evaluation.results import Scored
from evaluation.threshold import Threshold
from report import figures
from report.heat import overlay
from report.page import Section, embedded
from storage.files import safe_names, whole

KEY_FRAMES = 4
RATE = 10  # frames a second of overlays; folders of frames do not say theirs
_APART = 8  # frames between two peaks, at least
_TALL = 160  # pixels that an overlay has at least, lest a person see nothing
_BORDER = 4  # pixels, of a frame above the threshold
_ALARM = (213, 94, 0)


def clip_sections(folder: str, scored: Scored, threshold: Threshold) -> list[Section]:
    """The sections of all test clips; writes clip_<name>.png and overlay videos into `folder`."""
    os.makedirs(folder, exist_ok=True)
    slices = clip_slices(scored.paths)
    drawn = []
    for (clip, place), name in zip(slices.items(), safe_names([*slices]).values(), strict=True):
        maps = scored.maps[place]
        frames, scores = scored.images[place], scored.scores[place]
        figure = clip_figure(clip, frames, maps, scores, scored.labels[place], threshold)
        png = figures.png(figure)
        with whole(os.path.join(folder, f"clip_{name}.png")) as file:
            file.write(png)
        limit = threshold.threshold
        video = write_overlays(
            folder, f"overlay_{name}", frames, maps, scores > limit, threshold.map_max
        )
        caption = f"{clip}: {_stretches(scores, limit)}. The clip with its maps: {video}"
        drawn.append(embedded(png, caption))
    about = (
        "Shaded: frames labelled abnormal. Below, the frames at the highest peaks, with what "
        "of their maps no held-out good clip had. The first and last frames of a clip, around "
        "which no window fits, have the score of the nearest frame that has one. In the videos "
        "beside this page a frame above the threshold has a border."
    )
    return [Section("Score over time, clip by clip", drawn, about)]


def _stretches(scores: np.ndarray, limit: float) -> str:
    stretches = intervals_above(scores, limit)
    if not stretches:
        return "no frame above the threshold"
    named = ", ".join(f"{first + 1} to {last + 1}" for first, last in stretches[:8])
    more = f" and {len(stretches) - 8} stretches more" if len(stretches) > 8 else ""
    return f"above the threshold: frames {named}{more}"


def peaks(scores: np.ndarray, count: int = KEY_FRAMES) -> list[int]:
    """The frames of the highest local maxima, some frames apart, in order of time.

    >>> peaks(np.array([0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0]), 2)
    [1, 10]
    """
    scores = np.asarray(scores, float)
    beyond = np.full(1, scores.min() - 1)  # so that the first and last frame may be peaks
    places, _ = find_peaks(np.concatenate([beyond, scores, beyond]), distance=_APART)
    highest = sorted(places - 1, key=lambda place: -scores[place])[:count]
    return sorted(int(place) for place in highest)


def clip_figure(
    clip: str,
    frames: np.ndarray,
    maps: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: Threshold,
) -> Figure:
    """The score over time with the true intervals, above the key frames with their maps."""
    wide, tall, curve = 9.6, 4.6, 2.75  # inches
    figure = Figure(figsize=(wide, tall), dpi=100)
    axes = figures.panel(figure, 0, 0, wide, curve)
    for i, (first, last) in enumerate(intervals_above(labels, 0.5)):
        label = "labelled abnormal" if i == 0 else ""
        axes.axvspan(
            first + 0.5, last + 1.5, color=figures.COLOURS[4], alpha=0.25, lw=0, label=label
        )
    numbers = np.arange(1, len(scores) + 1)
    axes.plot(numbers, scores, color=figures.COLOURS[0], linewidth=1.4, label="score")
    limit = threshold.threshold
    axes.axhline(limit, color="black", linestyle="--", linewidth=1, label=f"threshold {limit:.4g}")
    chosen = peaks(scores)
    axes.plot(
        [i + 1 for i in chosen], scores[chosen], "v", color=figures.COLOURS[1], label="shown below"
    )
    axes.set(xlabel="frame", xlim=(1, max(2, len(scores))))
    axes.set_title(figures.printable(clip), fontsize=11, loc="left", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False)
    height, width = 1 - (curve + 0.3) / tall, 1 / KEY_FRAMES
    for place, i in enumerate(chosen):
        box = figure.add_axes((place * width, 0.02, width, height))
        box.set_axis_off()
        heat = resize_map(maps[i], frames[i].shape[:2])
        box.imshow(overlay(frames[i], heat, threshold.map_max))
        box.set_title(f"frame {i + 1}, score {scores[i]:.4g}", fontsize=9)
    return figure


def write_overlays(
    folder: str | os.PathLike[str],
    name: str,
    frames: Sequence[np.ndarray] | np.ndarray,
    maps: np.ndarray,
    above: np.ndarray,
    map_max: float,
) -> str:
    """Writes a clip with its maps as a video, and returns its file's name.

    As mp4 where PyAV is installed, else as an animated WEBP, both of which browsers play.
    """
    pictures = (
        framed(overlay(frame, resize_map(heat, frame.shape[:2]), map_max), bool(alarm))
        for frame, heat, alarm in zip(frames, maps, above, strict=True)
    )
    return write_video(Path(folder), name, pictures)


def framed(picture: np.ndarray, alarm: bool) -> np.ndarray:
    """The picture, enlarged where it is small, with a border where it is an alarm."""
    times = max(1, -(-_TALL // picture.shape[0]))
    large = picture.repeat(times, axis=0).repeat(times, axis=1)
    if alarm:
        inner = large[_BORDER:-_BORDER, _BORDER:-_BORDER].copy()
        large = np.broadcast_to(np.array(_ALARM, np.uint8), large.shape).copy()
        large[_BORDER:-_BORDER, _BORDER:-_BORDER] = inner
    height, width = large.shape[:2]
    return large[: height // 2 * 2, : width // 2 * 2]  # H.264 has even sides


def write_video(folder: Path, name: str, pictures: Iterator[np.ndarray]) -> str:
    """Writes uint8 [H, W, 3] pictures as <name>.mp4 or <name>.webp, whole or not at all."""
    if can_decode():
        path = folder / f"{name}.mp4"
        unfinished = path.with_suffix(".mp4.tmp")
        write_mp4(unfinished, pictures, RATE)
        unfinished.replace(path)
        return path.name
    path = folder / f"{name}.webp"
    first, *rest = (Image.fromarray(picture) for picture in pictures)
    with whole(path) as file:
        first.save(
            file,
            "WEBP",
            save_all=True,
            append_images=rest,
            duration=1000 // RATE,
            loop=0,
            quality=60,
            method=0,
        )
    return path.name
