"""What is said of whole new clips: stretches above the threshold, and the watch over clips."""

import numpy as np

from deploy.clip_decisions import watch_clips
from evaluation.clips import calibrate_clips
from evaluation.drift import drift_of


def rows(maxima):
    """A clip of 10 alike frames for each."""
    return [
        {"path": f"{clip}/{frame}", "score": float(score), "decision": "good"}
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


def test_an_unreadable_clip_is_not_watched():
    paths = [f"{clip}/{frame}" for clip in range(3) for frame in range(2)]
    threshold = calibrate_clips(paths, np.arange(6.0), np.zeros((6, 2, 2)), 0.5)
    bad = [{"path": "x/1", "score": None, "decision": "unreadable"}]
    assert watch_clips(bad, threshold).parts == 0
