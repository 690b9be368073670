"""What a data set of clips holds, how training will use it, and all that is wrong with it.

Nothing is written; every frame, label file and mask is read.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data import sampling
from data.check import CALIBRATION, TESTED_DEFECTIVE, TESTED_GOOD, TRAINED, Report, UsedImage
from data.clip_scan import ClipFiles, ClipSurvey, survey_clips
from data.clips import ClipSettings, DecodedClip, clip_faults, decode_clip, tested_frames
from data.images import attempt, one_line


def check_clips(
    category: str,
    root: str | os.PathLike,
    folder: str | os.PathLike,
    settings: ClipSettings,
    calibration: float,
    seed: int,
) -> Report:
    """Decodes every clip that `load_clips` reads; an image of the report is a clip.

    Raises:
      FileNotFoundError: there is no such data set.
      OSError: a folder cannot be listed.
    """
    survey = survey_clips(root, category, folder)
    problems = list(survey.faults)
    warnings = []
    if survey.testing and not survey.labels:
        warnings.append("test clips without labels are not tested with: add frame_labels.csv")
    training = _decoded(survey.training, survey.root, settings, problems)
    tested = survey.testing if survey.labels else []
    testing = _decoded(tested, survey.root, settings, problems)
    problems += clip_faults(survey, training, testing, settings)
    if not problems:
        tested_frames(survey, testing, settings, problems)
    images = [*_trained(training, calibration, seed), *_tested(survey, testing)]
    findings = [f"Clips in {one_line(survey.root)}:", *_table(images, training, testing, settings)]
    return Report(images, findings, warnings, list(dict.fromkeys(problems)))


def _decoded(
    clips: Sequence[ClipFiles], root: Path, settings: ClipSettings, problems: list[str]
) -> list[DecodedClip]:
    by_path = {clip.path: clip for clip in clips}

    def decode(path: Path) -> DecodedClip:
        return decode_clip(by_path[path], root, settings)

    decoded = (attempt(decode, path, problems) for path in by_path)
    return [each for each in decoded if each is not None]


def _trained(clips: Sequence[DecodedClip], calibration: float, seed: int) -> list[UsedImage]:
    _, held_out = sampling.calibration_split(seed, len(clips), calibration)
    uses = [CALIBRATION if i in held_out else TRAINED for i in range(len(clips))]
    return [UsedImage(each.clip.name, use, False) for each, use in zip(clips, uses, strict=True)]


def _tested(survey: ClipSurvey, clips: Sequence[DecodedClip]) -> list[UsedImage]:
    images = []
    for each in clips:
        labels = survey.labels.get(each.clip.name)
        abnormal = labels is not None and bool(np.any(labels.abnormal))
        use = TESTED_DEFECTIVE if abnormal else TESTED_GOOD
        images.append(UsedImage(each.clip.name, use, bool(survey.masks.get(each.clip.name))))
    return images


def _table(
    images: Sequence[UsedImage],
    training: Sequence[DecodedClip],
    testing: Sequence[DecodedClip],
    settings: ClipSettings,
) -> Iterator[str]:
    frames = [len(each.frames) for each in (*training, *testing)]
    for use in (TRAINED, CALIBRATION, TESTED_GOOD, TESTED_DEFECTIVE):
        mine = [count for image, count in zip(images, frames, strict=True) if image.use == use]
        if mine:
            length = f"{min(mine)} to {max(mine)}" if min(mine) < max(mine) else f"{mine[0]}"
            yield f"  {len(mine)} clips {use}: {sum(mine)} frames, {length} a clip"
    if masks := sum(image.has_mask for image in images):
        yield f"  {masks} clips have masks"
    sizes = sorted({each.size for each in (*training, *testing)})
    if sizes:
        shown = ", ".join(f"{width}x{height}" for height, width in sizes[:3])
        height, width = settings.size
        yield f"Frames of {shown} px, stretched to {width}x{height} px for the networks."
