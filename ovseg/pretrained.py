"""Weights by name: the embedded model, the released checkpoints, folders and repositories.

A name is

* ``tiny``, ``swinB-vitL14``, ``R101c-vitB16`` or another of :data:`RELEASED`;
* ``hf://owner/name`` or ``hf://owner/name@revision``, a repository of the Hugging Face Hub;
* a folder with ``config.yaml`` and ``model.safetensors``, as :func:`save_pretrained` writes it and
  such a repository holds;
* the path of a checkpoint, with a config.

:func:`resolve` turns it into a config file and a file of weights. Released checkpoints are fetched
from Google Drive when they are first asked for and kept in ``$OVSEG_HOME/weights`` (by default
``~/.cache/ovseg/weights``); whoever has no network puts them there by hand. As ``MODEL.WEIGHTS``
the released ones are written ``ovseg://NAME``.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ovseg.errors import UserError
from ovseg.utils.downloads import DriveFile, check_md5, fetch_from_drive, fetch_from_hub
from ovseg.utils.io import atomic_path, make_folder
from ovseg.utils.package_files import config_path, package_folder

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import Tensor

OVSEG_SCHEME, HUB_SCHEME = "ovseg://", "hf://"
CONFIG_FILE, WEIGHTS_FILE = "config.yaml", "model.safetensors"
_HUB_NAME = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# a config whose CLIP has no name: the file of the weights says its architecture
_CLIP_INSIDE = re.compile(
    rf"^\s*CLIP_MODEL_NAME:\s*['\"]?{re.escape(WEIGHTS_FILE)}\b", re.MULTILINE
)


@dataclass(frozen=True)
class Released:
    """A checkpoint that OVSeg knows by name.

    Args:
        name: what users call it.
        file: the name of the published file.
        about: what it is.
        config: of an evaluation, in ``configs/``.
        demo_config: the same for single pictures.
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
            "tiny", "ovseg_tiny.pth", "the embedded model, for drawn pictures",
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


@dataclass(frozen=True)
class Pretrained:
    """A model's config file and its weights, both on this machine."""

    config: Path
    weights: Path

    @property
    def opts(self) -> list[str]:
        """What :func:`ovseg.config.setup_cfg` needs besides the config, as KEY VALUE pairs."""
        opts = ["MODEL.WEIGHTS", str(self.weights)]
        if _CLIP_INSIDE.search(self.config.read_text(encoding="utf-8")):
            opts += ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(self.weights)]
        return opts


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
        return _from_hub(name, WEIGHTS_FILE)
    released = _released(name.removeprefix(OVSEG_SCHEME))
    return fetch_from_drive(released.drive, released.path) if released.drive else released.path


def resolve(
    name: str | os.PathLike[str],
    config: str | os.PathLike[str] | None = None,
    use: Literal["demo", "evaluation"] = "demo",
) -> Pretrained:
    """The config file and the weights that a name means; weights are fetched if they are not there.

    Args:
        name: see the head of this file.
        config: in place of the one that comes with the weights; a checkpoint's path needs it,
            unless the file is a released one or ``config.yaml`` of its training lies beside it.
        use: of the released ones: the config for single pictures, or the one that the published
            scores come from.

    Raises:
        UserError: there is no such thing, it cannot be had, or a config is missing.
    """
    path, text = Path(name), str(name)
    given = Path(config) if config else None
    if text.startswith(HUB_SCHEME):
        return Pretrained(given or _from_hub(text, CONFIG_FILE), _from_hub(text, WEIGHTS_FILE))
    if text.removeprefix(OVSEG_SCHEME) in RELEASED or text.startswith(OVSEG_SCHEME):
        released = _released(text.removeprefix(OVSEG_SCHEME))
        return Pretrained(given or config_path(_config_of(released, use)), fetch(text))
    if path.is_dir():
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            if not (path / file).is_file() and not (file == CONFIG_FILE and given):
                raise UserError(
                    f"model {text!r}: the folder lacks {file}; wanted are {CONFIG_FILE} and "
                    f"{WEIGHTS_FILE}, as tools/export_checkpoint.py --safetensors writes them"
                )
        return Pretrained(given or path / CONFIG_FILE, path / WEIGHTS_FILE)
    if path.is_file():
        return Pretrained(given or _config_for(path, use), path)
    close = difflib.get_close_matches(text, RELEASED, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(RELEASED)}"
    raise UserError(
        f"model {text!r}: neither a known name nor a path; {hint} (or hf://owner/name, the path of "
        "a checkpoint or of a folder)"
    )


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


