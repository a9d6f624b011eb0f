"""What no config may say."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

from ovseg.errors import UserError

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode as CN

#: least values of keys with which nothing sensible could be done below them
_LEAST = {
    "INPUT.MIN_SIZE_TEST": 0,
    "INPUT.MAX_SIZE_TEST": 1,
    "INPUT.MAX_MEGAPIXELS": 0,
    "SOLVER.BASE_LR": 0,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.WARMUP_FACTOR": 0,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.BACKBONE_MULTIPLIER": 0,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.TEST_IMS_PER_BATCH": 1,
    "TEST.EVAL_PERIOD": 0,
    "MODEL.METHOD.SEEN_PENALTY": 0,
    "MODEL.METHOD.SPATIAL_BLOCKS": 0,
    "INPUT.OTHER_CAPTIONS": 0,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.SLIDING_TILE_SIZE": 1,
    "TEST.DETECTIONS_PER_IMAGE": 1,
    "MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH": 0,
    "MODEL.CLIP_ADAPTER.SHARED_RESOLUTION": 0,
    "MODEL.CLIP_ADAPTER.SHARED_FIRST_BLOCK": 0,
    "MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO": 0,
}
_SHARES = (
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT",
    "MODEL.CLIP_ADAPTER.MASK_THR",
    "MODEL.CLIP_ADAPTER.CROPS_TOLERANCE",
    "MODEL.CLIP_ADAPTER.CROPS_MIN_AREA",
    "MODEL.CLIP_ADAPTER.CROPS_SECOND_ROUND",
    "MODEL.CLIP_ADAPTER.CROPS_BORROW_IOU",
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD",
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD",
    "MODEL.METHOD.MIN_SCORE",
    "MODEL.METHOD.GENERATED_FROM",
    "TEST.REJECT",
    "TEST.MIN_CLASS_AREA",
)
_LISTS_OF_NUMBERS = (
    "INPUT.CROP.SIZE",
    "INPUT.MIN_SIZE_TRAIN",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.RES5_MULTI_GRID",
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS",
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS",
    "MODEL.SWIN.DEPTHS",
    "MODEL.SWIN.NUM_HEADS",
    "SOLVER.STEPS",
)
#: of CLIP_ENSEMBLE_WEIGHT_UNSEEN: as the others
ONE_WEIGHT = -1
_PRECISIONS = ("auto", "fp32", "tf32", "fp16", "bf16")
_CHOICES = {
    "MODEL.PRECISION": (*_PRECISIONS, "int8"),
    "MODEL.PRECISION_BACKBONE": _PRECISIONS,
    "MODEL.CLIP_ADAPTER.MASK_FILL": ("mean", "zero"),
    "MODEL.CLIP_ADAPTER.CROPS": ("all", "visible"),
    "MODEL.CLIP_ADAPTER.REGION_ENCODER": ("crops", "shared", "both"),
    "MODEL.CLIP_ADAPTER.SHARED_READOUT": ("tokens", "values"),
    "MODEL.CLIP_ADAPTER.BACKGROUND": ("keep", "drop"),
    "MODEL.METHOD.CLASSIFIER": ("fixed", "word_vectors", "pixel_text", "generated"),
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical"),
    "INPUT.FORMAT": ("RGB", "BGR"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "SOLVER.OPTIMIZER": ("ADAMW", "SGD"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.LR_SCHEDULER_NAME": ("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR"),
}


def check_config(cfg: CN) -> None:
    """Refuse published keys whose meaning OVSeg does not offer, and values that mean nothing.

    Raises:
        UserError: naming the key, its value and the way out.
    """
    if not cfg.MODEL.CLIP_ADAPTER.REGION_RESIZED:
        raise UserError("MODEL.CLIP_ADAPTER.REGION_RESIZED False is not supported: set it to True")
    if cfg.DATASETS.SAMPLE_PER_CLASS != -1:
        raise UserError("DATASETS.SAMPLE_PER_CLASS is not supported: set it to -1")
    for key, choices in _CHOICES.items():
        _check_choice(key, _value(cfg, key), choices)
    _check_numbers(cfg)
    _check_adapter(cfg)
    for key, sizes in (
        ("INPUT.MIN_SIZE_TRAIN", cfg.INPUT.MIN_SIZE_TRAIN),
        ("INPUT.CROP.SIZE", cfg.INPUT.CROP.SIZE),
    ):
        if not sizes or min(sizes) <= 0:
            raise UserError(f"{key} {tuple(sizes)}: give lengths above 0")
    if cfg.TEST.DENSE_CRF and importlib.util.find_spec("pydensecrf") is None:
        raise UserError(
            "TEST.DENSE_CRF True needs the package pydensecrf: pip install pydensecrf2 (which "
            "takes a C++ compiler), or set it to False"
        )
    _check_looks(cfg)


def _check_numbers(cfg: CN) -> None:
    for key in _LISTS_OF_NUMBERS:  # of the elements yacs knows no type
        numbers = _value(cfg, key)
        if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
            raise UserError(f"{key} {list(numbers)}: give a list of numbers")
    for key in _SHARES:
        value = _value(cfg, key)
        if not 0 <= value <= 1:
            raise UserError(f"{key} {value} must lie in 0..1")
    for key, least in _LEAST.items():
        value = _value(cfg, key)
        if value < least:
            raise UserError(f"{key} {value} must be at least {least}")
    unseen = cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN
    if unseen != ONE_WEIGHT and not 0 <= unseen <= 1:
        raise UserError(
            f"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN {unseen} must lie in 0..1, or be "
            f"{ONE_WEIGHT}: one weight for all classes"
        )
    if not 0 <= cfg.DATALOADER.MAX_LOST <= 0.5:
        raise UserError(
            f"DATALOADER.MAX_LOST {cfg.DATALOADER.MAX_LOST} must lie in 0..0.5; 0: leave out none"
        )
    if cfg.SEED >= 2**31:  # each process adds its number to it
        raise UserError(f"SEED {cfg.SEED} must be below {2**31}; -1 stands for a random one")
    if cfg.TEST.VISUALIZE < 0:
        raise UserError(f"TEST.VISUALIZE {cfg.TEST.VISUALIZE} is negative; set 0 for no images")


def _check_adapter(cfg: CN) -> None:
    """Which keys of ``MODEL.CLIP_ADAPTER`` go together."""
    adapter = cfg.MODEL.CLIP_ADAPTER
    learned = adapter.TEXT_TEMPLATES == "learned"
    if adapter.PROMPT_CHECKPOINT and not learned:
        raise UserError(
            "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT is read for MODEL.CLIP_ADAPTER.TEXT_TEMPLATES "
            "learned: set that, or leave it empty"
        )
    for key in ("BEST_TEMPLATES", "TEMPLATE_MAP"):
        if adapter[key] and learned:
            raise UserError(
                f"MODEL.CLIP_ADAPTER.{key}: MODEL.CLIP_ADAPTER.TEXT_TEMPLATES learned has no "
                "templates to choose from; leave one of the two out"
            )
    if adapter.BEST_TEMPLATES and adapter.TEMPLATE_MAP:
        raise UserError(
            "MODEL.CLIP_ADAPTER.BEST_TEMPLATES and MODEL.CLIP_ADAPTER.TEMPLATE_MAP are both set; "
            "give one of them"
        )
    if adapter.REGION_ENCODER == "shared" and cfg.MODEL.PRECISION == "int8":
        raise UserError(
            "MODEL.PRECISION int8 is for crops, and with MODEL.CLIP_ADAPTER.REGION_ENCODER shared "
            "there are none: set MODEL.PRECISION fp32 or bf16"
        )
    if adapter.BACKGROUND == "drop" and adapter.MASK_PROMPT_FWD and adapter.MASK_PROMPT_DEPTH:
        raise UserError(
            "MODEL.CLIP_ADAPTER.BACKGROUND drop leaves out the patches that mask prompts replace: "
            "set MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD False"
        )


def _check_looks(cfg: CN) -> None:
    aug, test = cfg.TEST.AUG, cfg.TEST
    if test.LOAD_PROPOSALS and test.SAVE_PROPOSALS:
        raise UserError(
            "TEST.LOAD_PROPOSALS (--load-proposals) and TEST.SAVE_PROPOSALS (--save-proposals) are "
            "both set; give one of them"
        )
    if (test.LOAD_PROPOSALS or test.SAVE_PROPOSALS) and (aug.ENABLED or test.SLIDING_WINDOW):
        raise UserError(
            "saved proposals are of one look at an image: set TEST.AUG.ENABLED and "
            "TEST.SLIDING_WINDOW to False"
        )
    for key in ("PANOPTIC_ON", "INSTANCE_ON"):
        if cfg.MODEL.MASK_FORMER.TEST[key] and (aug.ENABLED or test.SLIDING_WINDOW):
            raise UserError(
                f"MODEL.MASK_FORMER.TEST.{key} True: segments are of one view of an image; set "
                "TEST.AUG.ENABLED and TEST.SLIDING_WINDOW to False"
            )
    whole = all(isinstance(size, int) for size in aug.MIN_SIZES)
    if aug.ENABLED and not (aug.MIN_SIZES and whole and min(aug.MIN_SIZES) >= 1):
        raise UserError(
            f"TEST.AUG.MIN_SIZES {tuple(aug.MIN_SIZES)}: give lengths in pixels, each at least 1"
        )
    if aug.ENABLED and aug.MAX_SIZE < 1:
        raise UserError(f"TEST.AUG.MAX_SIZE {aug.MAX_SIZE} must be at least 1")
    if not 0 <= test.SLIDING_OVERLAP < 1:
        raise UserError(f"TEST.SLIDING_OVERLAP {test.SLIDING_OVERLAP} must lie in 0..1, below 1")
    if test.SLIDING_WINDOW and cfg.MODEL.META_ARCHITECTURE == "OVSegDEMO":
        raise UserError(
            "TEST.SLIDING_WINDOW True: OVSegDEMO takes the best proposal of the whole image; "
            "set MODEL.META_ARCHITECTURE OVSeg or TEST.SLIDING_WINDOW False"
        )
    if test.MIN_CLASS_AREA and cfg.MODEL.META_ARCHITECTURE == "OVSegDEMO":
        raise UserError(
            f"TEST.MIN_CLASS_AREA {test.MIN_CLASS_AREA}: OVSegDEMO takes the best proposal of each "
            "class; set MODEL.META_ARCHITECTURE OVSeg or TEST.MIN_CLASS_AREA 0"
        )


def _value(cfg: CN, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), cfg)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{key} {value!r} is unknown; choose from {', '.join(choices)}")
