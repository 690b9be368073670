"""From a folder of clips to splits: frames decoded once, grey, and windows of them.

A copy of the decoded frames is kept in `prepared/decoded/` with the SHA-256 of each file. All
frames lie in memory, a byte a pixel: Ped2's 4,560 of 128 x 192 px take 112 MB.
"""

import os
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from data import sampling, scan
from data.clip_scan import (
    LABELS_FILE,
    ClipFiles,
    ClipSurvey,
    frame_number,
    label_fault,
    survey_clips,
)
from data.decoded import Images
from data.images import (
    MOST_PIXELS,
    Reading,
    attempt,
    one_line,
    read_image,
    read_mask,
    require_side,
    sha256_of_image,
)
from data.pipeline import Splits
from data.scan import Sample
from data.video_files import video_frames
from data.windows import Windows, centred_starts, every_start
from storage import files

_THREADS = 8
_FORMAT = 1


class ClipSettings(NamedTuple):
    """How clips are read and cut."""

    size: tuple[int, int]  # height and width to which frames are stretched
    length: int  # frames of a window that is scored
    span: int  # frames of what is trained on, of which windows are cut with larger steps too
    reading: Reading = Reading(None, MOST_PIXELS)


class DecodedClip(NamedTuple):
    """A clip in memory."""

    clip: ClipFiles
    frames: np.ndarray  # uint8 [n, H, W]
    size: tuple[int, int]  # height and width of the files' pictures
    sums: list[str]  # SHA-256 of each frame's file
    paths: list[str]  # relative to the data set


# ---------------------------------------------------------------- a clip to pixels


def decode_clip(clip: ClipFiles, root: Path, settings: ClipSettings) -> DecodedClip:
    """Decodes and stretches all frames of a clip.

    Raises:
      ValueError: one line: a file cannot be read, or frames of the clip differ in size.
    """
    pictures: Iterable[np.ndarray]
    if clip.frames:
        pictures = (_grey(read_image(path, settings.reading)) for path in clip.frames)
        sums = [sha256_of_image(path, settings.reading) for path in clip.frames]
        paths = [path.relative_to(root).as_posix() for path in clip.frames]
    else:
        pictures, sums, paths = video_frames(clip.path), [], []
    frames, size = _stretched(clip, pictures, settings.size)
    if not clip.frames:
        sums = [files.sha256(clip.path)] * len(frames)
        name = clip.path.relative_to(root).as_posix()
        paths = [f"{name}/{number:06d}" for number in range(1, len(frames) + 1)]
    return DecodedClip(clip, frames, size, sums, paths)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _stretched(
    clip: ClipFiles, pictures: Iterable[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """The frames of one clip at `size`, uint8 [n, H, W], and the size that they had."""
    height, width = size
    first: tuple[int, ...] = ()
    frames = []
    for number, picture in enumerate(pictures):
        first = first or picture.shape
        if picture.shape != first:
            which = clip.frames[number].name if clip.frames else f"frame {number + 1}"
            raise ValueError(
                f"{one_line(clip.path)}: {one_line(which)} has {_by(picture.shape)} px and the "
                f"frames before it {_by(first)}: frames of one clip have one size"
            )
        image = Image.fromarray(picture)
        frames.append(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)))
    if not frames:
        raise ValueError(f"{one_line(clip.path)} holds no frame: remove it")
    require_side(first[0], first[1])
    return np.stack(frames), (first[0], first[1])


