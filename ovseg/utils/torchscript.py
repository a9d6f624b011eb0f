"""The weights of TorchScript archives, as OpenAI's CLIPs come, without running their code.

``torch.jit.load`` runs what modules define to restore themselves, which may do anything to files.
Here the archive's pickle is read alone, by an unpickler that knows tensors and plain values. Which
attributes of a module are weights says the source in the archive, of which no more than these lists
is looked at.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

# class X(Module):\n  __parameters__ = ["weight", ]\n  __buffers__ = []
_CLASS = re.compile(
    r"^class (\w+)\(Module\):\n\s*__parameters__ = \[(.*?)\]\n\s*__buffers__ = \[(.*?)\]",
    re.MULTILINE | re.DOTALL,
)

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class _Module:
    """A module of the archive: the name of its class, and its attributes."""

    name = ""

    def __init__(self, *_: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"{self.name}.__setstate__ is not allowed in such a file")
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    """Knows modules, tensors and plain values; what else is named raises ``UnpicklingError``."""

    def __init__(self, content: bytes, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type(name, (_Module,), {"name": f"{module}.{name}"})
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, _: value
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in such a file")

    def persistent_load(self, pid: Any) -> Any:
        """The storage of a tensor."""
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"{kind} is not allowed in such a file")
        content = self._archive.read(f"{self._root}/data/{key}")
        if len(content) != numel * dtype.itemsize:
            raise EOFError(f"data/{key} has {len(content)} bytes")
        storage = torch.UntypedStorage(len(content))
        if content:
            torch.tensor([], dtype=torch.uint8).set_(storage).copy_(
                torch.frombuffer(bytearray(content), dtype=torch.uint8)
            )
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of an archive, by name, on the CPU.

    Raises:
        pickle.UnpicklingError: it holds other things, or modules that restore themselves by code.
        Exception: nearly any, of a damaged archive.
    """
    with zipfile.ZipFile(path) as archive:
        (place,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
        root = place.partition("/")[0]
        module = _Unpickler(archive.read(place), archive, root).load()
        if not isinstance(module, _Module):
            raise pickle.UnpicklingError(f"{type(module).__name__} is not allowed in such a file")
        return dict(_weights(module, "", _weight_names(archive, root)))


def _weight_names(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """Of each class the names of its parameters and buffers."""
    found = {}
    for file in archive.namelist():
        if file.startswith(f"{root}/code/") and file.endswith(".py"):
            package = file.removeprefix(f"{root}/code/").removesuffix(".py").replace("/", ".")
            for name, *lists in _CLASS.findall(archive.read(file).decode()):
                found[f"{package}.{name}"] = set(re.findall(r'"([^"]+)"', " ".join(lists)))
    return found


def _weights(
    module: _Module, prefix: str, names: dict[str, set[str]]
) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _weights(value, f"{prefix}{name}.", names)
        elif isinstance(value, Tensor) and name in names.get(module.name, ()):
            yield f"{prefix}{name}", value
