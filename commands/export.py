"""From a trained workdir to a folder that needs no code of ours."""

import json
import os

import numpy as np

from commands import inputs
from commands.runs import restore_detector
from deploy.export import require_new_folder, write_export
from engine.workdir import CONFIG_FILE, FACTS_FILE
from evaluation import threshold
from evaluation.results import RESULTS_FILE


def export(workdir: str, output: str) -> None:
    """Writes the workdir's scoring function into the new folder `output`, as deploy/export.py says.

    Raises:
      ValueError, OSError: one line that says what is wrong and the way out; then there is no
        `output`.
    """
    require_new_folder(output)
    detector = restore_detector(workdir)
    config, networks = detector.config, detector.networks
    splits = inputs.load(config, detector.facts)
    if splits.digest != detector.facts.digest:
        raise ValueError(
            f"the images of {config.data.category} have changed since training, and exported forms "
            "are tried on those that the threshold comes from: put them back"
        )
    with open(os.path.join(workdir, RESULTS_FILE), encoding="utf-8") as file:
        results = json.load(file)
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
        images=np.asarray(splits.calibration.images),
        score_threshold=detector.threshold.threshold,
        files={name: json.dumps(value, indent=2) + "\n" for name, value in files.items()},
        about=results,
        statement=content["statement"],
    )
    print(f"Exported: {output}")
