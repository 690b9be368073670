"""Generator, critic and encoder of f-AnoGAN, in two sizes.

`Generator`, `Critic` and `Encoder` are the small convolutional networks of the original settings;
`ResNetGenerator`, `ResNetCritic` and `ResNetEncoder` those of Schlegl et al. 2019
(doi:10.1016/j.media.2019.01.010), which are the 64 px residual networks of Gulrajani et al. 2017
(arXiv 1704.00028, appendix). Images are float32 [B, H, W, C] in [-1, 1], latents [B, latent].

The critic has layer normalisation over height, width and channels: the gradient penalty is per
image, so its score of one image must not depend on the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine.convolution import Conv, UpsampleConv
from engine.parallel import BatchNorm


class Networks(NamedTuple):
    """The three networks by name, and the length of the latent vector between them."""

    generator: nn.Module
    critic: nn.Module
    encoder: Any  # nn.Module; None in AnoGAN, which has none
    latent: int


LayerNorm = partial(nn.LayerNorm, reduction_axes=(-3, -2, -1), feature_axes=-1, epsilon=1e-5)
"""Layer normalisation of each image by itself, over height, width and channels."""

leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)
"""Leaky ReLU with a slope of 0.2 below 0."""


# The original networks ----------------------------------------------------------------------------

# The default initialisation of PyTorch, which the original implementation used: kernel and
# bias uniform in +-1/sqrt(fan_in).
_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _bias_init(fan_in: int) -> Callable:
    bound = fan_in**-0.5
    return lambda rng, shape, dtype: jax.random.uniform(rng, shape, dtype, -bound, bound)


def _conv(module: Callable, images: jax.Array, features: int, **fields) -> jax.Array:
    fan_in = 9 * images.shape[-1]
    layer = module(features, kernel_init=_kernel_init, bias_init=_bias_init(fan_in), **fields)
    return layer(images)


def _dense(inputs: jax.Array, features: int) -> jax.Array:
    fan_in = inputs.shape[-1]
    return nn.Dense(features, kernel_init=_kernel_init, bias_init=_bias_init(fan_in))(inputs)


_conv3 = partial(Conv, kernel_size=(3, 3), padding=1)


class Generator(nn.Module):
    """Latents [B, latent] -> images [B, image_size, image_size, channels] in (-1, 1).

    `features` are the channels at a quarter, a half and the whole of the image's size.
    """

    image_size: int
    features: tuple[int, int, int] = (128, 128, 64)
    channels: int = 3

    @nn.compact
    def __call__(self, latents: jax.Array, *, train: bool = False) -> jax.Array:
        """Generates; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        side = self.image_size // 4
        x = _dense(latents, side * side * self.features[0])
        x = norm()(x.reshape(-1, side, side, self.features[0]))
        for features in self.features[1:]:
            x = leaky_relu(norm()(_conv(UpsampleConv, x, features)))
        return jnp.tanh(_conv(_conv3, x, self.channels))


class _Trunk(nn.Module):
    """Strided convolutions, flattened: [B, H, W, C] -> [B, n_d]."""

    features: tuple[int, ...]
    norm: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for index, features in enumerate(self.features):
            x = leaky_relu(_conv(_conv3, x, features, strides=2))
            if index:
                x = self.norm()(x)
        return x.reshape(x.shape[0], -1)


class Critic(nn.Module):
    """Images -> (score [B], features f(x) [B, n_d]); a higher score is more real."""

    features: tuple[int, ...] = (16, 32, 64, 128)

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores each image by itself."""
        features = _Trunk(self.features, LayerNorm)(images)
        return _dense(features, 1)[:, 0], features


class Encoder(nn.Module):
    """Images -> latents [B, latent], in (-1, 1)."""

    latent: int
    features: tuple[int, ...] = (16, 32, 64, 128)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Encodes; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        return jnp.tanh(_dense(_Trunk(self.features, norm)(images), self.latent))


# The paper's networks -----------------------------------------------------------------------------

_he_init = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
_glorot_init = nn.initializers.glorot_uniform()
_glorot_dense = partial(nn.Dense, kernel_init=_glorot_init)
_block_conv3 = partial(_conv3, kernel_init=_he_init)
# TensorFlow 1's defaults, which the authors' code leaves as they are.
_TensorFlowBatchNorm = partial(BatchNorm, momentum=0.99, epsilon=1e-3)


def _mean_pool(images: jax.Array) -> jax.Array:
    return nn.avg_pool(images, window_shape=(2, 2), strides=(2, 2))


class _DownBlock(nn.Module):
    """Residual block that halves height and width."""

    features: int
    norm: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        shortcut = Conv(self.features, (1, 1), kernel_init=_glorot_init)(_mean_pool(images))
        x = _block_conv3(images.shape[-1], use_bias=False)(nn.relu(self.norm()(images)))
        x = _block_conv3(self.features)(nn.relu(self.norm()(x)))
        return shortcut + _mean_pool(x)


class _UpBlock(nn.Module):
    """Residual block that doubles height and width."""

    features: int
    norm: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        # A 1x1 convolution and nearest-neighbour upsampling commute; the small image is cheaper.
        shortcut = Conv(self.features, (1, 1), kernel_init=_glorot_init)(images)
        shortcut = jnp.repeat(jnp.repeat(shortcut, 2, axis=1), 2, axis=2)
        x = nn.relu(self.norm()(images))
        x = UpsampleConv(self.features, use_bias=False, kernel_init=_he_init)(x)
        return shortcut + _block_conv3(self.features)(nn.relu(self.norm()(x)))


class _ResNetTrunk(nn.Module):
    """Four halving blocks, flattened without an activation: [B, H, W, C] -> [B, n_d]."""

    width: int
    norm: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = _conv3(self.width, kernel_init=_glorot_init)(images)
        for factor in (2, 4, 8, 8):
            x = _DownBlock(factor * self.width, self.norm)(x)
        return x.reshape(x.shape[0], -1)


class ResNetGenerator(nn.Module):
    """Latents [B, latent] -> images [B, image_size, image_size, channels] in (-1, 1)."""

    image_size: int
    width: int = 64
    channels: int = 3

    @nn.compact
    def __call__(self, latents: jax.Array, *, train: bool = False) -> jax.Array:
        """Generates; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(_TensorFlowBatchNorm, use_running_average=not train)
        side = self.image_size // 16
        x = _glorot_dense(side * side * 8 * self.width)(latents)
        x = x.reshape(-1, side, side, 8 * self.width)
        for factor in (8, 4, 2, 1):
            x = _UpBlock(factor * self.width, norm)(x)
        return jnp.tanh(_conv3(self.channels, kernel_init=_he_init)(nn.relu(norm()(x))))


class ResNetCritic(nn.Module):
    """Images -> (score [B], features f(x) [B, n_d]); a higher score is more real."""

    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores each image by itself."""
        features = _ResNetTrunk(self.width, LayerNorm)(images)
        return _glorot_dense(1)(features)[:, 0], features


class ResNetEncoder(nn.Module):
    """Images -> latents [B, latent], in (-1, 1)."""

    latent: int
    width: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Encodes; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(_TensorFlowBatchNorm, use_running_average=not train)
        return jnp.tanh(_glorot_dense(self.latent)(_ResNetTrunk(self.width, norm)(images)))
