"""Encoder, autoencoder and critic of AMA (arXiv 2003.10713), after the authors' networks.

Images are float32 [B, H, W, C] in [-1, 1], latents [B, latent]. A pair is two images side by side
in the channels, [B, H, W, 2 C]. The generator is f-AnoGAN's. The critic has no normalisation: the
gradient penalty is per image, so its score of one pair must not depend on the others, and the
authors' spectral normalisation would do the penalty's work a second time.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine.convolution import Conv
from engine.folding import folded
from engine.parallel import BatchNorm
from fanogan_jax.models import leaky_relu

# Xavier with a gain of the root of 2 in the main convolutions, of 1 elsewhere.
_main_init = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
_other_init = nn.initializers.glorot_uniform()


class MirroredNetworks(NamedTuple):
    """The two networks that play."""

    autoencoder: Any  # nn.Module with the methods of `AutoEncoder`
    critic: nn.Module  # of pairs


class MirroredEncoder(nn.Module):
    """Images -> latents [B, latent], of any size: 4x4 convolutions that halve the image."""

    latent: int
    features: tuple[int, ...] = (16, 32, 64, 128)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Encodes; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        conv = partial(Conv, use_bias=False, kernel_init=_main_init)
        x = images
        for features in self.features:
            x = leaky_relu(norm()(conv(features, (4, 4), 2, padding=1)(x)))
        latents = conv(self.latent, (x.shape[1], x.shape[2]), kernel_init=_other_init)(x)
        return latents.reshape(images.shape[0], self.latent)


class AutoEncoder(nn.Module):
    """Encoder and generator as one network, so that one step moves both."""

    encoder: nn.Module
    generator: nn.Module

    def __call__(self, images: jax.Array, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """G(E(x)) [B, H, W, C], and E(x) [B, latent]."""
        latents = self.encode(images, train=train)
        return self.decode(latents, train=train), latents

    def encode(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """E(x): [B, latent]."""
        latents: jax.Array = self.encoder(images, train=train)
        return latents

    def decode(self, latents: jax.Array, *, train: bool = False) -> jax.Array:
        """G(z): [B, H, W, C]."""
        images: jax.Array = self.generator(latents, train=train)
        return images


class PairCritic(nn.Module):
    """Pairs -> (score [B], features [B, h, w, width]); a higher score is more (x, x).

    Four residual blocks, of which the first `halvings` halve height and width. The features are
    what is summed over positions before the last, linear layer. `fold` pixels along each side
    become channels first: 1 is the authors'; 2 spares a CPU the layers at the whole size.
    """

    width: int = 16
    halvings: int = 2
    fold: int = 1

    @nn.compact
    def __call__(self, pairs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Scores each pair by itself."""
        x = folded(pairs, self.fold)
        for index in range(4):
            x = _block(x, self.width, first=not index, halves=index < self.halvings)
        features = nn.relu(x)
        pooled = jnp.sum(features, axis=(1, 2))
        return nn.Dense(1, use_bias=False, kernel_init=_other_init)(pooled)[:, 0], features


def _block(x: jax.Array, width: int, *, first: bool, halves: bool) -> jax.Array:
    """A residual block; the first one has no activation before what it sees are pixels."""
    conv3 = partial(Conv, width, (3, 3), padding=1, kernel_init=_main_init)
    residual = conv3()(nn.relu(conv3()(x if first else nn.relu(x))))
    # A 1x1 convolution and the mean of pixels commute; the small image is cheaper.
    shortcut = Conv(width, (1, 1), kernel_init=_other_init)(_halved(x) if halves else x)
    return shortcut + (_halved(residual) if halves else residual)


def _halved(x: jax.Array) -> jax.Array:
    """The means of 2x2 pixels; TypeError for an odd side."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
