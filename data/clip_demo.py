"""Generated clips: parts on a belt that runs to the right, and four kinds of what goes wrong.

A part is a bright square with a dark hole; all parts of a clip move at the belt's speed. In a test
clip one part, for a while, is too fast, moves backwards, is stuck, or is foreign: a triangle.
"""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data.clip_scan import LABELS_FILE
from data.demo import is_demo
from storage.outputs import DEMO_FILE

CLIP_KINDS = ("fast", "backwards", "stuck", "foreign")
"""What goes wrong in test clips, the beginning of their names; 'good' is the fifth."""

_VERSION = 1
_BELT, _PART, _HOLE = 70.0, 190.0, 90.0  # grey levels
_FAST = 3.0  # times the belt's speed


class _Lane(NamedTuple):
    """A row of parts, one behind the other."""

    row: float
    half: float  # of a part's side, pixels
    first: float  # column of one part at frame 0
    gap: float  # between parts


def generate_clips(
    root: str,
    *,
    seed: int = 0,
    size: int = 64,
    frames: int = 32,
    train: int = 80,
    good: int = 6,
    bad: int = 3,
) -> None:
    """Writes the data set to <root>/demo, or does nothing where it is there with these settings.

    Grey frames of size x size px in training/frames/<clip>/ (`train` clips), testing/frames/<clip>/
    (`good`, and `bad` for each of CLIP_KINDS), masks in testing/masks/, frame_labels.csv, and the
    settings in demo.json. The folder appears only when it is complete.

    Raises:
      ValueError: a number is out of range, or <root>/demo holds anything else.
      OSError: it cannot be written.
    """
    if seed < 0 or size < 32 or frames < 8 or min(train, good, bad) < 1:
        raise ValueError("demo clips: need seed >= 0, size >= 32, frames >= 8 and counts >= 1")
    counts = {"frames": frames, "train": train, "good": good, "bad": bad}
    settings = json.dumps({"clips": _VERSION, "seed": seed, "size": size, **counts}).encode()
    folder = Path(root) / "demo"
    if is_demo(folder, settings, frames * (train + 2 * (good + len(CLIP_KINDS) * bad))):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".demo-") as hidden:
        unfinished = Path(hidden) / "demo"
        for number in range(train):
            clip, _ = render_clip([seed, 0, number], "good", size=size, frames=frames)
            _write(unfinished / "training" / "frames" / f"{number:03d}", clip)
        rows: list[tuple[str, int, int, str]] = []
        for kind in ("good", *CLIP_KINDS):
            for number in range(good if kind == "good" else bad):
                name = f"{kind}_{number:02d}"
                entropy = [seed, 1 + ("good", *CLIP_KINDS).index(kind), number]
                clip, masks = render_clip(entropy, kind, size=size, frames=frames)
                _write(unfinished / "testing" / "frames" / name, clip)
                _write(unfinished / "testing" / "masks" / name, masks.astype(np.uint8) * 255)
                abnormal = masks.reshape(frames, -1).max(axis=1).tolist()
                rows += [(name, i + 1, int(one), kind) for i, one in enumerate(abnormal)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [("clip", "frame", "abnormal", "kind"), *rows]
        )
        (unfinished / LABELS_FILE).write_text(text.getvalue(), encoding="utf-8")
        (unfinished / DEMO_FILE).write_bytes(settings)
        unfinished.rename(folder)


def _write(folder: Path, pictures: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures, start=1):
        Image.fromarray(picture).save(folder / f"{number:04d}.png")


def render_clip(
    entropy: list[int], kind: str, *, size: int = 64, frames: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """A clip, uint8 [frames, size, size], and what is abnormal, bool of the same shape.

    Raises ValueError for an unknown kind.
    """
    if kind not in ("good", *CLIP_KINDS):
        raise ValueError(f"unknown kind {kind!r}: choose good or one of {', '.join(CLIP_KINDS)}")
    rng = np.random.default_rng(entropy)
    speed = rng.uniform(1.0, 1.6) * size / 64
    lanes = [_lane(rng, size, row) for row in (0.27, 0.73)]
    grain = _grain(rng, size)
    light = rng.uniform(0.92, 1.08)
    noise = rng.normal(0, 2.0, (frames, size, size))
    wrong = int(rng.integers(len(lanes)))
    start, end = _interval(rng, frames)
    clip = np.empty((frames, size, size), np.uint8)
    masks = np.zeros((frames, size, size), bool)
    for time in range(frames):
        belt = _BELT + grain[:, (np.arange(size) - round(speed * time)) % size]
        for number, lane in enumerate(lanes):
            affected = kind != "good" and number == wrong
            belt, odd = _draw_lane(
                belt, lane, speed, time, kind if affected else "good", start, end
            )
            masks[time] |= odd
        clip[time] = np.rint(np.clip(light * belt + noise[time], 0, 255))
    return clip, masks


def _lane(rng: np.random.Generator, size: int, row: float) -> _Lane:
    half = rng.uniform(0.07, 0.09) * size
    gap = rng.uniform(0.42, 0.55) * size
    return _Lane(row * size + rng.uniform(-0.04, 0.04) * size, half, rng.uniform(0, gap), gap)


def _grain(rng: np.random.Generator, size: int) -> np.ndarray:
    """The belt's own pattern, which runs with it: columns of slightly different grey."""
    stripes = rng.normal(0, 4.0, (1, size))
    return np.repeat(stripes, size, axis=0)


def _interval(rng: np.random.Generator, frames: int) -> tuple[int, int]:
    """From where to where something is wrong: about a third of the clip, in its middle."""
    length = frames // 3
    start = int(rng.integers(frames // 4, frames - length - frames // 8 + 1))
    return start, start + length


def _draw_lane(
    belt: np.ndarray, lane: _Lane, speed: float, time: int, kind: str, start: int, end: int
) -> tuple[np.ndarray, np.ndarray]:
    """The belt with a lane's parts, and the pixels of the one that is wrong at this time."""
    size = len(belt)
    belt, odd = belt.copy(), np.zeros_like(belt, bool)
    count = int(size // lane.gap) + 4
    middle = speed * (start + end) / 2  # how far the belt has run half way through
    victim = round((size / 2 - lane.first - middle) / lane.gap)
    for number in range(victim - count, victim + count + 1):
        wrong = kind != "good" and number == victim and start <= time < end
        moved = _moved(speed, time, kind if wrong else "good", start)
        column = lane.first + number * lane.gap + moved
        if not -2 * lane.half < column < size + 2 * lane.half:
            continue
        part, hole = _shape(size, lane.row, column, lane.half, triangle=wrong and kind == "foreign")
        belt = np.where(part, _PART, belt)
        belt = np.where(hole, _HOLE, belt)
        if wrong:
            odd |= part
    return belt, odd


def _moved(speed: float, time: int, kind: str, start: int) -> float:
    """How far a part has come at `time`; one that goes wrong does so from `start` on."""
    factor = {"fast": _FAST, "backwards": -1.0, "stuck": 0.0}.get(kind, 1.0)
    return (
        speed * (min(time, start) + factor * max(time - start, 0))
        if kind != "good"
        else speed * time
    )


def _shape(
    size: int, row: float, column: float, half: float, *, triangle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a part and of its hole: bool [size, size] each."""
    v, u = (np.arange(size)[:, None] - row) / half, (np.arange(size)[None] - column) / half
    if triangle:
        part = (np.abs(u) < (v + 1) / 2) & (np.abs(v) < 1)
        return part, np.zeros_like(part)
    part = (np.abs(u) < 1) & (np.abs(v) < 1)
    return part, np.hypot(u, v) < 0.4
