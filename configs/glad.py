"""GLAD (Yao et al. 2024, arXiv 2406.07487) from scratch: a denoiser that repairs, for a GPU.

python main.py --config=configs/glad.py:bottle --config.data.root=DIR --workdir=W

A U-Net of 13 million parameters learns to take noise and foreign patches out of images of 128 px. A
test image is noised to the level that it needs, repaired from there down, and fused with itself
where nothing is wrong; docs/methods/glad.md says what is GLAD's. No run at this size has been made
yet; configs/glad_small.py is for CPUs.

    a DDPM, without corruption       --config.training.loss.corrupted=0
    the self-supervised autoencoder  "--config.training.loss.levels=(0,0)"
                                     --config.training.loss.corrupted=1
                                     --config.score.start=0 --config.score.steps=1
                                     --config.score.draws=1
    noise of several scales          --config.noise.fn=diffusion_jax.noise:multi_scale
    bfloat16 convolutions            --config.denoiser.dtype=bfloat16
    parts of other images            --config.corruption.fn=ae_jax.corruption:seamless

`--mode=tune` chooses the start level, the steps and draws, and how a residual becomes a score, on
made-up defects. `:demo` draws its own data and ends within 4 minutes on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs import augmentation, base


def get_config(category: str = "bottle") -> ConfigDict:
    """128 px, batch 32, 15,000 steps of Adam 2e-4; 4 levels and 4 draws."""
    allowed = augmentation.of(category)
    config = base.get_config(category)
    config.name = "GLAD"
    config.method = dict(fn="diffusion_jax:build")
    config.data.image_size = 128
    config.data.update(flip=allowed.flip, rotation=allowed.rotation)
    config.denoiser = dict(
        fn="diffusion_jax.models:UNet",
        features=(64, 128, 128, 256, 256),  # of each level; the image is halved between two
        blocks=1,  # residual blocks of each level, down and up
        fold=1,  # pixels along each side that become channels first
        dtype="float32",  # of the convolutions
    )
    config.diffusion = dict(fn="diffusion_jax.schedule:linear", num_levels=400)
    config.noise = dict(fn="diffusion_jax.noise:gaussian")
    config.corruption = dict(
        fn="ae_jax.corruption:patches",
        max_patches=4,
        side=(0.1, 0.5),  # of a patch, as a share of the image's
        opacity=(0.3, 1.0),
        clean=0.0,  # share of the images that stay as they are, of those that are corrupted
        textures="",  # folder of images to take content from besides
    )
    config.training = dict(
        num_steps=15_000,
        batch_size=32,
        loss=dict(
            fn="diffusion_jax.losses:repair",
            levels=(1, 130),  # noise to signal 0.04 to 1.4
            corrupted=0.5,  # share of the images
            fade=True,  # defects fade with the noise, as they do on the way down
            max_weight=5.0,
        ),
        optimizer=dict(fn="optax:adam"),
        schedule=dict(init_value=0.0, peak_value=2e-4, warmup_steps=500, end_value=1e-6),
        clip=1.0,  # largest norm of all gradients together
        averaging=0.999,  # of the weights that score
    )
    config.score = dict(
        fn="diffusion_jax.score:glad",
        start=80,  # the highest level; noise to signal 0.7
        steps=4,
        draws=4,  # of noise
        adaptive=True,  # a level for each image; False: all take the highest
        fusion=True,  # pixels that look good stay the image's own
        probe_smoothing=1.0,  # pixels; of the residual by which level and mask are found
        residual="squared",  # or 'absolute', 'structure'
        smoothing=2.0,  # pixels
        image_score="max",  # or 'top', 'sum'
        top=0.01,  # share of the pixels whose mean 'top' is
        limits=(),  # of good images' residuals; (): those that training measures
    )
    # What --mode=tune chooses among, by held-out normal images with made-up defects.
    config.tuning = dict(
        starts=(40, 80, 120),
        steps=(2, 4),
        noise_draws=(1, 4),
        residuals=("squared", "absolute", "structure"),
        smoothing=(1.0, 2.0, 4.0),
        tops=(0.001, 0.01, 0.05),
        normalise=("none", "pixel"),  # of the map: as it is, over what is usual at each place
        draws=1,  # of defects, for each image
    )
    config.every = dict(log=50, save=500, pictures=500)
    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels, features and steps, and larger ones."""
    config.data.image_size = 64
    config.denoiser.update(features=(16, 32, 64), fold=2)
    config.training.update(num_steps=800, batch_size=16, averaging=0.99)
    config.training.schedule.update(peak_value=2e-3, warmup_steps=30)
    config.score.smoothing = 1.0
    config.tuning.update(starts=(40, 80), smoothing=(1.0, 2.0))
    config.every = dict(log=20, save=200, pictures=200)
