"""Which activation a CLIP has, QuickGELU or GELU. Weights do not tell; this file decides.

In this order, the first that says something:

1. the end of the name, ``ViT-B-16-gelu`` or ``ViT-B-16-quickgelu``: the user's own word;
2. the ``model_cfg`` in the file of the weights, or a config that lies beside it;
3. the file is OpenAI's archive (TorchScript): QuickGELU;
4. open_clip's tag of the weights (``openai``: QuickGELU; others as open_clip knows them);
5. nothing says it, as with a state dict of one's own or the CLIP inside an OVSeg checkpoint: then
   QuickGELU if OpenAI published that architecture, in whichever form its name is given
   (``ViT-B/16``, ``ViT-B-16``), since OVSeg's CLIPs are OpenAI's and fine-tunes of them;
   otherwise what open_clip says of the name. A file without any name is taken for OpenAI's.

What was decided, and why, is logged: as a warning where rule 5 had to guess.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import is_torchscript
from ovseg.utils.clip_names import ACTIVATION_ENDINGS

from .weights import open_clip_name, read_model_cfg

logger = logging.getLogger(__name__)

#: vision transformers that OpenAI published, by open_clip's names
OF_OPENAI = frozenset({"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"})


def uses_quick_gelu(name: str, pretrained: str, known: Mapping[str, Any]) -> bool:
    """Whether the CLIP of a name has QuickGELU; logs what says so.

    Args:
        name: OpenAI's form ("ViT-B/16") or open_clip's ("ViT-B-16").
        pretrained: open_clip's tag, or the file, of the weights that it gets; may be empty.
        known: open_clip's model config of the name.
    """
    for ending, quick in ACTIVATION_ENDINGS.items():
        if name.endswith(ending):
            return _said(quick, name, "the end of the name")
    if Path(pretrained).is_file():
        if is_torchscript(pretrained):
            return _said(True, name, f"{pretrained} is OpenAI's archive")
        try:
            model_cfg = read_model_cfg(pretrained)
        except UserError as error:  # the weights may not be needed; if they are, they are refused
            logger.debug("%s", error)
            model_cfg = None
        if model_cfg is not None:
            quick = bool(model_cfg.get("quick_gelu"))
            return _said(quick, name, f"the model_cfg of {pretrained}")
    tag = open_clip.get_pretrained_cfg(open_clip_name(name), pretrained) if pretrained else None
    if tag:
        quick = pretrained == "openai" or bool(tag.get("quick_gelu") or known.get("quick_gelu"))
        return _said(quick, name, f"open_clip's tag {pretrained!r}")
    if open_clip_name(name) not in OF_OPENAI:
        return _said(bool(known.get("quick_gelu")), name, "open_clip's config of that name")
    if "/" in name:
        return _said(True, name, "the name is OpenAI's")
    return _guessed(name, pretrained)


def file_uses_quick_gelu(path: str | Path, model_cfg: Mapping[str, Any] | None) -> bool:
    """The same of a CLIP that is given as a file alone.

    Args:
        path: of the file.
        model_cfg: what it says of its architecture, if anything.
    """
    if model_cfg is not None:
        return _said(bool(model_cfg.get("quick_gelu")), str(path), "its model_cfg")
    if is_torchscript(path):
        return _said(True, str(path), "it is OpenAI's archive")
    logger.warning(
        "%s does not say its architecture: taken for a CLIP as OpenAI's, with QuickGELU "
        "and heads 64 wide; of another give the name, and the file as its weights", path,
    )  # fmt: skip
    return True


def _said(quick: bool, name: str, reason: str) -> bool:
    logger.info("CLIP %s has %s: %s", name, "QuickGELU" if quick else "GELU", reason)
    return quick


def _guessed(name: str, pretrained: str) -> bool:
    logger.warning(
        "CLIP %s is read with QuickGELU, as OpenAI's and fine-tunes of it have: %s; if it was "
        "trained with GELU give the name as %s-gelu", name,
        f"{pretrained} does not say its activation" if pretrained else "nothing else says it",
        name,
    )  # fmt: skip
    return True
