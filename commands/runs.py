"""A run's networks, from its workdir, with what was chosen for them."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from commands import inputs
from engine import checkpoint, parallel
from engine.method import Method, Variables
from engine.sources import Sources, changes, usable_sources
from engine.workdir import Facts, claim, hold, read_config, read_facts
from evaluation.scoring import restore
from evaluation.tuning import read_choice

# What of a config says where images lie and how a run is watched and judged, not what it learns.
FREE = (
    *("data.root", "data.folder", "data.prepared", "data.resident", "data.max_pixels"),
    *("evaluation", "every", "threshold", "tuning"),
)


# Of `data`, where claim holds the facts, too.
LABELLED_FIELDS = tuple(f"data.{name}" for name in ("labelled", "labelled_kind", "labelled_digest"))


def free_of(config: ConfigDict, method: Method) -> tuple[str, ...]:
    """`FREE`, and which defective images are labelled, for a method that learns nothing from them.

    One that does is bound to these images, wherever their folder is.
    """
    if not method.labelled:
        return (*FREE, *LABELLED_FIELDS)
    return (*FREE, "data.labelled") if inputs.defects_of(config).folder else FREE


class RunNetworks(NamedTuple):
    """Networks that score."""

    method: Method  # with the score's fields that tuning chose
    variables: Variables
    origin: dict[str, Any]  # folder, stage, step, and these fields


def whole_path(folder: str | os.PathLike[str]) -> str:
    """The folder's whole path: `~` is the user's own folder, as in a shell."""
    return os.path.abspath(os.path.expanduser(folder))


def held(workdir: str) -> AbstractContextManager[None]:
    """Keeps other commands from the workdir; of several processes the main one does so for all.

    Raises:
      OSError: another command holds it, or it cannot be written.
    """
    return hold(workdir) if parallel.is_main() else nullcontext()


def restore_networks(config: ConfigDict, facts: Facts, workdir: str) -> RunNetworks:
    """The workdir's networks, and the score that tuning chose for them.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: what tuning wrote is damaged.
    """
    folder, chosen = read_choice(workdir)
    method = inputs.method_of(config, facts)
    if chosen and method.tuning:
        method = method._replace(score=method.tuning.score(chosen))
    variables, step = restore(method, folder)
    origin = {"folder": os.path.relpath(folder, workdir), "stage": method.stages[-1].name}
    return RunNetworks(method, variables, {**origin, "step": step, "score": chosen})


def trained_facts(workdir: str) -> Facts:
    """The facts of the data that the workdir was trained on.

    Raises:
      FileNotFoundError: no run has claimed the workdir.
      ValueError: the workdir is damaged.
    """
    read_config(workdir)  # says how to get one, where there is none
    return read_facts(workdir)


def rejoin(config: ConfigDict, workdir: str, facts: Facts | None = None) -> Facts:
    """Holds `config` against that of the trained workdir, which gets its free fields.

    Args:
      config: of an evaluation, say.
      workdir: of the trained run.
      facts: of the images as they are now, of which the labelled ones count.

    Returns:
      The facts of the data that was trained on.

    Raises:
      FileNotFoundError: no run has claimed the workdir.
      ValueError: the workdir belongs to another experiment.
    """
    trained = trained_facts(workdir)
    free = free_of(config, inputs.method_of(config, trained))
    facts = trained._replace(labelled_digest=(facts or trained).labelled_digest)
    claim(workdir, config.to_dict(), facts, free=free, main=parallel.is_main())
    return facts


def refuse_changed(workdir: str, facts: Facts, images: Sources) -> None:
    """Raises ValueError, in words, where `workdir` was trained on other images than these.

    Args:
      workdir: one that is not yet claimed was trained on none.
      facts: of the images.
      images: that a run of these settings is trained on; of the calibration and the test images a
        network knows nothing.
    """
    before = usable_sources(workdir) if checkpoint.exist(workdir) else None
    if before is None or read_facts(workdir).digest == facts.digest:
        return
    if what := changes(before.good(), images.good()):
        raise ValueError(
            f"the images that {workdir} was trained on have changed ({what}): put them back as "
            "they were, or train into another workdir"
        )


def require_finished(method: Method, step: int, workdir: str) -> None:
    """Raises ValueError where the last stage's newest checkpoint is not its last."""
    if step < (last := method.stages[-1].num_steps):
        raise ValueError(f"{workdir} is at step {step} of {last}: train it to its end")
