"""MVTec AD, and any folder of its layout (data/scan.py), as a TFDS data set: TFDS has none.

Nothing is downloaded.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from data.decoded import Images
from data.images import read_image, read_mask, resize
from data.scan import CATEGORIES, HOMEPAGE, LICENCE, Sample, refuse_bad_files, scan_layout
from data.streaming import leave_accelerators


def prepare(category: str, root: str | os.PathLike, data_dir: str) -> "MvtecAd":
    """Writes a category as TFRecords below `data_dir`, unless they are there; returns the builder.

    The name of `data_dir` must hold the `digest`, else a copy of other images would be taken.

    Raises:
      ValueError: as `refuse_bad_files`.
      OSError: the folder cannot be written, or what is there is damaged.
    """
    leave_accelerators()
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
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        files = scan_layout(dl_manager.manual_dir, self.builder_config.name)
        refuse_bad_files(files)
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


def _damaged(data_dir: str, error: Exception) -> OSError:
    """The error for TFRecords that cannot be read back, with the way out."""
    reason = " ".join(str(error).split())[:200]
    return OSError(
        f"The prepared copy in {data_dir} is damaged: delete it, the next start makes another "
        f"({reason})"
    )


def read(builder: MvtecAd, split: str, samples: list[Sample], image_size: int) -> Images:
    """The images of a split, resized to `image_size` x `image_size`, sorted by path.

    Raises:
      OSError: the TFRecords are damaged.
    """

    def resized(example: dict[str, Any]) -> dict[str, Any]:
        image = example["image"]
        return {**example, "image": resize(image, image_size), "size": image.shape[:2]}

    examples: list[dict[str, Any]] = []
    if samples:
        try:
            dataset = builder.as_dataset(
                split=split,
                decoders={"mask": tfds.decode.SkipDecoding()} if split == "train" else None,
                read_config=tfds.ReadConfig(try_autocache=False),
            )
            # One by one: the images as they are would not all fit.
            examples = [resized(example) for example in dataset.as_numpy_iterator()]
        except (AssertionError, KeyError, ValueError, OSError, tf.errors.OpError) as error:
            raise _damaged(builder.data_dir, error) from error
    examples.sort(key=lambda example: example["path"])
    return Images(
        np.array([example["image"] for example in examples], np.uint8).reshape(
            -1, image_size, image_size, 3
        ),
        [example["path"].decode() for example in examples],
        [example["defect"].decode() for example in examples],
        np.array([example["label"] for example in examples], np.int64),
        [_mask(example) for example in examples] if split == "test" else [],
        np.array([example["size"] for example in examples], np.int64).reshape(-1, 2),
    )


def _mask(example: dict[str, Any]) -> np.ndarray | None:
    if example["label"] and not example["has_mask"]:
        return None
    return example["mask"][..., 0] > 0


def _builder(category: str, data_dir: str) -> MvtecAd:
    config = category if category in CATEGORIES else tfds.core.BuilderConfig(name=category)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS warns of every config that is not its own
    try:
        return MvtecAd(data_dir=data_dir, config=config)
    except Exception as error:  # a cut-off description of the copy fails in many ways
        raise _damaged(data_dir, error) from error
    finally:
        logging.set_verbosity(verbosity)


def _png(pixels: np.ndarray) -> io.BytesIO:
    # TFDS would encode it too, five times slower.
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    buffer.seek(0)
    return buffer
