"""What is said of whole new clips: stretches above the threshold, and the watch over clips."""

import numpy as np

from deploy.clip_decisions import watch_clips
from evaluation.clips import calibrate_clips, clip_qualities
from evaluation.drift import drift_of


def rows(maxima, brightness=None):
    """A clip of 10 frames for each, alike in score, brighter and darker than the clip is."""
    light = np.full(len(maxima), 0.5) if brightness is None else brightness
    return [
        {
            **{"path": f"{clip}/{frame}", "score": float(score), "decision": "good"},
            **{"brightness": light[clip] + 0.1 * (-1) ** frame, "contrast": 0.0, "sharpness": 0.0},
        }
        for clip, score in enumerate(maxima)
        for frame in range(10)
    ]


def test_the_watch_sees_a_clip_once_and_tells_when_clips_have_changed():
    rng = np.random.default_rng(0)
    maxima = rng.normal(size=60)
    paths = [f"{clip}/{frame}" for clip in range(60) for frame in range(10)]
    threshold = calibrate_clips(paths, maxima.repeat(10), np.zeros((600, 2, 2)), 0.02)
    same = watch_clips(rows(rng.normal(size=60)), threshold)
    assert same.parts == 60 and drift_of(same, threshold).light == "green"
    lower = watch_clips(rows(rng.normal(-1.5, 1.0, size=120)), threshold)
    assert lower.parts == 120 and drift_of(lower, threshold).light == "red"


def test_the_watch_sees_the_light_of_clips():
    rng = np.random.default_rng(1)
    pictures = np.concatenate(
        [np.full((10, 4, 4, 3), level, np.uint8) for level in rng.integers(90, 120, 60)]
    )
    paths = [f"{clip}/{frame}" for clip in range(60) for frame in range(10)]
    threshold = calibrate_clips(
        paths, rng.normal(size=60).repeat(10), np.zeros((600, 2, 2)), 0.02
    )._replace(quality=clip_qualities(paths, pictures))
    light = pictures[::10, 0, 0, 0] / 255
    np.testing.assert_allclose(threshold.quality[0], light, atol=1e-5)
    same = watch_clips(rows(rng.normal(size=60), rng.permutation(light)), threshold)
    assert drift_of(same, threshold).light == "green"
    darker = watch_clips(rows(rng.normal(size=60), 0.8 * light), threshold)
    drift = drift_of(darker, threshold)
    assert drift.light == "red" and "darker" in " ".join(drift.sentences)


def test_an_unreadable_clip_is_not_watched():
    paths = [f"{clip}/{frame}" for clip in range(3) for frame in range(2)]
    threshold = calibrate_clips(paths, np.arange(6.0), np.zeros((6, 2, 2)), 0.5)
    bad = [{"path": "x/1", "score": None, "decision": "unreadable"}]
    assert watch_clips(bad, threshold).parts == 0
