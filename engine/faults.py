"""What is wrong with a device or with memory, in one line with the way out."""

import os

import jax

_LESS = (
    "set a smaller batch_size or data.image_size, or --config.data.resident=False; what was saved "
    "is kept"
)


def fault_of_a_device(error: BaseException) -> str:
    """The line about an error that JAX or Python raised; '' if it is about something else."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError):
        return f"the computer's memory is full ({text or 'it gives no more'}): {_LESS}"
    if "RESOURCE_EXHAUSTED" in text or "Out of memory" in text:
        return f"the memory of a device is full ({text}): {_LESS}"
    # Of some devices that are not there JAX says nothing but that an assertion failed.
    at_start = isinstance(error, AssertionError) and not _starts()
    text = text.partition("-----")[0]
    if at_start or "Unable to initialize backend" in text or "Unknown backend" in text:
        asked = os.environ.get("JAX_PLATFORMS", "")
        return (
            f"JAX finds no device of JAX_PLATFORMS={asked} here ({text or 'it gives no reason'}): "
            'set JAX_PLATFORMS=cpu, or install JAX for the device, such as "jax[cuda12]"'
        )
    return ""


def _starts() -> bool:
    """Whether JAX has a device to start with."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError):
        return False
    return True
