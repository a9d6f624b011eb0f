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

import json
import os
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ovseg.errors import UserError
from ovseg.released import (
    HUB_SCHEME,
    OVSEG_SCHEME,
    RELEASED,
    WEIGHTS_FILE,
    Released,
    fetch,
    file_of_hub,
    is_released,
    released_as,
)
from ovseg.utils.clip_names import is_clip_file
from ovseg.utils.io import atomic_path, make_folder
from ovseg.utils.package_files import config_path

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import Tensor

CONFIG_FILE = "config.yaml"
#: keys of MODEL.CLIP_ADAPTER that name a file which goes along, and what it is called then
COMPANIONS = {
    "SHARED_WEIGHTS": "shared_pass.pt",
    "BEST_TEMPLATES": "best_templates.json",
    "TEMPLATE_MAP": "template_map.pt",
    "PROMPT_CHECKPOINT": "text_prompts.pt",
}
#: keys of MODEL.CLIP_ADAPTER that may name a file
CLIP_FILE_KEYS = ("CLIP_MODEL_NAME", "CLIP_PRETRAINED", *COMPANIONS)
# a config whose CLIP has no name: the file of the weights says its architecture
_CLIP_INSIDE = re.compile(
    rf"^\s*CLIP_MODEL_NAME:\s*['\"]?{re.escape(WEIGHTS_FILE)}\b", re.MULTILINE
)
_INSIDE = {
    key: re.compile(rf"^\s*{key}:\s*['\"]?{re.escape(file)}\b", re.MULTILINE)
    for key, file in COMPANIONS.items()
}


@dataclass(frozen=True)
class Pretrained:
    """A model's config file and its weights, both on this machine."""

    config: Path
    weights: Path

    @property
    def opts(self) -> list[str]:
        """What :func:`ovseg.config.setup_cfg` needs besides the config, as KEY VALUE pairs."""
        opts = ["MODEL.WEIGHTS", str(self.weights)]
        text = _text(self.config)
        if _CLIP_INSIDE.search(text):
            opts += ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(self.weights)]
        for key in _companions(text):
            beside = self.weights.with_name(COMPANIONS[key])
            opts += [f"MODEL.CLIP_ADAPTER.{key}", str(beside)]
        return opts


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
        use: of the released ones: the config for single images, or the one that the published
            scores come from.

    Raises:
        UserError: there is no such thing, it cannot be had, or a config is missing.
    """
    path, text = Path(name), os.fspath(name)
    if not text:
        raise UserError(f"model {text!r} is empty; give {', '.join(RELEASED)}, or a path")
    given = Path(config) if config else None
    if text.startswith(HUB_SCHEME):
        config_file = given or file_of_hub(text, CONFIG_FILE)
        for key in _companions(_text(config_file)):
            file_of_hub(text, COMPANIONS[key])  # lies beside the weights then
        return Pretrained(config_file, file_of_hub(text, WEIGHTS_FILE))
    if is_fetched(text) or text.startswith(OVSEG_SCHEME):
        released = released_as(text.removeprefix(OVSEG_SCHEME))
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
        return Pretrained(given or config_for(path, use), path)
    raise UserError(
        f"model {text!r}: neither a known name nor a path; give {', '.join(RELEASED)}, "
        "hf://owner/name, or the path of a checkpoint or of a saved model's folder"
    )


def _text(config: Path) -> str:
    return config.read_text(encoding="utf-8") if config.is_file() else ""


def _companions(config: str) -> list[str]:
    """The keys of a config's text whose files lie beside the weights."""
    return [key for key, inside in _INSIDE.items() if inside.search(config)]


def is_fetched(name: str) -> bool:
    """Whether a name means weights from elsewhere, which :func:`resolve` may have to fetch."""
    return name.startswith(HUB_SCHEME) or name.removeprefix(OVSEG_SCHEME) in RELEASED


def _config_of(released: Released, use: str) -> str:
    return released.demo_config if use == "demo" else released.config


