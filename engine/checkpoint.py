"""Checkpoints of a stage: the only Orbax of the project.

    workdir/checkpoints/<stage>/<step>/state/        what Orbax writes
                                       SHA256SUMS    of its files
                        <stage>.tmp/                 being written, or left by a crash

A checkpoint appears as a whole, by one rename. One whose files are not as they were written is
never loaded. Orbax's own manager does neither; it takes any folder called by a number for a
checkpoint, and its arrays have no checksum. Where there is a stage's folder there has been a
checkpoint: none that is good in it is an error, not a reason to begin anew.

A checkpoint is a `TrainState` of NumPy arrays, so that it can be restored on any kind and number of
devices. The main process writes and chooses which to restore; all read. Paths are
`etils.epath`'s.
"""

import contextlib
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from engine import hosts, parallel
from engine.method import TrainState
from storage import files
from storage.outputs import CHECKPOINTS

_KEPT = 2  # so that a damaged newest one has a fall-back

_UNFINISHED = ".tmp"  # at the end of the name of a folder that is being written


def newest(workdir: str, stage: str) -> dict[str, Any]:
    """The stage's newest good checkpoint as a tree of NumPy arrays, fields by name.

    Raises:
      FileNotFoundError: the stage has no checkpoint.
      ValueError: it has none that is whole.
    """
    folder = folder_of(workdir, stage)
    if (step := newest_step(workdir, stage)) is None:
        raise FileNotFoundError(f"{folder} does not exist: train this workdir first")
    state: dict[str, Any] = jax.tree.map(np.asarray, _load(folder / str(step)))
    return state


class Checkpoints:
    """The checkpoints of one stage of a workdir; a context manager that waits for the last save."""

    def __init__(self, workdir: str, stage: str) -> None:
        """Opens `workdir/checkpoints/<stage>`, which the first save makes."""
        self._workdir, self._stage = workdir, stage
        self._writer = ThreadPoolExecutor(1)
        self._saving: Future[None] | None = None
        self._step: int | None = None  # of the last save

    def restore(self, fresh: TrainState) -> TrainState:
        """The newest good state saved, shaped like `fresh`; `fresh` itself where none ever was.

        Raises:
          ValueError: checkpoints were saved and none is whole.
          FileNotFoundError: this process does not see what the main one does.
        """
        newest = newest_step(self._workdir, self._stage) if parallel.is_main() else None
        step = hosts.from_main(-1 if newest is None else newest)
        if step < 0:
            return fresh
        folder = folder_of(self._workdir, self._stage) / str(step)
        # The main process has just looked; another may see other files under this name, or none.
        if not parallel.is_main() and (damage := files.damage(folder)):
            raise FileNotFoundError(
                f"{folder}: {damage}: a workdir must be whole, and on a file system that all hosts "
                "see"
            )
        state: TrainState = _load(folder, jax.tree.map(np.asarray, fresh))
        return state

    def save(self, state: TrainState) -> None:
        """Saves in the background, once the save before is done; the same step once.

        Raises:
          FloatingPointError: the state holds a value that is not finite; nothing is written.
          OSError: the save before failed.
        """
        if int(state.step) == self._step:
            return
        # Copies: the next step may overwrite the arrays in place before they are written.
        arrays = jax.tree.map(np.array, jax.device_get(state))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays)):
            raise FloatingPointError(f"the networks hold NaN or infinity at step {arrays.step}")
        self.wait()
        self._step = int(arrays.step)
        if parallel.is_main():
            folder = folder_of(self._workdir, self._stage)
            self._saving = self._writer.submit(_commit, folder, self._step, arrays)

    def check(self) -> None:
        """Raises OSError if a save has failed; does not wait for one."""
        if self._saving and self._saving.done():
            self._saving.result()

    def wait(self) -> None:
        """Waits for the last save; raises OSError if it failed."""
        if self._saving:
            self._saving.result()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the last save and closes."""
        self._writer.shutdown()
        self.wait()


def copy(source: str, workdir: str, stage: str, step: int) -> None:
    """Copies one checkpoint of `source` into `workdir`, all or nothing."""
    old, folder = folder_of(source, stage) / str(step), folder_of(workdir, stage)
    new = _beside(folder) / old.name
    _beside(folder).rmtree(missing_ok=True)
    for parent, _, names in old.walk():
        copies = new / parent.relative_to(old)
        copies.mkdir(parents=True, exist_ok=True)
        for name in names:
            (parent / name).copy(copies / name)
    _publish(new, folder)


def folder_of(workdir: str, stage: str) -> epath.Path:
    """The folder of a stage's checkpoints, which exists if there ever was one."""
    return epath.Path(workdir).resolve() / CHECKPOINTS / stage


