"""detectron2 0.6 as a pure-Python wheel, made from its source with the edits listed in ``EDITS``.

Each edit must match exactly, or there is no wheel. Nothing is compiled, and no code of the source
is run. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ovseg.errors import UserError

SDIST = "pb1-detectron2-0.6.tar.gz"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6+ovseg.1"  # raise the last number with every change of EDITS

# What detectron2 imports at run time. Unlike upstream's list: no `black`, `future` and `pydot`
# (only its config printer and its Caffe2 export use them), no upper bounds (fvcore and iopath have
# not changed since), and torch and torchvision are named.
REQUIRES = (
    "torch>=2.6", "torchvision", "Pillow>=7.1", "matplotlib", "pycocotools>=2.0.2",
    "termcolor>=1.1", "yacs>=0.1.8", "tabulate", "cloudpickle", "tqdm>4.29.0", "tensorboard",
    "fvcore>=0.1.5", "iopath>=0.1.7", "omegaconf>=2.1", "hydra-core>=1.1",
)  # fmt: skip

# Projects that upstream installs inside the package.
PROJECTS = {
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}


class Edit(NamedTuple):
    """Replace ``old``, which must occur ``times`` times in ``path``, by ``new``."""

    path: str
    old: str
    new: str
    times: int = 1


_IMPORT_C = "from detectron2 import _C"
_IMPORT_STAND_IN = "from detectron2._no_extension import _C"

EDITS = (
    # Pillow removed the alias LINEAR of BILINEAR in version 10.
    Edit("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    # NumPy removed its aliases of Python's types in version 1.24. The plain types are what they
    # stood for, so no result changes.
    Edit("detectron2/data/build.py", "dtype=np.int)", "dtype=int)"),
    Edit("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n"),
    Edit("detectron2/data/datasets/pascal_voc.py", "np.str)", "str)"),
    Edit("detectron2/evaluation/pascal_voc_evaluation.py", "np.bool)", "bool)", 2),
    Edit("detectron2/evaluation/sem_seg_evaluation.py", "np.int)", "int)", 2),
    Edit("detectron2/evaluation/sem_seg_evaluation.py", "np.float)", "float)", 5),
    Edit("detectron2/structures/masks.py", "np.bool)", "bool)", 3),
    Edit("detectron2/utils/video_visualizer.py", "np.bool)", "bool)"),
    Edit("detectron2/utils/visualizer.py", "np.bool)", "bool)", 3),
    # setuptools dropped pkg_resources; files of an installed package lie beside its modules.
    Edit("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", ""),
    Edit(
        "detectron2/model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n'
        "    )",
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
    ),
    # These modules import the compiled extension as soon as detectron2 is imported.
    Edit("detectron2/layers/deform_conv.py", _IMPORT_C, _IMPORT_STAND_IN),
    Edit("detectron2/layers/roi_align_rotated.py", _IMPORT_C, _IMPORT_STAND_IN),
    Edit("detectron2/layers/rotated_boxes.py", _IMPORT_C, _IMPORT_STAND_IN),
    Edit("detectron2/evaluation/fast_eval_api.py", _IMPORT_C, _IMPORT_STAND_IN),
    Edit(
        "detectron2/layers/nms.py",
        "from torchvision.ops import nms  # BC-compat\n",
        f"from torchvision.ops import nms  # BC-compat\n\n{_IMPORT_STAND_IN}\n",
    ),
    Edit("detectron2/layers/nms.py", "torch.ops.detectron2.nms_rotated", "_C.nms_rotated"),
)  # fmt: skip

# `detectron2._C` itself stays absent, so that code asking for it finds out the truth.
STAND_IN = '''"""Stands in for detectron2's compiled extension, which this build does not have."""


class _NoExtension:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(
            f"'{name}' needs detectron2's compiled extension, which this pure-Python build of "
            "detectron2 does not have; install an official build or build detectron2 from source"
        )


_C = _NoExtension()
'''

EDIT_NOTE = "# Changed for OVSeg by ovseg/cli/detectron2_wheel.py; see EDITS there.\n"


def check_hash(path: Path, sha256: str = SDIST_SHA256) -> None:
    """Raise :class:`UserError` unless the file has the pinned hash."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise UserError(f"{path} is not the pinned source: SHA-256 {found}, expected {sha256}")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the archive into ``folder`` and return its only top-level folder."""
    with tarfile.open(archive) as tar:
        if hasattr(
            tarfile, "data_filter"
        ):  # absent from the first releases of Python 3.10 and 3.11
            tar.extractall(folder, filter="data")
        else:
            for member in tar.getmembers():
                path = PurePosixPath(member.name)
                if (
                    path.is_absolute()
                    or ".." in path.parts
                    or not (member.isreg() or member.isdir())
                ):
                    raise UserError(f"{archive.name} has an unsafe member: {member.name}")
            tar.extractall(folder)
    tops = list(folder.iterdir())
    if len(tops) != 1:
        raise UserError(f"{archive.name} has {len(tops)} top-level entries, expected 1")
    return tops[0]


def collect(source: Path) -> dict[str, bytes]:
    """Return the files of the package as ``{path in the wheel: content}``, projects included."""
    roots = {"detectron2": "detectron2", **PROJECTS}
    files: dict[str, bytes] = {}
    for folder, place in roots.items():
        found = [p for p in sorted((source / folder).rglob("*")) if p.is_file()]
        if not found:
            raise UserError(f"the source has no files in {folder}/")
        for path in found:
            files[f"{place}/{path.relative_to(source / folder).as_posix()}"] = path.read_bytes()
    return files


def apply_edits(files: Mapping[str, bytes], edits: Sequence[Edit] = EDITS) -> dict[str, bytes]:
    """Return ``files`` with every edit made; raise :class:`UserError` where one does not fit."""
    edited = dict(files)
    for edit in edits:
        text = edited.get(edit.path, b"").decode()
        if text.count(edit.old) != edit.times:
            raise UserError(
                f"{edit.path}: {edit.old!r} occurs {text.count(edit.old)} times, "
                f"expected {edit.times}; the source differs from the one these edits were made for"
            )
        edited[edit.path] = text.replace(edit.old, edit.new).encode()
    for path in {edit.path for edit in edits}:  # the licence asks for a notice in changed files
        first, rest = edited[path].decode().split("\n", 1)  # a coding line must stay first
        edited[path] = f"{first}\n{EDIT_NOTE}{rest}".encode()
    edited["detectron2/_no_extension.py"] = (EDIT_NOTE + STAND_IN).encode()
    return edited


def build_wheel(files: Mapping[str, bytes], licence: bytes, folder: Path) -> Path:
    """Write the wheel into ``folder`` and return its path. The same files give the same bytes."""
    info = f"detectron2-{VERSION}.dist-info"
    requires = "".join(f"Requires-Dist: {r}\n" for r in REQUIRES)
    everything = dict(files)
    everything[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: detectron2\nVersion: {VERSION}\n"
        "Summary: detectron2 0.6 in pure Python, edited for current libraries by OVSeg\n"
        f"License: Apache-2.0\nRequires-Python: >=3.10\n{requires}"
    ).encode()
    everything[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: ovseg\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    everything[f"{info}/LICENSE"] = licence
    record = [f"{path},{_record_hash(data)},{len(data)}" for path, data in everything.items()]
    everything[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in everything.items():
            entry = zipfile.ZipInfo(path)  # its date is fixed: 1 January 1980
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def _record_hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"
