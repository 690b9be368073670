"""The denoiser: a U-Net that sees how much noise there is.

After Ho et al. 2020 (arXiv 2006.11239), without attention and without what is drawn in training;
widths, depth and folding are ours. Images are float32 [B, H, W, C] in [-1, 1].
"""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from engine.convolution import Conv, UpsampleConv
from engine.folding import folded, unfolded

_GROUPS = 8  # of channels, or as many as divide them
_FREQUENCIES = 8  # of the noise level's embedding
_LEAST = 1e-3  # noise to signal: images of 8 bits have no less


class UNet(nn.Module):
    """Noised images, noise to signal [B] -> what the images were before: [B, H, W, C].

    What the network adds to the signal's share of its input: where it adds nothing, an image
    without noise stays as it is. Each image is normalised by itself, in groups of channels, so that
    neither the batch nor a running average says what an image looks like.

    Attributes:
      features: of each level; the image is halved between two.
      blocks: residual blocks of each level, down and up.
      fold: so many pixels along each side become channels first, and pixels again at the end: few
        channels at full resolution waste a CPU.
      dtype: of the convolutions, such as 'bfloat16'; all else is in float32.
    """

    features: tuple[int, ...] = (64, 128, 128, 256)
    blocks: int = 1
    fold: int = 1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, noised: jax.Array, ratio: jax.Array) -> jax.Array:
        """Takes the noise, and what else does not belong there, out of `noised`.

        Raises:
          ValueError: a side of the images is no multiple of fold * 2 ** (len(features) - 1).
        """
        multiple = self.fold * 2 ** (len(self.features) - 1)
        for side in noised.shape[1:3]:
            if side % multiple or not side:
                raise ValueError(f"{side} is no multiple of {multiple}")
        conv: Any = partial(Conv, padding=1, kernel_init=_init, dtype=jnp.dtype(self.dtype))
        block = partial(_Block, dtype=self.dtype)
        level = _embedding(ratio, 4 * self.features[0])
        x = conv(self.features[0], (3, 3))(folded(noised, self.fold))
        skips = []
        for index, features in enumerate(self.features):
            if index:
                x = conv(features, (3, 3), strides=2)(x)
            for _ in range(self.blocks):
                x = block(features)(x, level)
                skips.append(x)
        for _ in range(2):
            x = block(self.features[-1])(x, level)
        for index, features in reversed([*enumerate(self.features)]):
            for _ in range(self.blocks):
                x = block(features)(jnp.concatenate([x, skips.pop()], axis=-1), level)
            if index:
                x = UpsampleConv(self.features[index - 1], kernel_init=_init)(x)
        channels = noised.shape[-1] * self.fold**2
        change = conv(channels, (3, 3), kernel_init=nn.initializers.zeros_init())(_active(x))
        signal = 1 / jnp.sqrt(1 + jnp.square(ratio)).reshape(-1, 1, 1, 1)
        return signal * noised + unfolded(change, self.fold)


class _Block(nn.Module):
    """A residual block: x [B, H, W, D], level [B, E] -> [B, H, W, features]."""

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, level: jax.Array) -> jax.Array:
        conv: Any = partial(Conv, self.features, dtype=jnp.dtype(self.dtype))
        y = conv((3, 3), padding=1, kernel_init=_init)(_active(x))
        y += nn.Dense(self.features)(level)[:, None, None]
        zero = nn.initializers.zeros_init()  # at first a block changes nothing
        y = conv((3, 3), padding=1, kernel_init=zero)(_active(y))
        if x.shape[-1] != self.features:
            x = conv((1, 1), kernel_init=_init)(x)
        return x + y


def _active(x: jax.Array) -> jax.Array:
    """Normalised, then SiLU; the parent's layer."""
    return nn.silu(nn.GroupNorm(num_groups=math.gcd(_GROUPS, x.shape[-1]), epsilon=1e-5)(x))


def _embedding(ratio: jax.Array, features: int) -> jax.Array:
    """Sines and cosines of the logarithm of noise to signal [B], made ready for all blocks."""
    frequencies = np.asarray(np.geomspace(0.25, 8.0, _FREQUENCIES), np.float32)
    angles = jnp.log(jnp.maximum(ratio, _LEAST))[:, None] * frequencies[None]
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return nn.silu(nn.Dense(features)(nn.silu(nn.Dense(features)(waves))))


def _init(rng: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Keeps the variance, as PyTorch and DDPM do, up to a constant (LeCun).

    Drawn as a matrix: XLA takes twice as long to compile a draw of four dimensions.
    """
    matrix = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    return matrix(rng, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)
