"""Whose a workdir is: the one experiment it belongs to, and the one process that writes into it."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from engine import checkpoint, hosts
from storage import files
from storage.outputs import CONFIG_FILE, FACTS_FILE

_LOCK = "lock"
_LENGTHS = ("num_steps", "epochs", "samples")  # of a training, by the ends of fields' names
_DAMAGED = "restore it or choose another workdir"


class Facts(NamedTuple):
    """What is known of the data, and not set: it belongs to a run as its config does."""

    num_train: int  # training images, without those held out
    digest: str  # SHA-256 of their files
    # The training images' brightness, from 0 to 1, where each image is brought to it.
    brightness: float | None = None
    # Of images of 16 bits: what is white in them (data/images.py); None where no training image
    # has 16, and no level was set.
    white_level: int | None = None
    # SHA-256 of the labelled defective images, as `digest`; None where there are none.
    labelled_digest: str | None = None


@contextmanager
def hold(workdir: str) -> Iterator[None]:
    """Keeps other processes, also on other hosts of a shared file system, from `workdir`.

    The kernel lets go of the lock when its process ends, however it does. The file stays.

    Args:
      workdir: made if need be.

    Raises:
      OSError: another process holds the workdir, which is named, or it cannot be written.
    """
    path = os.path.join(workdir, _LOCK)
    try:
        os.makedirs(workdir, exist_ok=True)
        file = open(path, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise OSError(
            f"{workdir} cannot be written ({error.strerror}): choose another workdir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise OSError(
                f"{workdir} is in use by {' '.join(file.read().split())}: wait for its end, or "
                "choose another workdir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def claim(
    workdir: str,
    config: Mapping[str, Any],
    facts: Facts,
    *,
    free: tuple[str, ...],
    main: bool,
) -> None:
    """Binds `workdir` to `config` and `facts`, which it writes into it where `main`.

    It is bound when a stage has saved a step: what has failed before may be corrected.

    Args:
      workdir: a folder, made if need be.
      config: nested mapping of JSON values.
      facts: of the data.
      free: dotted names of fields and sections that may differ from the workdir's, for they change
        no result of training.
      main: whether this process writes.

    Raises:
      ValueError: the workdir belongs to another experiment; names the differing keys.
      FileNotFoundError: one of the two files is there without the other.
    """
    path = os.path.join(workdir, CONFIG_FILE)
    ours = _experiment(config, facts)
    if os.path.exists(path) and checkpoint.exist(workdir):
        theirs = _experiment(read_config(workdir), read_facts(workdir))
        if differing := _differences(theirs, ours, free):
            longer = all(each.partition(":")[0].endswith(_LENGTHS) for each in differing)
            why = (
                "training of another length is a run of its own, as its schedule is another: "
                if longer
                else ""
            )
            raise ValueError(
                f"{workdir} holds another experiment ({'; '.join(differing)}): {why}"
                "choose another workdir, or the config it was made with"
            )
    if main:
        os.makedirs(workdir, exist_ok=True)
        # The config comes last: with it the workdir is claimed, and has all that belongs to it.
        files.write_text(os.path.join(workdir, FACTS_FILE), _json(facts._asdict()))
        files.write_text(path, _json(config))


def require_shared(
    source: str, config: Mapping[str, Any], facts: Facts, free: tuple[str, ...]
) -> None:
    """Raises ValueError where a section that `source`'s config and `config` share differs."""
    theirs = _experiment(read_config(source), read_facts(source))
    ours = _experiment(config, facts)
    shared = theirs.keys() & ours.keys()
    differing = _differences(
        {name: theirs[name] for name in shared}, {name: ours[name] for name in shared}, free
    )
    if differing:
        raise ValueError(
            f"{source} was trained otherwise ({'; '.join(differing)}): "
            "reuse another workdir, set these fields as it has them, or train anew"
        )


def read_config(workdir: str) -> dict[str, Any]:
    """The config that `claim` wrote.

    Raises:
      FileNotFoundError: no run has claimed this workdir.
      ValueError: the file is not JSON.
    """
    return _read(workdir, CONFIG_FILE, "train into this workdir first")


def read_facts(workdir: str) -> Facts:
    """The facts that `claim` wrote.

    Raises:
      FileNotFoundError: the workdir lacks them.
      ValueError: the file holds something else.
    """
    content = _read(workdir, FACTS_FILE, _DAMAGED)
    try:
        facts = Facts(**content)
        types = {
            "num_train": int,
            "digest": str,
            "brightness": float | None,
            "white_level": int | None,
            "labelled_digest": str | None,
        }
        if not all(isinstance(getattr(facts, name), kind) for name, kind in types.items()):
            raise TypeError(f"{facts}")
    except TypeError as error:
        path = os.path.join(workdir, FACTS_FILE)
        raise ValueError(f"{path} is damaged ({error}): {_DAMAGED}") from error
    return facts


def _read(workdir: str, name: str, remedy: str) -> dict[str, Any]:
    path = os.path.join(workdir, name)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist: {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_DAMAGED}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (no object of JSON): {_DAMAGED}")
    return content


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _experiment(config: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """What tells experiments apart, as JSON has it: tuples become lists. Facts stand in `data`."""
    data = {**config.get("data", {}), **facts._asdict()}
    experiment: dict[str, Any] = json.loads(json.dumps({**config, "data": data}))
    return experiment


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


def reuse(
    source: str,
    workdir: str,
    stages: Mapping[str, int],
    config: Mapping[str, Any],
    facts: Facts,
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
      config: of the run, as for `claim`. Sections that only one of both configs has do not count.
      facts: of the run's data.
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
    steps: Mapping[str, int] = {}
    if missing:
        require_shared(source, config, facts, free)
        steps = _finished_steps(source, missing, stages)
    if main:
        for stage, step in steps.items():
            checkpoint.copy(source, workdir, stage, step)
    # Every process comes here, also one that looks when the copies are there already.
    hosts.barrier("reuse")
    return list(steps)


def _finished_steps(
    source: str, missing: Sequence[str], stages: Mapping[str, int]
) -> dict[str, int]:
    """Which of the stages `missing` can be taken from `source`, and their newest steps."""
    newest = {stage: checkpoint.newest_step(source, stage) for stage in missing}
    steps = {stage: step for stage, step in newest.items() if step is not None}
    for stage, step in steps.items():
        if step < stages[stage]:
            raise ValueError(
                f"{source}: stage {stage} is at step {step} of {stages[stage]}: "
                "train it to its end first"
            )
    if not steps and len(missing) == len(stages):
        raise ValueError(
            f"{source} holds no checkpoint of {' or '.join(stages)}: reuse a workdir that does"
        )
    return steps
