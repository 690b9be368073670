"""From a trained workdir to decisions on new images."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from commands import inputs
from commands.detector import Detector, restore_detector
from commands.runs import whole_path
from data import new_clips, photos
from data.images import hardly_seen, white_level_line
from data.photos import Photo
from deploy import prediction
from deploy.clip_decisions import INTERVALS, watch_clips, write_clip_decisions
from deploy.prediction import Prediction
from engine import brightness, startup
from evaluation.drift import drift_of
from storage.outputs import PREDICTIONS

_BATCH = 32
_Picture = str | os.PathLike | np.ndarray | Image.Image


def restore_scorer(workdir: str | os.PathLike[str]) -> Callable[[_Picture], Prediction]:
    """A function that decides on one image: the path of a file, its pixels, or what Pillow opened.

    It takes a path; uint8 [H, W, 3] of any size, red, green and blue, as a person sees it; or a
    Pillow image, of which EXIF orientation and 16 bits are read as its file's would be. It returns
    a `Prediction` (deploy/prediction.py): decision, score, threshold, p_value, region, map; it
    raises ValueError with the reason where the image cannot be read. It must not be used in a
    process that was forked from this one: docs/data.md.

    Raises:
      ValueError, OSError: the workdir is not trained to its end or has no threshold.json.
    """
    detector = restore_detector(whole_path(workdir))
    inputs.refuse_clips(detector.config, "restore_scorer")
    scorer, image_size = detector.scorer(), detector.config.data.image_size
    reading = inputs.reading_of(detector.config, detector.facts)

    def score(image: _Picture) -> Prediction:
        if isinstance(image, np.ndarray):
            photo = photos.of_pixels(image, image_size)
        elif isinstance(image, Image.Image):
            photo = photos.of_image(image, image_size, reading)
        else:
            photo = photos.read_photo(os.fspath(image), image_size, reading)
        if photo.pixels is None:
            raise ValueError(f"{photo.path}: {photo.reason}")
        return prediction.decide_on(scorer, [photo], detector.threshold, 1)[0]

    return score


def predict(workdir: str | os.PathLike[str], pattern: str, output: str | os.PathLike[str]) -> int:
    """Decides on the images that the file, folder or glob `pattern` names; the number unreadable.

    Writes rows and pictures into `output`, as deploy/prediction.py says. Where the same command was
    interrupted, it goes on after the last whole batch.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out.
    """
    startup.give_back_memory()
    output = whole_path(output)
    detector = restore_detector(whole_path(workdir))
    if inputs.of_clips(detector.config):
        return _predict_clips(detector, pattern, output)
    paths = photos.find(pattern)
    inputs.refuse_inside(detector.config, output, "output")
    refuse_beside(paths, pattern, output)
    if detector.facts.brightness is not None:
        print(brightness.correction(detector.facts.brightness))
    if detector.facts.white_level:
        found = not detector.config.data.get("white_level", 0)
        print(white_level_line(detector.facts.white_level, found=found))
    reading = inputs.reading_of(detector.config, detector.facts)
    image_size = detector.config.data.image_size
    sizes: set[tuple[int, int]] = set()
    batch_size = min(_BATCH, len(paths))
    done = prediction.rows_done(output, paths, detector.threshold, batch_size)
    if done:
        print(f"{done} of {len(paths)} images are done already: going on after them.")
    start = time.perf_counter()
    counts, watch = prediction.predict_all(
        detector.scorer(),
        _noting_sizes(photos.stream_photos(paths[done:], image_size, batch_size, reading), sizes),
        detector.threshold,
        output,
        batch_size=batch_size,
        done=done,
        total=len(paths),
    )
    if coarse := hardly_seen(sizes, image_size):
        print(coarse)
    rate = (counts.total() - done) / (time.perf_counter() - start)
    named = ", ".join(f"{counts[name]} {name}" for name in prediction.DECISIONS)
    print(f"{counts.total()} images: {named} ({rate:.3g} images/s)")
    for sentence in drift_of(watch, detector.threshold).sentences if watch.parts else ():
        print(f"Watch: {sentence}")
    print(f"Rows: {os.path.join(output, PREDICTIONS[0])}")
    return counts[prediction.UNREADABLE]


def _predict_clips(detector: Detector, pattern: str, output: str) -> int:
    """Decides on each frame of the clips that `pattern` names; the number unreadable."""
    inputs.refuse_inside(detector.config, output, "output")
    if inputs.is_inside(output, pattern):
        raise ValueError(f"--output={output} lies in --images={pattern}: choose a folder outside")
    reading = inputs.reading_of(detector.config, detector.facts)
    settings = inputs.clip_settings(detector.config, reading)
    frames = new_clips.read_frames(*new_clips.find_clips(pattern), settings)
    paths = [frame.path for frame in frames]
    batch_size = min(_BATCH, len(frames))
    done = prediction.rows_done(output, paths, detector.threshold, batch_size)
    counts, _ = prediction.predict_all(  # what it has watched is frames, not clips
        detector.scorer(),
        (
            [new_clips.photo_of(frame) for frame in frames[start : start + batch_size]]
            for start in range(done, len(frames), batch_size)
        ),
        detector.threshold,
        output,
        batch_size=batch_size,
        done=done,
        total=len(frames),
    )
    rows = prediction.rows_of(output)
    alarmed, clips = write_clip_decisions(output, rows)
    named = ", ".join(f"{counts[name]} {name}" for name in prediction.DECISIONS)
    print(f"{counts.total()} frames: {named}")
    print(f"{clips} clips: {alarmed} with a frame above the threshold")
    watch = watch_clips(rows, detector.threshold)
    for sentence in drift_of(watch, detector.threshold).sentences if watch.parts else ():
        print(f"Watch, of which a part is a clip: {sentence}")
    print(
        f"Rows: {os.path.join(output, PREDICTIONS[0])}; "
        f"intervals: {os.path.join(output, INTERVALS)}"
    )
    return counts[prediction.UNREADABLE]


def refuse_beside(paths: Sequence[str], pattern: str, output: str) -> None:
    """Raises ValueError where `output` would hold pictures in a folder of new images.

    The same command, given again, would take them for new images too.
    """
    folders = {os.path.dirname(path) or os.curdir for path in paths}
    if os.path.isdir(named := os.path.expanduser(pattern)):
        inside = inputs.is_inside(output, named)
    else:
        inside = any(os.path.realpath(output) == os.path.realpath(folder) for folder in folders)
    if inside:
        raise ValueError(
            f"--output={output} lies among the images that --images={pattern} names: choose a "
            "folder outside of them"
        )


def _noting_sizes(
    batches: Iterable[Sequence[Photo]], sizes: set[tuple[int, int]]
) -> Iterator[Sequence[Photo]]:
    """The batches; `sizes` gets the heights and widths of their photos, each once."""
    for batch in batches:
        sizes.update(photo.size for photo in batch if photo.pixels is not None)
        yield batch