def _by(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def short_fault(clip: ClipFiles, count: int, needed: int, what: str) -> str:
    """What is wrong with a clip that is shorter than what is cut from it; '' if nothing."""
    if count >= needed:
        return ""
    return (
        f"{one_line(clip.path)} has {count} frames, fewer than the {needed} of {what}: record "
        "longer clips, or set clips.frames and clips.strides lower"
    )


# ---------------------------------------------------------------- a data set to splits


def load_clips(
    category: str,
    root: str | os.PathLike,
    settings: ClipSettings,
    *,
    calibration: float,
    seed: int,
    data_dir: str | os.PathLike,
    folder: str | os.PathLike = "",
    test: bool = True,
) -> Splits:
    """Reads a data set of clips (data/clip_scan.py); the first time, decodes it and keeps that.

    Whole clips are held out for calibration, since neighbouring frames are nearly alike. An image
    of the splits is a window: for training, every span of `settings.span` frames; else for each
    frame the window in whose middle it lies. Paths, labels and sums are those of the frames.

    Args:
      category: name of the data set, and of its folder below `root`.
      root: the folder that holds it.
      settings: how clips are read and cut.
      calibration: share of the training clips that is held out.
      seed: of which.
      data_dir: where the decoded copy goes.
      folder: of good clips, in place of `root`.
      test: whether to read the test clips.

    Raises:
      ValueError: one line about all that is wrong.
      OSError: a folder or file is not there, or cannot be listed.
    """
    survey = survey_clips(root, category, folder)
    height, width = settings.size
    copy = (
        Path(os.path.expanduser(data_dir)) / "decoded" / f"{category}_{width}x{height}px_clips.npz"
    )
    parts = {"training": survey.training}
    if test:
        parts["testing"] = survey.testing if survey.labels else []
    if survey.testing and test and not survey.labels:
        logging.warning(
            "%s has test clips and no labels, so that they are not tested with: add %s, or decide "
            "on them with --mode=predict",
            one_line(survey.root),
            LABELS_FILE,
        )
    faults = list(survey.faults)
    decoded = _decode_parts(survey, parts, settings, copy, faults, keep=test)
    training, testing = decoded["training"], decoded.get("testing", [])
    faults += clip_faults(survey, training, testing, settings)
    _refuse(faults)
    tested = tested_frames(survey, testing, settings, faults)
    _refuse(faults)
    indices = sampling.calibration_split(seed, len(training), calibration)
    trained, held_out = ([training[i] for i in part] for part in indices)
    spans = every_start(_counts(trained), settings.span)
    return Splits(
        _good(trained, Windows(_joined(trained, settings.size), spans, settings.span)),
        _good(held_out, _centred(held_out, settings)),
        tested,
        settings.reading.white_level,
    )


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        more = f" ({len(faults)} faults, which --mode=check lists)" if len(faults) > 1 else ""
        raise ValueError(f"{faults[0]}{more}")


def clip_faults(
    survey: ClipSurvey,
    training: Sequence[DecodedClip],
    testing: Sequence[DecodedClip],
    settings: ClipSettings,
) -> list[str]:
    """What is wrong with the lengths of clips, and with labels."""
    span = f"a training span ({settings.length} frames at the largest stride)"
    faults = [short_fault(each.clip, len(each.frames), settings.span, span) for each in training]
    for each in testing:
        count = len(each.frames)
        faults.append(short_fault(each.clip, count, settings.length, "a window"))
        if labels := survey.labels.get(each.clip.name):
            faults.append(label_fault(each.clip, count, labels))
    return [fault for fault in faults if fault]


def _decode_parts(
    survey: ClipSurvey,
    parts: dict[str, list[ClipFiles]],
    settings: ClipSettings,
    copy: Path,
    faults: list[str],
    *,
    keep: bool,
) -> dict[str, list[DecodedClip]]:
    """From the copy where it is of these very files, else decoded; what fails goes to `faults`."""
    decoded = _read_copy(copy, survey, parts, settings)
    if decoded is not None:
        return decoded
    logging.info("Decoding %d clips.", sum(map(len, parts.values())))
    decode = partial(decode_clip, root=survey.root, settings=settings)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        tried = {
            name: [
                *pool.map(lambda clip: attempt(lambda _: decode(clip), clip.path, faults), clips)
            ]
            for name, clips in parts.items()
        }
    decoded = {name: [each for each in clips if each is not None] for name, clips in tried.items()}
    if keep and not faults:
        _write_copy(copy, decoded, settings.reading)
    return decoded


def _counts(clips: Sequence[DecodedClip]) -> list[int]:
    return [len(each.frames) for each in clips]


def _joined(clips: Sequence[DecodedClip], size: tuple[int, int]) -> np.ndarray:
    return np.concatenate([np.zeros((0, *size), np.uint8), *(each.frames for each in clips)])


def _centred(clips: Sequence[DecodedClip], settings: ClipSettings) -> Windows:
    """A window for each frame."""
    starts = centred_starts(_counts(clips), settings.length)
    return Windows(_joined(clips, settings.size), starts, settings.length)


def _good(clips: Sequence[DecodedClip], windows: Windows) -> Images:
    """The frames of good clips, and windows of them."""
    paths = [path for each in clips for path in each.paths]
    return Images(
        windows,  # type: ignore[arg-type]
        paths,
        ["good"] * len(paths),
        np.zeros(len(paths), np.int64),
        [],
        _sizes(clips),
        np.zeros(len(paths), np.int64),
        [sum_ for each in clips for sum_ in each.sums],
    )


def _sizes(clips: Sequence[DecodedClip]) -> np.ndarray:
    rows = [each.size for each in clips for _ in each.frames]
    return np.array(rows, np.int64).reshape(-1, 2)


def tested_frames(
    survey: ClipSurvey, clips: Sequence[DecodedClip], settings: ClipSettings, faults: list[str]
) -> Images:
    """The test frames with labels and masks, and their windows; what is wrong goes to `faults`."""
    samples: list[Sample] = []
    masks: list[np.ndarray | None] = []
    labels = np.concatenate(
        [np.zeros(0, np.int64), *(survey.labels[each.clip.name].abnormal for each in clips)]
    )
    for each in clips:
        kinds, known = survey.labels[each.clip.name].kinds, survey.masks.get(each.clip.name, {})
        nothing = np.broadcast_to(np.False_, each.size)
        for index, (name, kind) in enumerate(zip(each.paths, kinds, strict=True)):
            file = each.clip.frames[index] if each.clip.frames else each.clip.path
            number = frame_number(file) if each.clip.frames else index + 1
            mask = None if kind == "good" else known.get(number or 0)
            samples.append(Sample(file, name, kind, mask))
            masks.append(nothing if kind == "good" else _mask(mask, each.size, faults))
    paths = (sample.path for sample in samples)
    sums = dict(zip(paths, (sum_ for each in clips for sum_ in each.sums), strict=True))
    return Images(
        _centred(clips, settings),  # type: ignore[arg-type]
        [sample.name for sample in samples],
        [sample.defect for sample in samples],
        labels,
        masks,
        _sizes(clips),
        np.zeros(len(samples), np.int64),
        scan.sums_of(samples, lambda path: sums.get(path) or files.sha256(path)),
    )


def _mask(path: Path | None, size: tuple[int, int], faults: list[str]) -> np.ndarray | None:
    if path is None:
        return None
    mask = attempt(read_mask, path, faults)
    if mask is not None and mask.shape != size:
        faults.append(
            f"{one_line(path)} has {_by(mask.shape)} px and its frame {_by(size)}: give masks as "
            "large as the frames"
        )
    return mask


# ---------------------------------------------------------------- the decoded copy


def _write_copy(copy: Path, decoded: dict[str, list[DecodedClip]], reading: Reading) -> None:
    arrays: dict[str, Any] = {
        "format": np.array(_FORMAT),
        "white": np.array(reading.white_level or 0),
    }
    for part, clips in decoded.items():
        arrays[f"{part}_names"] = np.array([each.clip.name for each in clips], np.str_)
        arrays[f"{part}_counts"] = np.array(_counts(clips), np.int64)
        arrays[f"{part}_sizes"] = np.array([each.size for each in clips], np.int64).reshape(-1, 2)
        arrays[f"{part}_paths"] = np.array([p for each in clips for p in each.paths], np.str_)
        arrays[f"{part}_sums"] = np.array([s for each in clips for s in each.sums], np.str_)
        size = clips[0].frames.shape[1:] if clips else (1, 1)
        arrays[f"{part}_frames"] = _joined(clips, (size[0], size[1]))
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with files.whole(copy, shared=True) as file:
            np.savez(file, **arrays)
        logging.info("Wrote the decoded frames to %s.", copy)
    except OSError as error:
        logging.warning("The decoded frames are not kept: %s", error)


def _read_copy(
    copy: Path, survey: ClipSurvey, parts: dict[str, list[ClipFiles]], settings: ClipSettings
) -> dict[str, list[DecodedClip]] | None:
    """What the copy holds of `parts`, or None where there is none or it is of other files."""
    if not copy.is_file():
        return None
    try:
        with np.load(copy, allow_pickle=False) as arrays:
            about = int(arrays["format"]), int(arrays["white"])
            if about != (_FORMAT, settings.reading.white_level or 0):
                return None
            decoded = {}
            for part, clips in parts.items():
                fields = ("names", "counts", "sizes", "paths", "sums")
                read = [arrays[f"{part}_{field}"].tolist() for field in fields]
                if not _same_clips(survey, clips, read, settings):
                    logging.info("The clips are not those of %s: decoding them anew.", copy)
                    return None
                decoded[part] = _of_copy(clips, read, arrays[f"{part}_frames"])
            return decoded
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logging.warning("Decoding the clips anew: %s (%s)", copy, one_line(error))
        return None


def _same_clips(
    survey: ClipSurvey, clips: Sequence[ClipFiles], read: Sequence[Any], settings: ClipSettings
) -> bool:
    names, counts, _, paths, sums = read
    if names != [clip.name for clip in clips]:
        return False
    here: list[tuple[str, str]] = []
    for clip, count in zip(clips, counts, strict=True):
        if clip.frames:
            try:
                here += [
                    (
                        path.relative_to(survey.root).as_posix(),
                        sha256_of_image(path, settings.reading),
                    )
                    for path in clip.frames
                ]
            except ValueError:  # decoding says which file, and why
                return False
        else:
            name, sum_ = clip.path.relative_to(survey.root).as_posix(), files.sha256(clip.path)
            here += [(f"{name}/{number:06d}", sum_) for number in range(1, count + 1)]
    return here == list(zip(paths, sums, strict=True))


def _of_copy(
    clips: Sequence[ClipFiles], read: Sequence[Any], frames: np.ndarray
) -> list[DecodedClip]:
    _, counts, sizes, paths, sums = read
    ends = np.cumsum([0, *counts])
    return [
        DecodedClip(clip, frames[a:b], (size[0], size[1]), sums[a:b], paths[a:b])
        for clip, size, a, b in zip(clips, sizes, ends, ends[1:], strict=False)
    ]
