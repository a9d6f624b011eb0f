"""Install detectron2 0.6 where no working detectron2 is there.

    python tools/install_detectron2.py            # does nothing when detectron2 works already
    python tools/install_detectron2.py --force    # installs over what is there
    python tools/install_detectron2.py --sdist pb1-detectron2-0.6.tar.gz    # no download

detectron2 has no release on the package index under its own name. Its 0.6 source is there as
``pb1-detectron2``, without the C++ files that its ``setup.py`` wants to compile. This script takes
that source with pip's own index settings, checks its SHA-256, makes the edits listed in ``EDITS``
(each must match exactly, or nothing is installed), packs the result into a pure-Python wheel named
``detectron2`` and lets pip install it. Nothing is compiled, and no code of the source is run.

The few ops that exist only in the compiled extension (rotated boxes, deformable convolution on a
GPU, the fast variant of COCO evaluation) say so when they are called. OVSeg uses none of them. An
official build, or one from source, is as good: this script leaves it alone.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

log = logging.getLogger("install_detectron2")

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


class InstallError(Exception):
    """detectron2 cannot be installed; the message says why and what to do."""


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

EDIT_NOTE = "# Changed for OVSeg by its tools/install_detectron2.py; see EDITS there.\n"

# Imports what OVSeg uses; prints the version. Runs in a process of its own, because a broken
# installation may take its process down.
PROBE = (
    "import detectron2, detectron2.engine, detectron2.evaluation, detectron2.projects.deeplab;"
    "import importlib.metadata as m;"
    "print(m.version('detectron2') if 'detectron2' in {d.name for d in m.distributions()}"
    " else detectron2.__version__)"
)

# Finds and downloads one file of one project as `pip download` would (index, find-links, proxy,
# certificates, credentials), but stops before pip asks the source for its metadata: that would run
# its setup.py, and pip rejects what it says. pip has no public interface for this.
FETCH = """
import logging, sys
from pip._internal.commands import create_command
logging.basicConfig(level=logging.DEBUG, format="%(message)s")  # for pip's "Could not fetch"
project, filename, target = sys.argv[1:]
command = create_command("download")
options, _ = command.parse_args([])
with command.main_context():
    session = command.get_default_session(options)
    finder = command._build_package_finder(options=options, session=session)
    links = [c.link for c in finder.find_all_candidates(project) if c.link.filename == filename]
    if not links:
        sys.exit(f"pip finds no {filename}")
    if links[0].is_file:
        data = open(links[0].file_path, "rb").read()
    else:
        reply = session.get(links[0].url_without_fragment, headers={"Accept-Encoding": "identity"})
        reply.raise_for_status()
        data = reply.content
with open(target, "wb") as file:
    file.write(data)
"""


def last_line(text: str) -> str:
    """The last line of ``text`` that is not empty; tracebacks keep their message there."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")


def working_version() -> tuple[str | None, str]:
    """Return the version of the detectron2 that works here, or None, and what went wrong."""
    # away from the current folder: a checkout of detectron2 lying there is not an installation
    with tempfile.TemporaryDirectory() as elsewhere:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=elsewhere
        )
    if probe.returncode == 0:
        return last_line(probe.stdout), ""
    return None, last_line(probe.stderr)


def download(target: Path, pauses: Sequence[float] = (5.0, 20.0)) -> None:
    """Download the source archive to ``target`` from where pip is set up to look.

    An index that is busy now may answer after one of the ``pauses`` (seconds). Raises
    :class:`InstallError` with pip's reason when it never does.
    """
    command = [sys.executable, "-c", FETCH, "pb1-detectron2", SDIST, str(target)]
    for pause in (*pauses, None):
        log.info("downloading %s", SDIST)
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            return
        if pause is not None:
            time.sleep(pause)
    # pip passes over an index that fails, and says so only in its debug messages
    failures = [line for line in result.stderr.splitlines() if line.startswith("Could not fetch")]
    reason = failures[0].removesuffix(" - skipping") if failures else last_line(result.stderr)
    raise InstallError(
        f"cannot download {SDIST}: {reason}; check the network and pip's index settings, or get "
        "the file elsewhere and give it with --sdist FILE"
    )


