"""Which clips there are, which of their frames are labelled, and all that is wrong with them.

    <root>/<category>/training/frames/<clip>/*001.png ...  frames of clips in which all is good
                      testing/frames/<clip>/*001.png ...   frames of clips that are tested with
                      frame_labels.csv                     clip,frame,abnormal[,kind] of the latter
                      testing/labels/<clip>.npy            or this: 0 or 1 for each frame
                      testing/masks/<clip>/*001.png ...    what is abnormal in a frame, where known

A clip may be a video file, `<clip>.mp4`, in place of its folder. A folder of own good clips has
them without more: `<folder>/<clip>/*001.png`. The number at the end of a frame's name orders it.
"""

import csv
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.images import is_image_name, one_line
from data.video_files import is_video_name
from storage.files import some_of

LABELS_FILE = "frame_labels.csv"
"""The table of labels of a data set."""

ABNORMAL = "abnormal"
"""The kind of an abnormal frame of which no label says more."""
_COLUMNS = ("clip", "frame", "abnormal")


class ClipFiles(NamedTuple):
    """A clip: its frames' files in order, or the one video file that holds them."""

    name: str
    path: Path  # the folder, or the video file
    frames: list[Path]  # empty where it is a video file


class FrameLabels(NamedTuple):
    """What is said of a clip's frames."""

    numbers: list[int] | None  # of the frames; None where the file numbers none
    abnormal: np.ndarray  # int64 [n], 0 or 1
    kinds: list[str]  # n of 'good' or what is abnormal
    source: str  # the file


class ClipSurvey(NamedTuple):
    """The clips of a data set, whatever is wrong with them."""

    root: Path
    training: list[ClipFiles]
    testing: list[ClipFiles]
    labels: dict[str, FrameLabels]  # by the name of a test clip
    masks: dict[str, dict[int, Path]]  # clip -> number of a frame -> its mask
    faults: list[str]  # one line each, with the way out


def survey_clips(root: str | os.PathLike, category: str, folder: str | os.PathLike) -> ClipSurvey:
    """The clips below `root`/`category`, or the good ones in `folder` where that is given.

    Raises:
      FileNotFoundError: there is no such folder.
      OSError: a folder cannot be listed.
    """
    faults: list[str] = []
    if folder:
        place = Path(folder).expanduser()
        if not place.is_dir():
            raise FileNotFoundError(f"data.folder: {place} is no folder: name one that holds clips")
        training = list_clips(place, faults)
        if not training:
            faults.append(_no_clips(place))
        return ClipSurvey(place, training, [], {}, {}, faults)
    place = Path(root).expanduser() / category
    trained = place / "training" / "frames"
    if not trained.is_dir():
        raise FileNotFoundError(
            f"there is no folder {trained}: a data set of clips has training/frames/<clip>/ and "
            "testing/frames/<clip>/ (docs/methods/video.md); set data.root to the folder that "
            f"holds {category}/"
        )
    training = list_clips(trained, faults)
    if not training:
        faults.append(_no_clips(trained))
    tested = place / "testing" / "frames"
    testing = list_clips(tested, faults) if tested.is_dir() else []
    labels = _labels(place, testing, faults)
    masks = {clip.name: _masks(place / "testing" / "masks" / clip.name, faults) for clip in testing}
    return ClipSurvey(place, training, testing, labels, masks, faults)


def _no_clips(folder: Path) -> str:
    return (
        f"{one_line(folder)} holds no clip: put a folder of frames, or a video file, a clip there"
    )


def list_clips(folder: Path, faults: list[str]) -> list[ClipFiles]:
    """The clips in a folder, sorted by name; a folder without a frame is none."""
    clips = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if frames := frames_of(path, faults):
                clips.append(ClipFiles(path.name, path, frames))
        elif is_video_name(path):
            clips.append(ClipFiles(path.name, path, []))
    return clips


def frames_of(folder: Path, faults: list[str]) -> list[Path]:
    """The frames in a folder by the numbers that end their names; what is odd goes to `faults`."""
    images = sorted(path for path in folder.iterdir() if path.is_file() and is_image_name(path))
    images = [path for path in images if not path.name.startswith(".")]
    numbered = {path: frame_number(path) for path in images}
    without = [path.name for path, number in numbered.items() if number is None]
    if without:
        faults.append(
            f"{one_line(folder)}: frames without a number at the end of their names: "
            f"{one_line(some_of(without))}; rename them, such as frame_0001.png"
        )
    frames = sorted((path for path in images if numbered[path] is not None), key=_number)
    numbers = [_number(path) for path in frames]
    faults.extend(_gaps(folder, numbers))
    return frames


