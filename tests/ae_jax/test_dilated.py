"""SDC-AE and SDC-CCM: their parameters, what they see, and which images they take."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax import self_supervised
from ae_jax.dilated import ConvexCombination, DilatedAutoencoder, DilatedBlock
from configs import ssae, ssae_small

TINY = partial(
    DilatedAutoencoder, features=(4, 8), convolutions=1, blocks=1, branch=2, dilations=(1, 2)
)


NONE = np.zeros(())


def num_parameters(network, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    variables = jax.eval_shape(network.init, jax.random.key(0), *arrays)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def kernel(inputs, outputs):
    """3x3 without bias, and scale and shift of each normalised channel."""
    return 9 * inputs * outputs + 2 * outputs


def expected(features, convolutions, blocks, branch, dilations, *, skips):
    """The table of reference/autoencoders.md, 1.3, layer by layer."""
    total, width = 0, 3
    for level in features:
        for _ in range(convolutions):
            total += kernel(width, level)
            width = level
    wide = branch * dilations
    for _ in range(blocks):
        total += dilations * kernel(width, branch) + kernel(wide, wide)
        width = wide
    for level in reversed(features):
        total += kernel(width, level) + kernel(level, level)
        if skips:
            total += kernel(3 * level, level) + kernel(level, level)
        width = level
    return total + width * 3 + 3


@pytest.mark.parametrize(("skips", "count"), [(False, 13_356_419), (True, 16_454_787)])
def test_parameters_of_sdc_ae_and_sdc_ccm(skips, count):
    """13.4 and 16.5 million, as the reference computed them."""
    found = num_parameters(DilatedAutoencoder(skips=skips), (1, 256, 256, 3))
    assert found == expected((64, 128, 256), 2, 4, 64, 6, skips=skips) == count


@pytest.mark.parametrize("skips", [False, True])
def test_parameters_of_other_sizes(skips):
    found = num_parameters(TINY(skips=skips), (1, 16, 16, 3))
    assert found == expected((4, 8), 1, 1, 2, 2, skips=skips)


def test_configs_ask_for_these_networks():
    """The full config is the default; SDC-AE is one flag of it."""
    config = ssae.get_config("bottle")
    fields = {name: value for name, value in config.autoencoder.items() if name != "fn"}
    assert DilatedAutoencoder(**fields) == DilatedAutoencoder()
    small = ssae_small.get_config("bottle")
    fields = {name: value for name, value in small.autoencoder.items() if name != "fn"}
    found = num_parameters(DilatedAutoencoder(**fields), (1, 128, 128, 3))
    assert found == expected((16, 32, 64), 1, 2, 16, 6, skips=True)


def test_without_skips_there_is_no_convex_combination():
    def names(network):
        shape = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
        return set(jax.eval_shape(network.init, jax.random.key(0), shape)["params"])

    joined = {"ConvexCombination_0", "ConvexCombination_1"}
    assert joined <= names(TINY())
    assert names(TINY(skips=False)) == names(TINY()) - joined


def test_a_convex_combination_lies_between_its_inputs():
    """Elementwise, and at different places between; equal inputs come through as they are."""
    rng = np.random.default_rng(0)
    skip, below = (jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32) for _ in range(2))
    module = ConvexCombination()
    variables = jax.jit(module.init)(jax.random.key(0), skip, below)
    apply = jax.jit(module.apply)
    found = apply(variables, skip, below)
    assert (found >= jnp.minimum(skip, below) - 1e-6).all()
    assert (found <= jnp.maximum(skip, below) + 1e-6).all()
    share = (found - below) / (skip - below)
    assert jnp.std(share) > 0.05
    np.testing.assert_allclose(apply(variables, skip, skip), skip, atol=1e-6)


@pytest.mark.parametrize(("sign", "which"), [(1, 0), (-1, 1)])
def test_a_convex_combination_takes_the_skip_where_beta_is_one(sign, which):
    rng = np.random.default_rng(0)
    both = [jnp.asarray(rng.normal(size=(1, 8, 8, 4)), jnp.float32) for _ in range(2)]
    module = ConvexCombination()
    variables = jax.jit(module.init)(jax.random.key(0), *both)
    # The shift of the last normalisation moves beta to sigmoid(+-40).
    params = dict(variables["params"])
    # The last convolution takes 4 features, the first 12.
    (conv,) = (name for name in params if params[name].get("kernel", NONE).shape[-2:] == (4, 4))
    last = conv.replace("Conv", "BatchNorm")
    params[last] = {**params[last], "bias": jnp.full(4, 40.0 * sign)}
    found = jax.jit(module.apply)({**variables, "params": params}, *both)
    np.testing.assert_allclose(found, both[which], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "side", "reason"),
    [
        (DilatedAutoencoder(), 100, "100 is no multiple of 8"),
        (DilatedAutoencoder(), 4, "4 is no multiple of 8"),
        (TINY(), 18, "18 is no multiple of 4"),
    ],
)
def test_sides_that_poolings_do_not_divide_are_refused(network, side, reason):
    """Of the height and of the width."""
    for shape in ((1, side, 16, 3), (1, 16, side, 3)):
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        with pytest.raises(ValueError, match=reason):
            jax.eval_shape(network.init, jax.random.key(0), images)


@pytest.mark.parametrize("field", ["image_size", "crop"])
def test_a_method_of_such_a_side_is_refused_in_one_line(field):
    config = ssae.get_config("bottle")
    config.data[field] = 100
    with pytest.raises(ValueError, match="100 px.*96 or 104 px.*data.image_size") as caught:
        self_supervised.build(config, 16)
    assert "\n" not in str(caught.value)


def test_whole_images_beside_crops_must_be_legal_as_well():
    """Scoring takes them whole; to find out after training would be late."""
    config = ssae.get_config("bottle")
    config.data.update(image_size=300, crop=256)
    with pytest.raises(ValueError, match="300 px.*296 or 304 px"):
        self_supervised.build(config, 16)


@pytest.mark.parametrize("skips", [False, True])
def test_the_same_parameters_take_images_of_any_size(skips):
    """What the middle of the large image becomes is what it becomes alone, away from borders."""
    network = TINY(skips=skips, blocks=0)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 96, 16, 3)).astype(np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.asarray(images[:, :16, :16]))
    apply = jax.jit(network.apply)
    large = apply(variables, images).reconstructions
    assert large.shape == images.shape and float(jnp.abs(large).max()) < 1
    part = apply(variables, images[:, 16:80]).reconstructions
    # A pixel sees 21 around it at most.
    np.testing.assert_allclose(part[:, 24:40], large[:, 40:56], atol=1e-5)
    assert float(jnp.abs(part[:, 0] - large[:, 16]).max()) > 1e-3  # and the border is seen
    assert float(jnp.std(large)) > 0.01


def test_sides_of_16_and_32_px_share_variables_with_blocks_as_well():
    network = TINY()
    shapes = [
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
        for side in (16, 32)
    ]
    assert shapes[0] == shapes[1]
    for side in (16, 32):
        images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        output = jax.eval_shape(network.apply, shapes[0], images)
        assert output.reconstructions.shape == (2, side, side, 3)
        assert output.latents is None and output.block_residual is None


@pytest.mark.parametrize("dilations", [(1,), (4,), (8,), (1, 8)])
def test_a_block_sees_as_far_as_its_dilations(dilations):
    """Kernels without a negative number, so that every tap reaches the output pixel.

    3 taps of a branch, `d` apart, and 3 taps of the convolution that joins the branches.
    """
    block, side, centre = DilatedBlock(branch=2, dilations=dilations), 24, 12
    x = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, (1, side, side, 2)), jnp.float32)
    variables = jax.jit(block.init)(jax.random.key(0), x)
    positive = {**variables, "params": jax.tree.map(jnp.abs, variables["params"])}

    def pixel(x):
        return block.apply(positive, x)[0, centre, centre].sum()

    seen = np.asarray((jax.jit(jax.grad(pixel))(x) != 0).any(axis=(0, 3)))
    expected = np.zeros((side, side), bool)
    for dilation in dilations:
        taps = [centre + i * dilation + j for i in (-1, 0, 1) for j in (-1, 0, 1)]
        expected[np.ix_(taps, taps)] = True
    np.testing.assert_array_equal(seen, expected)


def test_bfloat16_is_close_to_float32_with_parameters_and_output_of_float32():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    variables = jax.jit(TINY().init)(jax.random.key(0), images)
    low = TINY(dtype="bfloat16")
    types = jax.eval_shape(low.init, jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(types)} == {jnp.dtype("float32")}
    full = jax.jit(TINY().apply)(variables, images).reconstructions
    found = jax.jit(low.apply)(variables, images).reconstructions
    assert found.dtype == jnp.float32
    difference = jnp.abs(found - full)
    # bfloat16 has 8 bits: not the same numbers, and not far from them.
    assert 1e-5 < difference.max() < 0.05 and jnp.std(full) > 0.05
