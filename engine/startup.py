"""What must be settled before JAX starts: who keeps the memory, compilation, its cache.

Called by programs and notebooks only: importing the project as a library changes nothing of the
process. Nothing is imported here that starts a thread, so that `keep_memory` can come before all of
them.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import tempfile

# Convolutions by XLA:CPU's own loops and not by the library that it otherwise hands them to: a step
# takes a quarter less time. A jaxlib that does not know a flag aborts the process.
_FLAG = "xla_cpu_experimental_ynn_fusion_type"
_VALUE = "-library_fusion_type_individual_convolution"
_JAXLIBS = ("0.10.", "0.11.", "0.12.")  # with these it was tried

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
_LARGEST = 2**31 - 1
_BUFFER = 2**22  # bytes: parts of a batch


def keep_memory() -> None:
    """Lets glibc keep what XLA:CPU frees after a step for the next; to be called before any import.

    Else a step's buffers of hundreds of MB go back to the system, which zeroes them anew, page by
    page, for every step: a fifth of its time.
    """
    if platform.libc_ver()[0] != "glibc" or _accelerator_may_be_used():
        return
    libc = ctypes.CDLL(None)
    # XLA allocates in threads of its own, and an arena of their own cannot hold more than 64 MB:
    # all share the first. It is too late for that once another thread has one.
    for parameter, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGEST),
        (_M_TRIM_THRESHOLD, _LARGEST),
    ):
        libc.mallopt(parameter, value)


def give_back_memory() -> None:
    """Lets glibc give each buffer back that is freed from now on: for scoring, after `keep_memory`.

    Where it keeps them, small things come to lie in the place of large ones, and the more batches
    there are, the more memory is taken. New pages for each batch cost scoring a tenth of its time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _BUFFER)
        libc.mallopt(_M_TRIM_THRESHOLD, _BUFFER)
        libc.malloc_trim(0)


def prepare() -> None:
    """Chooses the compilation cache and, where JAX will run on a CPU, XLA's flag."""
    _keep_compilations()
    flags = os.environ.get("XLA_FLAGS", "")
    known = importlib.metadata.version("jaxlib").startswith(_JAXLIBS)
    if known and _FLAG not in flags and not _accelerator_may_be_used():
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}={_VALUE}".strip()


def _keep_compilations() -> None:
    """Lets JAX keep what it compiles below the user's cache folder, unless the user names another.

    A folder that cannot be written costs time and nothing else: a warning.
    """
    import jax
    from absl import logging

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(caches, "fanogan_jax", "xla")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        logging.warning(
            "No compilation cache, so every start compiles anew (%s): set XDG_CACHE_HOME to a "
            "folder that can be written.",
            error,
        )
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _accelerator_may_be_used() -> bool:
    """Whether JAX may find a GPU or TPU; to ask JAX itself would start it."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms != "cpu"
    return any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
