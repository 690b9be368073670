import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax.models import ConvolutionalAutoencoder


def num_parameters(**fields):
    side = 2 ** (len(fields["features"]) + 2)
    network = ConvolutionalAutoencoder(**fields)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def expected(latent, features):
    """Layer by layer: 4x4 kernels without bias, two numbers a normalised channel."""
    widths, flat = [3, *features], 16 * features[-1]
    kernels = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    norms = 2 * sum(features)
    dense = flat * latent + latent + latent * flat
    decoder_norms = 2 * features[-1] + 2 * sum(features[:-1])
    return 2 * kernels + norms + dense + decoder_norms + 3


@pytest.mark.parametrize(
    ("latent", "features", "count"),
    [(1024, (32, 64, 128, 256, 512, 512), 30_746_499), (5, (4, 6), None)],
)
def test_parameter_counts(latent, features, count):
    found = num_parameters(latent=latent, features=features)
    assert found == expected(latent, features)
    assert count in (None, found)


def test_reconstructions_have_the_images_shape_and_range():
    network = ConvolutionalAutoencoder(latent=3, features=(4, 6))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), images)
    output = network.apply(variables, images)
    assert output.shape == images.shape and float(jnp.abs(output).max()) < 1
