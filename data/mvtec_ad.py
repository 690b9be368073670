"""MVTec AD, and any folder of its layout, as a TFDS data set (TFDS itself has none).

    <root>/<category>/train/good/*                      normal images
                      test/good/*, test/<defect>/*      normal and defective images
                      ground_truth/<defect>/*_mask.png  what is defective in test/<defect>/*.png

Nothing is downloaded. Images are PNG, JPEG, BMP or TIFF; other and hidden files are ignored.
"""

import contextlib
import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from data.images import faults, images_below, images_in, read_image, read_mask

CATEGORIES = tuple(
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush "
    "transistor wood zipper".split()
)
_HOMEPAGE = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
_LICENCE = "CC BY-NC-SA 4.0"


class Sample(NamedTuple):
    """One image of a category."""

    path: Path
    name: str  # relative to the category's folder, e.g. 'test/broken_large/000.png'
    defect: str  # 'good' or the defect's folder
    mask: Path | None


class Files(NamedTuple):
    """All images of a category, sorted by name."""

    train: list[Sample]
    test: list[Sample]


def scan(root: str | os.PathLike, category: str) -> Files:
    """Lists a category's images and the mask of each, by name; opens none of them.

    The mask of `test/<defect>/<id>.png` is `ground_truth/<defect>/<id>_mask.png`, or `<id>.png`,
    in any of the image formats.

    Raises:
      ValueError: unknown category, no training images, a mask without an image.
      FileNotFoundError: one of the 15 categories that is not there.
    """
    folder = _category_folder(Path(root).expanduser(), category)
    train = [_sample(path, folder, {}) for path in images_in(folder / "train" / "good")]
    if not train:
        raise ValueError(
            f"No training images: {folder / 'train' / 'good'} holds no PNG, JPEG, BMP or TIFF "
            "file; put the normal images there"
        )
    masks = images_below(folder / "ground_truth")
    by_name = {(path.parent.name, path.stem): path for path in masks}
    test = [_sample(path, folder, by_name) for path in images_below(folder / "test")]
    uses = Counter(sample.mask for sample in test)
    if unused := [str(path) for path in masks if not uses[path]]:
        raise ValueError(
            f"Masks that belong to no image: {', '.join(unused)}; test/<defect>/<id>.png has the "
            "mask ground_truth/<defect>/<id>_mask.png: rename or remove them"
        )
    if shared := [str(path) for path in masks if uses[path] > 1]:
        raise ValueError(f"Masks of several images: {', '.join(shared)}; rename the images")
    return Files(train, test)


def digest(files: Files) -> str:
    """SHA-256, in hex, of the names and the contents of a category's images and masks."""
    whole = hashlib.sha256()
    for sample in (*files.train, *files.test):
        for path in filter(None, (sample.path, sample.mask)):
            try:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:  # preparing lists it among the other bad files
                content = str(error.strerror)
            whole.update(os.fsencode(f"{sample.name}\0{path.name}\0{content}\n"))
    return whole.hexdigest()


def check(files: Files) -> None:
    """Decodes every image and mask once, and holds each mask against its image.

    Raises:
      ValueError: one line that lists all bad files, each with its reason.
    """
    bad = [
        fault
        for sample in (*files.train, *files.test)
        for fault in faults(sample.path, sample.mask, defective=sample.defect != "good")
    ]
    if bad:
        raise ValueError(f"{len(bad)} bad files, repair or remove them: {'; '.join(bad)}")


def prepare(category: str, root: str | os.PathLike, data_dir: str) -> "MvtecAd":
    """Writes a category as TFRecords below `data_dir`, unless they are there; returns the builder.

    The name of `data_dir` must hold the `digest`, else a copy of other images would be taken.

    Raises:
      ValueError: as `check`.
      OSError: the folder cannot be written, or what is there is damaged.
    """
    builder = _builder(category, data_dir)
    if builder.data_path.exists():
        return builder
    config = tfds.download.DownloadConfig(
        manual_dir=os.path.expanduser(root), try_download_gcs=False
    )
    logging.info("Preparing %s in %s", category, builder.data_dir)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of a download
            builder.download_and_prepare(download_config=config, file_format="tfrecord")
    except (OSError, tf.errors.OpError) as error:
        if not builder.data_path.exists():  # else another process was faster: its copy is as good
            reason = " ".join(str(error).split())
            raise OSError(
                f"Cannot write the prepared copy of {category} to {data_dir} ({reason}): free "
                "space there or choose another data_dir"
            ) from error
        builder = _builder(category, data_dir)
    return builder


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """One config a category; a folder of another name is a `tfds.core.BuilderConfig` of that name.

    `manual_dir` is the folder that holds the categories' folders.
    """

    name = "mvtec_ad"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=category) for category in CATEGORIES]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Obtain MVTec AD ({_LICENCE}) from {_HOMEPAGE} and unpack it, so that `manual_dir` holds "
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
            homepage=_HOMEPAGE,
            license=_LICENCE,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        files = scan(dl_manager.manual_dir, self.builder_config.name)
        check(files)
        # TFDS refuses a split without examples.
        return {
            split: self._generate_examples(samples)
            for split, samples in files._asdict().items()
            if samples
        }

    def _generate_examples(self, samples: list[Sample]) -> Iterator[tuple[str, dict[str, Any]]]:
        for sample in samples:
            image = read_image(sample.path)
            mask = read_mask(sample.mask) if sample.mask else np.zeros(image.shape[:2], bool)
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


def damaged(data_dir: str, error: Exception) -> OSError:
    """The error for TFRecords that cannot be read back, with the way out."""
    reason = " ".join(str(error).split())[:200]
    return OSError(
        f"The prepared copy in {data_dir} is damaged: delete it, the next start makes another "
        f"({reason})"
    )


def _builder(category: str, data_dir: str) -> MvtecAd:
    config = category if category in CATEGORIES else tfds.core.BuilderConfig(name=category)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not its own
    try:
        return MvtecAd(data_dir=data_dir, config=config)
    except Exception as error:  # a cut-off description of the copy fails in many ways
        raise damaged(data_dir, error) from error
    finally:
        logging.set_verbosity(verbosity)


def _category_folder(root: Path, category: str) -> Path:
    folder = root / category
    if category in CATEGORIES and not folder.is_dir():
        raise FileNotFoundError(
            f"No folder {folder}: obtain MVTec AD (licence {_LICENCE}) from {_HOMEPAGE} and unpack "
            f"it into {root}, or use the generated data set, --config=<config>.py:demo"
        )
    if not folder.is_dir() or folder.name != category:
        raise ValueError(
            f"Unknown category {category!r}: there is no folder {folder}; known are "
            f"{', '.join(CATEGORIES)}, and any folder of the same layout under {root} works"
        )
    return folder


def _sample(path: Path, folder: Path, masks: dict[tuple[str, str], Path]) -> Sample:
    defect = path.parent.name
    mask = masks.get((defect, f"{path.stem}_mask")) or masks.get((defect, path.stem))
    return Sample(path, path.relative_to(folder).as_posix(), defect, mask)


def _png(pixels: np.ndarray) -> io.BytesIO:
    # TFDS would encode it too, five times slower.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    buffer.seek(0)
    return buffer
