"""What predict leaves of clips besides its rows: the intervals above the threshold, and videos.

output/intervals.csv     a row a stretch of frames above the threshold
       videos/           <number>_<clip>.mp4, or .webp: its maps; alarms have a border
"""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.windows import clip_slices
from deploy.prediction import DEFECTIVE, UNREADABLE
from evaluation.clips import intervals_above
from evaluation.drift import Watch, observe, start_watch
from evaluation.quality import Quality, mean_quality
from evaluation.threshold import Threshold
from report.over_time import framed, write_video
from storage.files import as_text, write_text

INTERVALS = "intervals.csv"
VIDEOS = "videos"
_COLUMNS = ("clip", "first", "last", "frames", "peak", "peak_score")


def write_clip_decisions(output: str, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Writes what is said of whole clips; `rows` are those of predictions.jsonl.

    Returns:
      How many clips have a frame above the threshold, and how many there are.

    Raises:
      OSError: `output` cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    folder = Path(output) / VIDEOS
    folder.mkdir(parents=True, exist_ok=True)
    slices, alarmed = clip_slices([row["path"] for row in rows]), 0
    for number, (clip, place) in enumerate(slices.items()):
        mine = [row for row in rows[place] if row["decision"] != UNREADABLE]
        if not mine:
            continue
        stretches = [*_stretches(clip, mine)]
        writer.writerows(stretches)
        alarmed += bool(stretches)
        name = re.sub("[^A-Za-z0-9_-]", "_", os.path.basename(clip))[:64]
        write_video(folder, f"{number:04d}_{name}", _pictures(output, mine))
    write_text(os.path.join(output, INTERVALS), text.getvalue())
    return alarmed, len(slices)


def watch_clips(rows: Sequence[Mapping[str, Any]], threshold: Threshold) -> Watch:
    """The watch over whole clips, each by its highest score, as the threshold was calibrated.

    And by what its frames are like, on average. Frames are not exchangeable, so that bets on them
    would prove nothing.
    """
    watch = start_watch(threshold)
    for place in clip_slices([row["path"] for row in rows]).values():
        mine = [row for row in rows[place] if row["decision"] != UNREADABLE]
        if mine:
            highest = max(row["score"] for row in mine)
            frames = [Quality(*(row[name] for name in Quality._fields)) for row in mine]
            alarm = highest > threshold.threshold
            watch = observe(watch, highest, mean_quality(frames), defective=alarm)
    return watch


def _stretches(clip: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """A row of the table for each stretch of the frames of one clip."""
    scores = np.array([row["score"] for row in rows])
    for first, last in intervals_above(scores, rows[0]["threshold"]):
        peak = first + int(scores[first : last + 1].argmax())
        names = [as_text(os.path.basename(rows[i]["path"])) for i in (first, last, peak)]
        score = repr(float(scores[peak]))
        yield [as_text(clip), *names[:2], last - first + 1, names[2], score]


def _pictures(output: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[np.ndarray]:
    for row in rows:
        with Image.open(os.path.join(output, "overlays", f"{row['pictures']}.png")) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        yield framed(pixels, row["decision"] == DEFECTIVE)
