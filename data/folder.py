"""A folder of own images, without the layout of MVTec AD: good ones, and perhaps bad ones.

    <folder>/**               good images and nothing else; or, where there is a folder good/,
    <folder>/good/**          good images
    <folder>/bad/<defect>/**  defective images; the defect of those right in bad/ is called 'bad'

Which of the good images are tested with is not in the files: `pipeline.load` picks them.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from data import tree
from data.images import KINDS
from data.layout import Fault, Files, Sample, Survey, sound

_NAMED = 5  # so many files are named in an error
_NOT_GOOD = {"bad", "ground_truth"}  # folders, at any depth and however spelt


def scan(folder: str | os.PathLike, *, test: bool = True) -> Files:
    """Lists a folder's good and, if `test`, its bad images, sorted by name; opens none of them.

    Names are relative to the folder; no image has a mask. Without `test`, bad/ is not listed.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: no good image, bad/ without good/, images beside them, which would not be seen, or
        images that would be taken for good though their folder says otherwise.
      OSError: a folder cannot be listed.
    """
    return sound(survey(folder, test=test))


def survey(
    folder: str | os.PathLike,
    *,
    test: bool = True,
    images_of: Callable[..., list[Path]] = tree.images_of,
) -> Survey:
    """What `scan` lists, and all that it would refuse; `images_of` lists, as that of data/tree.py.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: it has the layout of MVTec AD.
      OSError: a folder cannot be listed.
    """
    root = _folder(folder)
    good, bad = root / "good", root / "bad"
    defective = _samples(root, images_of(bad)) if test and bad.is_dir() else []
    faults = _faults_of_bad(defective)
    if good.is_dir():
        train = images_of(good)
        faults = _faults(root, good, train) + faults
        if beside := images_of(root, skip=(good, bad)):
            faults.insert(0, _beside(root, beside))
    elif bad.is_dir():
        train = images_of(root, skip=(bad,))
        said = f"{root} has a folder bad/ and none good/: move the good images to good/"
        faults.insert(0, Fault(said))
    else:
        _refuse_mvtec_ad(root)
        train = images_of(root)
        faults = _faults(root, root, train)
    return Survey(Files(_samples(root, train), defective), faults)


def has_bad(folder: str | os.PathLike) -> bool:
    """Whether there is a folder of defective images, full or empty, to test with."""
    return (_folder(folder) / "bad").is_dir()


def _folder(folder: str | os.PathLike) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        kind = "is a file" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"data.folder: {root} {kind}: name a folder that holds images of good parts"
        )
    return root


def _refuse_mvtec_ad(root: Path) -> None:
    """All images would be trained on as good ones."""
    if (root / "train" / "good").is_dir():
        raise ValueError(
            f"{root} has the layout of MVTec AD: use --config.data.root={root.parent} and "
            f"--config=<config>.py:{root.name} in place of data.folder"
        )


def _beside(root: Path, images: Sequence[Path]) -> Fault:
    said = (
        f"{len(images)} images of {root} are neither in good/ nor in bad/: move or remove "
        f"{_some(root, images)}"
    )
    return Fault(said, images, "neither in good/ nor in bad/: move or remove it")


def _faults(root: Path, good: Path, images: Sequence[Path]) -> list[Fault]:
    """What is wrong with the images of a folder of good ones."""
    if not images:
        return [Fault(f"{good} holds no {KINDS} file: put images of good parts there")]
    doubtful = [
        path
        for path in images
        if _NOT_GOOD & {part.lower() for part in path.relative_to(root).parts[:-1]}
    ]
    if not doubtful:
        return []
    remedy = f"{root / 'bad'} (and the good ones to good/), or remove"
    said = (
        f"{len(doubtful)} images would be taken for good ones in spite of their folder: move "
        f"them to {remedy} them: {_some(root, doubtful)}"
    )
    reason = f"would be taken for a good one in spite of its folder: move it to {remedy} it"
    return [Fault(said, doubtful, reason)]


def _faults_of_bad(samples: Sequence[Sample]) -> list[Fault]:
    return [
        Fault(f"{sample.path} is bad and called good: rename its folder")
        for sample in samples
        if sample.defect == "good"
    ]


def _samples(root: Path, paths: Sequence[Path]) -> list[Sample]:
    names = [path.relative_to(root) for path in paths]
    return [
        Sample(path, name.as_posix(), _defect(name), None)
        for path, name in zip(paths, names, strict=True)
    ]


def _defect(name: Path) -> str:
    if name.parts[0] != "bad":
        return "good"
    return name.parts[1] if len(name.parts) > 2 else "bad"


def _some(root: Path, paths: Sequence[Path]) -> str:
    names = [path.relative_to(root).as_posix() for path in paths[:_NAMED]]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"{', '.join(names)}{more}"
