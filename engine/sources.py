"""Which image files a run was made from, and in words how they have changed since.

`workdir/sources.json` holds the SHA-256 of each file, by split and name.
"""

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from storage import files

SOURCES_FILE = "sources.json"

Sums = Mapping[str, str]
"""An image, relative to the data set -> SHA-256 of its file and its mask."""


class Sources(NamedTuple):
    """The images of a run. The networks depend on `train` alone, the threshold on `calibration`."""

    train: Sums
    calibration: Sums
    test: Sums
    labelled: Sums = {}  # noqa: RUF012 (nobody writes into it); runs of earlier versions have none

    def good(self) -> dict[str, str]:
        """All but the test images: which of them are held out depends on how many there are."""
        return {**self.train, **self.calibration}

    def all(self) -> dict[str, str]:
        """Of all splits."""
        return {**self.good(), **self.test, **self.labelled}


def write_sources(workdir: str, sources: Sources) -> None:
    """Writes `workdir/sources.json` as a whole."""
    files.write_json(os.path.join(workdir, SOURCES_FILE), sources._asdict())


def read_sources(workdir: str) -> Sources | None:
    """What `write_sources` wrote, or None where there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = os.path.join(workdir, SOURCES_FILE)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            sources = Sources(**json.load(file))
        if not all(isinstance(part, dict) for part in sources):
            raise TypeError("no names and sums")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): python main.py --mode=evaluate --workdir={workdir} "
            "writes it anew"
        ) from error
    return sources


def usable_sources(workdir: str) -> Sources | None:
    """As `read_sources`, but None where the file is damaged too: for who writes it anew."""
    try:
        return read_sources(workdir)
    except ValueError:
        return None


def changes(before: Sums, now: Sums) -> str:
    """How many files of which folder were added, removed and changed, or '' where none was.

    'train/good: 2 added (a.png, b.png), 1 changed (c.png); test/scratch: 1 removed (d.png)'.
    """
    kinds = {
        "added": now.keys() - before.keys(),
        "removed": before.keys() - now.keys(),
        "changed": {name for name in before.keys() & now.keys() if before[name] != now[name]},
    }
    said: dict[str, list[str]] = defaultdict(list)
    for kind, names in kinds.items():
        folders: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            folders[str(PurePosixPath(name).parent)].append(PurePosixPath(name).name)
        for folder, here in folders.items():
            said[folder].append(f"{len(here)} {kind} ({files.some_of(here)})")
    return "; ".join(f"{folder}: {', '.join(each)}" for folder, each in sorted(said.items()))
