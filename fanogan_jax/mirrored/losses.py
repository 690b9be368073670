"""Losses of AMA (arXiv 2003.10713), each a function that returns an `engine.method.LossFn`.

The critic D tells pairs (x, x) from pairs (x, G(E(x))) by WGAN-GP; encoder and generator, one
network, are moved to deceive it. No pixel is compared with another unless `pixel_weight` asks for
it. Images x are [B, H, W, C] in [-1, 1]; every loss is a mean over images. Of each image y is 1,
or minus a weight where it is an atypical one, a negative.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from engine import parallel, residuals
from engine.method import Aux, LossFn, Variables
from fanogan_jax.losses import apply_moving, gradient_penalty
from fanogan_jax.mirrored.models import MirroredNetworks


class Mirrored(NamedTuple):
    """Images and what the autoencoder makes of them: the pairs of one step."""

    images: jax.Array  # x; atypical ones in the place of some
    reconstructions: jax.Array  # G(E(x))
    signs: jax.Array  # y [B]
    residual: jax.Array  # mean |x - G(E(x))| of the normal images
    latent_norm: jax.Array  # mean ||E(x)||_2 of the normal images
    mixtures: tuple[jax.Array, jax.Array, float] | None
    """Images and decoded mixtures of them, [3 B, H, W, C] each, and the weight of these pairs."""


PairsFn = Callable[..., tuple[Mirrored, Variables]]
"""(variables, images, rng, atypical_on=True) -> the pairs, and the moved running averages."""


def pair(images: jax.Array, others: jax.Array) -> jax.Array:
    """Two images side by side in the channels: [B, H, W, 2 C]."""
    return jnp.concatenate([images, others], axis=-1)


def score_pairs(
    networks: MirroredNetworks, variables: Variables, pairs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The critic's score [B] and features [B, h, w, F] of pairs [B, H, W, 2 C]."""
    scored: Any = networks.critic.apply(variables["critic"], pairs)
    return scored


def mirrored_pairs(
    networks: MirroredNetworks,
    *,
    atypical: float = 0.0,
    atypical_weight: float = 1.0,
    simplex_weight: float = 0.0,
) -> PairsFn:
    """What a step's images are paired with.

    Batch normalisation uses the statistics of the batch of normal images, which alone move the
    running averages. Atypical images are made and reconstructed by the running averages, as the
    authors do it.

    Args:
      networks: of which the autoencoder is used.
      atypical: share of the images whose place G(a E(x)), a ~ U(0, 0.5), takes.
      atypical_weight: minus y of these. The losses have no lower bound then.
      simplex_weight: of the pairs of images and decoded mixtures of three latents; 0: none.
    """

    def pairs_of(
        variables: Variables,
        images: jax.Array,
        rng: jax.Array,
        *,
        atypical_on: jax.Array | bool = True,
    ) -> tuple[Mirrored, Variables]:
        atypical_rng, simplex_rng = jax.random.split(rng)
        mine = variables["autoencoder"]
        outputs, updates = apply_moving(networks.autoencoder, mine, images, train=True)
        reconstructions, latents = outputs[0], outputs[1]
        made = Mirrored(
            images,
            reconstructions,
            jnp.ones(images.shape[0]),
            jnp.mean(residuals.absolute(images, reconstructions)),
            jnp.mean(residuals.euclidean_norm(latents)),
            None,
        )
        if simplex_weight:
            mixed = _mixed(networks, mine, images, latents, simplex_rng)
            made = made._replace(mixtures=(*mixed, simplex_weight))
        if atypical:
            chosen = atypical_on & _chosen(atypical_rng, images.shape[0], atypical)
            made = _with_atypical(networks, mine, made, chosen, atypical_weight, atypical_rng)
        return made, {"autoencoder": updates}

    return pairs_of


def _chosen(rng: jax.Array, count: int, share: float) -> jax.Array:
    """Which of this device's `count` images are replaced, a share of everyone's: bool [B]."""
    return parallel.share(lambda n: jax.random.permutation(rng, n) < round(share * n), count)


def _with_atypical(
    networks: MirroredNetworks,
    mine: Mapping[str, Any],
    made: Mirrored,
    chosen: jax.Array,
    weight: float,
    rng: jax.Array,
) -> Mirrored:
    """Atypical images G(a E(x)) in the place of the chosen ones, with y of -weight."""
    apply: Any = partial(networks.autoencoder.apply, mine)
    scale_rng, count = jax.random.fold_in(rng, 1), made.images.shape[0]
    scales = parallel.share(lambda n: jax.random.uniform(scale_rng, (n, 1), maxval=0.5), count)
    negatives = apply(scales * apply(made.images, method="encode"), method="decode")
    negatives = jax.lax.stop_gradient(negatives)
    where = chosen[:, None, None, None]
    return made._replace(
        images=jnp.where(where, negatives, made.images),
        reconstructions=jnp.where(where, apply(negatives)[0], made.reconstructions),
        signs=jnp.where(chosen, -weight, 1.0),
    )


