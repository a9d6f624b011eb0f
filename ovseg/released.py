"""The checkpoints that OVSeg knows by name, and where fetched ones are kept.

The embedded one lies in ``resources/``. The released ones are fetched from Google Drive when they
are first asked for, and kept in ``$OVSEG_HOME/weights``, by default ``~/.cache/ovseg/weights``;
whoever has no network puts them there by hand. ``ovseg://NAME`` means one of them, and
``hf://owner/name`` the ``model.safetensors`` of a repository on the Hugging Face Hub.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ovseg.errors import UserError
from ovseg.utils.downloads import DriveFile, check_md5, fetch_from_drive, fetch_from_hub
from ovseg.utils.package_files import package_folder

OVSEG_SCHEME, HUB_SCHEME = "ovseg://", "hf://"
WEIGHTS_FILE = "model.safetensors"
_HUB_NAME = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Released:
    """A checkpoint that OVSeg knows by name.

    Args:
        name: what users call it.
        file: the name of the published file.
        about: what it is.
        config: of an evaluation, in ``configs/``.
        demo_config: the same for single images.
        drive: where it is; None: it lies in ``resources/``.
    """

    name: str
    file: str
    about: str
    config: str
    demo_config: str
    drive: DriveFile | None = None

    @property
    def path(self) -> Path:
        """Where it is, or will be when it has been fetched."""
        folder = home() / "weights" if self.drive else package_folder("resources")
        return folder / self.file


_SWIN = ("ovseg_swinB_vitL_bs32_120k.yaml", "ovseg_swinB_vitL_demo.yaml")
_R101C = ("ovseg_R101c_vitB_bs32_120k.yaml",) * 2
RELEASED = {
    released.name: released
    for released in (
        Released(
            "tiny", "ovseg_tiny.pth", "the embedded model, for drawn images",
            "ovseg_tiny.yaml", "ovseg_tiny_demo.yaml",
        ),
        Released(
            "swinB-vitL14", "ovseg_swinbase_vitL14_ft_mpt.pth", "Swin-B + ViT-L/14", *_SWIN,
            DriveFile("1cn-ohxgXDrDfkzC1QdO-fi8IjbjXmgKy", "526080"),
        ),
        Released(
            "R101c-vitB16", "ovseg_R101c_vitB16_ft_mpt.pth", "R101c + ViT-B/16", *_R101C,
            DriveFile("1ZmeFMEkhuLqaWkhz4t4IlQ8YflrYja8q", "c746f4"),
        ),
        Released(
            "swinB-vitL14-mpt-only", "ovseg_swinbase_vitL14_mpt_only.pt",
            "Swin-B + ViT-L/14, mask prompts only", *_SWIN,
            DriveFile("1LJGWFjHw76OGDNy9r9KQIaACfIm9KMhQ", "2dd495"),
        ),
    )
}  # fmt: skip


def home() -> Path:
    """Where fetched files are kept: ``$OVSEG_HOME``, by default ``~/.cache/ovseg``."""
    return Path(os.environ.get("OVSEG_HOME") or Path.home() / ".cache" / "ovseg").expanduser()


def fetch(name: str) -> Path:
    """The weights that a name means, fetched if they are not there.

    Args:
        name: of :data:`RELEASED`, with ``ovseg://`` or without, or ``hf://owner/name``.

    Raises:
        UserError: the name is unknown, the file cannot be had, or it is damaged.
    """
    if name.startswith(HUB_SCHEME):
        return file_of_hub(name, WEIGHTS_FILE)
    released = released_as(name.removeprefix(OVSEG_SCHEME))
    return fetch_from_drive(released.drive, released.path) if released.drive else released.path


def local_weights(weights: str) -> str:
    """``MODEL.WEIGHTS`` as a path where it is a name, fetched if it is not there; else as it is.

    Raises:
        UserError: see :func:`fetch`.
    """
    return str(fetch(weights)) if weights.startswith((OVSEG_SCHEME, HUB_SCHEME)) else weights


def is_released(name: str) -> bool:
    """Whether ``ovseg://NAME`` means a checkpoint or a file in ``resources/``."""
    return any(name in (released.name, released.file) for released in RELEASED.values())


def is_there(released: Released) -> bool:
    """Whether a checkpoint is on this machine, intact.

    Raises:
        UserError: it is there, and damaged.
    """
    if released.path.is_file() and released.drive:
        check_md5(released.path, released.drive)
    return released.path.is_file()


def released_as(name: str) -> Released:
    """The checkpoint of that name, or of that file name.

    Raises:
        UserError: there is none.
    """
    for released in RELEASED.values():
        if name in (released.name, released.file):
            return released
    raise UserError(
        f"ovseg://{name}: there are no weights of that name; known are {', '.join(RELEASED)}"
    )


def file_of_hub(name: str, file: str) -> Path:
    """A file of the repository ``hf://owner/name`` or ``hf://owner/name@revision``.

    Raises:
        UserError: the name is none, or the file cannot be had.
    """
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{name!r}: give hf://owner/name or hf://owner/name@revision")
    return fetch_from_hub(match["repository"], match["revision"], file)
