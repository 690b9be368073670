"""Autoencoders. Images are float32 [B, H, W, C] in [-1, 1]."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine.convolution import Conv, ConvTranspose, UpsampleConv
from engine.parallel import BatchNorm

leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)
"""Leaky ReLU with a slope of 0.2 below 0."""


def he_init(more: float = 1.0) -> Callable:
    """Keeps the signal's scale through LeakyReLU 0.2 (He et al. 2015, 1502.01852).

    `more`: by how much a kernel has more taps than a pixel of the output sees.
    """
    matrix = nn.initializers.variance_scaling(more * 2 / 1.04, "fan_in", "normal")

    def init(rng: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        # Drawn as a matrix: XLA takes twice as long to compile a draw of four dimensions.
        return matrix(rng, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)

    return init


class Output(NamedTuple):
    """What an autoencoder makes of a batch of images."""

    reconstructions: jax.Array  # [B, H, W, C]
    latents: jax.Array | None = None  # [B, latent]; None where there is no bottleneck
    block_residual: jax.Array | None = None  # [B], of the SSPCAB block, where there is one
    logits: jax.Array | None = None  # [B, H, W], of a defect at each pixel, where there is a head


class ConvolutionalAutoencoder(nn.Module):
    """Images -> reconstructions in (-1, 1), through a vector of `latent` numbers.

    4x4 convolutions of stride 2, one for each entry of `features`, a dense layer, and their mirror:
    nearest-neighbour upsampling with a 3x3 convolution, or with `transposed` 4x4 transposed
    convolutions. The original settings give size, latent and training but no layers: widths and
    depth are our reconstruction (4x4 pixels remain of 256).
    """

    latent: int = 1024
    features: tuple[int, ...] = (32, 64, 128, 256, 512, 512)
    transposed: bool = False
    sspcab: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> Output:
        """Reconstructs; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        # The normalisation that follows takes a bias away.
        down = partial(Conv, kernel_size=(4, 4), strides=2, padding=1, use_bias=False)
        transposed = partial(ConvTranspose, kernel_size=(4, 4), strides=2, padding=1)
        up: Callable = transposed if self.transposed else UpsampleConv
        x = images
        for features in self.features:
            x = leaky_relu(norm()(down(features)(x)))
        small = x.shape[1:]
        latents = nn.Dense(self.latent)(x.reshape(x.shape[0], -1))
        x = nn.Dense(small[0] * small[1] * small[2], use_bias=False)(latents)
        x = leaky_relu(norm()(x.reshape(-1, *small)))
        for features in reversed(self.features[:-1]):
            x = leaky_relu(norm()(up(features, use_bias=False)(x)))
        x, residual = _predicted(x) if self.sspcab else (x, None)
        return Output(jnp.tanh(up(images.shape[-1])(x)), latents, residual)


# Features, kernel, stride of each convolution but the last (Bergmann et al. 2019, table 1).
_BERGMANN = (
    (32, 4, 2),
    (32, 4, 2),
    (32, 3, 1),
    (64, 4, 2),
    (64, 3, 1),
    (128, 4, 2),
    (64, 3, 1),
    (32, 3, 1),
)


class BergmannAutoencoder(nn.Module):
    """Images -> reconstructions, through `latent` numbers (Bergmann et al. 2019, 1807.02011).

    Table 1 of the paper and its mirror, for images of 128 px; of other sizes the last convolution
    takes the whole of the 16 times smaller image, as it does there. Latent and output are linear.
    The start, of which we know nothing, is He's: with less the signal fades through 18 layers.
    """

    latent: int = 100
    sspcab: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> Output:
        """Reconstructs; `train` changes nothing."""
        x = images
        for features, kernel, stride in _BERGMANN:
            layer = Conv(features, (kernel, kernel), stride, padding=1, kernel_init=he_init())
            x = leaky_relu(layer(x))
        whole = (x.shape[1], x.shape[2])
        latents = Conv(self.latent, whole, kernel_init=he_init())(x)
        init = he_init(whole[0] * whole[1])
        x = leaky_relu(ConvTranspose(_BERGMANN[-1][0], whole, kernel_init=init)(latents))

        def up(x: jax.Array, features: int, kernel: int, stride: int) -> jax.Array:
            size, init = (kernel, kernel), he_init(stride**2)
            return ConvTranspose(features, size, stride, padding=1, kernel_init=init)(x)

        # The mirror of a layer leads to the channels of the layer before it.
        for (_, kernel, stride), (features, _, _) in pairwise(reversed(_BERGMANN)):
            x = leaky_relu(up(x, features, kernel, stride))
        x, residual = _predicted(x) if self.sspcab else (x, None)
        x = up(x, images.shape[-1], *_BERGMANN[0][1:])
        return Output(x, latents.reshape(x.shape[0], -1), residual)


def _predicted(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The output of an SSPCAB block, and its mean squared difference from the input: [B]."""
    output = SSPCAB()(x)
    return output, jnp.mean(jnp.square(output - x), axis=(1, 2, 3))


class SSPCAB(nn.Module):
    """Self-supervised predictive convolutional attentive block (Ristea et al. 2022, 2111.09099).

    [B, H, W, C] -> the same shape. Each pixel is predicted from the four corners of its receptive
    field, by 1x1 convolutions at `dilation` + 1 pixels from it in each direction; its own value is
    not seen. Then channels are weighted by squeeze and excitation.
    """

    dilation: int = 1
    reduction: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Predicts `x` from its surroundings."""
        (_, height, width, channels), away = x.shape, self.dilation + 1
        around = jnp.pad(x, ((0, 0), (away, away), (away, away), (0, 0)))
        places = [(i, j) for i in (0, 2 * away) for j in (0, 2 * away)]
        corners = [around[:, i : i + height, j : j + width] for i, j in places]
        # Four 1x1 convolutions, summed, are one of the corners side by side.
        predicted = nn.relu(Conv(channels, (1, 1))(jnp.concatenate(corners, axis=-1)))
        squeezed = nn.Dense(max(channels // self.reduction, 1))(predicted.mean(axis=(1, 2)))
        weights = nn.sigmoid(nn.Dense(channels)(nn.relu(squeezed)))
        return predicted * weights[:, None, None, :]
