"""What is wrong with devices and memory, in one line."""

import jax
import numpy as np
import pytest

from engine.faults import fault_of_a_device


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "the computer's memory is full"),
        (np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(float)), "memory is full"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9 bytes"),
            "the memory of a device is full .RESOURCE_EXHAUSTED: Out of memory allocating",
        ),
        (
            RuntimeError("Unable to initialize backend 'tpu': no"),
            "finds no device of JAX_PLATFORMS",
        ),
    ],
)
def test_known_faults_have_a_way_out(error, said, monkeypatch):
    line = fault_of_a_device(error)
    assert line.count("\n") == 0 and "set " in line
    with pytest.raises(ValueError, match=said):
        raise ValueError(line)


def test_other_errors_are_not_explained_away():
    for error in (AssertionError("x"), RuntimeError("x"), jax.errors.JaxRuntimeError("INTERNAL")):
        assert fault_of_a_device(error) == ""
