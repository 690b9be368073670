"""What a finished workdir decides with: networks and threshold, of one run or of an ensemble."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ml_collections import FrozenConfigDict

from commands.ensemble import restore_ensemble
from commands.runs import RunNetworks, require_finished, restore_networks
from data import sampling
from engine.method import Score
from engine.workdir import Facts, read_config, read_facts
from evaluation.scoring import scorer_of
from evaluation.threshold import Threshold, read_threshold


class Detector(NamedTuple):
    """A finished workdir."""

    config: FrozenConfigDict
    facts: Facts
    networks: RunNetworks
    threshold: Threshold

    def scorer(self) -> Callable[[np.ndarray], Score]:
        """Of uint8 [B, S, S, 3]."""
        scorer = scorer_of(self.networks.method, self.networks.variables)
        return lambda pixels: scorer(sampling.scale(pixels))


def restore_detector(workdir: str) -> Detector:
    """What a workdir decides with.

    Raises:
      ValueError, OSError: it is not trained to its end, damaged, or has no threshold.json.
    """
    config, facts = FrozenConfigDict(read_config(workdir)), read_facts(workdir)
    if "members" in config:
        networks = restore_ensemble(config, workdir)
    else:
        networks = restore_networks(config, facts, workdir)
        require_finished(networks.method, networks.origin["step"], workdir)
    return Detector(config, facts, networks, read_threshold(workdir, networks.origin))
