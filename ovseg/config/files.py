"""From a yaml file and command-line overrides to a frozen config, with errors a user can act on."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.projects.deeplab import add_deeplab_config

from ovseg.errors import UserError

from .checks import check_config
from .keys import add_ovseg_config
from .overrides import find_config
from .reading import flatten, merge_file, merge_opts

logger = logging.getLogger(__name__)


def default_cfg() -> CfgNode:
    """All keys of detectron2, DeepLab and OVSeg with their defaults, not frozen."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_ovseg_config(cfg)
    return cfg


def setup_cfg(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Read a config file and apply overrides.

    ``MODEL.DEVICE`` falls back from ``cuda`` to ``cpu`` (with a log line) where there is no GPU.

    Args:
        config_file: a yaml file; its ``_BASE_`` is read first.
        opts: ``KEY VALUE`` pairs, as given at the end of a command line. A value is Python syntax
            where it can be read as such and a plain text otherwise; whole numbers are accepted for
            floats, ``true``/``false`` for booleans, one name or ``a,b`` for a list of data sets.

    Returns:
        The frozen config.

    Raises:
        UserError: a missing or broken file, an unknown key (the message names similar ones), a
            value of the wrong type, or a setting that is not available.
    """
    cfg = default_cfg()
    known = dict(flatten(cfg))
    merge_file(cfg, find_config(config_file), known)
    merge_opts(cfg, opts, known)
    _check_available(cfg)
    _choose_device(cfg)
    cfg.freeze()
    return cfg


def _check_available(cfg: CfgNode) -> None:
    import ovseg.methods  # noqa: F401  registers what configs name, OVSeg's among it

    check_config(cfg)
    model = cfg.MODEL
    for key, name, registry in (
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.SEM_SEG_HEAD.NAME", model.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY),
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", model.SEM_SEG_HEAD.PIXEL_DECODER_NAME,
         SEM_SEG_HEADS_REGISTRY),
    ):  # fmt: skip
        if name not in registry:
            raise UserError(f"{key} {name!r} is not registered; take a config of configs/")


def _choose_device(cfg: CfgNode) -> None:
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError as error:
        raise UserError(
            f"config key MODEL.DEVICE: {cfg.MODEL.DEVICE!r} is no device; give cpu, cuda or cuda:N"
        ) from error
    if device.type not in {"cpu", "cuda"}:
        raise UserError(
            f"config key MODEL.DEVICE: {cfg.MODEL.DEVICE!r} is not supported; give cpu or cuda"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            # a warning, so that it is seen even before a script has set up its log
            logger.warning("No GPU found: MODEL.DEVICE is cpu.")
            cfg.MODEL.DEVICE = "cpu"
        elif device.index is not None and device.index >= count:
            raise UserError(
                f"config key MODEL.DEVICE: {cfg.MODEL.DEVICE!r}, but there are {count} GPUs, "
                "counted from 0"
            )
    if torch.device(cfg.MODEL.DEVICE).type != "cuda" and cfg.SOLVER.AMP.ENABLED:
        logger.warning("SOLVER.AMP.ENABLED needs a GPU: training in fp32.")
        cfg.SOLVER.AMP.ENABLED = False