def _released(name: str) -> Released:
    for released in RELEASED.values():
        if name in (released.name, released.file):
            return released
    close = difflib.get_close_matches(name, RELEASED, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(RELEASED)}"
    raise UserError(f"ovseg://{name}: there are no weights of that name; {hint}")


def _config_of(released: Released, use: str) -> str:
    return released.demo_config if use == "demo" else released.config


def _config_for(path: Path, use: str) -> Path:
    beside = path.with_name(CONFIG_FILE)
    if beside.is_file():
        return beside
    if is_released(path.name):
        return config_path(_config_of(_released(path.name), use))
    raise UserError(
        f"model {str(path)!r}: a checkpoint does not say its config, and there is no {CONFIG_FILE} "
        "beside it; give config, for example configs/ovseg_swinB_vitL_demo.yaml"
    )


def _from_hub(name: str, file: str) -> Path:
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{name!r}: give hf://owner/name or hf://owner/name@revision")
    return fetch_from_hub(match["repository"], match["revision"], file)


def save_pretrained(
    cfg: CfgNode, weights: dict[str, Tensor], folder: str | os.PathLike[str], *, half: bool = False
) -> Path:
    """Write ``config.yaml`` and ``model.safetensors``, both whole or neither.

    The config is written without what belongs to this machine: device, output folder, data sets of
    one's own. A ``CLIP_MODEL_NAME`` that is a file becomes ``model.safetensors``, whose metadata
    then say the CLIP's architecture.

    Args:
        cfg: of the model.
        weights: its state dict.
        folder: made if it is not there; files of these names are replaced.
        half: write float32 as float16.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be made, or CLIP's file is not there any more.
    """
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    make_folder(folder, "folder")
    metadata = {"format": "pt"}
    clip = cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME
    if _is_clip_file(clip):
        metadata["model_cfg"] = json.dumps(_architecture(clip))
    tensors = {
        # safetensors wants every weight to have its own memory
        name: value.detach().cpu().to(
            torch.float16 if half and value.dtype == torch.float32 else value.dtype
        ).contiguous().clone()
        for name, value in weights.items()
    }  # fmt: skip
    with ExitStack() as files:
        config = files.enter_context(atomic_path(folder / CONFIG_FILE))
        target = files.enter_context(atomic_path(folder / WEIGHTS_FILE))
        config.write_text(_portable(cfg).dump(), encoding="utf-8")
        save_file(tensors, target, metadata)
    return folder


def _is_clip_file(name: str) -> bool:
    return Path(name).is_file() or Path(name).suffix in {".pt", ".pth", ".bin", ".safetensors"}


def _architecture(clip: str) -> dict[str, Any]:
    from ovseg.modeling.clip import architecture_of_file, read_clip_file

    weights, model_cfg = read_clip_file(clip)
    return architecture_of_file(clip, weights, model_cfg)


def _portable(cfg: CfgNode) -> CfgNode:
    from ovseg.config.files import default_cfg

    usual, cfg = default_cfg(), cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = usual.MODEL.DEVICE
    cfg.OUTPUT_DIR = usual.OUTPUT_DIR
    cfg.DATASETS.CUSTOM = usual.DATASETS.CUSTOM
    cfg.TEST.LOAD_PROPOSALS = cfg.TEST.SAVE_PROPOSALS = ""
    if _is_clip_file(cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME):
        cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME = WEIGHTS_FILE
    return cfg
