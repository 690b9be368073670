"""Convolutions whose form depends on the backend; the only place where it is chosen.

Parameters, and so checkpoints, are the same whatever the form. Arrays are float32 [B, H, W, C],
kernels [K, K, C, D], results [B, h, w, D].

On GPU and TPU a convolution is XLA's own. On XLA:CPU the gradients that autodiff writes for one
fall into naive loops where it has a stride, and so does every gradient inside a `lax.scan`. There,
y = conv(x, w), x' = conv_input(y, w) and w' = conv_kernel(x, y) are three contractions of one
trilinear form, and each one's vector-Jacobian product is the other two: a derivative of any order
is again one of three forms, each written so that XLA:CPU has a fast path for it
(docs/performance.md).
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from engine import parallel

Pads = tuple[tuple[int, int], ...]


class Geometry(NamedTuple):
    """What the shapes of two of a convolution's three arrays leave open."""

    stride: int
    pads: Pads  # zeros before and after, of height and width
    sides: tuple[int, int]  # H, W of the input
    kernel: tuple[int, int]  # height and width of the kernel


def _convolve(x: jax.Array, w: jax.Array, stride: int, pads: Pads, dilation: int = 1) -> jax.Array:
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
    return _convolve(x, w, geometry.stride, geometry.pads)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_input(y: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """Its transpose in the input: y [B, h, w, D], w [K, K, C, D] -> [B, H, W, C]."""
    stride = geometry.stride
    if _few_features(w.shape[3], geometry):
        return jnp.einsum("bhwijd,ijcd->bhwc", _shifted(y, geometry), w)
    if stride == 1:
        (top, bottom), (left, right) = geometry.pads
        height, width = (size - 1 for size in geometry.kernel)
        pads = ((height - top, height - bottom), (width - left, width - right))
        return _convolve(y, w[::-1, ::-1].transpose(0, 1, 3, 2), 1, pads)
    return _conv_input_by_phases(y, w, geometry)


def _conv_input_by_phases(y: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """One convolution of stride 1 computes all phases (r, q) of the pixels x[s m + r, s n + q].

    Row s m + r meets y's row m + o with the kernel's row r + pad - s o, where there is one.
    """
    stride = geometry.stride
    rows, row_pads, top = _phases(geometry, axis=0, count=y.shape[1])
    columns, column_pads, left = _phases(geometry, axis=1, count=y.shape[2])
    padded = jnp.pad(w, ((0, 1), (0, 1), (0, 0), (0, 0)))  # index K: a row or column of zeros
    taps = padded[rows[:, None, :, None], columns[None, :, None, :]]  # [o, o', r, q, C, D]
    taps = taps.transpose(0, 1, 5, 2, 3, 4).reshape(*taps.shape[:2], w.shape[3], -1)
    x = _convolve(y, taps, 1, (row_pads, column_pads))
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, stride, stride, w.shape[2]).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, height * stride, width * stride, w.shape[2])
    return x[:, top : top + geometry.sides[0], left : left + geometry.sides[1]]


