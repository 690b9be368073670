"""Arrays of any number of rows in temporary files: they take disk, and no memory."""

import os
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np


class Stack(Protocol):
    """An array [N, ...], or what lies in a file and is indexed as an array's first axis is."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: Any, /) -> np.ndarray:
        """The row at an int, or those of a slice or an array of ints, in memory."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each row."""


class Rows:
    """Rows of one shape and type in a temporary file; a `Stack` that grows.

    The file has no name: it goes with this object, and whatever ends the program leaves none.
    """

    def __init__(self, folder: str | None = None) -> None:
        """With the file in `folder`; in the system's folder of temporary files, if None."""
        with tempfile.TemporaryFile(dir=folder) as file:
            self._number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._number)
        self._folder = folder or tempfile.gettempdir()
        self.shape: tuple[int, ...] = (0,)
        self.dtype = np.dtype(np.uint8)

    def append(self, rows: np.ndarray) -> None:
        """Writes `rows` [M, ...] after those before, whose shape and type they have.

        Raises:
          OSError: the disk is full.
        """
        self.shape, self.dtype = (len(self) + len(rows), *rows.shape[1:]), rows.dtype
        rest = np.ascontiguousarray(rows).view(np.uint8).ravel().data
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except OSError as error:
            raise OSError(
                f"Cannot write a temporary file in {self._folder} ({error.strerror}): free space"
            ) from error

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """The row at an int, or those of a slice or an array of ints, in memory."""
        if isinstance(index, slice) and (index.step or 1) == 1:
            start, stop, _ = index.indices(len(self))
            return self._read(start, max(stop - start, 0))
        places = np.arange(len(self))[index]
        rows = [self._read(int(place), 1) for place in places.ravel()]
        return np.concatenate([self._read(0, 0), *rows]).reshape((*places.shape, *self.shape[1:]))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each row."""
        return (self[place] for place in range(len(self)))

    def _read(self, start: int, count: int) -> np.ndarray:
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        data = os.pread(self._number, count * row, start * row)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def write_npz(path: str, arrays: Mapping[str, np.ndarray | Rows]) -> None:
    """As `np.savez_compressed`, but as a whole or not at all, and row by row from `Rows`."""
    new = f"{path}.tmp"
    try:
        with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_npy(member, array)
        os.replace(new, path)
    except BaseException:
        if os.path.exists(new):
            os.remove(new)
        raise


def _write_npy(file: Any, array: np.ndarray | Rows) -> None:
    if not isinstance(array, Rows):
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        return
    kind = np.lib.format.dtype_to_descr(array.dtype)
    header = {"descr": kind, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for row in array:
        file.write(row.tobytes())
