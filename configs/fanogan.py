"""f-AnoGAN with the original networks and settings.

python main.py --config=configs/fanogan.py:bottle --config.data.root=DIR --workdir=W

The argument is the category, a folder under DIR; `:demo` needs no data: it draws its own, and
shrinks networks and schedule to end within 5 minutes on 2 CPU cores. Any field below can be set on
the command line: `--config.gan.n_critic=3`.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(category: str = "bottle") -> ConfigDict:
    """64 px, z = 100, batch 32, learning rate 2e-4, n_critic 5, 1500 + 200 epochs."""
    config = base.get_config(category)
    config.name = "f-AnoGAN"
    config.method = dict(fn="fanogan_jax:build")
    config.data.image_size = 64
    config.latent = 100
    config.generator = dict(fn="fanogan_jax.models:Generator", features=(128, 128, 64))
    config.critic = dict(fn="fanogan_jax.models:Critic", features=(16, 32, 64, 128))
    config.encoder = dict(fn="fanogan_jax.models:Encoder", features=(16, 32, 64, 128))

    adam = dict(fn="optax:adam", learning_rate=2e-4, b1=0.5, b2=0.999)
    config.gan = dict(
        epochs=1500,
        num_steps=0,  # if not 0, overrules the epochs; one step is one generator update
        batch_size=32,
        n_critic=5,
        # fanogan_jax.schedule:within_epoch is the schedule of the A03ki implementation.
        schedule=dict(fn="fanogan_jax.schedule:every_n_critic"),
        critic_loss=dict(fn="fanogan_jax.losses:critic", penalty=10.0),
        generator_loss=dict(fn="fanogan_jax.losses:generator"),
        critic_optimizer=dict(adam),
        generator_optimizer=dict(adam),
    )
    config.encoding = dict(
        epochs=200,
        num_steps=0,
        batch_size=32,
        loss=dict(fn="fanogan_jax.losses:izi_f"),  # or :izi, :ziz
        optimizer=dict(adam),
    )
    config.score = dict(
        fn="fanogan_jax.score:residual",
        kappa=1.0,
        image_score="A",  # or 'top', the mean of the largest hundredth of the map
        normalise="none",  # or, by --mode=tune, 'pixel'
    )
    # What --mode=tune chooses among, by held-out normal images with made-up defects.
    config.tuning = dict(
        normalise=("none", "pixel"),  # of the map: as it is, over what is usual at each place
        draws=1,  # of defects, for each image
    )
    config.every = dict(log=20, save=200, pictures=200)  # steps

    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels, features and steps, and larger ones: a demo that has learnt in 4 minutes."""
    config.data.image_size = 32
    config.latent = 32
    config.generator.features = (64, 64, 32)
    config.critic.features = config.encoder.features = (16, 32, 64)
    for optimizer in (config.gan.critic_optimizer, config.gan.generator_optimizer):
        optimizer.learning_rate = 5e-4
    config.encoding.optimizer.learning_rate = 5e-4
    config.gan.num_steps = 800
    config.encoding.num_steps = 500
    config.every = dict(log=20, save=100, pictures=100)
