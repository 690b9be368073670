"""The convolutions of XLA:CPU: three contractions, each in a form that is fast there.

On XLA:CPU the gradients that autodiff writes for a convolution fall into naive loops where it has a
stride, and so does every gradient inside a `lax.scan`. But y = conv(x, w), x' = conv_input(y, w)
and w' = conv_kernel(x, y) are three contractions of one trilinear form, and each one's
vector-Jacobian product is the other two: a derivative of any order is again one of three forms,
each written so that XLA:CPU has a fast path for it (docs/performance.md).

Arrays are of one type: x [B, H, W, C], w [K, K, C, D], y [B, h, w, D]. engine/convolution.py says
when these forms are taken.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Pads = tuple[tuple[int, int], ...]


class Geometry(NamedTuple):
    """What the shapes of two of a convolution's three arrays leave open."""

    stride: int
    pads: Pads  # zeros before and after, of height and width
    sides: tuple[int, int]  # H, W of the input
    kernel: tuple[int, int]  # height and width of the kernel
    dilation: int = 1  # from one of the kernel's taps to the next; above 1 the stride is 1


def plain(x: jax.Array, w: jax.Array, stride: int, pads: Pads, dilation: int = 1) -> jax.Array:
    """XLA's own convolution: x [B, H, W, C], w [K, K, C, D] -> [B, h, w, D]."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """The convolution: x [B, H, W, C], w [K, K, C, D] -> [B, h, w, D]."""
    if _few_features(w.shape[3], geometry):
        return _add_shifted(jnp.einsum("bhwc,ijcd->bhwijd", x, w), geometry)
    return plain(x, w, geometry.stride, geometry.pads, geometry.dilation)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_input(y: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """Its transpose in the input: y [B, h, w, D], w [K, K, C, D] -> [B, H, W, C]."""
    stride = geometry.stride
    if _few_features(w.shape[3], geometry):
        return jnp.einsum("bhwijd,ijcd->bhwc", _shifted(y, geometry), w)
    if stride == 1:
        kernel = w[::-1, ::-1].transpose(0, 1, 3, 2)
        return plain(y, kernel, 1, _pads_of_transpose(geometry), geometry.dilation)
    return _conv_input_by_phases(y, w, geometry)


def _pads_of_transpose(geometry: Geometry) -> Pads:
    """The zeros around y where it is the input and the stride is 1."""
    (top, bottom), (left, right) = geometry.pads
    height, width = ((size - 1) * geometry.dilation for size in geometry.kernel)
    return (height - top, height - bottom), (width - left, width - right)


def _conv_input_by_phases(y: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution of stride 1 computes all phases (r, q) of the pixels x[s m + r, s n + q].

    The transpose of a convolution of stride s is usually written as one of stride 1 over y with
    s - 1 zeros between its pixels: most products are by zero, and XLA:CPU has no fast path for it.
    But pixels of x whose row and column leave the same remainder by s, a phase, meet the same rows
    and columns of the kernel. Each phase is an ordinary small convolution of y, and all s x s of
    them are one whose output channels are (r, q, C); its pixels are then sorted into x.

    Row s m + r meets y's row m + o with the kernel's row r + pad - s o, where there is one.
    """
    stride = geometry.stride
    rows, row_pads, top = _phases(geometry, axis=0, count=y.shape[1])
    columns, column_pads, left = _phases(geometry, axis=1, count=y.shape[2])
    padded = jnp.pad(w, ((0, 1), (0, 1), (0, 0), (0, 0)))  # index K: a row or column of zeros
    taps = padded[rows[:, None, :, None], columns[None, :, None, :]]  # [o, o', r, q, C, D]
    taps = taps.transpose(0, 1, 5, 2, 3, 4).reshape(*taps.shape[:2], w.shape[3], -1)
    x = plain(y, taps, 1, (row_pads, column_pads))
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, stride, stride, w.shape[2]).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, height * stride, width * stride, w.shape[2])
    return x[:, top : top + geometry.sides[0], left : left + geometry.sides[1]]


