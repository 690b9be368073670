import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fanogan_jax import models

IMAGE = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)


def sizes(network, inputs):
    variables = jax.eval_shape(network.init, jax.random.key(0), inputs)
    return tuple(
        sum(leaf.size for leaf in jax.tree.leaves(variables.get(collection, {})))
        for collection in ("params", "batch_stats")
    )


def latents(length):
    return jax.ShapeDtypeStruct((2, length), jnp.float32)


def test_parameter_counts_of_the_seed_networks():
    """shared/reference/fanogan.md, 2A."""
    assert sizes(models.Generator(64), latents(100)) == (3_533_315, 640)
    assert sizes(models.Critic(), IMAGE) == (99_937, 0)
    assert sizes(models.Encoder(100), IMAGE) == (302_788, 448)


def test_parameter_counts_of_the_paper_networks():
    """shared/reference/fanogan.md, 2B."""
    assert sizes(models.ResNetGenerator(64), latents(100))[0] == 8_311_107
    assert sizes(models.ResNetGenerator(64), latents(128))[0] == 8_540_483
    assert sizes(models.ResNetCritic(), IMAGE) == (7_491_841, 0)
    assert sizes(models.ResNetEncoder(100), IMAGE)[0] == 8_302_948
    assert sizes(models.ResNetEncoder(128), IMAGE)[0] == 8_532_352


def test_the_24_57_million_of_ijcv_2021():
    """Grey, z = 128, batch statistics included (Bergmann et al., IJCV 2021)."""
    grey = jax.ShapeDtypeStruct((2, 64, 64, 1), jnp.float32)
    total = sum(
        sum(sizes(network, inputs))
        for network, inputs in [
            (models.ResNetGenerator(64, channels=1), latents(128)),
            (models.ResNetCritic(), grey),
            (models.ResNetEncoder(128), grey),
        ]
    )
    assert total == 24_569_922


@pytest.mark.parametrize(
    ("critic", "features"), [(models.Critic(), 2048), (models.ResNetCritic(), 8192)]
)
def test_feature_counts_and_shapes(critic, features):
    (score, found), _ = jax.eval_shape(critic.init_with_output, jax.random.key(0), IMAGE)
    assert score.shape == (2,)
    assert found.shape == (2, features)


def test_shapes_of_generator_and_encoder():
    for network, inputs, shape in [
        (models.Generator(64), latents(100), (2, 64, 64, 3)),
        (models.ResNetGenerator(64), latents(128), (2, 64, 64, 3)),
        (models.Encoder(100), IMAGE, (2, 100)),
        (models.ResNetEncoder(128), IMAGE, (2, 128)),
    ]:
        output, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), inputs)
        assert output.shape == shape


@pytest.mark.parametrize("critic", [models.Critic((4, 8)), models.ResNetCritic(width=2)])
def test_a_score_depends_on_its_own_image_only(critic, images):
    variables = jax.jit(critic.init)(jax.random.key(0), images[:2])

    @jax.jit
    @jax.grad
    def second_gradient(batch):
        return critic.apply(variables, batch)[0][1]

    gradient = second_gradient(jnp.asarray(images[:3]))
    assert np.abs(gradient[1]).max() > 0
    assert not np.any(gradient[0]) and not np.any(gradient[2])


def test_layer_norm_is_over_height_width_and_channels():
    x = np.random.default_rng(0).normal(2.0, 3.0, (2, 4, 4, 3)).astype(np.float32)
    norm = models.LayerNorm()
    variables = norm.init(jax.random.key(0), x)
    assert variables["params"]["scale"].shape == (3,)
    mean, var = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
    expected = (x - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(norm.apply(variables, x), expected, atol=1e-5)


def test_initial_weights_are_pytorchs():
    """Uniform in +-1/sqrt(fan_in), kernels and biases."""
    init = jax.jit(models.Encoder(100).init)
    params = init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    conv = params["_Trunk_0"]["Conv_1"]
    for leaf, fan_in in [
        (conv["kernel"], 9 * 16),
        (conv["bias"], 9 * 16),
        (params["Dense_0"]["kernel"], 2048),
    ]:
        assert 0.9 < np.abs(leaf).max() * fan_in**0.5 <= 1.0
