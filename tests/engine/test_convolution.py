"""The CPU's forms against XLA's own convolution: values, gradients, gradients of gradients."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ae_jax.models import BergmannAutoencoder, ConvolutionalAutoencoder
from engine import convolution, parallel
from engine.convolution import Conv, ConvTranspose, UpsampleConv
from fanogan_jax import models

ONES = ((1, 1), (1, 1))


def reference(x, w, stride, pads, dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape) / 3, jnp.float32) for shape in shapes]


def assert_equal_derivatives(form, plain, x, w):
    """Both functions of (x, w) and their first and second derivatives, to 1e-5 of the largest."""

    def derivatives(function):
        def value(x, w):
            return jnp.sum(jnp.sin(function(x, w)))

        def slope(x, w):
            return sum(jnp.sum(jnp.sin(part)) for part in jax.grad(value, (0, 1))(x, w))

        gradient = jax.grad(value, (0, 1))(x, w)
        return function(x, w), gradient, jax.grad(slope, (0, 1))(x, w)

    found = jax.jit(lambda: derivatives(form))()
    expected = jax.jit(lambda: derivatives(plain))()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pads"),
    [
        ((2, 16, 16, 3), (3, 3, 3, 8), 2, ONES),  # the original critic and encoder
        ((2, 8, 8, 8), (3, 3, 8, 16), 2, ONES),
        ((2, 16, 16, 8), (3, 3, 8, 3), 1, ONES),  # the last of a generator
        ((2, 8, 8, 6), (3, 3, 6, 8), 1, ONES),  # residual blocks
        ((2, 8, 8, 6), (1, 1, 6, 8), 1, ((0, 0), (0, 0))),
        ((2, 8, 6, 4), (4, 4, 4, 6), 2, ONES),  # an even kernel, not square
        ((2, 7, 7, 3), (3, 3, 3, 5), 2, ONES),  # a side that does not divide by the stride
        ((2, 9, 9, 3), (5, 5, 3, 5), 3, ((2, 2), (2, 2))),
        ((2, 5, 6, 3), (2, 2, 3, 5), 1, ((1, 0), (0, 1))),  # a phase of the upsampling one
        ((2, 8, 6, 5), (3, 3, 5, 3), 1, ((0, 1), (2, 1))),
    ],
)
def test_convolution(shape, kernel, stride, pads):
    x, w = arrays(shape, kernel)
    assert_equal_derivatives(
        lambda x, w: convolution.convolve(x, w, stride, pads),
        lambda x, w: reference(x, w, stride, pads),
        x,
        w,
    )


def same(dilation):
    return ((dilation, dilation),) * 2


@pytest.mark.parametrize(
    ("shape", "kernel", "dilation", "pads"),
    [
        ((2, 8, 8, 6), (3, 3, 6, 5), 2, same(2)),
        ((2, 8, 10, 6), (3, 3, 6, 5), 4, same(4)),
        ((2, 8, 8, 6), (3, 3, 6, 3), 4, same(4)),  # few features
        ((2, 8, 8, 6), (3, 3, 6, 5), 8, same(8)),  # only the centre sees pixels
        ((2, 8, 8, 6), (3, 3, 6, 5), 16, same(16)),
        ((2, 4, 9, 6), (3, 3, 6, 5), 4, same(4)),  # only the middle row does
        ((2, 9, 8, 3), (2, 3, 3, 5), 3, ((1, 2), (4, 2))),
        ((2, 6, 6, 3), (3, 3, 3, 5), 5, ((2, 3), (3, 2))),  # the image is cropped, not padded
    ],
)
def test_dilated_convolution(shape, kernel, dilation, pads):
    x, w = arrays(shape, kernel)
    assert_equal_derivatives(
        lambda x, w: convolution.convolve(x, w, 1, pads, dilation),
        lambda x, w: reference(x, w, 1, pads, dilation),
        x,
        w,
    )


@pytest.mark.parametrize("dilation", [2, 8])
def test_dilated_convolution_in_a_scan(dilation):
    """Steps of descent in a loop, as `engine/parallel.py` makes them."""

    def descended(function):
        def step(w, x):
            dx, dw = jax.grad(lambda x, w: jnp.sum(jnp.sin(function(x, w))), (0, 1))(x, w)
            return w - 0.01 * dw, dx

        return jax.jit(lambda w, xs: jax.lax.scan(step, w, xs))

    w, xs = arrays((3, 3, 6, 5), (2, 2, 8, 8, 6))
    form, plain = (
        partial(function, stride=1, pads=same(dilation), dilation=dilation)
        for function in (convolution.convolve, reference)
    )
    for a, b in zip(descended(form)(w, xs), descended(plain)(w, xs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("on_cpu", [True, False])
def test_taps_that_meet_only_padding_cost_nothing(on_cpu, monkeypatch):
    monkeypatch.setattr(parallel, "on_cpu", lambda: on_cpu)
    layer = Conv(5, (3, 3), padding=8, dilation=8)
    (x,) = arrays((2, 8, 8, 6))
    variables = layer.init(jax.random.key(0), x)

    def loss(variables):
        return jnp.sum(jnp.sin(layer.apply(variables, x)))

    gradient = np.array(jax.grad(loss)(variables)["params"]["kernel"])
    assert np.all(gradient[1, 1] != 0)
    gradient[1, 1] = 0
    assert not gradient.any()
    flops = jax.jit(loss).lower(variables).compile().cost_analysis()["flops"]
    assert flops < 2 * 2 * x[..., 0].size * 6 * 5


def test_a_convolution_has_no_stride_and_dilation():
    x, w = arrays((1, 8, 8, 3), (3, 3, 3, 4))
    with pytest.raises(ValueError, match="stride"):
        convolution.convolve(x, w, 2, ONES, 2)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((2, 8, 8, 6), (4, 4, 6, 5), 2, 1),  # the decoder of an autoencoder
        ((2, 4, 5, 3), (4, 4, 3, 4), 2, 1),
        ((2, 1, 1, 6), (8, 8, 6, 4), 1, 0),  # from a latent to the smallest image
        ((2, 5, 5, 4), (3, 3, 4, 5), 1, 1),
        ((2, 5, 4, 3), (3, 3, 3, 4), 2, 1),  # an odd side from an odd kernel
        ((2, 3, 3, 3), (5, 5, 3, 2), 3, 2),
        ((2, 3, 3, 3), (2, 2, 3, 2), 2, 0),
        ((2, 5, 4, 3), (3, 3, 3, 4), 2, (1, 0)),  # twice the sides from an odd kernel
        ((2, 4, 4, 3), (3, 3, 3, 4), 2, (0, 1)),
    ],
)
def test_transposed_convolution(shape, kernel, stride, padding):
    pads = ((padding,) * 2 if isinstance(padding, int) else padding,) * 2
    x, w = arrays(shape, kernel)
    assert_equal_derivatives(
        lambda x, w: convolution.convolve_transpose(x, w, stride, pads),
        lambda x, w: plain_transpose(x, w, stride, pads),
        x,
        w,
    )


@pytest.mark.parametrize(("side", "channels", "features"), [(16, 6, 5), (5, 3, 4), (1, 2, 2)])
def test_folded_upsampling_convolution(side, channels, features):
    def plain(x, w):
        large = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return reference(large, w, 1, ONES)

    x, w = arrays((2, side, side, channels), (3, 3, channels, features))
    assert_equal_derivatives(convolution.upsample_convolve_folded, plain, x, w)
    np.testing.assert_allclose(convolution.upsample_convolve(x, w), plain(x, w), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        UpsampleConv(5),
        Conv(5, (3, 3), strides=2, padding=1),
        Conv(3, (3, 3), padding=1),
        Conv(5, (3, 3), padding=2, dilation=2),
        ConvTranspose(5, (4, 4), strides=2, padding=1),
        ConvTranspose(5, (3, 3), strides=2, padding=(1, 0)),
    ],
)
def test_same_parameters_and_result_on_every_backend(layer, monkeypatch):
    (x,) = arrays((2, 8, 8, 3))
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    on_cpu = layer.apply(variables, x)
    monkeypatch.setattr(parallel, "on_cpu", lambda: False)
    np.testing.assert_allclose(layer.apply(variables, x), on_cpu, atol=1e-5)
    elsewhere = jax.jit(layer.init)(jax.random.key(1), x)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), variables, elsewhere))


@pytest.mark.parametrize(
    "layer",
    [
        partial(Conv, 5, (3, 3), padding=1),
        partial(Conv, 5, (3, 3), padding=2, dilation=2, use_bias=False),
        partial(Conv, 3, (3, 3), padding=1),
        partial(ConvTranspose, 5, (3, 3), strides=2, padding=(1, 0)),
    ],
)
def test_convolution_of_bfloat16(layer):
    """Close to float32 and not equal to it; all that goes in or comes out is float32."""
    (x,) = arrays((2, 8, 8, 6))
    variables = layer().init(jax.random.key(1), x)
    found, expected = (
        jax.jit(jax.value_and_grad(loss_of(layer(dtype=dtype)), (0, 1), has_aux=True))(variables, x)
        for dtype in (jnp.bfloat16, None)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * float(jnp.abs(b).max()))
    assert (found[0][1] != expected[0][1]).any()


def loss_of(layer):
    def loss(variables, x):
        y = layer.apply(variables, x)
        return jnp.sum(jnp.square(y)), y

    return loss


def test_transposed_convolution_with_a_pair_of_pads_doubles_the_sides():
    (x,) = arrays((2, 5, 8, 3))
    layer = ConvTranspose(4, (3, 3), strides=2, padding=(1, 0))
    assert layer.init_with_output(jax.random.key(0), x)[0].shape == (2, 10, 16, 4)


def test_max_pool():
    (x,) = arrays((2, 6, 8, 3))
    for derive in (lambda f: f, lambda f: jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))):
        expected = derive(lambda x: nn.max_pool(x, (2, 2), (2, 2)))(x)
        np.testing.assert_array_equal(derive(convolution.max_pool)(x), expected)


def plain_transpose(x, w, stride, pads):
    around = tuple((k - 1 - a, k - 1 - b) for k, (a, b) in zip(w.shape, pads, strict=False))
    return jax.lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        around,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def convolutions_of(network, inputs, monkeypatch):
    """(form, its plain form, shapes of x and w, stride and pads) of every layer, each once.

    More pixels and channels than 32 make no other sums, and the plain form takes minutes with them.
    """
    seen = {}
    with monkeypatch.context() as patch:
        for name, plain in (("convolve", reference), ("convolve_transpose", plain_transpose)):
            form = getattr(convolution, name)

            def noted(x, w, stride, pads, *dilation, form=form, plain=plain):
                sides, channels = np.minimum(x.shape[1:], 32), np.minimum(w.shape[2:], 32)
                shapes = (1, *sides.tolist()), (*w.shape[:2], *channels.tolist())
                seen[form, *shapes, stride, pads] = plain
                return form(x, w, stride, pads, *dilation)

            patch.setattr(convolution, name, noted)
        jax.eval_shape(network.init, jax.random.key(0), inputs)
    return seen


@pytest.mark.parametrize(
    "module",
    [
        "seed",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("resnet", "autoencoder", "bergmann")
        ),
    ],
)
def test_every_convolution_of_every_network(module, monkeypatch):
    """For one image; an upsampling one as the transposed one that it becomes."""
    latents, image = jnp.zeros((1, 100)), jnp.zeros((1, 64, 64, 3))
    networks = {
        "seed": [(models.Generator(64), latents), (models.Critic(), image)],
        "resnet": [(models.ResNetGenerator(64), latents), (models.ResNetCritic(), image)],
        "autoencoder": [
            (ConvolutionalAutoencoder(transposed=transposed), jnp.zeros((1, 256, 256, 3)))
            for transposed in (False, True)
        ],
        "bergmann": [(BergmannAutoencoder(), jnp.zeros((1, 128, 128, 3)))],
    }[module]
    seen = {}
    for network, inputs in networks:
        seen |= convolutions_of(network, inputs, monkeypatch)
    assert len(seen) >= 7
    for (form, shape, kernel, *geometry), plain in seen.items():
        x, w = arrays(shape, kernel)
        found, expected = (
            jax.jit(transposes(partial(function, stride=geometry[0], pads=geometry[1])))(x, w)
            for function in (form, plain)
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def transposes(function):
    """The function of (x, w), and its first and second derivatives in random directions.

    It is linear in each argument, so these say all, and no other function adds to the rounding.
    """

    def slopes(x, w, dy):
        return jax.vjp(function, x, w)[1](dy)

    def run(x, w):
        y = function(x, w)
        dx, dw, dy = (
            jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate((x, w, y))
        )
        return y, slopes(x, w, dy), jax.vjp(slopes, x, w, dy)[1]((dx, dw))

    return run


def test_strided_convolution_pads_like_pytorch():
    """Padding 1 on both sides: the first output sees rows -1, 0, 1, and not 0, 1, 2."""
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    conv = Conv(1, (3, 3), strides=2, padding=1, use_bias=False)
    kernel = np.ones((3, 3, 1, 1), np.float32)
    padded = np.pad(x[0, :, :, 0], 1)
    expected = [[padded[i : i + 3, j : j + 3].sum() for j in (0, 2)] for i in (0, 2)]
    output = conv.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(output[0, :, :, 0], expected)
