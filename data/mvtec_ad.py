"""MVTec AD, and any folder of its layout (data/scan.py), as a TFDS data set: TFDS has none.

For work of your own with tf.data: the runs of this project read the decoded copy of
data/pipeline.py. Images are as those runs see them, by EXIF orientation and by the white level of
all training images (docs/data.md). Nothing is downloaded.
"""

import contextlib
import hashlib
import io
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from data.images import Inspected, Reading, inspect, refuse_bad_files, white_level_of
from data.scan import CATEGORIES, HOMEPAGE, LICENCE, Files, Sample, digest, scan_layout, sums_of
from data.streaming import leave_accelerators

_Sound = tuple[Sample, np.ndarray, np.ndarray | None]  # with its image and its mask


def prepare_tfrecords(
    category: str,
    root: str | os.PathLike,
    data_dir: str | os.PathLike = "~/tensorflow_datasets",
) -> "MvtecAd":
    """Writes a category as TFRecords below `data_dir`, unless they are there; returns the builder.

    `builder.as_dataset(split="train")`, or "test", is a `tf.data.Dataset` of the images as they
    are seen. There is one copy for each `root` and category; when the files have changed, a new one
    takes its place as soon as it is complete. Each file is read once, and is decoded, once, for a
    new copy alone; training images of 16 bits twice, as their white level is found first.

    Raises:
      ValueError: as `scan_layout`; bad files, in one line that lists them all.
      FileNotFoundError: as `scan_layout`.
      OSError: the folder cannot be written.
    """
    leave_accelerators()
    files = scan_layout(root, category)
    root, data_dir = (os.path.expanduser(os.fspath(path)) for path in (root, data_dir))
    source = os.fsencode(os.path.realpath(os.path.join(root, category)))
    place = os.path.join(data_dir, hashlib.sha256(source).hexdigest()[:16])
    if builder := _up_to_date(category, place, files):
        return builder
    logging.info("Preparing %s in %s", category, place)
    try:
        os.makedirs(data_dir, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".mvtec_ad-") as hidden:
            new, old = os.path.join(hidden, "new"), os.path.join(hidden, "old")
            _write(_builder(category, new), root)
            with contextlib.suppress(FileNotFoundError):
                os.rename(place, old)
            os.rename(new, place)
    except (OSError, tf.errors.OpError) as error:
        if builder := _up_to_date(category, place, files):  # another process was faster
            return builder
        reason = " ".join(str(error).split())
        raise OSError(
            f"Cannot write the prepared copy of {category} to {data_dir} ({reason}): free "
            "space there, or choose another folder for `data_dir`"
        ) from error
    return _builder(category, place)


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """One config a category; a folder of another name is a `tfds.core.BuilderConfig` of that name.

    `manual_dir` is the folder that holds the categories' folders.
    """

    name = "mvtec_ad"
    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "Initial release.",
        "1.1.0": "EXIF orientation; the white level of 16 bits.",
    }
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Obtain MVTec AD ({LICENCE}) from {HOMEPAGE} and unpack it, so that `manual_dir` holds "
        "one folder a category."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            # 255 where defective; zeros where there is no mask
            "mask": tfds.features.Image(shape=(None, None, 1)),
            "has_mask": np.bool_,
            "label": tfds.features.ClassLabel(names=["good", "defective"]),
            "defect": tfds.features.Text(),
            "path": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="One category of MVTec AD (Bergmann et al., CVPR 2019) or of its layout.",
            features=tfds.features.FeaturesDict(features),
            homepage=HOMEPAGE,
            license=LICENCE,
            metadata=tfds.core.MetadataDict(),  # gets the `digest` of the files
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        files = scan_layout(dl_manager.manual_dir, self.builder_config.name)
        sound = self._inspect_each(files)
        # TFDS takes one split after the other, and refuses one without examples.
        return {
            split: self._generate_examples(itertools.islice(sound, len(samples)))
            for split, samples in files._asdict().items()
            if samples
        }

    def _inspect_each(self, files: Files) -> Iterator[_Sound]:
        """Each sample; once one is bad, the rest are looked through for the error alone."""
        faults: list[str] = []
        known: dict[Path, str] = {}
        last: _Sound | None = None  # held back, for nobody asks for another one after it
        for sample, inspected in _inspected(files):
            faults += inspected.faults
            known |= inspected.sums
            pixels = inspected.raster and inspected.raster.pixels
            if pixels is not None and not faults:
                if last:
                    yield last
                last = sample, pixels, inspected.mask
        refuse_bad_files(faults)
        self.info.metadata["digest"] = _digest(files, known.__getitem__)
        if last:
            yield last

    def _generate_examples(self, sound: Iterator[_Sound]) -> Iterator[tuple[str, dict[str, Any]]]:
        for sample, image, mask in sound:
            if mask is None:
                mask = np.zeros(image.shape[:2], bool)
            yield (
                sample.name,
                {
                    "image": _png(image),
                    "mask": _png(mask.astype(np.uint8) * 255),
                    "has_mask": sample.mask is not None,
                    "label": int(sample.defect != "good"),
                    "defect": sample.defect,
                    "path": sample.name,
                },
            )


def _digest(files: Files, *sum_of: Callable[[Path], str]) -> str:
    samples = [*files.train, *files.test]
    return digest([sample.name for sample in samples], sums_of(samples, *sum_of))


def _inspected(files: Files) -> Iterator[tuple[Sample, Inspected]]:
    """Training samples, then those of the test set; of 16 bits when all of the former are known."""

    def look(sample: Sample, reading: Reading) -> Inspected:
        defective = sample.defect != "good"
        return inspect(sample.path, sample.mask, defective=defective, reading=reading)

    deep: dict[Sample, int] = {}
    for sample in files.train:
        inspected = look(sample, Reading(white_level=0))
        if inspected.raster and inspected.raster.largest is not None:
            deep[sample] = inspected.raster.largest
        else:
            yield sample, inspected
    reading = Reading(white_level_of(deep.values()))
    for sample in (*deep, *files.test):
        yield sample, look(sample, reading)


def _up_to_date(category: str, place: str, files: Files) -> MvtecAd | None:
    """The builder of the copy in `place`, if it is of these files."""
    try:
        builder = _builder(category, place)
        if not builder.data_path.exists() or builder.info.metadata["digest"] != _digest(files):
            return None
    except Exception as error:  # a description that is cut off or missing fails in many ways
        reason = " ".join(str(error).split())[:200]
        logging.warning("The prepared copy in %s is damaged, another is made (%s)", place, reason)
        return None
    return builder


def _write(builder: MvtecAd, root: str) -> None:
    config = tfds.download.DownloadConfig(manual_dir=root, try_download_gcs=False)
    tfds.display_progress_bar(sys.stderr.isatty())
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download
        builder.download_and_prepare(download_config=config, file_format="tfrecord")


def _builder(category: str, place: str) -> MvtecAd:
    config = category if category in CATEGORIES else tfds.core.BuilderConfig(name=category)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not its own
    try:
        return MvtecAd(data_dir=place, config=config)
    finally:
        logging.set_verbosity(verbosity)


def _png(pixels: np.ndarray) -> io.BytesIO:
    # TFDS would encode it too, five times slower.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    buffer.seek(0)
    return buffer
