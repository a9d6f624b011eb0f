"""The parts of :class:`OVSeg` from a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_sem_seg_head
from torch import nn

from ovseg.config import check_config
from ovseg.config.checks import ONE_WEIGHT
from ovseg.errors import UserError
from ovseg.released import home

from .clip import (
    ClipAdapter,
    SharedPass,
    TemplateChoice,
    TemplateMap,
    TextStore,
    build_clip,
    encoder_of,
    read_prompts,
    text_templates,
)
from .criterion import SetCriterion
from .crop_choice import CropChoice
from .crop_encoder import CropEncoder
from .matcher import HungarianMatcher
from .panoptic import SegmentFinder
from .seen_classes import SeenClasses

TEXT_STORE = "text_features.sqlite3"  # in $OVSEG_HOME


@contextmanager
def config_errors() -> Iterator[None]:
    """Let what detectron2's builders raise say which keys are wrong."""
    try:
        yield
    except (KeyError, AssertionError, ValueError, RuntimeError) as error:
        raise UserError(
            "MODEL.BACKBONE, MODEL.RESNETS or MODEL.SWIN, MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER "
            f"describe no network ({type(error).__name__}: {error}); compare them with a config "
            "of configs/"
        ) from error


def build_parts(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of :class:`OVSeg` that ``cfg`` stands for.

    Raises:
        UserError: a key has a value that is not supported, or parts do not fit together.
    """
    check_config(cfg)
    former, adapter = cfg.MODEL.MASK_FORMER, cfg.MODEL.CLIP_ADAPTER
    if cfg.INPUT.FORMAT == "BGR" and adapter.CLIP_ENSEMBLE:
        raise UserError(
            "INPUT.FORMAT BGR: CLIP sees crops of the image, in RGB; set it to RGB, and "
            "MODEL.PIXEL_MEAN and MODEL.PIXEL_STD in that order"
        )
    with config_errors():
        backbone = build_backbone(cfg)
    clip = build_fitting_clip(cfg)
    with config_errors():
        sem_seg_head = build_sem_seg_head(cfg, backbone.output_shape())
    clip_adapter = build_adapter(cfg, clip)
    return {
        "backbone": backbone,
        "sem_seg_head": sem_seg_head,
        "criterion": SetCriterion(
            cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            build_matcher(cfg),
            mask_weight=former.MASK_WEIGHT,
            dice_weight=former.DICE_WEIGHT,
            no_object_weight=former.NO_OBJECT_WEIGHT,
        ),
        "clip_adapter": clip_adapter,
        "crop_encoder": CropEncoder(
            clip_adapter,
            fill=adapter.MASK_FILL,
            expand_ratio=adapter.MASK_EXPAND_RATIO,
            matting=adapter.MASK_MATTING,
        ),
        **region_parts(adapter, clip_adapter),
        "clip_ensemble": adapter.CLIP_ENSEMBLE,
        "clip_ensemble_weight": adapter.CLIP_ENSEMBLE_WEIGHT,
        **_weight_of_unseen(cfg),
        "segment_finder": SegmentFinder(
            panoptic=former.TEST.PANOPTIC_ON,
            instances=former.TEST.INSTANCE_ON,
            object_mask_threshold=former.TEST.OBJECT_MASK_THRESHOLD,
            overlap_threshold=former.TEST.OVERLAP_THRESHOLD,
            max_instances=cfg.TEST.DETECTIONS_PER_IMAGE,
        ),
        "mask_threshold": adapter.MASK_THR,
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "size_divisibility": former.SIZE_DIVISIBILITY,
        "backbone_precision": cfg.MODEL.PRECISION_BACKBONE,
        "min_class_area": cfg.TEST.MIN_CLASS_AREA,
        "reject": cfg.TEST.REJECT,
    }


def build_matcher(cfg: CfgNode) -> HungarianMatcher:
    """The matcher of a training, whose costs are weighted as its losses are."""
    former = cfg.MODEL.MASK_FORMER
    return HungarianMatcher(
        cost_class=1.0, cost_mask=former.MASK_WEIGHT, cost_dice=former.DICE_WEIGHT
    )


def build_fitting_clip(cfg: CfgNode) -> nn.Module:
    """The CLIP that ``cfg.MODEL.CLIP_ADAPTER`` names.

    Raises:
        UserError: there is no such CLIP, or its features do not fit the head.
    """
    adapter = cfg.MODEL.CLIP_ADAPTER
    clip = build_clip(adapter.CLIP_MODEL_NAME, adapter.CLIP_PRETRAINED, adapter.MASK_PROMPT_DEPTH)
    text_dim, width = encoder_of(clip).width, cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM
    if text_dim != width:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.EMBEDDING_DIM {width} must be the width of "
            f"{adapter.CLIP_MODEL_NAME}'s text features, {text_dim}: to train a head for this CLIP "
            f"set MODEL.SEM_SEG_HEAD.EMBEDDING_DIM {text_dim}; a trained head needs the "
            "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME that it was trained with"
        )
    return clip


def build_adapter(cfg: CfgNode, clip: nn.Module) -> ClipAdapter:
    """A CLIP as ``cfg.MODEL.CLIP_ADAPTER`` uses it.

    Raises:
        UserError: a key has a value that is not supported.
    """
    adapter = cfg.MODEL.CLIP_ADAPTER
    templates = text_templates(adapter.TEXT_TEMPLATES, adapter.PREDEFINED_PROMPT_TEMPLATES)
    choice: TemplateChoice | TemplateMap | None = None
    if adapter.BEST_TEMPLATES:
        choice = TemplateChoice.read(adapter.BEST_TEMPLATES, templates)
    elif adapter.TEMPLATE_MAP:
        choice = TemplateMap.read(adapter.TEMPLATE_MAP, templates)
    learned = adapter.TEXT_TEMPLATES == "learned"
    return ClipAdapter(
        clip,
        templates,
        mask_prompts=adapter.MASK_PROMPT_FWD,
        template_choice=choice,
        text_prompts=read_prompts(adapter.PROMPT_CHECKPOINT, clip) if learned else None,
        text_store=TextStore(home() / TEXT_STORE) if adapter.TEXT_CACHE else None,
        drop_background=adapter.BACKGROUND == "drop",
        precision=cfg.MODEL.PRECISION,
        compiled=cfg.MODEL.COMPILE,
    )


def _weight_of_unseen(cfg: CfgNode) -> dict[str, Any]:
    """The arguments of :class:`OVSeg` that weigh CLIP otherwise for classes of no training."""
    weight = cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN
    if weight == ONE_WEIGHT:
        return {}
    seen = SeenClasses.of_datasets(cfg.DATASETS.TRAIN)
    return {"unseen_weight": weight, "seen_classes": seen}


def region_parts(adapter: CfgNode, clip_adapter: ClipAdapter) -> dict[str, Any]:
    """The arguments of :class:`OVSeg` that say what CLIP sees of the regions.

    Args:
        adapter: the config's ``MODEL.CLIP_ADAPTER``.
        clip_adapter: the model's CLIP.

    Raises:
        UserError: this CLIP cannot see them so.
    """
    encoder = adapter.REGION_ENCODER
    shared_pass = None
    if encoder != "crops":
        shared_pass = SharedPass(
            clip_adapter,
            resolution=adapter.SHARED_RESOLUTION,
            first_block=adapter.SHARED_FIRST_BLOCK,
            readout=adapter.SHARED_READOUT,
            weights=adapter.SHARED_WEIGHTS,
        )
    return {
        "shared_pass": shared_pass,
        "crops_too": encoder != "shared",
        "crop_choice": CropChoice(
            visible_only=encoder == "both" or (encoder == "crops" and adapter.CROPS == "visible"),
            tolerance=adapter.CROPS_TOLERANCE,
            min_area=adapter.CROPS_MIN_AREA,
            second_round=adapter.CROPS_SECOND_ROUND,
            borrow_iou=adapter.CROPS_BORROW_IOU,
        ),
    }