def config_for(path: Path, use: Literal["demo", "evaluation"]) -> Path:
    """The config of a checkpoint: the one beside it, or that of a released file.

    Raises:
        UserError: there is none.
    """
    beside = path.with_name(CONFIG_FILE)
    if beside.is_file():
        return beside
    if is_released(path.name):
        return config_path(_config_of(released_as(path.name), use))
    raise UserError(
        f"model {str(path)!r}: a checkpoint does not say its config, and there is no {CONFIG_FILE} "
        "beside it; give its config (config=, --config-file), for example "
        "configs/ovseg_swinB_vitL_demo.yaml"
    )


def save_pretrained(
    cfg: CfgNode, weights: dict[str, Tensor], folder: str | os.PathLike[str], *, half: bool = False
) -> Path:
    """Write ``config.yaml`` and ``model.safetensors``, both whole or neither.

    Files that keys of ``MODEL.CLIP_ADAPTER`` name go along, see :data:`COMPANIONS`. The config is
    written without what belongs to this machine: device, output folder, data sets of one's own. A
    ``CLIP_MODEL_NAME`` that is a file, or whose ``CLIP_PRETRAINED`` is one, becomes
    ``model.safetensors``, whose metadata then say the CLIP's architecture.

    Args:
        cfg: of the model.
        weights: its state dict.
        folder: made if it is not there; files of these names are replaced.
        half: write float32 as float16.

    Returns:
        The folder.

    Raises:
        UserError: the folder cannot be made, or a file that the config names is not there any more.
    """
    from ovseg.utils.write_checkpoint import halved, save_safetensors

    folder = Path(folder)
    make_folder(folder, "folder")
    adapter = cfg.MODEL.CLIP_ADAPTER
    architecture = _architecture(adapter.CLIP_MODEL_NAME, adapter.CLIP_PRETRAINED)
    metadata = {} if architecture is None else {"model_cfg": json.dumps(architecture)}
    tensors = halved(weights) if half else weights
    named = {key: getattr(adapter, key) for key in COMPANIONS if getattr(adapter, key)}
    for key, name in named.items():
        if not Path(name).is_file():
            raise UserError(f"MODEL.CLIP_ADAPTER.{key} {name!r} is not there any more")
    with ExitStack() as files:
        for key, name in named.items():
            beside = folder / COMPANIONS[key]
            if not beside.is_file() or not beside.samefile(name):
                shutil.copyfile(name, files.enter_context(atomic_path(beside)))
        config = files.enter_context(atomic_path(folder / CONFIG_FILE))
        target = files.enter_context(atomic_path(folder / WEIGHTS_FILE))
        config.write_text(_portable(cfg, architecture).dump(), encoding="utf-8")
        save_safetensors(tensors, metadata, target)
    return folder


def _architecture(clip: str, pretrained: str) -> dict[str, Any] | None:
    """Of a CLIP that a file of this machine tells; None: its name does."""
    from ovseg.modeling.clip import architecture_of_file, architecture_of_name, read_clip_file

    if is_clip_file(clip):
        weights, model_cfg = read_clip_file(clip)
        return architecture_of_file(clip, weights, model_cfg)
    if not Path(pretrained).is_file():
        return None
    architecture = architecture_of_name(clip, pretrained)
    towers = {**architecture["vision_cfg"], **architecture["text_cfg"]}
    others = {"timm_model_name", "hf_model_name", "hf_tokenizer_name"}  # told by the name alone
    return None if others & towers.keys() else architecture


def _portable(cfg: CfgNode, architecture: dict[str, Any] | None) -> CfgNode:
    from ovseg.config.files import default_cfg

    usual, cfg = default_cfg(), cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = usual.MODEL.DEVICE
    cfg.OUTPUT_DIR = usual.OUTPUT_DIR
    cfg.DATASETS.CUSTOM = usual.DATASETS.CUSTOM
    cfg.TEST.LOAD_PROPOSALS = cfg.TEST.SAVE_PROPOSALS = ""
    cfg.INPUT.CAPTION_WORDS = usual.INPUT.CAPTION_WORDS
    adapter = cfg.MODEL.CLIP_ADAPTER
    if architecture is not None:
        adapter.CLIP_MODEL_NAME, adapter.CLIP_PRETRAINED = WEIGHTS_FILE, ""
    for key, file in COMPANIONS.items():
        if getattr(adapter, key):
            adapter[key] = file
    return cfg
