"""What a workdir holds: whose it is, and its networks with what was chosen for them."""

import os
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from engine import parallel
from engine.make import make
from engine.method import Method, Variables
from engine.workdir import claim, read_config
from evaluation import tuning
from evaluation.scoring import restore

# What of a config says where images lie and how a run is watched and judged, not what it learns.
FREE = (
    *("data.root", "data.folder", "data.prepared", "data.resident"),
    *("evaluation", "every", "threshold", "tuning"),
)


class Networks(NamedTuple):
    """Networks that score."""

    method: Method
    variables: Variables
    origin: dict[str, Any]  # folder, stage, step, and the score's fields that tuning chose


def networks(config: ConfigDict, workdir: str) -> Networks:
    """The workdir's networks; `config` gets the fields of the score that tuning chose.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: what tuning wrote is damaged.
    """
    folder, chosen = tuning.read_choice(workdir)
    config.get("score", {}).update(chosen)
    method = make(config.method, config)
    variables, step = restore(method, folder)
    origin = {"folder": os.path.relpath(folder, workdir), "stage": method.stages[-1].name}
    return Networks(method, variables, {**origin, "step": step, "score": chosen})


def rejoin(config: ConfigDict, workdir: str) -> None:
    """Holds `config` against that of the trained workdir, which gets its free fields.

    Raises:
      FileNotFoundError: no run has claimed the workdir.
      ValueError: the workdir belongs to another experiment.
    """
    trained = read_config(workdir)["data"]
    config.data.update(num_train=trained["num_train"], digest=trained["digest"])
    claim(workdir, config.to_dict(), free=FREE, main=parallel.is_main())


def require_finished(method: Method, step: int, workdir: str) -> None:
    """Raises ValueError where the last stage's newest checkpoint is not its last."""
    if step < (last := method.stages[-1].num_steps):
        raise ValueError(f"{workdir} is at step {step} of {last}: train it to its end")
