"""What a program costs by XLA's own count, and how near its time comes to the peaks of its chip.

No program can take less time than its operations at the chip's rate, or its bytes at the memory's:
the larger of the two is the roofline's time (Williams, Waterman, Patterson, CACM 52(4), 2009).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Of one run of a program."""

    flops: float
    bytes: float  # of memory read and written
    memory: int  # bytes that are taken at once, arguments included


class Peak(NamedTuple):
    """Of one chip."""

    flops: Mapping[str, float]  # type of the convolutions -> dense FLOP/s
    bytes: float  # a second, of its memory


# NVIDIA's data sheets, halved where they count sparse operations. float32 is that of TF32, which
# JAX's default precision and PyTorch's convolutions both take on these chips; without tensor cores
# an H100 does 67e12 and an A100 19.5e12.
_H100 = {"float32": 494.7e12, "bfloat16": 989.4e12}
_A100 = {"float32": 156e12, "bfloat16": 312e12}
PEAKS = {
    "NVIDIA H100 80GB HBM3": Peak(_H100, 3.35e12),
    "NVIDIA H200": Peak(_H100, 4.8e12),
    "NVIDIA A100-SXM4-40GB": Peak(_A100, 1.555e12),
    "NVIDIA A100-SXM4-80GB": Peak(_A100, 2.039e12),
}


def cost_of(lowered: Any, compiled: Any) -> Cost:
    """What XLA says of a program, as `jax.jit(...).lower(...)` and its `.compile()` give it.

    Operations are counted before compilation: on GPUs convolutions and matrix products are compiled
    into calls of a library, of which the count knows nothing. For the same reason the bytes, which
    only the compiled program knows, can be too few there, and with them the roofline's time.
    """
    before, after = _analysis(lowered), _analysis(compiled)
    memory = compiled.memory_analysis()
    taken = (
        memory.temp_size_in_bytes
        + memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return Cost(before.get("flops", 0.0), after.get("bytes accessed", 0.0), taken)


def _analysis(stage: Any) -> Mapping[str, float]:
    """XLA's count; nothing where it gives none."""
    cost = stage.cost_analysis() or {}
    return cost[0] if isinstance(cost, list) else cost


def share_of_roofline(cost: Cost, seconds: float, device: str, dtype: str) -> float | None:
    """The roofline's time over the seconds that were taken; None: the chip's peaks are unknown.

    `device` is JAX's kind of device, `dtype` the type of the convolutions.
    """
    peak = PEAKS.get(device)
    if peak is None or dtype not in peak.flops:
        return None
    return max(cost.flops / peak.flops[dtype], cost.bytes / peak.bytes) / seconds
