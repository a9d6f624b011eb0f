"""What processors and GPUs compute in by instructions of their own."""

from __future__ import annotations

import functools
import platform
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# precision -> flags of x86 and of ARM processors that have instructions for it
_CPU_FLAGS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
    "int8": {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"},
}
# precision -> least compute capability of a GPU that has instructions for it
_GPU_CAPABILITIES = {"fp16": (5, 3), "int8": (6, 1), "bf16": (8, 0), "tf32": (8, 0)}


def cpu_precisions(flags: Collection[str]) -> list[str]:
    """The precisions that a processor has instructions for.

    Args:
        flags: as the line ``flags`` (x86) or ``Features`` (ARM) of ``/proc/cpuinfo`` has them.
    """
    return ["fp32", *(name for name, any_of in _CPU_FLAGS.items() if any_of & set(flags))]


def gpu_precisions(capability: tuple[int, int]) -> list[str]:
    """The precisions that an NVIDIA GPU of a compute capability has instructions for."""
    return ["fp32", *(name for name, least in _GPU_CAPABILITIES.items() if capability >= least)]


def native_precisions(device: torch.device) -> list[str] | None:
    """The precisions that a device has instructions for; None where that is not known.

    It is known of NVIDIA's GPUs, and of processors on Linux.
    """
    import torch

    if device.type == "cuda":
        return gpu_precisions(torch.cuda.get_device_capability(device))
    flags = processor()[1] if device.type == "cpu" else []
    return cpu_precisions(flags) if flags else None


@functools.cache
def processor() -> tuple[str, list[str]]:
    """Name and flags of the processor; flags are known on Linux alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    entries: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        entries.setdefault(key.strip(), value.strip())
    name = entries.get("model name") or platform.machine()
    return name, (entries.get("flags") or entries.get("Features") or "").split()
