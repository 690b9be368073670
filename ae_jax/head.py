"""A head that says where: a logit a pixel beside what an autoencoder restores.

As DRAEM (Zavrtanik et al. 2021, arXiv 2108.07610) puts a segmentation network behind a
reconstructing one; small here, and on pixels folded into channels, since few channels at full
resolution waste a CPU (ours).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax.dilated import check_sides
from ae_jax.models import Output, he_init
from engine.convolution import Conv, ConvTranspose, max_pool
from engine.folding import folded, unfolded
from engine.parallel import BatchNorm


class Restorer(nn.Module):
    """An autoencoder and a head: images -> reconstructions and logits, `Output`.

    Attributes:
      autoencoder: what restores; None: the head sees the image alone, as NSA's network does.
      head: images, reconstructions -> logits [B, H, W].
    """

    autoencoder: nn.Module | None
    head: nn.Module

    def __call__(self, images: jax.Array, *, train: bool = False) -> Output:
        """Restores, and marks what it restored."""
        output = Output(images)
        if self.autoencoder is not None:
            output = self.autoencoder(images, train=train)
        logits = self.head(images, output.reconstructions, train=train)
        return output._replace(logits=logits)


class Head(nn.Module):
    """Images, reconstructions [B, H, W, C] -> logits [B, H, W] of a defect at each pixel.

    Attributes:
      fold: so many pixels along each side become channels first.
      features: at the fold's resolution, and at half of it.
    """

    fold: int = 4
    features: tuple[int, int] = (32, 64)

    @nn.compact
    def __call__(
        self, images: jax.Array, reconstructions: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """Compares the two.

        Raises:
          ValueError: a side of the images is not a multiple of 2 * fold.
        """
        check_sides(images.shape[1:3], 2 * self.fold)
        fine, coarse = self.features
        norm = partial(BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        conv: Callable = partial(Conv, kernel_size=(3, 3), use_bias=False, kernel_init=he_init())

        def block(x: jax.Array, dilation: int) -> jax.Array:
            features = x.shape[-1]
            options = {"padding": dilation, "dilation": dilation}
            y = nn.relu(norm()(conv(features, **options)(x)))
            return nn.relu(x + norm()(conv(features, **options)(y)))

        difference = images - reconstructions
        seen = jnp.concatenate([images, reconstructions, difference, jnp.abs(difference)], axis=-1)
        x = Conv(fine, (1, 1), use_bias=False, kernel_init=he_init())(folded(seen, self.fold))
        x = skip = block(nn.relu(norm()(x)), 1)
        x = nn.relu(norm()(conv(coarse, padding=1)(max_pool(x))))
        x = block(block(x, 1), 2)
        up = ConvTranspose(
            fine, (3, 3), strides=2, padding=(1, 0), use_bias=False, kernel_init=he_init()
        )
        x = jnp.concatenate([skip, nn.relu(norm()(up(x)))], axis=-1)
        x = nn.relu(norm()(conv(fine, padding=1)(x)))
        return unfolded(Conv(self.fold**2, (3, 3), padding=1)(x), self.fold)[..., 0]
