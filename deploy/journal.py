"""What a service has answered, a line of JSON for each photo, on disk before the answer is sent.

    folder/journal-000001.jsonl   its first line: the state of the watch, and of which threshold;
                                  then a line for each part
           images/000001240.png   photos as they came, where they are kept
           lock                   who writes

A group of lines is written at once and synced once. What a crash leaves of a group that was not
acknowledged is cut off at the next start. A file ends after 10,000 lines: from the last one alone,
the watch on the line is as it was.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from deploy.prediction import DEFECTIVE, watch_row
from engine.workdir import hold
from evaluation.drift import Watch, start_watch, watch_content, watch_of
from evaluation.threshold import Threshold
from storage import files

KEEP = ("defective", "all", "none")
_LINES = 10_000  # of a file
_FORMAT = 1
_SUFFIXES = {b"\x89PNG": "png", b"\xff\xd8": "jpg", b"BM": "bmp", b"II": "tif", b"MM": "tif"}
_SUFFIXES |= {b"RIFF": "webp", b"P5": "pgm", b"P6": "ppm"}


class Entry(NamedTuple):
    """A line to be, and the bytes that it is about."""

    row: Mapping[str, Any]  # with 'part', 'decision' and what the watch needs of a row
    image: bytes


class Journal:
    """An open journal; it belongs to one thread."""

    watch: Watch  # after the last line that was there
    _file: BinaryIO  # the newest, at its end
    _lines: int  # of it, without the first

    def __init__(self, folder: str, threshold: Threshold, digest: str, keep: str) -> None:
        """Opens the journal of `folder`, which is made if need be, and goes on where it ended.

        Args:
          folder: of this journal alone.
          threshold: in force; another `digest` begins a new watch, and part numbers go on.
          digest: of the threshold and what it rests on.
          keep: one of `KEEP`, which photos are kept.

        Raises:
          OSError: another service writes here, or it cannot be written.
          ValueError: a line is damaged.
        """
        self._folder, self._digest, self._keep = Path(folder), digest, keep
        self._stack = ExitStack()
        self._stack.enter_context(hold(folder))
        try:
            (self._folder / "images").mkdir(exist_ok=True)
            self.watch = self._recover(threshold)
            self._begin(self.watch)
        except BaseException:
            self._stack.close()
            raise

    def append(self, entries: Sequence[Entry], watch: Watch) -> None:
        """Writes the lines of `entries`; when it returns, they survive a crash.

        `watch`: after them.

        Raises:
          OSError: such as for a full disk; then none of them is there.
        """
        images = [self._write_image(entry) for entry in entries]
        lines = [
            _line({**entry.row, "image": image})
            for entry, image in zip(entries, images, strict=True)
        ]
        start = self._file.tell()
        try:
            self._file.write(b"".join(lines))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.seek(start)
            self._file.truncate()
            raise
        self.watch, self._lines = watch, self._lines + len(lines)
        if self._lines >= _LINES:
            self._begin(watch)

    def close(self) -> None:
        """Lets go of the folder."""
        self._file.close()
        self._stack.close()

    def _write_image(self, entry: Entry) -> str | None:
        wanted = self._keep == "all" or (
            self._keep == "defective" and entry.row["decision"] == DEFECTIVE
        )
        if not wanted:
            return None
        start = entry.image[:4]
        suffix = next((s for magic, s in _SUFFIXES.items() if start.startswith(magic)), "bin")
        name = f"images/{entry.row['part']:09}.{suffix}"
        with files.whole(self._folder / name) as file:
            file.write(entry.image)
        return name

    def _paths(self) -> list[Path]:
        names = os.listdir(self._folder)
        return [self._folder / n for n in sorted(names) if re.fullmatch(r"journal-\d+\.jsonl", n)]

    def _recover(self, threshold: Threshold) -> Watch:
        """The watch after the last whole line; what follows it is cut off."""
        for path in reversed(self._paths()):
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if not whole:  # a crash, before its first line was there
                path.unlink()
                continue
            if len(whole) < len(content):
                os.truncate(path, len(whole))
            return self._replay(path, whole.splitlines(), threshold)
        return start_watch(threshold)

    def _replay(self, path: Path, lines: Sequence[bytes], threshold: Threshold) -> Watch:
        number = 1
        try:
            header = json.loads(lines[0])
            if header["journal"] != _FORMAT:
                raise ValueError(f"format {header['journal']}")
            watch, same = watch_of(header["watch"]), header["threshold"] == self._digest
            for line in lines[1:]:
                number += 1
                row = json.loads(line)
                if row["part"] != watch.parts + 1:
                    raise ValueError(f"part {row['part']} after {watch.parts}")
                # Of another threshold, numbers alone are of use.
                watch = watch_row(watch, row) if same else watch._replace(parts=row["part"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is damaged at line {number} ({error!r}): move it away, or name another "
                "--journal"
            ) from error
        return watch if same else start_watch(threshold, watch.parts)

    def _begin(self, watch: Watch) -> None:
        """A new file, whose first line says what is known so far."""
        if hasattr(self, "_file"):
            self._file.close()
        paths = self._paths()
        number = int(paths[-1].stem.split("-")[1]) + 1 if paths else 1
        path = self._folder / f"journal-{number:06}.jsonl"
        header = {"journal": _FORMAT, "threshold": self._digest, "watch": watch_content(watch)}
        with files.whole(path) as file:
            file.write(_line(header))
        _sync_folder(self._folder)
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115
        self._file.seek(0, os.SEEK_END)
        self._lines = 0


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
