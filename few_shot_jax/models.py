"""Networks that score places of an image: a residual trunk, and a head for each of two losses.

Images, or features of another network, are float32 [B, H, W, C]; places are [B, h, w]. From scratch
(reference: few labelled images): few weights, and group normalisation, for a batch of which half
is defective has other statistics than what is scored.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ae_jax.dilated import check_sides
from ae_jax.models import he_init
from engine.convolution import Conv
from engine.folding import folded
from engine.residuals import interpolation_matrix

_GROUPS = 8


class Places(NamedTuple):
    """What a network says of images, place by place; higher = more anomalous."""

    score: jax.Array  # [B], of the images
    map: jax.Array  # [B, h, w], 0 or more
    entropy: jax.Array | None = None  # [B], from 0 to 1: how widely attention is spread
    embedding: jax.Array | None = None  # [B, D], of length 1
    boundary: jax.Array | None = None  # []: the learnt distance between same and different


class PlaceScorer(nn.Module):
    """Images -> `Places`, by a trunk and a head, at one scale or the mean of two.

    Attributes:
      trunk: images -> features [B, h, w, F].
      head: features -> `Places`.
      scales: 2: the image at half its size is seen too, by the same weights (2108.00462).
    """

    trunk: nn.Module
    head: nn.Module
    scales: int = 1

    def __call__(self, images: jax.Array) -> Places:
        """Scores.

        Raises:
          ValueError: a side of the images does not fit the trunk, or, with two scales, half of it.
        """
        seen: Places = self.head(self.trunk(images))
        if self.scales == 1:
            return seen
        check_sides(images.shape[1:3], 2)
        half: Places = self.head(self.trunk(_halved(images)))
        half = half._replace(map=enlarged(half.map, seen.map.shape[1:3]))
        return jax.tree.map(lambda one, other: (one + other) / 2, seen, half)


class ResidualTrunk(nn.Module):
    """Residual blocks (He et al. 2016) without pooling: [B, H, W, C] -> [B, h, w, features[-1]].

    h = H / (fold * 2 ** (levels - 1)). It ends early: at an eighth of 64 px there are 64 places,
    at a 32nd, where the paper's ends, only 4.

    Attributes:
      fold: so many pixels along each side become channels first: few channels at full resolution
        waste a CPU.
      features: of each level; the image is halved between two.
      blocks: of each level.
    """

    fold: int = 4
    features: tuple[int, ...] = (32, 64)
    blocks: int = 2

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Sees.

        Raises:
          ValueError: a side of the images is not a multiple of fold * 2 ** (levels - 1).
        """
        check_sides(images.shape[1:3], self.fold * 2 ** (len(self.features) - 1))
        x = _conv(self.features[0])(folded(images, self.fold))
        x = nn.relu(_norm(self.features[0])(x))
        for level, features in enumerate(self.features):
            for block in range(self.blocks):
                x = _Block(features, strides=2 if level and not block else 1)(x)
        return x


class _Block(nn.Module):
    """relu(x + F(x)), F two 3x3 convolutions; x by a 1x1 convolution where shapes differ."""

    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = _conv(self.features, strides=self.strides)(x)
        y = nn.relu(_norm(self.features)(y))
        y = _norm(self.features)(_conv(self.features)(y))
        if x.shape != y.shape:
            x = Conv(self.features, (1, 1), self.strides, use_bias=False, kernel_init=he_init())(x)
            x = _norm(self.features)(x)
        return nn.relu(x + y)


class DeviationHead(nn.Module):
    """A score of each place, and the mean of the largest of them: DevNet's (2108.00462).

    The map is |score| and the image's score the mean of its largest values, `top` of them.
    """

    top: float = 0.1

    @nn.compact
    def __call__(self, features: jax.Array) -> Places:
        """Scores features [B, h, w, F]."""
        scores = jnp.abs(Conv(1, (1, 1))(features)[..., 0])
        return Places(top_mean(scores, self.top), scores)


class MetricHead(nn.Module):
    """Evidence for two classes at each place, and attention over places: after MeLIAD (2409.13602).

    An interpretation: the paper's code was not found, and of its text the abstract and a review
    alone could be read. Features z of length 1 at each place, a vector c_k for each class (good,
    defective), temperature t:

        p = softmax_k(<z, c_k> / t)[defective]     the map, which is what decides, by design
        a = softmax over places of max_k <z, c_k> / t
        score = sum a p,   entropy = -sum a log a / log(places),   embedding = sum a z, length 1

    Attributes:
      width: features of a place.
      temperature: t.
      boundary: where the learnt distance between same and different begins.
    """

    width: int = 32
    temperature: float = 0.1
    boundary: float = 1.2

    @nn.compact
    def __call__(self, features: jax.Array) -> Places:
        """Scores features [B, h, w, F]."""
        x = features
        for _ in range(3):
            x = nn.relu(_norm(self.width)(_conv(self.width)(x)))
        z = unit(Conv(self.width, (1, 1))(x))
        classes = self.param("classes", nn.initializers.normal(1.0), (2, self.width))
        boundary = self.param("boundary", lambda _: jnp.float32(self.boundary))
        cosines = jnp.einsum("bhwd,kd->bhwk", z, unit(classes)) / self.temperature
        evidence = jax.nn.softmax(cosines)[..., 1]
        batch, height, width, _ = cosines.shape
        attention = jax.nn.softmax(cosines.max(axis=-1).reshape(batch, -1))
        pairs = attention.reshape(batch, height, width)
        return Places(
            score=jnp.sum(pairs * evidence, axis=(1, 2)),
            map=evidence,
            entropy=entropy_of(attention),
            embedding=unit(jnp.einsum("bhw,bhwd->bd", pairs, z)),
            boundary=boundary,
        )


def top_mean(values: jax.Array, share: float) -> jax.Array:
    """The mean of the largest values of each map [B, h, w]: max(1, floor(share h w)) of them.

    >>> ten = jnp.arange(1.0, 11.0).reshape(1, 2, 5)
    >>> top_mean(ten, 0.1).tolist(), top_mean(ten, 0.25).tolist()
    ([10.0], [9.5])
    """
    places = values.reshape(values.shape[0], -1)
    count = max(1, math.floor(share * places.shape[1]))
    return jnp.mean(jax.lax.top_k(places, count)[0], axis=1)


def entropy_of(attention: jax.Array) -> jax.Array:
    """-sum a log a / log n of attention [B, n] that sums to 1: [B], 1 where it is even.

    0 log 0 is 0, and so is its gradient.

    >>> entropy_of(jnp.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    some = attention > 0
    terms = attention * jnp.log(jnp.where(some, attention, 1))
    return jnp.abs(jnp.sum(terms, axis=-1)) / max(math.log(attention.shape[-1]), 1e-6)


def unit(vectors: jax.Array) -> jax.Array:
    """Vectors [..., D] brought to length 1; of nearly none, shorter."""
    return vectors / jnp.sqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)


def enlarged(maps: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Maps [B, h, w] at other sides, linearly: [B, *sides]."""
    rows, columns = (
        interpolation_matrix(large, small)
        for large, small in zip(sides, maps.shape[1:3], strict=True)
    )
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, maps, columns)


def _halved(images: jax.Array) -> jax.Array:
    """The mean of every 2x2 pixels."""
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _conv(features: int, strides: int = 1) -> Conv:
    make: Callable[..., Conv] = partial(Conv, kernel_size=(3, 3), padding=1, use_bias=False)
    return make(features, strides=strides, kernel_init=he_init())


def _norm(features: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=math.gcd(_GROUPS, features))
