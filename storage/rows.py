"""Arrays of any number of rows that stay in a file until they are asked for: they take no memory.

What is asked for is read anew each time, and is the caller's.
"""

import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import numpy as np


class Stack(Protocol):
    """An array [N, ...], or what lies in a file and is indexed as an array's first axis is."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: Any, /) -> np.ndarray:
        """The row at an int, or those of a slice or an array of ints, in memory."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each row."""


class Bytes:
    """The bytes of an open file, also when it is closed and another has taken its name."""

    def __init__(self, file: BinaryIO, name: str | None = None) -> None:
        """Keeps the file open for as long as this object lives; `name` is what errors call it."""
        self.name = name or file.name
        self._number = os.dup(file.fileno())
        self._changed = os.fstat(self._number).st_mtime_ns
        weakref.finalize(self, os.close, self._number)

    def read(self, start: int, count: int) -> np.ndarray:
        """uint8 [count] from `start` on.

        Raises:
          OSError: the file was written to since, by others.
        """
        data, done = np.empty(count, np.uint8), 0
        while done < count and (read := os.preadv(self._number, [data[done:].data], start + done)):
            done += read  # at most 2 GiB at a time
        if done < count or os.fstat(self._number).st_mtime_ns != self._changed:
            raise OSError(f"{self.name} was changed while it was in use: start again")
        return data

    def append(self, data: np.ndarray) -> None:
        """Writes contiguous `data` behind what the file holds.

        Raises:
          OSError: the disk is full.
        """
        rest = data.view(np.uint8).ravel().data
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except OSError as error:
            raise OSError(
                f"Cannot write a temporary file in {self.name} ({error.strerror}): free space"
            ) from error
        self._changed = os.fstat(self._number).st_mtime_ns


class Rows:
    """Rows of one shape and type that lie in a file; a `Stack`."""

    def __init__(
        self,
        file: Bytes,
        starts: range | np.ndarray,
        shape: tuple[int, ...],
        dtype: Any = np.uint8,
    ) -> None:
        """Of rows of one `shape`; `starts`, a range or int64 [N], says where each begins."""
        self._file, self._starts = file, starts
        self.shape = (len(starts), *shape)
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        """N."""
        return len(self._starts)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The row at an int, or those of a slice or an array of indices."""
        size = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        rows: np.ndarray
        if isinstance(index, slice):
            starts = self._starts[index]
            if isinstance(starts, range) and starts.step == size:  # one after another
                data = self._file.read(starts.start, len(starts) * size)
                rows = data.view(self.dtype).reshape(len(starts), *self.shape[1:])
                return rows
        starts = np.asarray(self._starts)[index]
        data = np.empty((starts.size, size), np.uint8)
        for row, start in zip(data, starts.ravel(), strict=True):
            row[:] = self._file.read(int(start), size)
        rows = data.view(self.dtype).reshape((*starts.shape, *self.shape[1:]))
        return rows

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each row."""
        return (self[index : index + 1][0] for index in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows, in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def append(self, rows: np.ndarray) -> None:
        """Writes `rows` [M, ...] behind those of `temporary`, whose shape and type they have.

        Raises:
          OSError: the disk is full.
        """
        self._file.append(np.ascontiguousarray(rows))
        self.shape, self.dtype = (len(self) + len(rows), *rows.shape[1:]), rows.dtype
        size = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        self._starts = range(0, self.shape[0] * size, size)

    def take(self, indices: np.ndarray) -> "Rows":
        """The rows at `indices`, int [M], which stay where they are."""
        return Rows(self._file, np.asarray(self._starts)[indices], self.shape[1:], self.dtype)

    def join(self, other: "Rows") -> "Rows":
        """These rows and then the others, of the same file, shape and type."""
        starts = np.concatenate([np.asarray(self._starts), np.asarray(other._starts)])
        return Rows(self._file, starts, self.shape[1:], self.dtype)


def temporary(folder: str | None = None) -> Rows:
    """No rows yet, to append to, in a file of `folder`, or of the system's for temporary files.

    The file has no name: it goes with the rows, and whatever ends the program leaves none.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        return Rows(Bytes(file, folder or tempfile.gettempdir()), range(0), ())


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

    def take(self, indices: np.ndarray) -> "Masks":
        """The masks at `indices`, int [M], which stay where they are."""
        taken = Masks(self._file, 0, self._sizes[indices])
        taken._ends = self._ends[indices]
        return taken


def packed_bytes(sizes: np.ndarray) -> np.ndarray:
    """How many bytes the bits of masks of int `sizes` [N, 2] take: int [N]."""
    counts: np.ndarray = (sizes.prod(axis=1) + 7) // 8
    return counts
