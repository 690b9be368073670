"""From a trained workdir to a folder that needs no code of ours."""

import json
import os
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from commands import inputs
from commands.detector import restore_detector
from commands.runs import free_of, whole_path
from data.windows import Windows
from deploy.export import require_new_folder, write_export
from engine.sources import changes, read_sources
from engine.workdir import claim
from evaluation import threshold
from evaluation.results import RESULTS_FILE
from storage.outputs import CONFIG_FILE, FACTS_FILE

_WINDOWS = 64  # of clips, on which an export is tried


def export(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: ConfigDict | None = None,
) -> None:
    """Writes the workdir's scoring function into the new folder `output`, as deploy/export.py says.

    Args:
      workdir: of a finished run.
      output: made anew.
      config: the workdir's, where the images have moved, with their new place.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out; then there is no
        `output`.
    """
    workdir, output = whole_path(workdir), whole_path(output)
    require_new_folder(output)
    detector = restore_detector(workdir)
    networks = detector.networks
    config = inputs.located(config or detector.config, workdir)
    free = free_of(config, networks.method)
    claim(workdir, config.to_dict(), detector.facts, free=free, main=False)
    inputs.refuse_inside(config, output, "output")
    splits = inputs.load(config, detector.facts)
    before, now = read_sources(workdir), inputs.sources_of(splits)
    if before and before.calibration != now.calibration:
        what = changes(before.good(), now.good())
        raise ValueError(
            f"held-out images that the threshold of {workdir} comes from have changed ({what}): "
            f"python main.py --mode=evaluate --workdir={workdir} sets it anew, then export again"
        )
    with open(os.path.join(workdir, RESULTS_FILE), encoding="utf-8") as file:
        results = json.load(file)
    if detector.threshold.date:  # what the evaluation's threshold got wrong says nothing of this
        results.pop("at_threshold", None)
    content = threshold.content(detector.threshold, networks.origin)
    files = {
        threshold.THRESHOLD_FILE: content,
        FACTS_FILE: detector.facts._asdict(),
        CONFIG_FILE: config.to_dict(),
    }
    write_export(
        networks.method,
        networks.variables,
        output,
        images=_tried(splits.calibration.images),
        score_threshold=detector.threshold.threshold,
        files={name: json.dumps(value, indent=2) + "\n" for name, value in files.items()},
        about=results,
        statement=content["statement"],
        marks=detector.threshold.marks,
    )
    print(f"Exported: {output}")


def _tried(images: Any) -> np.ndarray:
    """The calibration images; of the windows of clips, of which neighbours are alike, some."""
    step = -(-len(images) // _WINDOWS) if isinstance(images, Windows) else 1
    return np.asarray(images[::step])