def exist(workdir: str) -> bool:
    """Whether a stage has saved a step, whole or damaged since."""
    folder = epath.Path(workdir).resolve() / CHECKPOINTS
    inside = folder.iterdir() if folder.exists() else ()
    stages = [path for path in inside if path.is_dir() and path.suffix != _UNFINISHED]
    return any(_is_step(path.name) for stage in stages for path in stage.iterdir())


def newest_step(workdir: str, stage: str) -> int | None:
    """The step of the stage's newest whole checkpoint; None if there never was one.

    One warning names all that is passed over.

    Raises:
      ValueError: there is a folder and no whole checkpoint in it.
    """
    folder = folder_of(workdir, stage)
    if not folder.exists():
        return None
    names = [path.name for path in folder.iterdir()]
    steps = sorted((int(name) for name in names if _is_step(name)), reverse=True)
    passed = [f"{name} (no checkpoint)" for name in sorted(names) if not _is_step(name)]
    found = None
    for step in steps:
        if not (damage := files.damage(folder / str(step))):
            found = step
            break
        passed.append(f"{step} ({damage})")
    if found is None:
        raise ValueError(
            f"{folder} holds no checkpoint that is whole: {', '.join(passed) or 'it is empty'}; "
            "put a copy of one back, or delete that folder to train the stage anew"
        )
    if passed:
        logging.warning("%s: step %d is used, passed over: %s", folder, found, ", ".join(passed))
    return found


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and name == str(int(name))


def _load(folder: epath.Path, template: Any = None) -> Any:
    """One checkpoint that is whole, read by this process alone."""
    with _orbax() as orbax:
        return orbax.restore(folder / "state", args=ocp.args.StandardRestore(template))


def _commit(folder: epath.Path, step: int, arrays: TrainState) -> None:
    """Writes a checkpoint beside `folder`, renames it into it and removes old ones.

    Raises:
      OSError: one line with the folder; what was there before is there still.
    """
    new = _beside(folder) / str(step)
    try:
        _beside(folder).rmtree(missing_ok=True)
        new.mkdir(parents=True)
        _require_space(new, arrays)
        with _orbax() as orbax:
            orbax.save(new / "state", args=ocp.args.StandardSave(arrays))
        files.write_sums(new)
        _publish(new, folder)
    except Exception as error:  # Orbax has an exception of its own for every file system
        with contextlib.suppress(OSError):  # Orbax may still be at it; the next save removes it
            _beside(folder).rmtree(missing_ok=True)
        raise OSError(
            f"{folder / str(step)} cannot be written ({_reason(error)}): free space or choose "
            "another workdir; the checkpoints before are kept"
        ) from error
    _remove_old(folder, step)


def _require_space(folder: epath.Path, arrays: TrainState) -> None:
    # Of Orbax's threads, one that meets a full disk is heard of after the end of the program.
    needed = 2**20 + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB free")


def _reason(error: Exception) -> str:
    """Some words of an error that may have a thousand."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _publish(new: epath.Path, folder: epath.Path) -> None:
    """Renames `new`, the one folder in `_beside(folder)`, into `folder`."""
    if not folder.exists():  # so that it never exists without a checkpoint
        new.parent.rename(folder)
        return
    target = folder / new.name
    if target.exists():  # damaged, or someone else's
        aside = folder / f"{new.name}.aside"
        aside.rmtree(missing_ok=True)
        target.rename(aside)
    new.rename(target)
    new.parent.rmdir()


def _remove_old(folder: epath.Path, step: int) -> None:
    """Removes checkpoints before `step` but the newest; what is no checkpoint is left alone."""
    older = [int(path.name) for path in folder.iterdir() if _is_step(path.name)]
    ours = sorted(s for s in older if s <= step and (folder / str(s) / files.SUMS).exists())
    for old in ours[:-_KEPT]:
        (folder / str(old)).rmtree()


def _beside(folder: epath.Path) -> epath.Path:
    """Where a checkpoint is written; what is in it was not finished."""
    return folder.parent / f"{folder.name}{_UNFINISHED}"


def _orbax() -> ocp.Checkpointer:
    # Every process by itself: Orbax would have all of them wait for each other.
    index, _ = parallel.process()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
