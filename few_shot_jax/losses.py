"""Losses of normal and labelled images: DevNet's deviation, and a metric one after MeLIAD.

`images` are float32 [2, B, H, W, C] in [-1, 1]: [0] normal ones, [1] labelled defective ones, of
which a share is replaced by corruptions of the normal ones (the idea is DRA's, Ding et al. 2022).
So the network also learns defects that nobody has labelled, and can do without any label.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ae_jax.corruption import CorruptFn
from ae_jax.lighting import relight
from ae_jax.patches import uniform
from engine import parallel
from engine.method import Aux, LossFn, Variables
from few_shot_jax.models import Places

SeeFn = Callable[[Variables, jax.Array], Places]
"""(variables, images [B, H, W, C]) -> what the network says of them."""

# A corruption counts where it changes a pixel by 2.5 % of the range, as the mean over colours.
_VISIBLE = 0.05


class Batch(NamedTuple):
    """A step's images of both classes in one row, of `n` = 2 B."""

    images: jax.Array  # [n, H, W, C]
    defective: jax.Array  # float32 [n], 0 or 1
    weight: jax.Array  # float32 [n]; 0: a corruption of which nothing can be seen


def deviation_loss(
    see: SeeFn,
    corrupt: CorruptFn,
    *,
    corrupted: float = 0.5,
    margin: float = 5.0,
    reference_draws: int = 0,
    lighting: float = 0.1,
) -> LossFn:
    """DevNet's loss (2108.00462, eq. 4): |dev| of a normal image, max(0, margin - dev) of another.

    dev = (score - mean) / deviation of the reference N(0, 1). The mean over normal images and that
    over the others count alike.

    Args:
      see: the network that learns.
      corrupt: of normal images.
      corrupted: the share of the second row that is corruptions.
      margin: a, in deviations.
      reference_draws: of how many numbers, drawn at each step, mean and deviation are taken; 0: 0
        and 1 as they are. The paper has 5,000, which is the same loss with noise of 1 %.
      lighting: by how much light changes from image to image; 0: not at all.
    """

    def loss_fn(variables: Variables, images: jax.Array, rng: jax.Array) -> tuple[jax.Array, Aux]:
        rows_rng, reference_rng = jax.random.split(rng)
        batch = both_rows(rows_rng, images, corrupt, corrupted, lighting)
        score = see(variables, batch.images).score
        deviations = deviation(score, reference_rng, reference_draws)
        losses = deviation_losses(deviations, batch.defective, margin)
        return jnp.mean(batch.weight * losses), Aux(_watched(score, batch))

    return loss_fn


def metric_loss(
    see: SeeFn,
    corrupt: CorruptFn,
    *,
    corrupted: float = 0.5,
    metric_weight: float = 1.0,
    entropy_weight: float = 0.05,
    margin: float = 0.2,
    lighting: float = 0.1,
) -> LossFn:
    """After MeLIAD (2409.13602), an interpretation: cross-entropy, margins of pairs, entropy.

    Cross-entropy of the score, + metric_weight * the mean over pairs of `pair_losses`, +
    entropy_weight * the attention's entropy, which is low where evidence is in few places.

    Args:
      see: the network that learns, with a `few_shot_jax.models.MetricHead`.
      corrupt: of normal images.
      corrupted: the share of the second row that is corruptions.
      metric_weight: of the pairs.
      entropy_weight: of the entropy.
      margin: by how much pairs of one class are to be nearer than the boundary, others further.
      lighting: by how much light changes from image to image; 0: not at all.

    Raises:
      ValueError: the network's head has no embedding.
    """

    def loss_fn(variables: Variables, images: jax.Array, rng: jax.Array) -> tuple[jax.Array, Aux]:
        batch = both_rows(rng, images, corrupt, corrupted, lighting)
        seen = see(variables, batch.images)
        if seen.embedding is None or seen.boundary is None or seen.entropy is None:
            raise ValueError(
                "few_shot_jax.losses:metric_loss needs few_shot_jax.models:MetricHead as head.fn"
            )
        likelihood = jnp.where(batch.defective > 0, seen.score, 1 - seen.score)
        decided = jnp.mean(-batch.weight * jnp.log(jnp.maximum(likelihood, 1e-6)))
        pairs = pair_mean(seen.embedding, batch.defective, batch.weight, seen.boundary, margin)
        entropy = jnp.mean(seen.entropy)
        loss = decided + metric_weight * pairs + entropy_weight * entropy
        metrics = {**_watched(seen.score, batch), "pairs": pairs, "entropy": entropy}
        return loss, Aux({**metrics, "boundary": seen.boundary})

    return loss_fn


