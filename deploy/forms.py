"""A score in forms that need none of this project's code: StableHLO with weights, and ONNX.

Each form is a function of uint8 images [b, S, S, 3], for any b, to float32 scores [b] and maps
[b, S, S], higher = more anomalous, and, where the run has marks, log10 NFA of each pixel
[b, S, S]. Convolutions are in the form of the backend that writes
(engine/convolution.py), whichever runs them later.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from safetensors.numpy import load_file, save

from engine.method import Method, Variables
from engine.pixels import scaled
from evaluation.false_alarms import Background, log_nfa

STABLEHLO, WEIGHTS, ONNX = "model.stablehlo", "weights.safetensors", "model.onnx"
PLATFORMS = ("cpu", "cuda", "tpu")

Weights = Mapping[str, np.ndarray]
"""Such as 'encoder/params/Conv_0/kernel' -> array."""

Scoring = Callable[[Weights, Any], dict[str, jax.Array]]
"""(weights, uint8 [b, S, S, 3]) -> {'score': [b], 'map': [b, S, S]}, perhaps 'log10_nfa'."""

Form = Callable[[np.ndarray], tuple[np.ndarray, ...]]
"""uint8 [b, S, S, 3] -> scores [b], maps [b, S, S], and perhaps log10 NFA [b, S, S]."""

OUTPUTS = ("score", "map", "log10_nfa")
"""What the forms give, in this order; the last where the run has marks."""


def scoring(method: Method, variables: Variables, background: Background | None = None) -> Scoring:
    """The method's score as a function of what a file holds and a decoder gives.

    With a background of good maps, the number of false alarms of each pixel too. The file may lack
    networks of `variables` on which neither score nor map depends; zeros are in their place.
    """
    shapes = jax.eval_shape(lambda: flatten_dict(variables, sep="/"))

    def score(weights: Weights, images: jax.Array) -> dict[str, jax.Array]:
        flat = {
            name: weights[name] if name in weights else jnp.zeros(shape.shape, shape.dtype)
            for name, shape in shapes.items()
        }
        result = method.score(unflatten_dict(flat, sep="/"), scaled(images))
        values = {"score": result.image, "map": result.map}
        if background:
            values["log10_nfa"] = log_nfa(jnp.asarray(result.map), background)
        return values

    return score


def write_weights(
    folder: Path, score: Scoring, variables: Variables, shape: tuple[int, ...]
) -> Weights:
    """Writes the networks that the score of images of `shape` uses, and returns their weights."""
    flat = flatten_dict(jax.device_get(variables), sep="/")
    weights = {name: np.asarray(flat[name], order="C") for name in sorted(flat)}
    # Of one image: an export of any number says of every array that it is used.
    one = export.export(jax.jit(score))(*_specs(weights, (1, *shape)))
    used = {tuple(weights)[i].split("/")[0] for i in one.module_kept_var_idx if i < len(weights)}
    weights = {name: array for name, array in weights.items() if name.split("/")[0] in used}
    (folder / WEIGHTS).write_bytes(save(weights))  # `save_file` would hide it from other users
    return weights


def _specs(weights: Weights, shape: tuple[Any, ...]) -> tuple[Any, jax.ShapeDtypeStruct]:
    specs = {name: jax.ShapeDtypeStruct(w.shape, w.dtype) for name, w in weights.items()}
    return specs, jax.ShapeDtypeStruct(shape, np.uint8)


def write_stablehlo(
    folder: Path, score: Scoring, weights: Weights, shape: tuple[int, ...]
) -> export.Exported:
    """Writes the score of any number of images of `shape` [S, S, 3] as jax.export serialises it."""
    (batch,) = export.symbolic_shape("b")
    specs = _specs(weights, (batch, *shape))
    exported = export.export(jax.jit(score), platforms=PLATFORMS)(*specs)
    (folder / STABLEHLO).write_bytes(exported.serialize())
    return exported


def read_stablehlo(folder: Path) -> Form:
    """The score as StableHLO and safetensors have it."""
    exported = export.deserialize(bytearray((folder / STABLEHLO).read_bytes()))
    weights, call = load_file(folder / WEIGHTS), jax.jit(exported.call)

    def form(images: np.ndarray) -> tuple[np.ndarray, ...]:
        result = jax.device_get(call(weights, images))
        return tuple(result[name] for name in OUTPUTS if name in result)

    return form


def write_onnx(
    folder: Path, score: Scoring, weights: Weights, shape: tuple[int, ...], *, loops: bool
) -> str:
    """Writes the score of images of `shape`, weights inside, or returns why it cannot be.

    Functions that are jitted are traced as if they were not, for jax2onnx cannot read their calls
    in jax 0.12; but as that unrolls loops, not where there are `loops`.
    """
    missing = [n for n in ("jax2onnx", "onnxruntime") if importlib.util.find_spec(n) is None]
    if missing:
        return f"without {' and '.join(missing)}: pip install -r requirements-onnx.txt"

    image = jax.ShapeDtypeStruct((1, *shape), np.uint8)
    given = jax.eval_shape(score, weights, image)
    outputs = [name for name in OUTPUTS if name in given]

    def positional(images: jax.Array) -> tuple[jax.Array, ...]:
        result = score(weights, images)
        return tuple(result[name] for name in outputs)

    try:
        with _silenced(), jax.disable_jit(not loops):
            from jax2onnx import to_onnx

            images = jax.ShapeDtypeStruct(("b", *shape), np.uint8)
            names = {"input_names": ["images"], "output_names": outputs}
            model = to_onnx(positional, [images], model_name="score", **names)
        del model.graph.value_info[:]  # shapes of inner values, of which some are wrong
        (folder / ONNX).write_bytes(model.SerializeToString())
        read_onnx(folder)
    except Exception as error:  # what a converter has not met before makes it raise anything
        (folder / ONNX).unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200]
        version = importlib.metadata.version("jax2onnx")
        return f"jax2onnx {version} cannot convert this score ({type(error).__name__}: {reason})"
    return ""


def read_onnx(folder: Path) -> Form:
    """The score as ONNX Runtime has it, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = [name for name in OUTPUTS if name in names]
    return lambda images: tuple(session.run(outputs, {"images": images}))


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Without what jax2onnx prints, logs and warns of, such as its plugins for other libraries."""
    before = logging.root.manager.disable
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)
