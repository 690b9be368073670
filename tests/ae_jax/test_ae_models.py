import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax.models import SSPCAB, BergmannAutoencoder, ConvolutionalAutoencoder
from engine import convolution
from engine.contractions import plain


def num_parameters(network, side):
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def expected(latent, features, transposed):
    """Layer by layer: kernels without bias, two numbers a normalised channel."""
    widths, flat = [3, *features], 16 * features[-1]
    kernels = sum(a * b for a, b in itertools.pairwise(widths))
    norms = 2 * sum(features)
    dense = flat * latent + latent + latent * flat
    decoder_norms = 2 * features[-1] + 2 * sum(features[:-1])
    return (16 + (16 if transposed else 9)) * kernels + norms + dense + decoder_norms + 3


@pytest.mark.parametrize(
    ("latent", "features", "transposed", "count"),
    [
        (1024, (32, 64, 128, 256, 512, 512), True, 30_746_499),
        (1024, (32, 64, 128, 256, 512, 512), False, 27_692_259),
        (5, (4, 6), False, None),
    ],
)
def test_parameters_of_the_convolutional_autoencoder(latent, features, transposed, count):
    network = ConvolutionalAutoencoder(latent, features, transposed)
    found = num_parameters(network, 2 ** (len(features) + 2))
    assert found == expected(latent, features, transposed)
    assert count in (None, found)


def test_parameters_of_bergmanns_autoencoder():
    """Table 1 of arXiv 1807.02011 and its mirror, about 1.05 million, layer by layer."""
    rows = [
        (3, 32, 16),
        (32, 32, 16),
        (32, 32, 9),
        (32, 64, 16),
        (64, 64, 9),
        (64, 128, 16),
        (128, 64, 9),
        (64, 32, 9),
        (32, 100, 64),
    ]
    encoder = sum(taps * i * o + o for i, o, taps in rows)
    decoder = sum(taps * i * o + i for i, o, taps in rows)
    assert num_parameters(BergmannAutoencoder(), 128) == encoder + decoder == 1_050_599


def test_parameters_of_sspcab():
    """Four 1x1 convolutions of c to c channels with one bias, and c to c / 8 to c."""
    variables = jax.eval_shape(SSPCAB().init, jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == 4 * 32 * 32 + 32 + (32 * 4 + 4) + (4 * 32 + 32)
    plain_count = num_parameters(BergmannAutoencoder(), 64)
    assert num_parameters(BergmannAutoencoder(sspcab=True), 64) == plain_count + count


NETWORKS = [
    ConvolutionalAutoencoder(latent=3, features=(4, 6)),
    ConvolutionalAutoencoder(latent=3, features=(4, 6), transposed=True, sspcab=True),
    BergmannAutoencoder(latent=3),
    BergmannAutoencoder(latent=3, sspcab=True),
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_reconstructions_have_the_images_shape(network):
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    output, variables = jax.jit(network.init_with_output)(jax.random.key(0), images)
    assert output.reconstructions.shape == images.shape
    assert output.latents.shape == (2, 3)
    assert (output.block_residual is None) != network.sspcab
    if network.sspcab:
        assert output.block_residual.shape == (2,) and (output.block_residual > 0).all()
    if isinstance(network, ConvolutionalAutoencoder):
        assert float(jnp.abs(output.reconstructions).max()) < 1
    else:
        assert set(variables) == {"params"}


def test_bergmanns_latent_and_output_are_linear():
    """Nothing bounds or cuts them: the output layer's bias goes straight through."""
    network = BergmannAutoencoder(latent=2)
    images = jnp.ones((1, 16, 16, 3))
    variables = jax.jit(network.init)(jax.random.key(0), images)
    params = dict(variables["params"])
    last = sorted(
        params, key=lambda name: (name.startswith("ConvTranspose"), int(name.split("_")[1]))
    )
    params[last[-1]] = {**params[last[-1]], "bias": jnp.array([-7.0, 0.0, 7.0])}
    apply = jax.jit(network.apply)
    moved = apply({"params": params}, images).reconstructions
    before = apply(variables, images).reconstructions
    shift = jnp.broadcast_to(jnp.array([-7.0, 0.0, 7.0]), before.shape)
    np.testing.assert_allclose(moved - before, shift, atol=1e-5)


def test_sspcab_does_not_see_the_pixel_that_it_predicts():
    """It sees four pixels, two steps off in each direction, before squeeze and excitation."""
    block = SSPCAB()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 9, 8)), jnp.float32)
    variables = jax.jit(block.init)(jax.random.key(0), x)
    # With no weight on the squeezed channels, the excitation is sigmoid(0).
    params = {
        **variables["params"],
        "Dense_1": jax.tree.map(jnp.zeros_like, variables["params"]["Dense_1"]),
    }
    kernel = params["Conv_0"]["kernel"].reshape(4, 8, 8)
    seen = [x[0, 4 + i, 4 + j] for i in (-2, 2) for j in (-2, 2)]
    by_hand = nn.relu(sum(pixel @ w for pixel, w in zip(seen, kernel, strict=True))) / 2
    found = jax.jit(block.apply)({"params": params}, x)
    np.testing.assert_allclose(found[0, 4, 4], by_hand, atol=1e-5)


def test_the_convolution_of_a_whole_image_is_a_matrix_product():
    """The 8x8 layers around Bergmann's latents, in the forms that the CPU takes."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 5)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(8, 8, 5, 7)), jnp.float32)
    pads = ((0, 0), (0, 0))
    product = x.reshape(2, -1) @ w.reshape(-1, 7)
    np.testing.assert_allclose(convolution.convolve(x, w, 1, pads)[:, 0, 0], product, atol=1e-4)
    np.testing.assert_allclose(plain(x, w, 1, pads)[:, 0, 0], product, atol=1e-4)
    z = jnp.asarray(rng.normal(size=(2, 1, 1, 5)), jnp.float32)
    spread = jnp.einsum("bc,hwcd->bhwd", z[:, 0, 0], w[::-1, ::-1])
    np.testing.assert_allclose(convolution.convolve_transpose(z, w, 1, pads), spread, atol=1e-4)
