"""``MODEL.PRECISION``: what networks compute in, and what of it a device has instructions for."""

from __future__ import annotations

import functools
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ovseg.errors import UserError
from ovseg.utils.hardware import native_precisions

logger = logging.getLogger(__name__)

#: precisions that PyTorch casts to
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# precision -> how many times as long as fp32 CLIP takes on processors that only emulate it. bf16:
# R101c + ViT-B/16 on AVX2; fp16: ViT-B/16 on AVX-512, see docs/speed.md
_EMULATED = {"bf16": 6, "fp16": 4}


@functools.cache
def device_precision(key: str, precision: str, device: torch.device) -> str:
    """The precision to compute in; said once where it is slower than fp32, or is the choice.

    Args:
        key: the config key, for messages.
        precision: its value; "auto" is the fastest that loses least of what the device has
            instructions for: fp16 on GPUs with tensor cores, bf16 on processors.
        device: that computes.

    Raises:
        UserError: int8 on a device that is no CPU.
    """
    native = native_precisions(device)
    if precision == "auto":
        chosen = _fastest(device, native or ["fp32"])
        logger.info("%s auto: %s on %s", key, chosen, device.type)
        return chosen
    if precision == "int8" and device.type != "cpu":
        raise UserError(f"{key} int8 is for CPUs; give fp16 on {device}")
    if precision == "tf32" and device.type == "cuda":
        # PyTorch knows no other way: it holds for the whole process
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    if native is not None and precision not in ("fp32", "int8") and precision not in native:
        logger.warning("%s %s: %s", key, precision, _emulation(device, precision))
    return precision


def _fastest(device: torch.device, native: list[str]) -> str:
    if device.type == "cuda":
        tensor_cores = torch.cuda.get_device_capability(device) >= (7, 0)
        return "fp16" if tensor_cores else "fp32"
    return "bf16" if "bf16" in native else "fp32"


def _emulation(device: torch.device, precision: str) -> str:
    if precision == "tf32":
        return f"{device.type} has no such instructions and computes in fp32"
    factor = _EMULATED[precision] if device.type == "cpu" else None
    slower = f"about {factor} times the time of fp32" if factor else "more time than fp32"
    return (
        f"{device.type} has no instructions for it (ovseg info) and takes {slower}; give auto or "
        "fp32"
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Computes in fp16 or bf16; of other precisions nothing changes, mixed precision of a training
    neither."""
    dtype = DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
