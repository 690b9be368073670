"""The autoencoder of windows: time as channels. Arrays are float32 [B, H, W, C], C of frames."""

from functools import partial

import flax.linen as nn
import jax

from engine.convolution import Conv, ConvTranspose
from engine.folding import folded, unfolded
from engine.parallel import BatchNorm

leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)
"""Leaky ReLU with a slope of 0.2 below 0."""


class WindowAutoencoder(nn.Module):
    """Windows -> reconstructions of the same shape, through a narrow bottleneck.

    A 3x3 convolution of folded pixels, 4x4 convolutions of stride 2, 3x3 ones at the smallest
    level, the last of them to `bottleneck` features, and their mirror. The plan is that of LNTRA
    (Astrid et al. 2021), with two dimensions in place of three and without a tanh at the end:
    differences of frames lie beyond 1.

    Attributes:
      features: of each level; from the second on a level has half the side of the one before.
      convolutions: of 3x3 at the smallest level, the one to the bottleneck not counted.
      bottleneck: features of the smallest level; few, lest an anomaly pass.
      fold: so many pixels along each side become channels first: few channels at full resolution
        waste a CPU (ours).
    """

    features: tuple[int, ...] = (64, 96, 128)
    convolutions: int = 0
    bottleneck: int = 32
    fold: int = 4

    @nn.compact
    def __call__(self, windows: jax.Array, *, train: bool = False) -> jax.Array:
        """Reconstructs; with `train`, batch normalisation uses the statistics of the batch.

        Raises:
          ValueError: a side of the frames is not a multiple of fold * 2 ** (levels - 1).
        """
        require_sides(windows.shape[1:3], self.multiple)
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        same = partial(Conv, kernel_size=(3, 3), padding=1)
        down = partial(Conv, kernel_size=(4, 4), strides=2, padding=1, use_bias=False)
        up = partial(ConvTranspose, kernel_size=(4, 4), strides=2, padding=1, use_bias=False)
        x = folded(windows, self.fold)
        channels = x.shape[-1]
        first, *deeper = self.features
        x = leaky_relu(norm()(same(first, use_bias=False)(x)))
        for features in deeper:
            x = leaky_relu(norm()(down(features)(x)))
        smallest = [self.features[-1]] * self.convolutions
        for features in (*smallest, self.bottleneck, self.features[-1], *smallest):
            x = leaky_relu(norm()(same(features, use_bias=False)(x)))
        for features in reversed(self.features[:-1]):
            x = leaky_relu(norm()(up(features)(x)))
        return unfolded(same(channels)(x), self.fold)

    @property
    def multiple(self) -> int:
        """What the sides of frames must divide by."""
        return int(self.fold * 2 ** (len(self.features) - 1))


def require_sides(sides: tuple[int, ...], multiple: int) -> None:
    """Raises ValueError, with the nearest sizes, where a side is no multiple."""
    for name, side in zip(("data.image_size", "data.width"), sides, strict=True):
        if side % multiple:
            below, above = side // multiple * multiple, -(-side // multiple) * multiple
            near = f"{below} or {above}" if below else f"{above}"
            raise ValueError(f"{name}={side} is no multiple of {multiple}: choose {near}")
