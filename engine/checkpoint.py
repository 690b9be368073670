"""What a workdir holds: the only Orbax of the project, and the one experiment a workdir belongs to.

Layout: `workdir/config.json` and `workdir/checkpoints/<stage>/<step>/`. A checkpoint is a
`TrainState` of NumPy arrays, so that it can be restored on any kind and number of devices. Paths
go through `etils.epath`, so that `gs://` workdirs work.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from engine.method import TrainState


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, Mapping):
        yield prefix, tree
        return
    for name, value in tree.items():
        yield from _leaves(value, f"{prefix}.{name}" if prefix else name)


def _differences(old: Any, new: Any, free: tuple[str, ...]) -> list[str]:
    old, new = dict(_leaves(old)), dict(_leaves(new))
    absent = "(absent)"
    return [
        f"{name}: {old.get(name, absent)!r} -> {new.get(name, absent)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, absent) != new.get(name, absent)
        and not f"{name}.".startswith(tuple(f"{prefix}." for prefix in free))
    ]


def claim(workdir: str, config: Mapping[str, Any], *, free: tuple[str, ...], main: bool) -> None:
    """Binds `workdir` to `config`, which it writes to `workdir/config.json` where `main`.

    Args:
      workdir: a folder, made if need be.
      config: nested mapping of JSON values.
      free: dotted names of fields and sections that may differ from the workdir's, for they change
        no result of training.
      main: whether this process writes.

    Raises:
      ValueError: the workdir belongs to another experiment; names the differing keys.
    """
    path = epath.Path(workdir) / "config.json"
    config = json.loads(json.dumps(config))  # tuples become lists, as they do in the file
    if path.exists() and (differing := _differences(read_config(workdir), config, free)):
        raise ValueError(
            f"{workdir} holds another experiment ({'; '.join(differing)}): "
            "choose another workdir, or the config it was made with"
        )
    if main:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.parent / "config.json.tmp"
        new.write_text(json.dumps(config, indent=2) + "\n")
        new.replace(path)


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
    `source` is only read. A folder appears in one step where folders can be renamed in one step; on
    gs:// they cannot.

    Args:
      source: the workdir of another run.
      workdir: where to copy; made if need be.
      stages: every stage of the run and its number of steps.
      config: of the run, as for `claim`. Sections that only one of both configs has do not count.
      free: as for `claim`: dotted names that may differ between the two runs.
      main: whether this process writes; the others wait for it.

    Returns:
      The names of the stages copied.

    Raises:
      FileNotFoundError: `source` is no workdir.
      ValueError: the configs differ, a stage of `source` is not finished, or it has none.
    """
    missing = [stage for stage in stages if _newest_step(workdir, stage) is None]
    found = _finished(source, missing, stages, config, free) if missing else {}
    if main:
        for stage, step in found.items():
            _copy_step(source, workdir, stage, step)
    # Every process comes here, also one that looks when the copies are there already.
    ocp.multihost.sync_global_processes("reuse")
    return list(found)


def _finished(
    source: str,
    missing: Sequence[str],
    stages: Mapping[str, int],
    config: Mapping[str, Any],
    free: tuple[str, ...],
) -> dict[str, int]:
    """Which of the stages `missing` can be taken from `source`, and their newest steps."""
    _check_shared(source, config, free)
    steps = {stage: _newest_step(source, stage) for stage in missing}
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


def _check_shared(source: str, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
    theirs, ours = read_config(source), json.loads(json.dumps(config))
    shared = theirs.keys() & ours.keys()
    differing = _differences(
        {name: theirs[name] for name in shared}, {name: ours[name] for name in shared}, free
    )
    if differing:
        raise ValueError(
            f"{source} was trained otherwise ({'; '.join(differing)}): "
            "reuse another workdir, set these fields as it has them, or train anew"
        )


def _copy_step(source: str, workdir: str, stage: str, step: int) -> None:
    """Copies one checkpoint under another name and renames it, so that none is ever half there."""
    old, folder = _folder(source, stage) / str(step), _folder(workdir, stage)
    # Beside the stage's folder: within it Orbax would take a folder for a checkpoint.
    new = folder.parent / f"{stage}.tmp"
    new.rmtree(missing_ok=True)
    for parent, _, names in old.walk():
        copies = new / parent.relative_to(old)
        copies.mkdir(parents=True, exist_ok=True)
        for name in names:
            (parent / name).copy(copies / name)
    folder.mkdir(parents=True, exist_ok=True)
    new.rename(folder / str(step))


def read_config(workdir: str) -> dict[str, Any]:
    """The config that `claim` wrote.

    Raises:
      FileNotFoundError: no run has claimed this workdir.
      ValueError: the file is not JSON.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: train into this workdir first")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        remedy = "restore it or choose another workdir"
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error


def _manager(workdir: str, stage: str) -> ocp.CheckpointManager:
    # Two are kept, so that a damaged newest one has a fall-back.
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(_folder(workdir, stage), options=options)


def _folder(workdir: str, stage: str) -> epath.Path:
    return epath.Path(workdir).resolve() / "checkpoints" / stage


def _newest_step(workdir: str, stage: str) -> int | None:
    # Not by a manager, which makes the folder and removes what another run is about to write.
    return max(ocp.utils.checkpoint_steps(_folder(workdir, stage)), default=None)


def newest(workdir: str, stage: str) -> dict[str, Any]:
    """The stage's newest checkpoint as a tree of NumPy arrays, fields by name.

    Raises:
      FileNotFoundError: the stage has no checkpoint.
    """
    folder = _folder(workdir, stage)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist: train this workdir first")
    with _manager(workdir, stage) as manager:
        step = manager.latest_step()
        if step is None:
            raise FileNotFoundError(f"{folder} holds no checkpoint: train this workdir first")
        return jax.tree.map(np.asarray, manager.restore(step, args=ocp.args.StandardRestore()))


class Checkpoints:
    """The checkpoints of one stage of a workdir; a context manager that waits for the last save."""

    def __init__(self, workdir: str, stage: str) -> None:
        """Opens, and makes, `workdir/checkpoints/<stage>`."""
        self._manager = _manager(workdir, stage)

    def restore(self, fresh: TrainState) -> TrainState:
        """The newest state saved, shaped like `fresh`; `fresh` itself where none was."""
        step = self._manager.latest_step()
        if step is None:
            return fresh
        template = jax.tree.map(np.asarray, fresh)
        return self._manager.restore(step, args=ocp.args.StandardRestore(template))

    def save(self, state: TrainState) -> None:
        """Saves in the background.

        Raises:
          FloatingPointError: the state holds a value that is not finite; nothing is written.
        """
        # Copies: the next step may overwrite the arrays in place before they are written.
        arrays = jax.tree.map(np.array, jax.device_get(state))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays)):
            raise FloatingPointError(f"the networks hold NaN or infinity at step {arrays.step}")
        self._manager.save(int(arrays.step), args=ocp.args.StandardSave(arrays))

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the last save and closes."""
        self._manager.close()