def _mixed(
    networks: MirroredNetworks,
    mine: Mapping[str, Any],
    images: jax.Array,
    latents: jax.Array,
    rng: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Images [3 B, H, W, C], and three times G(a1 z1 + a2 z2 + (1 - a1 - a2) z3), z = E(x).

    Each image is mixed with the two after it, of everyone's images, which come in random order.
    """
    count = images.shape[0]
    # Each device sees all, so that who is mixed with whom does not depend on their number.
    everyone = parallel.gather(images), parallel.gather(latents)

    def after(places: int) -> list[jax.Array]:
        rolled = [jnp.roll(each, -places, axis=0) for each in everyone]
        return [parallel.share(partial(_all_of, each), count) for each in rolled]

    trio = [(images, latents), after(1), after(2)]
    first, second = parallel.share(
        lambda n: jax.random.uniform(rng, (n, 2, 1), maxval=0.5), count
    ).swapaxes(0, 1)
    weights = first, second, 1.0 - first - second
    mixture = sum(weight * each[1] for weight, each in zip(weights, trio, strict=True))
    decoded: Any = networks.autoencoder.apply(
        mine, mixture, train=True, method="decode", mutable=["batch_stats"]
    )[0]
    return jnp.concatenate([each[0] for each in trio]), jnp.concatenate([decoded] * 3)


def _all_of(everyone: jax.Array, count: int) -> jax.Array:
    """A draw for everyone's `count` images that has been made already."""
    return everyone


def critic_terms(
    networks: MirroredNetworks, variables: Variables, made: Mirrored, mixing: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """mean y (D(x, x) - D(x, G(E(x)))), and the mean gradient penalty between these pairs.

    The penalty is that of each pair, its gradient's norm over H, W and the channels of both halves,
    where the authors' code takes it over channels alone.

    Args:
      networks: of which the critic is used.
      variables: of both.
      made: the pairs.
      mixing: in [0, 1], [B]: of (x, x) and (x, G(E(x))) in what the penalty is taken at.
    """
    x, others = made.images, made.reconstructions
    real, fake = (_deceit(networks, variables, x, each) for each in (x, others))
    wasserstein = jnp.mean(made.signs * (real - fake))
    if made.mixtures:
        images, decoded, weight = made.mixtures
        deceit = jnp.mean(_deceit(networks, variables, images, decoded))
        # The images of all mixtures are each image of all devices three times.
        each = images[: x.shape[0]]
        again = jnp.mean(_deceit(networks, variables, each, each))
        wasserstein += weight * (again - deceit)
    mixing = mixing[:, None, None, None]
    between = pair(x, mixing * x + (1.0 - mixing) * others)
    penalties = gradient_penalty(lambda p: score_pairs(networks, variables, p)[0], between)
    return wasserstein, jnp.mean(penalties)


def _deceit(
    networks: MirroredNetworks, variables: Variables, images: jax.Array, others: jax.Array
) -> jax.Array:
    """D(x, x'), how much the critic takes x' for x itself: [B]."""
    return score_pairs(networks, variables, pair(images, others))[0]


def mirrored_critic(networks: MirroredNetworks, pairs_of: PairsFn, penalty: float = 10.0) -> LossFn:
    """mean y (D(x, G(E(x))) - D(x, x)) + penalty * mean (||grad D|| - 1)^2 (arXiv 2003.10713).

    The autoencoder is frozen, with its running averages. Its keyword `atypical_on` is for the step
    from which on there are atypical images.
    """

    def loss_fn(variables, images, rng, *, atypical_on=True):
        pairs_rng, mixing_rng = jax.random.split(rng)
        made, _ = pairs_of(variables, images, pairs_rng, atypical_on=atypical_on)
        mixing = parallel.share(lambda n: jax.random.uniform(mixing_rng, (n,)), images.shape[0])
        wasserstein, penalties = critic_terms(networks, variables, made, mixing)
        metrics = {"wasserstein": wasserstein, "gradient_penalty": penalties}
        return penalty * penalties - wasserstein, Aux(metrics)

    return loss_fn


def mirrored_autoencoder(
    networks: MirroredNetworks,
    pairs_of: PairsFn,
    *,
    latent_norm_weight: float = 1.0,
    pixel_weight: float = 0.0,
) -> LossFn:
    """-mean y D(x, G(E(x))) + latent_norm_weight * mean ||E(x)||_2 (arXiv 2003.10713), and pixels.

    Args:
      networks: of which the autoencoder learns.
      pairs_of: what the critic's loss has as well.
      latent_norm_weight: of the norm, not squared, of the normal images' latents.
      pixel_weight: of the mean |x - G(E(x))| of the normal images, which the paper does not have.
    """

    def loss_fn(variables, images, rng, *, atypical_on=True):
        made, updates = pairs_of(variables, images, rng, atypical_on=atypical_on)
        deceit = _deceit(networks, variables, made.images, made.reconstructions)
        loss = -jnp.mean(made.signs * deceit)
        if made.mixtures:
            originals, decoded, weight = made.mixtures
            loss -= weight * jnp.mean(_deceit(networks, variables, originals, decoded))
        loss += latent_norm_weight * made.latent_norm + pixel_weight * made.residual
        metrics = {"latent_norm": made.latent_norm, "residual": made.residual}
        return loss, Aux(metrics, updates)

    return loss_fn
