"""Convolutions whose form depends on the backend; the only place where it is chosen.

Parameters, and so checkpoints, are the same whatever the form. Arrays are [B, H, W, C], kernels
[K, K, C, D], results [B, h, w, D], float32 where a layer's `dtype` does not say otherwise. On GPU
and TPU a convolution is XLA's own, on CPU one of the contractions of engine/contractions.py, which
chooses among its forms by shape.
"""

from collections.abc import Callable
from functools import reduce

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from engine import parallel
from engine.contractions import Geometry, Pads, conv, conv_input, plain


def convolve(x: jax.Array, w: jax.Array, stride: int, pads: Pads, dilation: int = 1) -> jax.Array:
    """Convolution of x [B, H, W, C] by w [K, K, C, D] in the backend's best form."""
    if stride > 1 and dilation > 1:
        raise ValueError(f"a convolution has a stride ({stride}) or a dilation ({dilation})")
    w, pads = _without_dead_taps(x, w, stride, pads, dilation)
    if not parallel.on_cpu():
        return plain(x, w, stride, pads, dilation)
    (_, height, width, _), (rows, columns, _, _) = x.shape, w.shape
    return conv(x, w, Geometry(stride, pads, (height, width), (rows, columns), dilation))


def _without_dead_taps(
    x: jax.Array, w: jax.Array, stride: int, pads: Pads, dilation: int
) -> tuple[jax.Array, Pads]:
    """The kernel without the outer rows and columns that only ever meet padding, and its padding.

    With dilation and padding of at least the image's side only the centre is left, [1, 1, C, D].
    """
    live, new = [], []
    for side, size, (before, after) in zip(x.shape[1:3], w.shape[:2], pads, strict=True):
        span = (side + before + after - (size - 1) * dilation - 1) // stride * stride
        starts = [tap * dilation - before for tap in range(size)]
        seen = [tap for tap, start in enumerate(starts) if start < side and start + span >= 0]
        first, last = min(seen, default=0), max(seen, default=0)
        live.append(slice(first, last + 1))
        new.append((before - first * dilation, after - (size - 1 - last) * dilation))
    return w[tuple(live)], tuple(new)


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


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of every 2x2 pixels: [B, H, W, C] -> [B, H/2, W/2, C].

    As maxima of pairs, of rows and then of columns: the gradient of a window's maximum, as in
    `nn.max_pool`, takes four to thirteen times as long on CPU. Equal pixels share the gradient.
    """
    batch, height, width, channels = x.shape
    rows = x.reshape(batch, height // 2, 2, width, channels)
    columns = jnp.maximum(rows[:, :, 0], rows[:, :, 1])
    columns = columns.reshape(batch, height // 2, width // 2, 2, channels)
    return jnp.maximum(columns[:, :, :, 0], columns[:, :, :, 1])


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
    places = [(i, j) for i in (0, 1) for j in (0, 1)]
    moved = [jnp.pad(w, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i, j in places]
    return convolve_transpose(x, reduce(jnp.add, moved), 2, ((1, 1), (1, 1)))


class Conv(nn.Module):
    """A convolution with the parameters of `nn.Conv`: [B, H, W, C] -> [B, h, w, features]."""

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: int = 0  # zeros on each side, as in PyTorch
    dilation: int = 1
    dtype: DTypeLike | None = None  # of the convolution's operands; its result is float32
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, kernel = _cast(self.dtype, x, kernel)
        y = convolve(x, kernel, self.strides, ((self.padding,) * 2,) * 2, self.dilation)
        return _result(self, y)


class ConvTranspose(nn.Module):
    """A transposed convolution: [B, H, W, C] -> [B, h, w, features].

    Kernel as `nn.ConvTranspose` has it; h = (H - 1) strides - 2 padding + K, as in PyTorch. A pair
    is the padding before and after: one less after is PyTorch's output padding of one.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: int | tuple[int, int] = 0
    dtype: DTypeLike | None = None  # as for Conv
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x`, transposed."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        pads = (self.padding,) * 2 if isinstance(self.padding, int) else self.padding
        x, kernel = _cast(self.dtype, x, kernel)
        y = convolve_transpose(x, kernel, self.strides, (pads, pads))
        return _result(self, y)


class UpsampleConv(nn.Module):
    """Nearest-neighbour x2, then a 3x3 convolution: [B, H, W, C] -> [B, 2H, 2W, features].

    Folded on CPU; elsewhere written plainly.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., jax.Array] = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Upsamples and convolves `x`."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = (upsample_convolve_folded if parallel.on_cpu() else upsample_convolve)(x, kernel)
        return _result(self, y)


def _cast(dtype: DTypeLike | None, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    return arrays if dtype is None else tuple(array.astype(dtype) for array in arrays)


def _result(module: Conv | ConvTranspose | UpsampleConv, y: jax.Array) -> jax.Array:
    """What the convolution gave, in float32 at least, and the bias if the module has one."""
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    if not module.use_bias:
        return y
    bias = module.param("bias", module.bias_init, (module.features,), jnp.float32)
    return y + jnp.reshape(bias, (1, 1, 1, -1))
