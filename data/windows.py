"""Windows of consecutive frames: time as channels, so that a window is an image of T channels.

A *clip* is one recording, a *window* is T of its frames, and none crosses a clip's border. Frames
are uint8 [F, H, W], clip after clip; `counts` says how many each clip has.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np


class Windows:
    """Windows that are cut from frames when they are asked for: a `storage.rows.Stack`."""

    def __init__(self, frames: np.ndarray, starts: np.ndarray, length: int) -> None:
        """Of `length` frames each, from the frames at `starts`, int [N], on."""
        self.frames, self.starts, self.length = frames, np.asarray(starts, np.int64), length
        self.shape = (len(self.starts), *frames.shape[1:], length)
        self.dtype = frames.dtype

    def __len__(self) -> int:
        """N."""
        return len(self.starts)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The window at an int, uint8 [H, W, T], or those of a slice or an array of ints."""
        places = self.starts[index][..., None] + np.arange(self.length)
        return np.moveaxis(self.frames[places], -3, -1)

    def shown(self) -> np.ndarray:
        """The frames themselves, of which each has its window: uint8 [F, H, W, 3], grey."""
        return np.broadcast_to(self.frames[..., None], (*self.frames.shape, 3))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each window."""
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All windows, in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)


def every_start(counts: Sequence[int], length: int) -> np.ndarray:
    """Where windows of `length` frames may begin: int64 [N].

    >>> every_start([4, 3], 3).tolist()
    [0, 1, 4]
    """
    firsts = np.cumsum([0, *counts])[:-1]
    places = [
        np.arange(count - length + 1) + first for first, count in zip(firsts, counts, strict=True)
    ]
    return np.concatenate([np.zeros(0, np.int64), *places])


def centred_starts(counts: Sequence[int], length: int) -> np.ndarray:
    """Where the window of each frame begins, in whose middle, `length` // 2, the frame lies.

    The first and last frames of a clip, around which no window fits, have that of the nearest one.

    >>> centred_starts([5, 3], 3).tolist()
    [0, 0, 1, 2, 2, 5, 5, 5]
    """
    firsts = np.cumsum([0, *counts])[:-1]
    places = [
        np.clip(np.arange(count) - length // 2, 0, count - length) + first
        for first, count in zip(firsts, counts, strict=True)
    ]
    return np.concatenate([np.zeros(0, np.int64), *places])


def clip_of(path: str) -> str:
    """The clip that a frame of this path belongs to: 'testing/frames/03' of '.../03/017.png'."""
    return path.rpartition("/")[0]


def clip_slices(paths: Sequence[str]) -> dict[str, slice]:
    """Clip -> where its frames lie among `paths`, which have one clip after another.

    >>> clip_slices(["a/1", "a/2", "b/1"])
    {'a': slice(0, 2, None), 'b': slice(2, 3, None)}
    """
    clips = [clip_of(path) for path in paths]
    borders = [0, *(i for i in range(1, len(clips)) if clips[i] != clips[i - 1]), len(clips)]
    return {clips[a]: slice(a, b) for a, b in pairwise(borders) if b > a}
