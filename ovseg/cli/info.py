"""What is installed, and what this machine can do.

    ovseg info
    ovseg info --json

Versions of OVSeg and of what it stands on; devices, threads, and the precisions that each device
computes in by instructions of its own (others are emulated, which takes longer); the folders of
fetched weights and of data sets, and which data sets are there.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ovseg import __version__
from ovseg.data.splits import ADE20K, SPLITS, Split, data_root
from ovseg.errors import NO_DETECTRON2, Parser, cli_errors
from ovseg.released import home
from ovseg.utils.hardware import cpu_precisions, gpu_precisions, processor

# what is reported -> distributions that bring it
_PACKAGES = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "open_clip": ("open_clip_torch",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
}
_LINUX = sys.platform.startswith("linux")
_VECTORS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "sve")


def gather() -> dict[str, Any]:
    """All that is said, ready for JSON."""
    return {
        "versions": {"ovseg": __version__, "python": platform.python_version(), **_versions()},
        "cuda of torch": _cuda(),
        "platform": platform.platform(),
        "devices": _devices(),
        "folders": {"weights": str(home() / "weights"), "data sets": str(data_root().absolute())},
        "data sets": {split.name: _missing(split) or "there" for split in (*SPLITS, *ADE20K)},
    }


def text(about: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{name:16}{version}" for name, version in about["versions"].items()]
    lines.append(f"{'cuda of torch':16}{about['cuda of torch']}")
    for device in about["devices"]:
        lines += ["", f"{device['device']:16}{device['name']}"]
        lines += [f"  {key:14}{_joined(device[key])}" for key in list(device)[2:]]
    lines.append("")
    lines += [f"{name:16}{folder}" for name, folder in about["folders"].items()]
    lines += [f"  {name:34}{state}" for name, state in about["data sets"].items()]
    return "\n".join(lines)


def _joined(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _versions() -> dict[str, str]:
    found = {name: _version(packages) for name, packages in _PACKAGES.items()}
    return {**found, "detectron2": _detectron2()}


def _version(packages: Sequence[str]) -> str:
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "missing"


def _detectron2() -> str:
    """Version and kind of build, without importing it."""
    spec = util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return f"missing; {NO_DETECTRON2}"
    version = _version(["detectron2"])
    folder = Path(spec.origin).parent
    compiled = any(folder.glob("_C.*"))
    kind = "with its compiled extension" if compiled else "pure Python"
    return f"{version if version != 'missing' else 'of a source tree'}, {kind}"


def _cuda() -> str:
    try:
        import torch
    except ImportError:
        return "none"
    return torch.version.cuda or "none"


def _devices() -> list[dict[str, Any]]:
    try:
        import torch
    except ImportError as error:
        return [{"device": "none", "name": f"PyTorch cannot be imported: {error}"}]
    name, flags = processor()
    cpu: dict[str, Any] = {
        "device": "cpu",
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if _LINUX else os.cpu_count(),
        "used by torch": torch.backends.cpu.get_cpu_capability(),
    }
    if flags:
        cpu["instructions"] = [flag for flag in _VECTORS if flag in flags]
        cpu["precisions"] = cpu_precisions(flags)
    gpus = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        capability = (about.major, about.minor)
        gpus.append(
            {
                "device": f"cuda:{index}",
                "name": about.name,
                "memory": f"{about.total_memory / 2**30:.0f} GiB",
                "capability": f"{about.major}.{about.minor}",
                "precisions": gpu_precisions(capability),
            }
        )
    return [cpu, *gpus]


def _missing(split: Split) -> str:
    """What of a data set is not there; "" for nothing."""
    folders = (data_root() / split.images, data_root() / split.labels)
    gone = [str(folder) for folder in folders if not folder.is_dir()]
    return f"{gone[0]} is missing" if gone else ""


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors():
        args = build_parser().parse_args(argv)
        about = gather()
        print(json.dumps(about, indent=2) if args.json else text(about))
