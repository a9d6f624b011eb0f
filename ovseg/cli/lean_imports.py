"""Import networks without what comes along with them and one segmentation does not need.

For the processes of commands only: a program that imports OVSeg gets the libraries as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType


def import_libraries() -> None:
    """Import torchvision and open_clip, in half the time that they would take.

    * torchvision asks PyTorch's compiler whether a device can be compiled for, and so imports all
      of it; here it is imported when that question is asked.
    * open_clip imports timm and transformers for towers of some CLIPs, and does without where they
      are not installed. Such a CLIP gets them when it is built
      (``ovseg/modeling/clip/construction.py``).

    A release that needs more of them is imported as usual.
    """
    if "torchvision" not in sys.modules:
        with suppress(ImportError):
            import torch  # noqa: F401

            with _in_place("torch._dynamo.utils", _later()):
                import torchvision  # noqa: F401
    if "open_clip" not in sys.modules:
        with suppress(ImportError), _in_place("timm", None), _in_place("transformers", None):
            import open_clip  # noqa: F401


@contextmanager
def _in_place(name: str, module: ModuleType | None) -> Iterator[None]:
    """Let ``import name`` give ``module``, or fail where that is None, unless it is there."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]  # None is what importlib looks for
    try:
        yield
    finally:
        del sys.modules[name]


def _later() -> ModuleType:
    def is_compile_supported(device_type: str) -> bool:
        from torch._dynamo.utils import is_compile_supported as answer

        return answer(device_type)

    module = ModuleType("torch._dynamo.utils")
    module.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    return module
