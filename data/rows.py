"""Images and masks that stay in their file until they are asked for: N of them take no memory.

What is asked for is read anew each time, and is the caller's.
"""

import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np


class Bytes:
    """The bytes of an open file, also when it is closed and another has taken its name."""

    def __init__(self, file: BinaryIO) -> None:
        """Keeps the file open for as long as this object lives."""
        self._name, self._number = file.name, os.dup(file.fileno())
        self._changed = os.fstat(self._number).st_mtime_ns
        weakref.finalize(self, os.close, self._number)

    def read(self, start: int, count: int) -> np.ndarray:
        """uint8 [count] from `start` on, read-only.

        Raises:
          OSError: the file itself was written to since.
        """
        data = os.pread(self._number, count, start)
        if len(data) < count or os.fstat(self._number).st_mtime_ns != self._changed:
            raise OSError(f"{self._name} was changed while it was in use: start again")
        return np.frombuffer(data, np.uint8)


class Rows:
    """Images, uint8 [N, S, S, 3], that lie anywhere in a file; indexed as an array's first axis."""

    def __init__(self, file: Bytes, starts: np.ndarray, shape: tuple[int, ...]) -> None:
        """Of images of one `shape`, [S, S, 3]; int64 [N] says where each begins."""
        self._file, self._starts = file, starts
        self.shape = (len(starts), *shape)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        """N."""
        return len(self._starts)

    def __getitem__(self, index: Any) -> np.ndarray:
        """One image [S, S, 3], or those of a slice or an array of indices."""
        starts, shape = self._starts[index], self.shape[1:]
        rows = np.empty((*starts.shape, *shape), np.uint8)
        for row, start in zip(rows.reshape(-1, *shape), starts.ravel(), strict=True):
            row[:] = self._file.read(int(start), row.size).reshape(shape)
        return rows

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each image."""
        return (self[index] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All images, in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, indices: np.ndarray) -> "Rows":
        """The images at `indices`, int [M], which stay where they are."""
        return Rows(self._file, self._starts[indices], self.shape[1:])

    def join(self, other: "Rows") -> "Rows":
        """These images and then the others, of the same file and shape."""
        return Rows(self._file, np.concatenate([self._starts, other._starts]), self.shape[1:])


class Masks(Sequence[np.ndarray | None]):
    """Masks, bool [h, w] each, that lie in a file one after another, or None."""

    def __init__(self, file: Bytes, start: int, sizes: np.ndarray) -> None:
        """Of packed masks from `start` on; int64 [N, 2] are their sizes, 0 where there is none."""
        self._file, self._sizes = file, sizes
        self._ends = start + np.cumsum(packed_bytes(sizes))

    def __len__(self) -> int:
        """N."""
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        """One mask, or the list of those of a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        height, width = map(int, self._sizes[index])
        if not height:
            return None
        count = (height * width + 7) // 8
        bits = self._file.read(int(self._ends[index]) - count, count)
        return np.unpackbits(bits, count=height * width).reshape(height, width).view(bool)


def packed_bytes(sizes: np.ndarray) -> np.ndarray:
    """How many bytes the bits of masks of int `sizes` [N, 2] take: int [N]."""
    return (sizes.prod(axis=1) + 7) // 8
