"""Files that are written as a whole or not at all, their checksums, and names that are safe.

Paths may hold bytes that are no UTF-8, as `os.fsdecode` gives them.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from storage.rows import Rows

SUMS = "SHA256SUMS"
_NAMED = 3  # so many names are said where all would be too many
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so
_WIDTH = 64 + len("  ")  # of a line of sums before its name
_BLOCK = 2**20  # bytes that are read at a time


@contextlib.contextmanager
def whole(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[BinaryIO]:
    """A file that gets the name `path` when all is written: a crash leaves the old content.

    Args:
      path: in a folder that exists.
      shared: whether other processes may write the same file at the same time.
    """
    path = os.fspath(path)
    new = f"{path}.{os.getpid()}.tmp" if shared else f"{path}.tmp"
    try:
        with open(new, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(new)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file as a whole or not at all.

    Bytes of file names that are no UTF-8 (`os.fsdecode`) are written as they were.
    """
    with whole(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value`, or raises ValueError and writes nothing if it holds NaN or infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray | Rows]) -> None:
    """As `np.savez_compressed`, but as a whole or not at all, and row by row from `Rows`."""
    with whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_npy(member, array)


def _write_npy(file: Any, array: np.ndarray | Rows) -> None:
    if not isinstance(array, Rows):
        np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        return
    kind = np.lib.format.dtype_to_descr(array.dtype)
    header = {"descr": kind, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for row in array:
        file.write(row.tobytes())


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hex; the file may lie wherever `epath` reaches."""
    with epath.Path(path).open("rb") as file:
        content = hashlib.sha256()
        while part := file.read(_BLOCK):
            content.update(part)
    return content.hexdigest()


def sums(folder: epath.Path) -> list[bytes]:
    """A line of `sha256sum` for each file in and below `folder`, by name."""
    files = [where / name for where, _, names in folder.walk() for name in names]
    return [_sum(folder, name) for name in sorted(f.relative_to(folder).as_posix() for f in files)]


def write_sums(folder: epath.Path) -> None:
    """Writes the sums of all files in and below `folder` into it, as its last file.

    `sha256sum --check SHA256SUMS` checks them by hand.
    """
    lines = sums(folder)
    (folder / SUMS).write_bytes(b"\n".join([*lines, _end(lines), b""]))


def damage(folder: epath.Path) -> str:
    """What of `folder` is not as `write_sums` found it, in words; '' if all is.

    Files that came later do not count. Raises nothing: a folder that cannot be read is damaged.
    """
    name = SUMS
    try:
        *lines, end, rest = (folder / SUMS).read_bytes().split(b"\n")
        if (end, rest) != (_end(lines), b""):
            return f"{SUMS} is not whole"
        for line in lines:
            name = line[_WIDTH:].decode()
            if line != _sum(folder, name):
                return f"{name} does not match {SUMS}"
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError):
        return f"{name} cannot be read"
    return ""


def _end(lines: list[bytes]) -> bytes:
    """A comment to `sha256sum`: with it, no line can go missing."""
    return f"# {len(lines)} files".encode()


def _sum(folder: epath.Path, name: str) -> bytes:
    return f"{sha256(folder / name)}  {name}".encode()


def as_text(value: str) -> str:
    """A name as a cell of a table: with an apostrophe in front where it begins as a formula.

    Without a carriage return, which csv leaves unquoted before Python 3.13: it would end the row.
    """
    text = f"'{value}" if value.startswith(FORMULA) else value
    return text.replace("\r", " ")


def some_of(names: Sequence[str]) -> str:
    """The first three names, and how many more there are.

    >>> some_of(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def safe_names(names: Sequence[str]) -> dict[str, str]:
    """Name -> file name of A-Z, a-z, 0-9, _ and - alone, different also where case is ignored."""
    taken: set[str] = set()
    safe = {}
    for name in names:
        stem = re.sub("[^A-Za-z0-9_-]", "_", name)[:64]
        choices = (f"{stem}_{i}" if i else stem for i in itertools.count())
        safe[name] = next(choice for choice in choices if choice.lower() not in taken)
        taken.add(safe[name].lower())
    return safe
