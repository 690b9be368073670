"""The image files of a folder and of all folders in it.

Hidden files and folders, whose names begin with a dot, are passed over. Symlinks to files are
followed and those to folders are not: they may lead in circles.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from absl import logging

from data.images import KINDS, is_image_name


def images_of(folder: Path, *, skip: Collection[Path] = ()) -> list[Path]:
    """The image files at any depth of `folder`, sorted as text; those of other suffixes are named.

    One warning counts what is left out, by suffix, so that no image of an unknown format goes
    missing without a word.

    Args:
      folder: an existing folder, itself perhaps hidden or a symlink.
      skip: folders right in it that are not even listed.

    Raises:
      OSError: a folder cannot be listed.
    """
    images, others = listing(folder, skip=skip)
    if others:
        logging.warning(
            "%s: left out %d files that are no %s: %s",
            folder,
            others.total(),
            KINDS,
            counted(others),
        )
    return images


def listing(folder: Path, *, skip: Collection[Path] = ()) -> tuple[list[Path], Counter[str]]:
    """The same without a word: the images, and how many other files there are of each suffix."""
    images, others = [], Counter[str]()
    for path in _files(folder, skip):
        if is_image_name(path):
            images.append(path)
        else:
            others[kind(path)] += 1
    return sorted(images, key=str), others


def kind(path: Path) -> str:
    """What a file that is no image is, by its name."""
    if os.path.isdir(path):
        return "symlinked folder"
    return path.suffix.lower() or "no suffix"


def counted(kinds: Counter[str]) -> str:
    """The kinds and how many there are of each, the most frequent first."""
    return ", ".join(f"{name} ({count})" for name, count in kinds.most_common())


def _files(folder: Path, skip: Collection[Path]) -> Iterator[Path]:
    """All that is not hidden and no folder, symlinks to folders included."""
    for where, folders, files in os.walk(folder, onerror=_refuse):
        here = Path(where)
        names = [name for name in folders if not _hidden(name) and here / name not in skip]
        folders[:] = sorted(names)
        yield from (here / name for name in sorted(files) if not _hidden(name))
        yield from (here / name for name in folders if os.path.islink(here / name))


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _refuse(error: OSError) -> None:
    """Lest images be left out: `os.walk` would pass over what it cannot list."""
    raise OSError(f"{error.filename}: {error.strerror}: make the folder readable") from error
