"""A new threshold from new good photos, without training."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from commands import inputs
from commands.detector import Detector, restore_detector
from commands.evaluate import require_judgement
from commands.runs import held, whole_path
from data import photos
from data.images import refuse_bad_files
from data.photos import Photo
from engine import startup
from engine.sources import usable_sources
from evaluation.false_alarms import calibrate_marks
from evaluation.quality import Quality, qualities
from evaluation.threshold import (
    THRESHOLD_FILE,
    Threshold,
    calibrate,
    keep_old_threshold,
    percent,
    require_count,
    shortfall,
    statement,
    write_threshold,
)
from storage import files, rows

_BATCH = 32


def recalibrate(workdir: str | os.PathLike[str], pattern: str) -> None:
    """Sets the workdir's threshold by the good photos that `pattern` names.

    The old threshold.json stays beside the new one, under the time until which it was in force.
    What is known of the test images (results.json, the report) is of the old one.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out; then nothing is
        changed.
    """
    startup.give_back_memory()
    workdir = whole_path(workdir)
    with held(workdir):
        detector = restore_detector(workdir)
        inputs.refuse_clips(detector.config, "--mode=recalibrate")
        paths = photos.find(pattern)
        require_count(len(paths), len(paths))
        _refuse_trained(workdir, paths)
        judgement = require_judgement(detector.config)
        rate = judgement.false_alarm_rate
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        scores, maps, seen = _scores(detector, paths, workdir)
        new = calibrate(scores, maps, rate)._replace(
            marks=calibrate_marks(maps, judgement.false_regions, rate), quality=seen, date=now
        )
        if few := shortfall(rate, len(paths), len(paths)):
            print(few)
        kept = keep_old_threshold(workdir, now)
        write_threshold(workdir, new, detector.networks.origin)
    for sentence in [*changes_of(detector.threshold, new), *statement(new)]:
        print(sentence)
    print(f"Threshold: {os.path.join(workdir, THRESHOLD_FILE)}; the old one: {kept}")


def _refuse_trained(workdir: str, paths: Sequence[str]) -> None:
    """Raises ValueError for photos that training has seen: of them, scores are too low."""
    sources = usable_sources(workdir)
    trained = set(sources.train.values()) if sources else set()
    same = [path for path in paths if os.path.isfile(path) and files.sha256(path) in trained]
    if same:
        raise ValueError(
            f"{len(same)} of {len(paths)} photos were trained on ({files.some_of(same)}), so that "
            "their scores say nothing of new parts: name others in --images"
        )


def _scores(
    detector: Detector, paths: Sequence[str], workdir: str
) -> tuple[np.ndarray, rows.Rows, tuple[tuple[float, ...], ...]]:
    """Scores, maps on disk and qualities of the photos; ValueError for one that is unreadable."""
    scorer = detector.scorer()
    reading = inputs.reading_of(detector.config, detector.facts)
    side = detector.config.data.image_size
    size = min(_BATCH, len(paths))
    scores, maps, bad = [], rows.temporary(workdir), []
    pixels_seen: list[tuple[tuple[float, ...], ...]] = []
    for batch in photos.stream_photos(paths, side, size, reading):
        bad += [f"{photo.path}: {photo.reason}" for photo in batch if photo.pixels is None]
        if bad:
            continue
        pixels = _stacked(batch)
        padding = [(0, size - len(pixels)), (0, 0), (0, 0), (0, 0)]
        score = scorer(np.pad(pixels, padding))
        scores.append(np.asarray(score.image)[: len(pixels)])
        maps.append(np.asarray(score.map)[: len(pixels)])
        pixels_seen.append(qualities(pixels))
    refuse_bad_files(bad, "--images")
    parts = zip(*pixels_seen, strict=True)
    return np.concatenate(scores), maps, tuple(sum(part, ()) for part in parts)


def _stacked(batch: Sequence[Photo]) -> np.ndarray:
    return np.stack([photo.pixels for photo in batch if photo.pixels is not None])


def changes_of(old: Threshold, new: Threshold) -> list[str]:
    """What a new threshold changes, as sentences."""
    of_new = np.asarray(new.calibration_scores)
    above, count = int((of_new > old.threshold).sum()), of_new.size
    median_old, median_new = np.median(old.calibration_scores), np.median(of_new)
    sentences = [
        f"The threshold was {old.threshold:.6g} (from {len(old.calibration_scores)} images) and is "
        f"{new.threshold:.6g} (from {count}).",
        f"The old one would have called {above} of these {count} good photos defective, where at "
        f"most {percent(old.guaranteed_rate)} were expected.",
        f"The median score of good photos was {median_old:.6g} and is {median_new:.6g}.",
    ]
    for name, before, now in zip(Quality._fields, old.quality, new.quality, strict=False):
        was, now_is = float(np.median(before)), float(np.median(now))
        sentences.append(f"The photos' median {name} was {was:.4g} and is {now_is:.4g}.")
    return sentences