def frame_number(path: Path) -> int | None:
    """The number at the end of a frame's name: 17 of 'frame_0017.png'; None where there is none."""
    match = re.search(r"([0-9]{1,18})$", path.stem)
    return int(match[1]) if match else None


def _number(path: Path) -> int:
    return frame_number(path) or 0


def _gaps(folder: Path, numbers: Sequence[int]) -> list[str]:
    """Frames that are missing, or there twice: a window across them would see a jump."""
    odd = [f"{before} to {after}" for before, after in pairwise(numbers) if after != before + 1]
    if not odd:
        return []
    return [
        f"{one_line(folder)}: frame numbers jump from {some_of(odd)}: put the missing frames back, "
        "or make a clip of its own of what comes after a gap"
    ]


# ---------------------------------------------------------------- labels and masks


def _labels(place: Path, testing: Sequence[ClipFiles], faults: list[str]) -> dict[str, FrameLabels]:
    """Of all test clips, or of none; a clip that alone has none is a fault."""
    table = place / LABELS_FILE
    by_name = _read_table(table, faults) if table.is_file() else {}
    labels = {}
    for clip in testing:
        if said := by_name.get(clip.name) or by_name.get(Path(clip.name).stem):
            labels[clip.name] = said
        path = place / "testing" / "labels" / f"{Path(clip.name).stem}.npy"
        if path.is_file():
            labels |= _read_array(clip.name, path, faults)
    if labels and (missing := [clip.name for clip in testing if clip.name not in labels]):
        faults.append(
            f"{one_line(place)}: test clips without labels: {one_line(some_of(missing))}; add them "
            f"to {LABELS_FILE}, or remove the clips"
        )
    return labels


def _read_table(path: Path, faults: list[str]) -> dict[str, FrameLabels]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"it has no column {missing[0]}")
            by_clip: dict[str, dict[int, tuple[int, str]]] = {}
            for line, row in enumerate(rows, start=2):
                number, abnormal = int(row["frame"]), row["abnormal"]
                if abnormal not in ("0", "1"):
                    raise ValueError(f"line {line}: abnormal is {abnormal!r}, not 0 or 1")
                frames = by_clip.setdefault(row["clip"], {})
                if number in frames:
                    raise ValueError(f"line {line}: frame {number} of {row['clip']} a second time")
                frames[number] = (int(abnormal), row.get("kind") or ABNORMAL)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        faults.append(
            f"{one_line(path)} is no table of labels ({one_line(error)}): its columns are "
            "clip,frame,abnormal, a row a frame"
        )
        return {}
    return {clip: _of_frames(frames, str(path)) for clip, frames in by_clip.items()}


def _of_frames(frames: dict[int, tuple[int, str]], source: str) -> FrameLabels:
    numbers = sorted(frames)
    abnormal = np.array([frames[number][0] for number in numbers], np.int64)
    kinds = [frames[number][1] if frames[number][0] else "good" for number in numbers]
    return FrameLabels(numbers, abnormal, kinds, source)


def _read_array(name: str, path: Path, faults: list[str]) -> dict[str, FrameLabels]:
    try:
        values = np.load(path, allow_pickle=False)
        if values.ndim != 1 or not np.isin(values, (0, 1)).all():
            raise ValueError(f"{values.dtype} {list(values.shape)}")
    except (OSError, ValueError, EOFError) as error:
        faults.append(
            f"{one_line(path)} holds no labels ({one_line(error)}): give a 0 or 1 for each frame"
        )
        return {}
    labels = values.astype(np.int64)
    kinds = [ABNORMAL if label else "good" for label in labels]
    return {name: FrameLabels(None, labels, kinds, str(path))}


def _masks(folder: Path, faults: list[str]) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    paths = [path for path in sorted(folder.iterdir()) if is_image_name(path)]
    without = [path.name for path in paths if frame_number(path) is None]
    if without:
        faults.append(f"{one_line(folder)}: masks without a number: {one_line(some_of(without))}")
    return {_number(path): path for path in paths if frame_number(path) is not None}


def label_fault(clip: ClipFiles, count: int, labels: FrameLabels) -> str:
    """What is wrong with the labels of a clip of `count` frames; '' if nothing."""
    said = len(labels.abnormal)
    if said != count:
        return (
            f"{one_line(clip.path)} has {count} frames, and {one_line(labels.source)} labels of "
            f"{said}: give one for each frame"
        )
    there = [_number(path) for path in clip.frames]
    if labels.numbers is not None and there and labels.numbers != there:
        return (
            f"{one_line(clip.path)} has the frames {there[0]} to {there[-1]}, and "
            f"{one_line(labels.source)} labels of {labels.numbers[0]} to {labels.numbers[-1]}: "
            "number both alike, lest labels be shifted"
        )
    return ""