def _phases(geometry: Geometry, axis: int, count: int) -> tuple[np.ndarray, tuple[int, int], int]:
    """The kernel's index for (offset o, phase r), K where there is none; y's padding; the crop.

    Where some phases begin an offset later than others, such as with 4 rows, stride 2 and padding
    1, they are counted from `crop` pixels before the image, so that all see the same offsets.
    """
    stride, kernel, side = geometry.stride, geometry.kernel[axis], geometry.sides[axis]
    before = geometry.pads[axis][0]

    def ends(before: int) -> tuple[int, int]:
        return -((kernel - 1 - before) // stride), (stride - 1 + before) // stride

    # The offsets o for which some phase has a row of the kernel, counted from the image, and then
    # from `crop` pixels before it, if that saves an offset for all.
    first, last = ends(before)
    crop = 0 if last - first < -(-kernel // stride) else before % stride
    first, last = ends(before - crop)
    offsets, phases = np.arange(first, last + 1)[:, None], np.arange(stride)[None]
    index = phases + before - crop - stride * offsets
    index = np.where((index >= 0) & (index < kernel), index, kernel)
    return index, (-first, -(-(side + crop) // stride) + last - count), crop


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_kernel(x: jax.Array, y: jax.Array, geometry: Geometry) -> jax.Array:
    """Its transpose in the kernel: x [B, H, W, C], y [B, h, w, D] -> [K, K, C, D].

    A convolution of x by y whose contracted channel is the batch, transposed explicitly: XLA:CPU
    has a fast path for [B, H, W, C] by [K, K, C, D] only. Or of y by x, which gives the kernel
    turned around: of the same size, the one with more channels is faster as the kernel.
    """
    if _few_features(y.shape[3], geometry):
        return jnp.einsum("bhwc,bhwijd->ijcd", x, _shifted(y, geometry))
    stride, dilation = geometry.stride, geometry.dilation
    if stride == 1 and x.shape[1:3] == y.shape[1:3] and x.shape[3] >= y.shape[3]:
        pads = _pads_of_transpose(geometry)
        w = plain(y.transpose(3, 1, 2, 0), x.transpose(1, 2, 0, 3), dilation, pads)
        return w[:, ::-1, ::-1].transpose(1, 2, 3, 0)
    pads = tuple(
        (before, (count - 1) * stride + (kernel - 1) * dilation + 1 - side - before)
        for (before, _), count, kernel, side in zip(
            geometry.pads, y.shape[1:3], geometry.kernel, geometry.sides, strict=True
        )
    )
    w = plain(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), dilation, pads, stride)
    return w.transpose(1, 2, 0, 3)


# With as few features as an image has channels, a convolution wastes most of a vector register; as
# one matrix product over all pixels of the input it takes a fifth of the time.


def _few_features(features: int, geometry: Geometry) -> bool:
    dense = geometry.stride == geometry.dilation == 1
    return features <= 4 and dense and geometry.kernel != (1, 1)


def _add_shifted(parts: jax.Array, geometry: Geometry) -> jax.Array:
    """Sums parts [B, H, W, K, K, D], each moved by its place in the kernel: [B, h, w, D]."""
    padded = jnp.pad(parts, ((0, 0), *geometry.pads, (0, 0), (0, 0), (0, 0)))
    rows, columns = geometry.kernel
    height, width = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    terms = [
        padded[:, i : i + height, j : j + width, i, j] for i in range(rows) for j in range(columns)
    ]
    return reduce(jnp.add, terms)


def _shifted(y: jax.Array, geometry: Geometry) -> jax.Array:
    """What each pixel of the input meets in y [B, h, w, D], by place in the kernel."""
    (height, width), (rows, columns) = geometry.sides, geometry.kernel
    padded = jnp.pad(y, ((0, 0), *_pads_of_transpose(geometry), (0, 0)))
    moved = [
        [padded[:, i : i + height, j : j + width] for j in reversed(range(columns))]
        for i in reversed(range(rows))
    ]
    return jnp.stack([jnp.stack(row, axis=3) for row in moved], axis=3)


def _with_inputs(form: Callable[..., jax.Array]) -> Callable[..., Any]:
    return lambda a, b, geometry: (form(a, b, geometry), (a, b))


conv.defvjp(
    _with_inputs(conv),
    lambda g, xw, dy: (conv_input(dy, xw[1], g), conv_kernel(xw[0], dy, g)),
)
conv_input.defvjp(
    _with_inputs(conv_input),
    lambda g, yw, dx: (conv(dx, yw[1], g), conv_kernel(dx, yw[0], g)),
)
conv_kernel.defvjp(
    _with_inputs(conv_kernel),
    lambda g, xy, dw: (conv_input(xy[1], dw, g), conv(xy[0], dw, g)),
)
