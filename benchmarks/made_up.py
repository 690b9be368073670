"""How well finished runs find made-up defects of held-out good images, by kind.

python -m benchmarks.made_up W1 W2 ... [--json=FILE]

For each workdir: image AUROC, pixel AUROC and pixel average precision of each kind of
evaluation/made_up.py, and their means; three lightings, one defect an image, fixed seeds, with the
score that the workdir evaluates with. No test image is opened: settings may be chosen by it.
"""

import argparse
import json
from collections.abc import Mapping

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from commands import inputs
from commands.runs import restore_networks
from data import pipeline
from engine import startup
from engine.method import Method, Score, Tuning, Variables
from engine.workdir import read_config, read_facts
from evaluation.tuning import Candidate, rank_candidates


def judged(workdir: str, draws: int) -> Candidate:
    """The run's own score, judged."""
    config = FrozenConfigDict(read_config(workdir))
    facts = read_facts(workdir)
    networks = restore_networks(config, facts, workdir)
    images = inputs.read(config, facts, test=False).calibration.images
    if not len(images):
        raise SystemExit(f"{workdir}: no images are held out: train with data.calibration > 0")
    batch = next(pipeline.eval_batches(images, len(images)))
    variables = jax.device_put(networks.variables)
    tunings = {workdir: as_tuning(networks.method)}
    return rank_candidates({workdir: variables}, tunings, batch, draws=draws)[0]


def as_tuning(method: Method) -> Tuning:
    """A choice of one."""

    def scores(variables: Variables, images: np.ndarray) -> tuple[Score, ...]:
        score = method.score(variables, images)
        return (score._replace(terms={"own": score.image}, reconstruction=None),)

    return Tuning(None, ({},), {"own": {}}, scores, lambda fields: method.score)


def table(candidate: Candidate) -> str:
    """A row a kind."""
    rows: Mapping = {**candidate.kinds, "mean": candidate.mean()}
    lines = [f"{'kind':16s} image AUROC  pixel AUROC  pixel AP"]
    lines += [f"{kind:16s}{f[0]:12.3f} {f[1]:12.3f} {f[2]:9.3f}" for kind, f in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """Prints a table a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--draws", type=int, default=1, help="of defects, under each lighting")
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()
    startup.prepare()
    numbers = {}
    for workdir in arguments.workdirs:
        candidate = judged(workdir, arguments.draws)
        print(f"{workdir}\n{table(candidate)}\n", flush=True)
        numbers[workdir] = {kind: found._asdict() for kind, found in candidate.kinds.items()}
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=2)


if __name__ == "__main__":
    main()
