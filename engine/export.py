"""Writes a folder that scores images without this project's code, and checks it before it is there.

output/model.stablehlo        (weights, uint8 [b, S, S, 3]) -> {'score': [b], 'map': [b, S, S]},
                              for cpu, cuda and tpu, as jax.export serialises it
       weights.safetensors    the weights, such as 'encoder/params/Conv_0/kernel'
       model.onnx             uint8 images -> score, map, where jax2onnx can convert the score
       threshold.json, ...    the files that are given
       README.md              the model card
       SHA256SUMS             of all of them, for `sha256sum -c`
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from engine import model_card, portable
from engine.method import Method, Score, Variables
from engine.scoring import score_all, scorer_of

CARD, SUMS = "README.md", "SHA256SUMS"
TOLERANCE = 1e-4  # of a score, relative
_MAP_TOLERANCE = 1e-3  # of a map, relative to the highest value of all maps
_BATCH = 32
_WAY_OUT = (
    "nothing was written: use the versions of requirements.txt and requirements-onnx.txt, and on a "
    "machine with an accelerator JAX_PLATFORMS=cpu"
)


def check_new(output: str) -> None:
    """Raises FileExistsError where `output` exists, even as an empty folder."""
    if os.path.lexists(output):
        raise FileExistsError(f"{output} exists: name a new folder in --output, or remove this one")


def export(
    method: Method,
    variables: Variables,
    output: str,
    *,
    images: np.ndarray,
    score_threshold: float,
    files: Mapping[str, str],
    about: Mapping[str, Any],
    statement: Sequence[str],
) -> None:
    """Writes the folder `output`, after each form of the score in it was read back and tried.

    Args:
      method: whose score is exported.
      variables: its networks.
      output: a folder that does not exist; its parents are made.
      images: uint8 [N, S, S, 3], held-out calibration images, on which the forms are tried.
      score_threshold: an image with a higher score is defective.
      files: name -> text of what else lies in the folder, such as 'threshold.json'.
      about: what the model card tells, with the keys of results.json; any may be missing.
      statement: sentences about the threshold, for the model card.

    Raises:
      OSError: `output` exists, or cannot be written.
      ValueError: there is no image; or a form gives one another score, decision or map.
    """
    with _whole(output) as folder:
        without_onnx = _write_forms(folder, method, variables, images.shape[1:])
        differences = _try_forms(folder, method, variables, images, score_threshold, without_onnx)
        card = model_card.text(
            about,
            statement,
            image_size=images.shape[1],
            tried=len(images),
            differences=differences,
            without_onnx=without_onnx,
            files=tuple(files),
        )
        for name, content in {**files, CARD: card}.items():
            (folder / name).write_text(content, encoding="utf-8")
        _write_sums(folder)
    told = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    logging.info("Largest relative difference of %d scores: %s.", len(images), told)


@contextlib.contextmanager
def _whole(output: str) -> Iterator[Path]:
    """A folder that becomes `output` at the end, and is removed if anything is raised before."""
    check_new(output)
    target = Path(os.path.abspath(output))
    folder = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write {output} ({reason}): name another --output") from error
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_forms(folder: Path, method: Method, variables: Variables, shape: tuple[int, ...]) -> str:
    """Writes all forms of the score; why there is no ONNX, or ''."""
    score = portable.scoring(method)
    weights = portable.write_weights(folder, score, variables, shape)
    exported = portable.write_stablehlo(folder, score, weights, shape)
    loops = "stablehlo.while" in exported.mlir_module()
    without_onnx = portable.write_onnx(folder, score, weights, shape, loops=loops)
    if without_onnx:
        logging.warning("No %s: %s.", portable.ONNX, without_onnx)
    return without_onnx


def _try_forms(
    folder: Path,
    method: Method,
    variables: Variables,
    images: np.ndarray,
    threshold: float,
    without_onnx: str,
) -> dict[str, float]:
    """The largest relative difference of a score, by the name of the form."""
    batches = (portable.scaled(images[part]) for part in _parts(images))
    expected = score_all(scorer_of(method, variables), batches, _BATCH)
    forms = {portable.STABLEHLO: portable.read_stablehlo}
    if not without_onnx:
        forms[portable.ONNX] = portable.read_onnx
    return {
        name: _verify(name, read(folder), images, expected, threshold)
        for name, read in forms.items()
    }


def _parts(images: np.ndarray) -> list[slice]:
    return [slice(first, first + _BATCH) for first in range(0, len(images), _BATCH)]


def _verify(
    name: str, form: portable.Form, images: np.ndarray, expected: Score, threshold: float
) -> float:
    """The largest relative difference of a score; the first image is also tried alone."""
    largest = 0.0
    for part in (slice(0, 1), *_parts(images)):
        scores, maps = form(images[part])
        wanted, wanted_maps = expected.image[part], expected.map[part]
        if (scores.shape, maps.shape) != (wanted.shape, wanted_maps.shape):
            raise ValueError(f"{name} gives {maps.shape} for {wanted_maps.shape}: {_WAY_OUT}")
        differences = np.abs(scores - wanted) / np.maximum(np.abs(wanted), 1e-30)
        allowed = _MAP_TOLERANCE * np.max(np.abs(expected.map))
        same = (
            (differences <= TOLERANCE)
            & ((scores > np.float64(threshold)) == (wanted > np.float64(threshold)))
            & (np.abs(maps - wanted_maps) <= allowed).all(axis=(1, 2))
        )
        if not same.all():
            index = int(np.argmin(same))
            raise ValueError(
                f"{name} gives held-out image {part.start + index} the score {scores[index]:.9g}, "
                f"the networks {wanted[index]:.9g} (threshold {threshold:.9g}), or another map: "
                f"{_WAY_OUT}"
            )
        largest = max(largest, float(differences.max()))
    return largest


def _write_sums(folder: Path) -> None:
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / SUMS).write_text("".join(lines))
