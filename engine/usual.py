"""Anomaly maps held against what is usual at each place, for parts that all lie alike.

A map of a good part lights up where parts are hard to reconstruct, such as at their edges. Divided
by what good parts have there, it does so no more than elsewhere. All of it is ours. Maps are
float32 [B, H, W], not negative.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from engine.method import Score, ScoreFn, Tuning, Variables
from engine.residuals import interpolation_matrix

NORMALISATIONS = ("none", "pixel")
"""What `score.normalise` may be."""

MOST = 64
"""Images that tell what is usual: more say little more."""

Cells = Sequence[Sequence[float]]
"""The mean at each place, rows of cells; () where nothing is said of places."""

_CELLS = 32  # along a side
_FAINTEST = 0.25  # of the mean over places: no place counts as more quiet
_BATCH = 8


def usual_cells(mean: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """The mean map [H, W] of good images over each cell, but no less than a quarter of its mean.

    There are 32 cells along a side, or as many as pixels. Numbers have six digits, as they are
    written into JSON.
    """
    rows, columns = (_cell_matrix(length) for length in mean.shape)
    cells = (rows / rows.sum(1, keepdims=True)) @ mean @ (columns / columns.sum(1, keepdims=True)).T
    cells = np.maximum(cells, _FAINTEST * max(float(mean.mean()), 1e-12))
    return tuple(tuple(float(f"{cell:.6g}") for cell in row) for row in cells.tolist())


def over_usual(maps: Any, usual: Cells) -> Any:
    """The maps over what is usual at each place, linearly between cells; of () as they are.

    Of NumPy's arrays they are NumPy's, of JAX's JAX's.
    """
    if not len(usual):
        return maps
    cells = np.asarray(usual, np.float32)
    sides = zip(maps.shape[1:], cells.shape, strict=True)
    rows, columns = (interpolation_matrix(length, count) for length, count in sides)
    return maps / np.maximum(rows @ cells @ columns.T, np.float32(1e-12))[None]


def required_usual(normalise: str, usual: Cells) -> Cells:
    """What a score whose fields these are divides its map by; () where it does not.

    Raises:
      ValueError: `normalise` is another, or nobody has measured what is usual.
    """
    if normalise not in NORMALISATIONS:
        raise ValueError(
            f"score.normalise {normalise!r} must be one of {', '.join(NORMALISATIONS)}"
        )
    if normalise == "none":
        return ()
    if not len(usual):
        raise ValueError(
            "score.normalise='pixel' needs what is usual at each place: train with 'none'; "
            "--mode=tune then measures it, and --config.tuning.normalise=\"('pixel',)\" chooses "
            "this score"
        )
    return usual


def measured_usual(
    maps_of: Callable[[Variables, jax.Array], Sequence[jax.Array]],
    variables: Variables,
    images: jax.Array,
) -> list[tuple[tuple[float, ...], ...]]:
    """What is usual of each of the kinds of maps that `maps_of` makes of good images [N, H, W, C].

    Of training images, best: the calibration images set the threshold, and would judge themselves.
    """
    compiled = jax.jit(maps_of)
    batches = [images[at : at + _BATCH] for at in range(0, len(images), _BATCH)]
    sums = [[np.asarray(each).sum(0) for each in compiled(variables, batch)] for batch in batches]
    return [usual_cells(sum(each) / len(images)) for each in zip(*sums, strict=True)]


def by_place(
    kinds: Sequence[Mapping[str, Any]], normalise: Sequence[str], usual: Sequence[Cells] = ()
) -> tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]:
    """`Tuning.settings` and `Tuning.constants`: each of the `kinds` of maps by each normalisation.

    Args:
      kinds: fields of the section `score`.
      normalise: of `NORMALISATIONS`.
      usual: of each kind; () before it is measured.
    """
    of_each = usual or [()] * len(kinds)
    both = [
        ({**fields, "normalise": name}, {"usual": cells} if name == "pixel" else {})
        for name in normalise
        for fields, cells in zip(kinds, of_each, strict=True)
    ]
    return tuple(fields for fields, _ in both), tuple(constants for _, constants in both)


def place_tuning(
    section: Any,
    score_with: Callable[[Mapping[str, Any]], ScoreFn],
    rules: Mapping[str, Mapping[str, Any]],
    usual: Sequence[Cells] = (),
) -> Tuning:
    """What a score leaves open that has one map: whether it is normalised, and its image score.

    Args:
      section: the config's `tuning`, of which `normalise` counts.
      score_with: as `Tuning.score`.
      rules: as `Tuning.rules`; what a rule gives may be a term of the score, by its name.
      usual: of the map; () before it is measured.
    """
    settings, constants = by_place([{}], section.normalise, usual)

    def scores(variables: Variables, images: jax.Array) -> tuple[Score, ...]:
        def of(fields: Mapping[str, Any]) -> Score:
            scored = score_with(fields)(variables, images)
            terms = dict(scored.terms)
            for name, rule in rules.items():
                if name not in terms:
                    ruled = score_with({**fields, **rule})(variables, images) if rule else scored
                    terms[name] = ruled.image
            return Score(scored.image, scored.map, terms)

        return tuple(of({**a, **b}) for a, b in zip(settings, constants, strict=True))

    def maps_of(variables: Variables, images: jax.Array) -> list[jax.Array]:
        return [score_with({"normalise": "none"})(variables, images).map]

    def measured(variables: Variables, images: jax.Array, training: jax.Array) -> Tuning:
        del images
        seen = measured_usual(maps_of, variables, training)
        return place_tuning(section, score_with, rules, seen)

    needed = measured if "pixel" in section.normalise else None
    return Tuning(None, settings, rules, scores, score_with, needed, constants)


def _cell_matrix(length: int) -> np.ndarray:
    """Row i is 1 at the pixels of cell i of a line."""
    count = min(_CELLS, length)
    cell = np.arange(length) * count // length
    return np.asarray(cell[None] == np.arange(count)[:, None], np.float32)
