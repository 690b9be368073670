"""What a workdir holds: the only Orbax of the project, and the one experiment a workdir belongs to.

Layout: `workdir/config.json` and `workdir/checkpoints/<stage>/<step>/`. A checkpoint is a
`TrainState` of NumPy arrays, so that it can be restored on any kind and number of devices. Paths
go through `etils.epath`, so that `gs://` workdirs work.
"""

import json
from collections.abc import Iterator, Mapping
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