def both_rows(
    rng: jax.Array, images: jax.Array, corrupt: CorruptFn, corrupted: float, lighting: float
) -> Batch:
    """Normal and labelled images under light of their own, some labelled ones as corruptions."""
    light_rng, corrupt_rng, which_rng = jax.random.split(rng, 3)
    normal, labelled = images
    count = len(normal)
    if lighting:
        first, second = jax.random.split(light_rng)
        normal, labelled = relight(first, normal, lighting), relight(second, labelled, lighting)
    weight = jnp.ones(2 * count)
    if corrupted:
        made, _ = corrupt(corrupt_rng, normal)
        visible = jnp.abs(made - normal).mean(axis=-1).max(axis=(1, 2)) > _VISIBLE
        chosen = uniform(which_rng, (count,), 0.0, 1.0) < corrupted
        labelled = jnp.where(chosen[:, None, None, None], made, labelled)
        weight = weight.at[count:].set((visible | ~chosen).astype(jnp.float32))
    both = jnp.concatenate([normal, labelled])
    return Batch(both, jnp.repeat(jnp.arange(2.0), count), weight)


def deviation(score: jax.Array, rng: jax.Array, draws: int) -> jax.Array:
    """(score - mean) / deviation of `draws` numbers of N(0, 1), or of 0 and 1 where that is 0."""
    if not draws:
        return score
    reference = jax.random.normal(rng, (draws,))
    return (score - jnp.mean(reference)) / jnp.std(reference)


def deviation_losses(deviations: jax.Array, defective: jax.Array, margin: float) -> jax.Array:
    """(1 - y) |dev| + y max(0, margin - dev), [n] each.

    >>> dev, y = jnp.array([0.5, 3.0, 6.0, -1.0]), jnp.array([0.0, 1.0, 1.0, 0.0])
    >>> deviation_losses(dev, y, 5.0).tolist()
    [0.5, 2.0, 0.0, 1.0]
    """
    short = jnp.maximum(0.0, margin - deviations)
    return jnp.where(defective > 0, short, jnp.abs(deviations))


def pair_losses(
    distances: jax.Array, same: jax.Array, boundary: jax.Array, margin: float
) -> jax.Array:
    """max(0, margin + y (distance - boundary)), y = 1 for a pair of one class, else -1.

    The margin loss of Wu et al. 2017 (arXiv 1706.07567, eq. 4).
    """
    sign = jnp.where(same, 1.0, -1.0)
    return jnp.maximum(0.0, margin + sign * (distances - boundary))


def pair_mean(
    embedding: jax.Array,
    defective: jax.Array,
    weight: jax.Array,
    boundary: jax.Array,
    margin: float,
) -> jax.Array:
    """The mean of `pair_losses` over all pairs of different images, of all devices.

    Args:
      embedding: [n, D], of length 1.
      defective: [n].
      weight: [n]; a pair counts as the product of its images' weights.
      boundary: [].
      margin: as for `pair_losses`.
    """
    mine = parallel.share(jnp.arange, len(embedding))
    others, kinds, weights = map(parallel.gather, (embedding, defective, weight))
    squared = jnp.sum(jnp.square(embedding[:, None] - others[None]), axis=-1)
    losses = pair_losses(
        jnp.sqrt(squared + 1e-12), defective[:, None] == kinds[None], boundary, margin
    )
    counted = weight[:, None] * weights[None] * (mine[:, None] != jnp.arange(len(others))[None])
    return jnp.sum(counted * losses) / (len(mine) * max(len(others) - 1, 1))


def _watched(score: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    """Mean scores of both rows: a network whose scores do not differ has learnt nothing."""
    count = len(score) // 2
    return {"normal_score": jnp.mean(score[:count]), "labelled_score": jnp.mean(score[count:])}
