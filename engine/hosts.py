"""The processes of one run, one a host as a rule: how they join, agree, wait and part.

Process 0 is the main one: it writes what is written, and its memory of things counts. A process
that dies ends the others within a minute: JAX's coordination service misses its heartbeat, and a
computation over all of them fails.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from engine import parallel

_SILENCE = 20  # seconds after which a process that is not heard of is taken for dead
_JOINING = 300  # seconds that processes wait for each other at the start
_PARTING = 24 * 3600  # and at the end, where the main one still evaluates
LOST = (
    "error: another process of this run has stopped or cannot be reached (or this one was killed): "
    "start the same command on every host again, it goes on from the last checkpoint"
)
_ABSENT = (
    "error: the processes of this run did not come together, for which there are "
    f"{_JOINING} seconds: start the same command on every host, and see that {{}} can be reached "
    "from each"
)
# Says the last line it got, for a process that JAX's C++ aborts, with a stack and no reason.
_WATCHER = (
    "import sys\nlast = sys.stdin.read().split('\\n')[-2]\nif last: print(last, file=sys.stderr)"
)


def start(
    address: str | None, num_processes: int | None, process_id: int | None
) -> Callable[[int], None]:
    """Joins the other processes, if there are some; to be called before any device is used.

    Args:
      address: 'host:port' of process 0, which opens the port. None of the three: as the cloud's
        environment says (TPU pod slice, SLURM, Open MPI, Kubernetes), else a run of one process.
      num_processes: how many there are.
      process_id: this one's, from 0 on.

    Returns:
      `leave(exit code)`, to be called last, as `sys.exit`: it waits for the others unless the code
      says that something went wrong.

    Raises:
      ValueError: an argument is missing or makes no sense.
    """
    given = (address, num_processes, process_id)
    if (named := [value is not None for value in given]) != [any(named)] * 3:
        raise ValueError("--coordinator_address, --num_processes and --process_id go together")
    if process_id is not None and not 0 <= process_id < (num_processes or 0):
        raise ValueError(
            f"--process_id={process_id} is none of --num_processes={num_processes}, counted from 0"
        )
    port = address.rpartition(":")[2] if address else "1"
    if not (port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"--coordinator_address={address} has no port: say HOST:PORT")
    watcher = _watch()
    _tell(watcher, _ABSENT.format(address or "process 0"))
    try:
        jax.distributed.initialize(
            *given,
            # Else, within SLURM, a process would take one device of its host's and say nothing.
            cluster_detection_method="deactivate" if address else None,
            initialization_timeout=_JOINING,
            heartbeat_timeout_seconds=_SILENCE,
            shutdown_timeout_seconds=_PARTING,
        )
    except (ValueError, RuntimeError, OSError, ImportError) as error:
        _dismiss(watcher)
        if address:
            raise ValueError(f"--coordinator_address={address}: {error}") from error
        if "coordinator_address should be defined" not in str(error):
            logging.warning("Taken for a run of one process: the cloud's others: %s", error)
        return sys.exit
    _tell(watcher, LOST)
    return lambda code: _leave(code, watcher)


def _watch() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-S", "-c", _WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _tell(watcher: subprocess.Popen[bytes], line: str) -> None:
    assert watcher.stdin
    watcher.stdin.write(f"{line}\n".encode())
    watcher.stdin.flush()


def _dismiss(watcher: subprocess.Popen[bytes]) -> None:
    watcher.communicate(b"\n")


def _leave(code: int, watcher: subprocess.Popen[bytes]) -> None:
    if code:
        # Python's own end would wait for the others, which do not come.
        sys.stdout.flush()
        sys.stderr.flush()
        _dismiss(watcher)
        os._exit(code)
    jax.distributed.shutdown()  # waits for all
    _dismiss(watcher)


def barrier(name: str) -> None:
    """All processes wait here for each other."""
    if parallel.process()[1] > 1:
        multihost_utils.sync_global_devices(name)


@contextmanager
def main_first(name: str) -> Iterator[None]:
    """The main process does what is inside, and then the others do, who find what it wrote."""
    if not parallel.is_main():
        barrier(name)
    yield
    if parallel.is_main():
        barrier(name)


def from_main(value: int) -> int:
    """The main process's `value`, on every process."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def require_same(text: str, what: str) -> None:
    """Raises ValueError on all processes where `text` is not the same on all."""
    _, count = parallel.process()
    if count == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    others = [i for i in range(count) if (digests[i] != digests[0]).any()]
    if others:
        raise ValueError(
            f"process {others[0]} of {count} has not {what} of process 0: start the same command, "
            "with the same code and the same images, on every host"
        )


def preempted(step: int) -> bool:
    """Whether several processes are to stop after `step`, for one of them got SIGTERM.

    All have to ask after the same steps.
    """
    return multihost_utils.reached_preemption_sync_point(step)
