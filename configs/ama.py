"""AMA, the adversarial mirrored autoencoder of Somepalli et al. 2021 (arXiv 2003.10713).

python main.py --config=configs/ama.py:bottle --config.data.root=DIR --workdir=W

A critic of pairs, in which an image stands beside itself or its reconstruction, takes the place of
the reconstruction error. The losses, 5 critic updates to one of the autoencoder and Adam's 3e-4
are the paper's; networks of a CPU's size at 64 px (2.6 M parameters), where the authors have 32 px
and widths of 128 and 256, and as many critic updates as configs/fanogan.py has on bottle: 1,800
steps of 5. Nothing compares pixels, as in the paper. Off, as they are options there too:

    negatives                 --config.gan.pairs.atypical=0.1 --config.gan.atypical_start=180
    mixtures of latents       --config.gan.pairs.simplex_weight=0.2
    a pixel term, ours        --config.gan.autoencoder_loss.pixel_weight=100

`--mode=tune` measures the mean and deviation of the held-out images' scores, which the two-sided
score needs. `:demo` draws its own data and ends within 3 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(category: str = "bottle") -> ConfigDict:
    """64 px, z = 128, batch 16, n_critic 5, 1,800 steps of Adam 3e-4; one-sided feature score."""
    config = base.get_config(category)
    config.name = "AMA"
    config.method = dict(fn="fanogan_jax.mirrored:build")
    config.data.image_size = 64
    config.latent = 128
    config.encoder = dict(
        fn="fanogan_jax.mirrored.models:MirroredEncoder", features=(16, 32, 64, 128)
    )
    config.generator = dict(fn="fanogan_jax.models:Generator", features=(64, 64, 32))
    config.critic = dict(
        fn="fanogan_jax.mirrored.models:PairCritic",
        width=16,
        fold=2,  # pixels along each side that become channels first; the authors' 1
        halvings=1,  # of its four blocks, those that halve what is left
    )
    config.gan = dict(
        epochs=0,
        num_steps=1800,  # if not 0, overrules the epochs; one step is one autoencoder update
        batch_size=16,
        n_critic=5,
        schedule=dict(fn="fanogan_jax.schedule:every_n_critic"),
        pairs=dict(
            fn="fanogan_jax.mirrored.losses:mirrored_pairs",
            atypical=0.0,  # share of the images that are negatives; the paper's option has 0.1
            atypical_weight=1.0,
            simplex_weight=0.0,  # of mixtures of three latents; the authors' code has 0.2
        ),
        atypical_start=0,  # the first step with negatives
        critic_loss=dict(fn="fanogan_jax.mirrored.losses:mirrored_critic", penalty=10.0),
        autoencoder_loss=dict(
            fn="fanogan_jax.mirrored.losses:mirrored_autoencoder",
            latent_norm_weight=1.0,
            pixel_weight=0.0,  # of the mean |x - G(E(x))|; 0: as in the paper
        ),
        critic_optimizer=dict(fn="optax:adam", learning_rate=3e-4, b1=0.0, b2=0.9),
        autoencoder_optimizer=dict(fn="optax:adam", learning_rate=3e-4, b1=0.5, b2=0.9),
    )
    config.score = dict(
        fn="fanogan_jax.mirrored.score:mirrored",
        two_sided=False,
        mean=0.0,  # of good images' scores; --mode=tune measures them
        deviation=1.0,
        map_of="features",  # or "pixels"
        smoothing=0.0,
    )
    config.tuning = dict(
        maps_of=("features", "pixels"),
        smoothing=(0.0, 1.0, 2.0),
        sides=("one", "two"),
        normalise=("none", "pixel"),  # of the map: as it is, over what is usual at each place
        draws=1,
    )
    config.every = dict(log=20, save=200, pictures=200)  # steps

    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels, features and critic updates, and larger steps."""
    config.data.image_size = 32
    config.latent = 32
    config.encoder.features = (16, 32, 64)
    config.critic.fold = 1
    config.gan.critic_optimizer.learning_rate = 5e-4
    config.gan.autoencoder_optimizer.learning_rate = 1e-3
    config.gan.update(num_steps=1000, n_critic=1)
    config.every = dict(log=20, save=100, pictures=100)