def _phases(
    geometry: Geometry, axis: int, count: int
) -> tuple[np.ndarray, tuple[int, int], int]:
    """The kernel's index for (offset o, phase r), K where there is none; y's padding; the crop.

    Where some phases begin an offset later than others, such as with 4 rows, stride 2 and padding
    1, they are counted from `crop` pixels before the image, so that all see the same offsets.
    """
    stride, kernel, side = geometry.stride, geometry.kernel[axis], geometry.sides[axis]
    before = geometry.pads[axis][0]

    def ends(before: int) -> tuple[int, int]:
        return -((kernel - 1 - before) // stride), (stride - 1 + before) // stride

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
    has a fast path for [B, H, W, C] by [K, K, C, D] only.
    """
    if _few_features(y.shape[3], geometry):
        return jnp.einsum("bhwc,bhwijd->ijcd", x, _shifted(y, geometry))
    pads = tuple(
        (before, (count - 1) * geometry.stride + kernel - side - before)
        for (before, _), count, kernel, side in zip(
            geometry.pads, y.shape[1:3], geometry.kernel, geometry.sides, strict=True
        )
    )
    w = _convolve(x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), 1, pads, geometry.stride)
    return w.transpose(1, 2, 0, 3)


# With as few features as an image has channels, a convolution wastes most of a vector register; as
# one matrix product over all pixels of the input it takes a fifth of the time.


def _few_features(features: int, geometry: Geometry) -> bool:
    return features <= 4 and geometry.stride == 1 and geometry.kernel != (1, 1)


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
    (top, bottom), (left, right) = geometry.pads
    pads = ((rows - 1 - top, rows - 1 - bottom), (columns - 1 - left, columns - 1 - right))
    padded = jnp.pad(y, ((0, 0), *pads, (0, 0)))
    moved = [
        [padded[:, i : i + height, j : j + width] for j in reversed(range(columns))]
        for i in reversed(range(rows))
    ]
    return jnp.stack([jnp.stack(row, axis=3) for row in moved], axis=3)


def _with_inputs(form: Callable) -> Callable:
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


def convolve(x: jax.Array, w: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Convolution of x [B, H, W, C] by w [K, K, C, D] in the backend's best form."""
    if not parallel.on_cpu():
        return _convolve(x, w, stride, pads)
    (_, height, width, _), (rows, columns, _, _) = x.shape, w.shape
    return conv(x, w, Geometry(stride, pads, (height, width), (rows, columns)))


def convolve_transpose(x: jax.Array, w: jax.Array, stride: int, pads: Pads) -> jax.Array:
    """Transposed convolution of x [B, H, W, C] by w [K, K, C, D] in the backend's best form.

    x with stride - 1 zeros between its pixels, convolved by w. `pads` are those of the convolution
    that it transposes, as in PyTorch: height (H - 1) stride - pads + K.
    """
    (_, height, width, _), (rows, columns, _, _) = x.shape, w.shape
    (top, bottom), (left, right) = pads
    if not parallel.on_cpu():
        around = ((rows - 1 - top, rows - 1 - bottom), (columns - 1 - left, columns - 1 - right))
        return jax.lax.conv_general_dilated(
            x,
            w,
            (1, 1),
            around,
            lhs_dilation=(stride, stride),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    sides = (
        (height - 1) * stride - top - bottom + rows,
        (width - 1) * stride - left - right + columns,
    )
    kernel = w[::-1, ::-1].transpose(0, 1, 3, 2)
    return conv_input(x, kernel, Geometry(stride, pads, sides, (rows, columns)))


def upsample_convolve(x: jax.Array, w: jax.Array) -> jax.Array:
    """Nearest-neighbour x2, then a 3x3 convolution with zero padding: [B, 2H, 2W, D]."""
    large = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return convolve(large, w, 1, ((1, 1), (1, 1)))


def upsample_convolve_folded(x: jax.Array, w: jax.Array) -> jax.Array:
    """The same map as `upsample_convolve`, as one transposed convolution of the small image.

    To repeat pixels is to transpose a 2x2 convolution of ones with stride 2. Both convolutions
    together are one of 4x4, whose kernel is w convolved by those ones; the transpose has four
    phases of 2x2 taps: 16 multiplications a small pixel instead of 36.
    """
    for axis in (0, 1):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        padded = jnp.pad(w, pad)
        size = w.shape[axis]
        lower = jax.lax.slice_in_dim(padded, 0, size + 1, axis=axis)
        w = lower + jax.lax.slice_in_dim(padded, 1, size + 2, axis=axis)
    return convolve_transpose(x, w, 2, ((1, 1), (1, 1)))


class Conv(nn.Module):
    """A convolution with the parameters of `nn.Conv`: [B, H, W, C] -> [B, h, w, features]."""

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: int = 0  # zeros on each side, as in PyTorch
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = convolve(x, kernel, self.strides, ((self.padding,) * 2,) * 2)
        return _add_bias(self, y) if self.use_bias else y


class ConvTranspose(nn.Module):
    """A transposed convolution: [B, H, W, C] -> [B, h, w, features].

    Kernel as `nn.ConvTranspose` has it; h = (H - 1) strides - 2 padding + K, as in PyTorch.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: int = 0
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x`, transposed."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = convolve_transpose(x, kernel, self.strides, ((self.padding,) * 2,) * 2)
        return _add_bias(self, y) if self.use_bias else y


class UpsampleConv(nn.Module):
    """Nearest-neighbour x2, then a 3x3 convolution: [B, H, W, C] -> [B, 2H, 2W, features].

    Folded on CPU; elsewhere written plainly.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Upsamples and convolves `x`."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = (upsample_convolve_folded if parallel.on_cpu() else upsample_convolve)(x, kernel)
        return _add_bias(self, y) if self.use_bias else y


def _add_bias(module: Conv | ConvTranspose | UpsampleConv, y: jax.Array) -> jax.Array:
    bias = module.param("bias", module.bias_init, (module.features,), jnp.float32)
    return y + jnp.reshape(bias, (1, 1, 1, -1))
