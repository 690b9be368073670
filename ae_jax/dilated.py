"""Autoencoders of stacked dilated convolutions: SDC-AE and SDC-CCM.

Bauer, Nakajima, Müller 2024, arXiv 2206.11723; the block after Schuster et al., CVPR 2019. There is
no bottleneck: what keeps the network from copying a defect is its training
(ae_jax/self_supervised.py). Fully convolutional: the sides of an image must divide by
2 ** len(features). Images are float32 [B, H, W, C] in [-1, 1].
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax.models import Output, he_init
from engine.convolution import Conv, ConvTranspose, max_pool
from engine.folding import folded, unfolded
from engine.parallel import BatchNorm


class DilatedAutoencoder(nn.Module):
    """SDC-AE, or with `skips` SDC-CCM: images -> reconstructions in (-1, 1).

    Known of the paper's networks are the dilation rates and the convex combination modules. The
    defaults are a reconstruction (reference/autoencoders.md, 1.3): `features`, `branch`, kernels
    and the last layer recalled, `convolutions` a level, number of poolings and `blocks` guessed.
    With them SDC-AE has 13.4 million parameters, SDC-CCM 16.5 million.

    Attributes:
      features: of each level; after each the image is halved.
      fold: so many pixels along each side become channels first, and pixels again at the end: few
        channels at full resolution waste a CPU (ours; 1: as in the paper).
      convolutions: 3x3 convolutions of each level on the way down.
      blocks: number of blocks of dilated convolutions.
      branch: features of each of their dilations.
      dilations: of the parallel convolutions of a block.
      skips: whether levels are joined by convex combination modules.
      dtype: of the convolutions, such as 'bfloat16'; normalisation is in float32.
    """

    features: tuple[int, ...] = (64, 128, 256)
    convolutions: int = 2
    blocks: int = 4
    branch: int = 64
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    skips: bool = True
    dtype: str = "float32"
    fold: int = 1

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> Output:
        """Reconstructs; with `train`, batch normalisation uses the statistics of the batch.

        Raises:
          ValueError: a side of the images is not a multiple of fold * 2 ** len(features).
        """
        check_sides(images.shape[1:3], self.fold * 2 ** len(self.features))
        norm = _norm(train)
        conv: Callable = partial(Conv, kernel_size=(3, 3), padding=1, **_options(self.dtype))
        up: Callable = partial(
            ConvTranspose,
            kernel_size=(3, 3),
            strides=2,
            padding=(1, 0),
            **_options(self.dtype),
        )
        x, levels = folded(images, self.fold), []
        for features in self.features:
            for _ in range(self.convolutions):
                x = nn.relu(norm()(conv(features)(x)))
            levels.append(x)
            x = max_pool(x)
        for _ in range(self.blocks):
            x = DilatedBlock(self.branch, self.dilations, self.dtype)(x, train=train)
        for features, level in zip(reversed(self.features), reversed(levels), strict=True):
            x = nn.relu(norm()(up(features)(x)))
            if self.skips:
                x = ConvexCombination(self.dtype)(level, x, train=train)
            x = nn.relu(norm()(conv(features)(x)))
        # A sigmoid for images from 0 to 1 is this for images from -1 to 1.
        colours = Conv(images.shape[-1] * self.fold**2, (1, 1))(x)
        return Output(unfolded(jnp.tanh(colours / 2), self.fold))


class DilatedBlock(nn.Module):
    """Parallel 3x3 convolutions of several dilations, joined by another: [B, H, W, C] -> D.

    D = branch * len(dilations). Each convolution is followed by batch normalisation and ReLU.
    """

    branch: int
    dilations: tuple[int, ...]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Sees `x` at all scales."""
        norm = _norm(train)
        conv: Callable = partial(Conv, kernel_size=(3, 3), **_options(self.dtype))
        branches = [conv(self.branch, padding=d, dilation=d)(x) for d in self.dilations]
        x = nn.relu(norm()(jnp.concatenate(branches, axis=-1)))
        return nn.relu(norm()(conv(x.shape[-1], padding=1)(x)))


class ConvexCombination(nn.Module):
    """Convex combination module: (skip, below), both [B, H, W, C] -> the same shape, between them.

    h = ReLU(BN(Conv([skip, below, (skip - below)^2]))), beta = sigmoid(BN(Conv(h))), and the result
    is beta skip + (1 - beta) below: the skip where both agree, what comes from below where content
    was replaced (arXiv 2206.11723; the formula as recalled).
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, skip: jax.Array, below: jax.Array, *, train: bool = False) -> jax.Array:
        """Combines the two."""
        norm = _norm(train)
        conv: Callable = partial(Conv, skip.shape[-1], (3, 3), padding=1, **_options(self.dtype))
        both = jnp.concatenate([skip, below, jnp.square(skip - below)], axis=-1)
        beta = nn.sigmoid(norm()(conv()(nn.relu(norm()(conv()(both))))))
        return beta * skip + (1 - beta) * below


def check_sides(sides: tuple[int, ...], stride: int) -> None:
    """Raises ValueError where `stride` does not divide a side."""
    for side in sides:
        if side % stride or not side:
            raise ValueError(f"{side} is no multiple of {stride}")


def _norm(train: bool) -> Callable[..., nn.Module]:
    return partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)


def _options(dtype: str) -> dict[str, Any]:
    """Of each convolution that batch normalisation follows."""
    return {"use_bias": False, "kernel_init": he_init(), "dtype": jnp.dtype(dtype)}
