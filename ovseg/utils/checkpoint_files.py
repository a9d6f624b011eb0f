"""The one reader of checkpoint files: every form they come in, without running what they hold.

Forms: what ``torch.save`` wrote, TorchScript archives (OpenAI's CLIPs), safetensors, detectron2's
pickles of NumPy arrays, and several such files by their ``.index.json``. Layouts: the tensors by
name at the top, or as the entry ``model``, ``state_dict`` or ``model_state_dict``, or as the only
entry that holds some (``ema``); with what DistributedDataParallel, FSDP, torch.compile and
Lightning put before the names.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.checkpoint_layouts import Unreadable, check_finite, shards, split_weights
from ovseg.utils.pickles import ArrayUnpickler, torch_safe_globals
from ovseg.utils.torchscript import read_torchscript

Form = Literal["torch", "torchscript", "safetensors", "pickle", "index"]

# the file that names the parts of a checkpoint in several files, and such a part
_INDEX = ".index.json"
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
# the first bytes of gzip, bzip2, xz, 7z
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")
_MOST_CODE = 1 << 24  # bytes, unpacked
# what wrappers put between the names of modules
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# the first bytes of what torch.save wrote before version 1.6
_TORCH_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Args:
        weights: tensors by name on the CPU, in the file's precision, without wrappers' prefixes.
        entries: what else the file holds (iteration, optimizer, ``model_cfg``); of safetensors its
            metadata.
        form: of the file.
    """

    weights: dict[str, Tensor]
    entries: dict[str, Any]
    form: Form


def read_checkpoint(
    path: str | os.PathLike[str], label: str = "checkpoint", *, mmap: bool = False
) -> Checkpoint:
    """Read a checkpoint file, whose form is told by its content.

    Args:
        path: of the file.
        label: what it is to the user, such as ``MODEL.WEIGHTS``; errors begin with it.
        mmap: leave the tensors in the file until they are used, where its form allows that; for a
            look at the other entries. They are not looked at.

    Raises:
        UserError: the file is missing, damaged, of another kind, holds code, no weights by name,
            or some that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{label} {str(path)!r} is a folder; give the file in it")
    if not path.is_file():
        raise UserError(f"{label} {str(path)!r} does not exist (no such file); check the path")
    form: Form | None = None
    try:
        form = file_form(path)
        part = _PART.fullmatch(path.name)
        index = path.with_name(f"{part[1]}{part[2]}{_INDEX}") if part else path
        if index != path and index.is_file():
            raise Unreadable(f"it is a part of a checkpoint; give {index.name} beside it")
        weights, entries = split_weights(_content(path, form, mmap))
    except Exception as error:  # a damaged archive raises nearly anything
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = _reason(error, form)
        raise UserError(f"{label} {str(path)!r} cannot be read: {reason}") from error
    if not mmap:
        check_finite(weights, f"{label} {str(path)!r}")
    return Checkpoint(without_wrappers(weights), entries, form)


def file_form(path: str | os.PathLike[str]) -> Form:
    """The form of a checkpoint file, by its first bytes."""
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise Unreadable("it is empty; get it again")
    if head.startswith(b"version https://git-lfs"):
        raise Unreadable("it is Git LFS's note of where the file is; run git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise Unreadable("it is a web page in place of the file; download it by a browser")
    if head.startswith(_PACKED):
        raise Unreadable("it is packed; unpack it and give the file in it")
    if path.name.endswith(_INDEX):
        return "index"
    if head.startswith(b"PK"):
        return _archive_form(path)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head.startswith(_TORCH_BEFORE_ZIP):
        return "torch"
    if path.suffix == ".pkl" or head.startswith(b"\x80"):
        return "pickle"
    raise Unreadable(
        "it is no checkpoint of a form that can be read (torch.save, TorchScript, safetensors, "
        "detectron2's .pkl); give another file"
    )


def is_torchscript(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI's CLIPs come."""
    return zipfile.is_zipfile(path) and _archive_form(Path(path)) == "torchscript"


