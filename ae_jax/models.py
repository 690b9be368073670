"""Convolutional autoencoders. Images are float32 [B, H, W, C] in [-1, 1]."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine.convolution import Conv, ConvTranspose
from engine.parallel import BatchNorm

leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)


class ConvolutionalAutoencoder(nn.Module):
    """Images -> reconstructions of their shape, in (-1, 1), through a vector of `latent` numbers.

    4x4 convolutions of stride 2, one for each entry of `features`, a dense layer, and their mirror
    with transposed convolutions. The seed gives size, latent and training but no layers: widths and
    depth are our reconstruction (4x4 pixels remain of 256).
    """

    latent: int = 1024
    features: tuple[int, ...] = (32, 64, 128, 256, 512, 512)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Reconstructs; with `train`, batch normalisation uses the statistics of the batch."""
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        # The normalisation that follows takes a bias away.
        down = partial(Conv, kernel_size=(4, 4), strides=2, padding=1, use_bias=False)
        up = partial(ConvTranspose, kernel_size=(4, 4), strides=2, padding=1)
        x = images
        for features in self.features:
            x = leaky_relu(norm()(down(features)(x)))
        small = x.shape[1:]
        latents = nn.Dense(self.latent)(x.reshape(x.shape[0], -1))
        x = nn.Dense(small[0] * small[1] * small[2], use_bias=False)(latents)
        x = leaky_relu(norm()(x.reshape(-1, *small)))
        for features in reversed(self.features[:-1]):
            x = leaky_relu(norm()(up(features, use_bias=False)(x)))
        return jnp.tanh(up(images.shape[-1])(x))
