"""What must be settled before JAX starts: how XLA compiles for a CPU, and who keeps its memory.

Called by programs only: importing the project as a library changes nothing of the process.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform

# Convolutions by XLA:CPU's own loops and not by the library that it otherwise hands them to: a step
# takes a quarter less time. A jaxlib that does not know a flag aborts the process.
_FLAG = "xla_cpu_experimental_ynn_fusion_type"
_VALUE = "-library_fusion_type_individual_convolution"
_JAXLIBS = ("0.10.", "0.12.")  # with these it was tried

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_LARGEST = 2**31 - 1


def prepare() -> None:
    """Sets XLA's flags and the memory allocator where JAX will run on a CPU; nothing elsewhere."""
    if _accelerator_may_be_used():
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags and importlib.metadata.version("jaxlib").startswith(_JAXLIBS):
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}={_VALUE}".strip()
    _keep_memory()


def _accelerator_may_be_used() -> bool:
    """Whether JAX may find a GPU or TPU; to ask JAX itself would start it."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms != "cpu"
    return any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))


def _keep_memory() -> None:
    """Lets glibc keep what XLA frees after a step for the next one.

    Else a step's buffers of hundreds of MB go back to the system, which zeroes them anew, page by
    page, for every step: a fifth of its time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # XLA allocates in threads of its own, whose arenas cannot grow beyond 64 MB: all share one.
    for parameter, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGEST),
        (_M_TRIM_THRESHOLD, _LARGEST),
    ):
        libc.mallopt(parameter, value)
