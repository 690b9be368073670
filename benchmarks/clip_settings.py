"""Which settings of a video run's score find made-up anomalies in its held-out good clips.

python -m benchmarks.clip_settings --workdir=W

Three kinds, in a patch of each window: what is there moves too fast (frames are skipped), something
foreign moves across, and something foreign moves across too fast. No test clip is opened. A row a
setting: the AUROC of windows with against windows without, by kind, and the regret, how far it is
behind the best of a kind on the kind where that is most; smallest first, as --mode=tune chooses.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import FrozenConfigDict
from sklearn.metrics import roc_auc_score

from commands import inputs
from commands.runs import restore_networks, whole_path
from data.sampling import scale
from data.windows import Windows, clip_slices, every_start
from engine.make import make
from engine.workdir import read_config, read_facts
from video_jax.pseudo import (
    Difference,
    carried,
    cut_windows,
    moving_patches,
    others,
    patch_masks,
)
from video_jax.score import BRANCHES, mean_of_largest, residual_maps, usual_scale

_WORKDIR = flags.DEFINE_string("workdir", None, "A trained run of configs/video.py.", required=True)
_STEP = 4  # frames between two windows
_BATCH = 16
_SIDE = (0.1, 0.25)  # of a patch, as a share of the frame's sides
TOPS, WEIGHTS = (0.001, 0.003, 0.01, 0.03), (0.5, 1.0, 2.0, 4.0)


def made_up(rng: jax.Array, spans: jax.Array, config: FrozenConfigDict) -> dict[str, jax.Array]:
    """Windows [B, H, W, T] of each kind, and as they are, from spans [B, H, W, span]."""
    cut, patch, still, where = jax.random.split(rng, 4)
    strides = tuple(config.clips.strides)
    windows, fast = cut_windows(cut, spans, config.clips.frames, strides)
    track = moving_patches(patch, windows.shape, _SIDE, config.pseudo.move)
    place = moving_patches(still, windows.shape, (0.2, 0.4), 0)
    moving, resting = (patch_masks(each, windows.shape[1:3]) for each in (track, place))
    foreign = carried(where, others(windows), track)
    foreign_fast = carried(where, others(fast), track)
    return {
        "good": windows,
        "too fast": windows + resting * (fast - windows),
        "foreign": windows + moving * (foreign - windows),
        "foreign and too fast": windows + moving * (foreign_fast - windows),
    }


def main(argv: list[str]) -> None:
    """Prints a row a setting."""
    del argv
    workdir = whole_path(_WORKDIR.value)
    config, facts = FrozenConfigDict(read_config(workdir)), read_facts(workdir)
    run = restore_networks(config, facts, workdir)
    calibration = inputs.read(config, facts, test=False).calibration
    counts = [place.stop - place.start for place in clip_slices(calibration.paths).values()]
    span = inputs.clip_settings(config, inputs.reading_of(config, facts)).span
    frames = calibration.images.frames
    spans = Windows(frames, every_start(counts, span)[::_STEP], span)
    # In an order that puts windows of different clips side by side: one is foreign to the next.
    spans = Windows(frames, np.random.default_rng(0).permutation(spans.starts), span)
    networks = {name: make(config[name]) for name in BRANCHES}
    how = Difference(config.clips.gain, config.clips.blur)

    @jax.jit
    def scores(rng: jax.Array, spans: jax.Array) -> dict[str, jax.Array]:
        """Kind -> [settings, B]."""
        of = partial(residual_maps, networks, run.variables, how=how)
        found = {}
        for kind, windows in made_up(rng, spans, config).items():
            maps = of(windows, smoothing=config.statistics.smoothing)
            found[kind] = jnp.stack([_scored(maps, run.variables, *each) for each in settings])
        return found

    settings = list(itertools.product((False, True), WEIGHTS, TOPS))
    batches = [
        scores(jax.random.key(i), scale(spans[i : i + _BATCH]))
        for i in range(0, len(spans) - _BATCH + 1, _BATCH)
    ]
    found = {kind: np.concatenate([b[kind] for b in batches], axis=1) for kind in batches[0]}
    good = found.pop("good")
    labels = np.repeat([0, 1], good.shape[1])
    table = np.array(
        [
            [roc_auc_score(labels, np.concatenate([good[i], of[i]])) for of in found.values()]
            for i in range(len(settings))
        ]
    )
    regrets = (table.max(axis=0) - table).max(axis=1)
    print(f"{good.shape[1]} windows. regret, by_place, weight, top: {', '.join(found)}")
    for i in np.argsort(regrets, kind="stable"):
        by_place, weight, top = settings[i]
        values = " ".join(f"{value:.3f}" for value in table[i])
        print(f"{regrets[i]:.3f} {by_place!s:5} {weight:4g} {top:6g}: {values}")


def _scored(
    maps: dict[str, jax.Array], variables: dict, by_place: bool, weight: float, top: float
) -> jax.Array:
    usual = variables["statistics"]
    z = {name: usual_scale(usual, name, values, by_place) for name, values in maps.items()}
    return mean_of_largest(z["spatial"] + weight * z["temporal"], top)


if __name__ == "__main__":
    app.run(main)
