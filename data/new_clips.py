"""New clips to decide on: a video file, a folder of frames, or a folder of these; a photo a frame.

A clip that cannot be read, or has too few frames, is reported at each of its frames. The frames of
all clips lie in memory, at the size of the network.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.clip_scan import ClipFiles, frames_of, list_clips
from data.clips import ClipSettings, decode_clip, short_fault
from data.images import is_image_name
from data.photos import Photo
from data.video_files import is_video_name
from data.windows import Windows, centred_starts


class NewFrame(NamedTuple):
    """A frame of a new clip, or the reason why there is none."""

    path: str
    windows: Windows | None  # of its clip; None where that cannot be read
    place: int  # of the frame in its clip
    size: tuple[int, int]  # height and width in the file
    reason: str


def find_clips(place: str) -> tuple[list[ClipFiles], dict[str, str]]:
    """The clips that a path names, and what is wrong with the names of some of them, by clip.

    Raises:
      ValueError: there is no video file and no frame.
      OSError: the folder cannot be listed.
    """
    path = Path(os.path.expanduser(place))
    faults: list[str] = []
    if path.is_file() and is_video_name(path):
        return [ClipFiles(path.name, path, [])], {}
    clips: list[ClipFiles] = []
    if path.is_dir():
        direct = any(each.is_file() and is_image_name(each) for each in path.iterdir())
        if direct:
            frames = frames_of(path, faults)
            clips = [ClipFiles(path.name, path, frames)] if frames else []
        else:
            clips = list_clips(path, faults)
    if not clips:
        raise ValueError(
            f"{place!r} is no clip: name a video file, a folder of numbered frames, or a folder of "
            "such"
        )
    return clips, {
        clip.name: fault for clip in clips for fault in faults if fault.startswith(f"{clip.path}: ")
    }


def read_frames(
    clips: Sequence[ClipFiles], faults: dict[str, str], settings: ClipSettings
) -> list[NewFrame]:
    """All frames of all clips, in order; those of a clip that cannot be read have the reason."""
    return [frame for clip in clips for frame in _read(clip, faults.get(clip.name, ""), settings)]


def _read(clip: ClipFiles, fault: str, settings: ClipSettings) -> list[NewFrame]:
    try:
        if fault:
            raise ValueError(fault)
        decoded = decode_clip(clip, clip.path.parent, settings)
        count = len(decoded.frames)
        if reason := short_fault(clip, count, settings.length, "a window"):
            raise ValueError(reason)
    except ValueError as error:
        paths = clip.frames or [clip.path]
        return [NewFrame(str(path), None, 0, (0, 0), str(error)) for path in paths]
    windows = Windows(decoded.frames, centred_starts([count], settings.length), settings.length)
    paths = clip.frames or [clip.path / f"{number:06d}" for number in range(1, count + 1)]
    return [
        NewFrame(str(path), windows, place, decoded.size, "") for place, path in enumerate(paths)
    ]


def photo_of(frame: NewFrame) -> Photo:
    """A photo whose pixels are the frame's window, uint8 [H, W, T], for `predict_all`."""
    if frame.windows is None:
        return Photo(frame.path, None, None, (0, 0), frame.reason)
    shown = np.asarray(frame.windows.shown()[frame.place])
    return Photo(frame.path, frame.windows[frame.place], shown, frame.size, "", of_clip=True)
