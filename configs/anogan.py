"""AnoGAN of Schlegl et al. 2017 (arXiv 1703.05921), as a delta of configs/fanogan.py.

python main.py --config=configs/anogan.py:bottle --config.data.root=DIR --workdir=W

The generator and critic of configs/fanogan.py, trained as there; no encoder. Each image is scored
by 300 steps of Adam at 0.02 on its z, which are the settings of the MVTec AD paper (Bergmann et al.
2019) at second hand; the paper of 2017 takes 500 steps, and its GAN is a DCGAN. A finished f-AnoGAN
of the same images and settings has that generator and critic already: `--reuse=ITS_WORKDIR` takes
them instead of training.

`:demo` draws its own data and shrinks networks and training as configs/fanogan.py does, but to 600
steps, and the search to 50, to end within 3 minutes on 2 CPU cores; to reuse the workdir of that
demo, add `--config.gan.num_steps=800`.
"""

from ml_collections import ConfigDict

from configs import fanogan


def get_config(category: str = "bottle") -> ConfigDict:
    """f-AnoGAN's first stage, scored by a search for z: 300 steps of Adam at 0.02, lambda 0.1."""
    config = fanogan.get_config(category)
    config.name = "AnoGAN"
    config.method = dict(fn="fanogan_jax:build_anogan")
    del config.encoder, config.encoding
    config.score = dict(
        fn="fanogan_jax.score:latent_search",
        num_steps=50 if category == "demo" else 300,
        learning_rate=0.02,
        feature_weight=0.1,
        seed=0,
        normalise="none",  # or, by --mode=tune, which takes long here, 'pixel'
    )
    if category == "demo":
        config.gan.num_steps = 600
    return config
