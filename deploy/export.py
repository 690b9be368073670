"""Writes a folder that scores images without this project's code, and checks it before it is there.

output/model.stablehlo        (weights, uint8 [b, S, S, 3]) -> {'score': [b], 'map': [b, S, S]}
                              and, where the run has marks, 'log10_nfa': [b, S, S]; for cpu, cuda
                              and tpu, as jax.export serialises it
       weights.safetensors    the weights, such as 'encoder/params/Conv_0/kernel'
       model.onnx             uint8 images -> score, map, where jax2onnx can convert the score
       threshold.json, ...    the files that are given
       README.md              the model card
       SHA256SUMS             of all of them, for `sha256sum -c`
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from deploy import forms, model_card
from engine.method import Method, Score, Variables
from engine.pixels import scaled
from evaluation.false_alarms import Marks, log_nfa
from evaluation.scoring import scorer_of
from storage.files import SUMS, sums

CARD = "README.md"
TOLERANCE = 1e-4  # of a score, relative
_MAP_TOLERANCE = 1e-3  # of a map, relative to the highest value in its batch
_MARK_TOLERANCE = 1e-3  # of a batch's pixels, which rounding may mark
_BATCH = 32
_WAY_OUT = (
    "nothing was written: use the versions of requirements.txt and requirements-onnx.txt, and on a "
    "machine with an accelerator JAX_PLATFORMS=cpu"
)


def require_new_folder(output: str) -> None:
    """Raises FileExistsError where `output` exists, even as an empty folder."""
    if os.path.lexists(output):
        raise FileExistsError(f"{output} exists: name a new folder in --output, or remove this one")


def write_export(
    method: Method,
    variables: Variables,
    output: str,
    *,
    images: np.ndarray,
    score_threshold: float,
    files: Mapping[str, str],
    about: Mapping[str, Any],
    statement: Sequence[str],
    marks: Marks | None = None,
) -> None:
    """Writes the folder `output`, after each form of the score in it was read back and tried.

    Args:
      method: whose score is exported.
      variables: its networks.
      output: a folder that does not exist; its parents are made.
      images: uint8 [N, S, S, 3], calibration images, on which the forms are tried.
      score_threshold: an image with a higher score is defective.
      files: name -> text of what else lies in the folder, such as 'threshold.json'.
      about: what the model card tells, with the keys of results.json; any may be missing.
      statement: sentences about the threshold, for the model card.
      marks: by which pixels are marked; their number of false alarms becomes part of the function.

    Raises:
      OSError: `output` exists, or cannot be written.
      ValueError: there is no image; or a form gives one another score, decision or map.
    """
    with _whole(output) as folder:
        without_onnx = _write_forms(folder, method, variables, images.shape[1:], marks)
        trial = _try_forms(folder, method, variables, images, score_threshold, marks, without_onnx)
        card = model_card.card_text(
            about,
            statement,
            shape=images.shape[1:],
            trial=trial,
            without_onnx=without_onnx,
            files=tuple(files),
        )
        for name, content in {**files, CARD: card}.items():
            (folder / name).write_text(content, encoding="utf-8")
        _write_sums(epath.Path(folder))
    differences = ", ".join(f"{name} {value:.1e}" for name, value in trial.differences.items())
    logging.info("Largest relative difference of %d scores: %s.", trial.images, differences)
    if trial.alone > TOLERANCE:
        logging.warning(
            "An image scored alone gets a score that differs by %.1e from the one among others: "
            "nearer to the threshold than that, decisions depend on it.",
            trial.alone,
        )


@contextlib.contextmanager
def _whole(output: str) -> Iterator[Path]:
    """A folder that becomes `output` at the end, and is removed if anything is raised before."""
    require_new_folder(output)
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


def _write_forms(
    folder: Path,
    method: Method,
    variables: Variables,
    shape: tuple[int, ...],
    marks: Marks | None,
) -> str:
    """Writes all forms of the score; why there is no ONNX, or ''."""
    score = forms.scoring(method, variables, marks and marks.background)
    weights = forms.write_weights(folder, score, variables, shape)
    exported = forms.write_stablehlo(folder, score, weights, shape)
    loops = "stablehlo.while" in exported.mlir_module()
    without_onnx = forms.write_onnx(folder, score, weights, shape, loops=loops)
    if without_onnx:
        logging.warning("No %s: %s.", forms.ONNX, without_onnx)
    return without_onnx


def _try_forms(
    folder: Path,
    method: Method,
    variables: Variables,
    images: np.ndarray,
    threshold: float,
    marks: Marks | None,
    without_onnx: str,
) -> model_card.Trial:
    """Scores the first image alone and all in batches, by the networks and by each form."""
    if not len(images):
        raise ValueError("there is no held-out good image to try an export on: hold out some")
    batches = [images[:1], *(images[i : i + _BATCH] for i in range(0, len(images), _BATCH))]
    scorer = scorer_of(method, variables)
    expected: list[Score] = [jax.device_get(scorer(scaled(batch))) for batch in batches]
    readers = {forms.STABLEHLO: forms.read_stablehlo}
    if not without_onnx:
        readers[forms.ONNX] = forms.read_onnx
    differences = {
        name: _verify(name, read(folder), batches, expected, threshold, marks)
        for name, read in readers.items()
    }
    alone, among = expected[0].image[0], expected[1].image[0]
    return model_card.Trial(len(images), differences, float(_relative(alone, among)))


def _verify(
    name: str,
    form: forms.Form,
    batches: Sequence[np.ndarray],
    expected: Sequence[Score],
    threshold: float,
    marks: Marks | None,
) -> float:
    """The largest relative difference of a score.

    Compared are batches of the same size, for another size is another order of sums, which AnoGAN's
    search makes more of than is tolerated.
    """
    largest = 0.0
    for batch, (wanted, wanted_maps, *_) in zip(batches, expected, strict=True):
        scores, maps, *nfa = form(batch)
        if (scores.shape, maps.shape) != (wanted.shape, wanted_maps.shape):
            raise ValueError(f"{name} gives {maps.shape} for {wanted_maps.shape}: {_WAY_OUT}")
        allowed = _MAP_TOLERANCE * np.max(np.abs(wanted_maps))
        same = (
            (_relative(scores, wanted) <= TOLERANCE)
            & ((scores > np.float64(threshold)) == (wanted > np.float64(threshold)))
            & (np.abs(maps - wanted_maps) <= allowed).all(axis=(1, 2))
        )
        if not same.all():
            index = int(np.argmin(same))
            raise ValueError(
                f"{name} gives image {index} of {len(batch)} held-out ones the score "
                f"{scores[index]:.9g}, the networks {wanted[index]:.9g} (threshold "
                f"{threshold:.9g}), or another map: {_WAY_OUT}"
            )
        if marks and (share := _otherwise_marked(maps, nfa[0], marks)) > _MARK_TOLERANCE:
            raise ValueError(
                f"{name} marks {100 * share:.2g} % of the pixels of held-out good images otherwise "
                f"than predict does: {_WAY_OUT}"
            )
        largest = max(largest, float(_relative(scores, wanted).max()))
    return largest


def _otherwise_marked(maps: np.ndarray, nfa: np.ndarray, marks: Marks) -> float:
    """The share of pixels that are marked by an exported function, or by predict, alone."""
    wanted = log_nfa(maps, marks.background) < marks.limit
    return float(((nfa < marks.limit) != wanted).mean())


def _relative(scores: Any, wanted: Any) -> Any:
    """The relative difference of float scores, [b] or []."""
    return np.abs(scores - wanted) / np.maximum(np.abs(wanted), 1e-30)


def _write_sums(folder: epath.Path) -> None:
    (folder / SUMS).write_bytes(b"".join(line + b"\n" for line in sums(folder)))
