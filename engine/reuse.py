"""Finished stages of another run, taken over instead of trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine import checkpoint, hosts
from engine.workdir import check_shared


def reuse(
    source: str,
    workdir: str,
    stages: Mapping[str, int],
    config: Mapping[str, Any],
    *,
    free: tuple[str, ...],
    main: bool,
) -> list[str]:
    """Copies stages that `source` has trained to their end into `workdir`, which lacks them.

    Of each the newest checkpoint. A stage of which `workdir` has a checkpoint is left as it is, so
    that a run that goes on may call this again; one that `source` lacks is left to be trained.
    `source` is only read.

    Args:
      source: the workdir of another run.
      workdir: where to copy; made if need be.
      stages: every stage of the run and its number of steps.
      config: of the run, as for `workdir.claim`. Sections that only one of both configs has do not
        count.
      free: as for `claim`: dotted names that may differ between the two runs.
      main: whether this process writes; the others wait for it.

    Returns:
      The names of the stages copied.

    Raises:
      FileNotFoundError: `source` is no workdir.
      ValueError: the configs differ, a stage of `source` is not finished or damaged, or it has
        none.
    """
    missing = [stage for stage in stages if not checkpoint.folder_of(workdir, stage).exists()]
    found = _finished(source, missing, stages, config, free) if missing else {}
    if main:
        for stage, step in found.items():
            checkpoint.copy(source, workdir, stage, step)
    # Every process comes here, also one that looks when the copies are there already.
    hosts.barrier("reuse")
    return list(found)


def _finished(
    source: str,
    missing: Sequence[str],
    stages: Mapping[str, int],
    config: Mapping[str, Any],
    free: tuple[str, ...],
) -> dict[str, int]:
    """Which of the stages `missing` can be taken from `source`, and their newest steps."""
    check_shared(source, config, free)
    steps = {stage: checkpoint.newest_step(source, stage) for stage in missing}
    found = {stage: step for stage, step in steps.items() if step is not None}
    for stage, step in found.items():
        if step < stages[stage]:
            raise ValueError(
                f"{source}: stage {stage} is at step {step} of {stages[stage]}: "
                "train it to its end first"
            )
    if not found and len(missing) == len(stages):
        raise ValueError(
            f"{source} holds no checkpoint of {' or '.join(stages)}: reuse a workdir that does"
        )
    return found
