"""f-AnoGAN with the networks and settings of Schlegl et al. 2019, as a delta of configs/fanogan.py.

python main.py --config=configs/fanogan_resnet.py:bottle --config.data.root=DIR --workdir=W

Residual networks of 24.6 M parameters at 64 px, z = 128, batch 64, n_critic 5; Adam 1e-4 (0, 0.9)
for generator and critic, RMSProp 5e-5 for 50,000 steps of the encoder, kappa 1. The paper trains
generator and critic for 7 epochs of its own data, which says nothing for a folder of 200 images:
20,000 generator updates are our choice. Colour images, where the paper's are grey. For a GPU.
"""

from ml_collections import ConfigDict

from configs import fanogan


def get_config(category: str = "bottle") -> ConfigDict:
    """The paper's networks, optimisers and number of encoder steps."""
    config = fanogan.get_config(category)
    config.name = "f-AnoGAN (ResNet)"
    config.latent = 128
    for network in ("generator", "critic", "encoder"):
        name = f"ResNet{network.capitalize()}"
        config[network] = dict(fn=f"fanogan_jax.models:{name}", width=64)

    adam = dict(fn="optax:adam", learning_rate=1e-4, b1=0.0, b2=0.9)
    config.gan.critic_optimizer = dict(adam)
    config.gan.generator_optimizer = dict(adam)
    # TensorFlow 1's RMSProp, which the authors used: its averages start at 1.
    config.encoding.optimizer = dict(
        fn="optax:rmsprop",
        learning_rate=5e-5,
        decay=0.9,
        eps=1e-10,
        initial_scale=1.0,
        eps_in_sqrt=True,
    )
    if category == "demo":  # keeps the demo's schedule
        for network in ("generator", "critic", "encoder"):
            config[network].width = 8
        return config
    config.gan.update(num_steps=20_000, batch_size=64)
    config.encoding.update(num_steps=50_000, batch_size=64)
    config.every = dict(log=100, save=1000, pictures=1000)
    return config
