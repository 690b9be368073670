"""Anomalies in clips: two autoencoders trained on pseudo-anomalies in space and time.

python main.py --config=configs/video.py:ucsd_ped2 --config.data.root=DIR --workdir=W

After Rai et al. (arXiv 2311.16514), without what is pretrained; docs/methods/video.md says what is
theirs. DIR/ucsd_ped2/ has training/frames/<clip>/, testing/frames/<clip>/ and frame_labels.csv.
With 2 CPU cores Ped2 takes about an hour. `:demo` draws its own clips and ends within 3 minutes.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(category: str = "ucsd_ped2") -> ConfigDict:
    """192 x 128 px, windows of 8 frames, strides of 2 to 4, two autoencoders."""
    config = base.get_config(category)
    config.name = "video, both branches"
    config.method = dict(fn="video_jax:build")
    # Height and width of the frames. A fixed camera sees nothing mirrored.
    config.data.update(image_size=128, width=192, flip=False)
    config.data.calibration = 0.25  # of the clips, whole ones
    config.clips = dict(
        frames=8,  # of a window
        strides=(2, 3, 4),  # of windows that skip frames
        blur=1.0,  # pixels, of differences of frames
        gain=40.0,  # times these: about 1 where somebody walks
    )
    network = dict(
        fn="video_jax.models:WindowAutoencoder",
        features=(64, 96, 128),
        convolutions=0,  # more of them at the smallest level
        bottleneck=32,
        fold=4,
    )
    config.spatial = dict(network)
    # Of edges as fine as those of differences a coarser bottleneck restores nothing.
    config.temporal = dict(network, features=(64,), convolutions=1, bottleneck=16)
    config.pseudo = dict(
        share=0.5,  # of the windows
        side=(0.1, 0.5),  # of a patch, as a share of the frame's
        move=5,  # pixels from frame to frame, at most
        mix=(0.2, 0.8),  # what share of the own differences stays inside a mask
    )
    config.training = dict(
        spatial_steps=1000,
        temporal_steps=600,
        batch_size=16,
        optimizer=dict(fn="optax:adam"),
        schedule=dict(init_value=0.0, peak_value=2e-3, warmup_steps=50, end_value=1e-5),
        clip=1.0,  # largest norm of all gradients together
    )
    # Of the residual maps of normal training windows, smoothed by so many pixels.
    config.statistics = dict(num_steps=50, smoothing=3.0)
    config.score = dict(
        fn="video_jax.score:standardised",
        # Chosen on made-up anomalies of held-out clips of Ped2: python -m benchmarks.clip_settings.
        top=0.003,  # share of the pixels whose mean is the frame's score
        weight=4.0,  # of the temporal branch
        by_place=True,  # each pixel has its own usual residual
    )
    # Frames over which scores are smoothed for the metrics that say so; thresholds are of raw ones.
    config.evaluation.smoothing = 3.0
    config.every = dict(log=20, save=100, pictures=500)
    if category == "demo":
        _shrink(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Fewer pixels, features and steps."""
    config.data.update(image_size=64, width=64)
    config.clips.update(frames=6, strides=(2, 3), blur=0.5, gain=4.0)
    for branch in (config.spatial, config.temporal):
        branch.update(features=(48, 64), convolutions=0, bottleneck=8, fold=2)
    config.pseudo.move = 4
    config.training.update(spatial_steps=300, temporal_steps=300)
    config.training.schedule.warmup_steps = 20
    config.statistics.update(num_steps=20, smoothing=1.5)
    config.score.update(top=0.01, weight=1.0, by_place=False)