def _archive_form(path: Path) -> Form:
    if not zipfile.is_zipfile(path):
        raise Unreadable("it is truncated; get it again")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        unpacked = sum(entry.file_size for entry in archive.infolist())
    # weights are not packed, and a script's code is small
    if unpacked > 2 * path.stat().st_size + _MOST_CODE:
        raise Unreadable(f"it is packed, with {unpacked} bytes in it; give it as it was saved")
    if any("/code/" in name for name in names):
        return "torchscript"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    raise Unreadable("it is an archive of other things than weights; give the file in it")


def _content(path: Path, form: Form, mmap: bool) -> Any:
    if form == "index":
        parts = [_content(part, file_form(part), mmap) for part in shards(path)]
        return {name: value for part in parts for name, value in split_weights(part)[0].items()}
    if form == "torchscript":
        return read_torchscript(path)
    if form == "pickle":
        with path.open("rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    if form == "safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = {k: v for k, v in (file.metadata() or {}).items() if k != "format"}
            names = file.keys()
            return {**metadata, "model": {name: file.get_tensor(name) for name in names}}
    return load_content(path, mmap=mmap)


def load_content(path: str | os.PathLike[str], *, mmap: bool = False) -> Any:
    """What ``torch.save`` wrote, on the CPU, without running what the file holds.

    Args:
        path: of the file.
        mmap: leave tensors in the file until they are used, where its form allows that.

    Raises:
        Exception: nearly any, for a damaged file or one that holds code.
    """
    mmap = mmap and zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(torch_safe_globals()):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def load_entries(path: Path, key: str) -> dict[str, Any]:
    """The entries of a small file that a config key names; none of one that holds something else.

    Raises:
        UserError: it cannot be read; names ``key``.
    """
    try:
        content = load_content(path)
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise UserError(
            f"{key} {str(path)!r} cannot be read ({type(error).__name__}); make it anew"
        ) from error
    return content if isinstance(content, dict) else {}


def _reason(error: Exception, form: Form | None) -> str:
    text = str(error)
    if isinstance(error, Unreadable):
        return text
    if isinstance(error, pickle.UnpicklingError):
        # PyTorch's own words would advise to run what the file holds
        found = re.search(
            r"GLOBAL (\S+) (?:was not|whose)|^(\S+) is not allowed|function <\S+ \S*?([\w.]+)>",
            text, flags=re.MULTILINE,
        )  # fmt: skip
        if found:
            name = next(group for group in found.groups() if group)
            return f"it holds code besides weights ({name}), and only plain weights can be read"
        if "operand" in text:
            return "it is damaged, or saved by another pickle protocol than torch.save's own"
        if "Unsupported" in text or "object for" in text:
            return "it holds code besides weights, and only plain weights can be read"
        return "it is truncated or damaged; get it again"
    # PyTorch's words, then those of safetensors
    cut_short = (
        "central directory",
        *("not fully covered", "MetadataIncompleteBuffer", "invalid header length"),
    )
    ended = isinstance(error, EOFError | IndexError | struct.error)
    if ended or any(words in text for words in cut_short):
        return "it is truncated; get it again"
    return (
        f"it is damaged, or no checkpoint ({text.splitlines()[0] if text else form}); get it again"
    )


def without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take ``module.`` of parallel training off the names' beginning, and torch.compile's
    ``_orig_mod.`` and FSDP's names out of them wherever they stand.
    """
    plain = {}
    for name, value in weights.items():
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        plain[".".join(parts).removeprefix("module.")] = value
    return plain


def without_prefix(weights: dict[str, Tensor], known: Collection[str]) -> dict[str, Tensor]:
    """Take off what stands before the names that are known, such as Lightning's ``model.``.

    Args:
        weights: from :class:`Checkpoint`.
        known: names that the weights have without a prefix; a few that are always there will do.

    Returns:
        The weights under the commonest prefix of a known name, without it; all of them as they are
        where a known name stands without one, or none is found.
    """
    if any(name in known for name in weights):
        return weights
    prefixes: Counter[str] = Counter()
    for name in weights:
        for dot in re.finditer(r"\.", name):
            if name[dot.end() :] in known:
                prefixes[name[: dot.end()]] += 1
    if not prefixes:
        return weights
    prefix = prefixes.most_common(1)[0][0]
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