def check_hash(path: Path, sha256: str = SDIST_SHA256) -> None:
    """Raise :class:`InstallError` unless the file has the pinned hash."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise InstallError(f"{path} is not the pinned source: SHA-256 {found}, expected {sha256}")


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
                    raise InstallError(f"{archive.name} has an unsafe member: {member.name}")
            tar.extractall(folder)
    tops = list(folder.iterdir())
    if len(tops) != 1:
        raise InstallError(f"{archive.name} has {len(tops)} top-level entries, expected 1")
    return tops[0]


def collect(source: Path) -> dict[str, bytes]:
    """Return the files of the package as ``{path in the wheel: content}``, projects included."""
    roots = {"detectron2": "detectron2", **PROJECTS}
    files: dict[str, bytes] = {}
    for folder, place in roots.items():
        found = [p for p in sorted((source / folder).rglob("*")) if p.is_file()]
        if not found:
            raise InstallError(f"the source has no files in {folder}/")
        for path in found:
            files[f"{place}/{path.relative_to(source / folder).as_posix()}"] = path.read_bytes()
    return files


def apply_edits(files: Mapping[str, bytes], edits: Sequence[Edit] = EDITS) -> dict[str, bytes]:
    """Return ``files`` with every edit made; raise :class:`InstallError` where one does not fit."""
    edited = dict(files)
    for edit in edits:
        text = edited.get(edit.path, b"").decode()
        if text.count(edit.old) != edit.times:
            raise InstallError(
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


def install(sdist: Path | None, wheel_folder: Path | None = None) -> None:
    """Build the wheel from ``sdist`` (downloaded when None), and install it unless only kept."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as name:
        work = Path(name)
        archive = sdist or work / SDIST
        if sdist is None:
            download(archive)
        elif not sdist.is_file():
            raise InstallError(f"--sdist {sdist}: no such file")
        check_hash(archive)
        (work / "source").mkdir()
        source = unpack(archive, work / "source")
        files = apply_edits(collect(source))
        licence = (source / "LICENSE").read_bytes()
        if wheel_folder is not None:
            wheel_folder.mkdir(parents=True, exist_ok=True)
            log.info("wrote %s", build_wheel(files, licence, wheel_folder))
            return
        wheel = build_wheel(files, licence, work)
        log.info("installing %s", wheel.name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", str(wheel)]
        # The first call puts the wheel over whatever is there, the same version included; the
        # second adds what it requires and is missing, and leaves alone what is there.
        for command in ([*pip, "--force-reinstall", "--no-deps"], pip):
            if subprocess.run(command).returncode != 0:
                raise InstallError("pip could not install the wheel; its message is above")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        description="Install detectron2 0.6 (pure Python) where no working detectron2 is there."
    )
    parser.add_argument("--force", action="store_true", help="install over a detectron2 that works")
    parser.add_argument("--sdist", type=Path, metavar="FILE", help=f"use this copy of {SDIST}")
    parser.add_argument("--wheel-dir", type=Path, metavar="DIR", help="only write the wheel there")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.wheel_dir is None:
            version, problem = working_version()
            stale = version is not None and "+ovseg" in version and version != VERSION
            if version is not None and not stale and not options.force:
                log.info("detectron2 %s is there and works: nothing to do", version)
                return 0
            log.info(
                "detectron2 %s", f"{version} is replaced" if version else f"missing: {problem}"
            )
        install(options.sdist, options.wheel_dir)
        if options.wheel_dir is None:
            version, problem = working_version()
            if version is None:
                raise InstallError(f"detectron2 was installed but does not import: {problem}")
            log.info("detectron2 %s works", version)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    sys.exit(main())
