"""Convolutions whose form depends on the backend, behind one module each.

Parameters, and so checkpoints, are the same whatever the form. Arrays are [B, H, W, C].
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine import parallel


def _convolve(images, kernel, padding):
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def upsample_convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Nearest-neighbour x2, then a 3x3 convolution with zero padding, written plainly.

    Args:
      images: [B, H, W, C].
      kernel: [3, 3, C, D].

    Returns:
      [B, 2H, 2W, D].
    """
    large = jnp.repeat(jnp.repeat(images, 2, axis=1), 2, axis=2)
    return _convolve(large, kernel, ((1, 1), (1, 1)))


def upsample_convolve_folded(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same map as `upsample_convolve`, as four 2x2 convolutions of the small image.

    An output pixel of either parity sees only two distinct source rows, so the three taps of a
    kernel column fold into two: (w0, w1 + w2) for even rows and (w0 + w1, w2) for odd ones;
    columns likewise. 16 multiplications a small pixel instead of 36.
    """
    first, middle, last = kernel
    rows = (jnp.stack([first, middle + last]), jnp.stack([first + middle, last]))
    folded = []
    for row in rows:
        left, centre, right = row[:, 0], row[:, 1], row[:, 2]
        folded.append(jnp.stack([left, centre + right], axis=1))
        folded.append(jnp.stack([left + centre, right], axis=1))
    # Even outputs look one pixel back, odd ones one ahead.
    sides = ((1, 0), (0, 1))
    paddings = [(vertical, horizontal) for vertical in sides for horizontal in sides]
    outputs = [_convolve(images, k, p) for k, p in zip(folded, paddings, strict=True)]
    batch, height, width, features = outputs[0].shape
    blocks = jnp.stack(outputs, axis=3).reshape(batch, height, width, 2, 2, features)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, features)


class UpsampleConv(nn.Module):
    """Nearest-neighbour x2 followed by a 3x3 convolution: [B, H, W, C] -> [B, 2H, 2W, features].

    Folded on CPU, where it takes half the time (docs/performance.md); plain elsewhere.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Upsamples and convolves `images`."""
        shape = (3, 3, images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        form = upsample_convolve_folded if parallel.on_cpu() else upsample_convolve
        outputs = form(images, kernel)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
            outputs += jnp.reshape(bias, (1, 1, 1, -1))
        return outputs
