"""Every config key of OVSeg, grouped by the stage that reads it.

Names and defaults are those of the published system, so that its yaml files load as they are.
Call after ``detectron2.projects.deeplab.add_deeplab_config``::

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_ovseg_config(cfg)
    cfg.merge_from_file("configs/ovseg_swinB_vitL_bs32_120k.yaml")
"""

from __future__ import annotations

import functools
import re

import yaml
from detectron2.config import CfgNode as CN

from ovseg.errors import UserError

# published key of a post-processing that OVSeg leaves out, since no maintained library installs
# without a compiler; yaml files may say False
DENSE_CRF = "TEST.DENSE_CRF"

# how the published yaml files write their training sizes: an expression for eval
_EVAL_TAG = "tag:yaml.org,2002:python/object/apply:eval"
_SIZES = re.compile(
    r"\[\s*int\(\s*x\s*\*\s*([\d.]+)\s*\*\s*(\d+)\s*\)\s*for\s+x\s+in\s+range\("
    r"\s*(\d+)\s*,\s*(\d+)\s*\)\s*\]"
)


def _construct_sizes(loader: yaml.SafeLoader, node: yaml.Node) -> list[int]:
    """Work out ``[int(x * 0.1 * 640) for x in range(5, 21)]`` without evaluating code."""
    value = (
        loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else []
    )
    match = _SIZES.fullmatch(str(value[0]).strip()) if len(value) == 1 else None
    if match is None:
        raise UserError(
            f"the config asks to evaluate {value}, which is refused: write the numbers themselves"
        )
    step, size, first, last = match.groups()
    return [int(x * float(step) * int(size)) for x in range(int(first), int(last))]


yaml.SafeLoader.add_constructor(_EVAL_TAG, _construct_sizes)


def add_ovseg_config(cfg: CN) -> None:
    """Add OVSeg's keys to ``cfg`` in place."""
    _add_input(cfg)
    _add_backbone(cfg)
    _add_proposals(cfg)
    _add_clip(cfg)
    _add_solver(cfg)
    _add_test(cfg)


def _add_input(cfg: CN) -> None:
    # training: which mapper turns a dataset dict into a training example
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    # colour jitter of SSD: brightness, contrast, saturation, hue
    cfg.INPUT.COLOR_AUG_SSD = False
    # crops in which one class covers more than this share of the labelled pixels are drawn again
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # training images are padded to this size (both sides); < 1: only to the batch's largest
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # published keys that thin out the training images of each class; all are used, others refused
    cfg.DATASETS.SAMPLE_PER_CLASS = -1
    cfg.DATASETS.SAMPLE_SEED = 0
    # yaml files that describe data sets of one's own (ovseg/data/custom.py); DATASETS.TRAIN and
    # DATASETS.TEST may then name them
    cfg.DATASETS.CUSTOM = ()


def _add_backbone(cfg: CN) -> None:
    cfg.MODEL.SWIN = CN()
    # the size that the window and relative positions were pretrained at; used by APE alone
    cfg.MODEL.SWIN.PRETRAIN_IMG_SIZE = 224
    cfg.MODEL.SWIN.PATCH_SIZE = 4
    cfg.MODEL.SWIN.EMBED_DIM = 96
    cfg.MODEL.SWIN.DEPTHS = [2, 2, 6, 2]
    cfg.MODEL.SWIN.NUM_HEADS = [3, 6, 12, 24]
    cfg.MODEL.SWIN.WINDOW_SIZE = 7
    cfg.MODEL.SWIN.MLP_RATIO = 4.0
    cfg.MODEL.SWIN.QKV_BIAS = True
    # None: 1 / sqrt(head width)
    cfg.MODEL.SWIN.QK_SCALE = None
    cfg.MODEL.SWIN.DROP_RATE = 0.0
    cfg.MODEL.SWIN.ATTN_DROP_RATE = 0.0
    cfg.MODEL.SWIN.DROP_PATH_RATE = 0.3
    # absolute position embedding
    cfg.MODEL.SWIN.APE = False
    cfg.MODEL.SWIN.PATCH_NORM = True
    cfg.MODEL.SWIN.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # recompute activations in the backward pass: less memory, slower
    cfg.MODEL.SWIN.USE_CHECKPOINT = False


def _add_proposals(cfg: CN) -> None:
    # one class for evaluation and demo: they differ in how a segmentation is put together
    # (MODEL.META_ARCHITECTURE: "OVSeg" or "OVSegDEMO")
    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256
    # layers of the transformer encoder in "TransformerEncoderPixelDecoder"
    head.TRANSFORMER_ENC_LAYERS = 0
    # "BasePixelDecoder" (FPN) or "TransformerEncoderPixelDecoder"
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"
    # width of CLIP's text features; the query's class embedding has this width
    head.EMBEDDING_DIM = 512
    # the MLP that makes the class embedding: hidden width and number of layers
    head.EMBED_HIDDEN_DIM = 1024
    head.EMBED_LAYERS = 2

    cfg.MODEL.MASK_FORMER = CN()
    former = cfg.MODEL.MASK_FORMER
    # loss on the output of every decoder layer, not only the last
    former.DEEP_SUPERVISION = True
    former.NO_OBJECT_WEIGHT = 0.1
    former.DICE_WEIGHT = 1.0
    former.MASK_WEIGHT = 20.0
    former.NHEADS = 8
    former.DROPOUT = 0.1
    former.DIM_FEEDFORWARD = 2048
    former.ENC_LAYERS = 0
    former.DEC_LAYERS = 6
    former.PRE_NORM = False
    former.HIDDEN_DIM = 256
    former.NUM_OBJECT_QUERIES = 100
    # the feature map that queries attend to: a backbone output, or "transformer_encoder"
    former.TRANSFORMER_IN_FEATURE = "res5"
    # project that map by a 1x1 convolution even where the width already fits
    former.ENFORCE_INPUT_PROJ = False
    # images are padded to a multiple of this
    former.SIZE_DIVISIBILITY = 32

    former.TEST = CN()
    # published keys of the panoptic mode; OVSeg segments semantically, True is refused
    former.TEST.PANOPTIC_ON = False
    former.TEST.OBJECT_MASK_THRESHOLD = 0.0
    former.TEST.OVERLAP_THRESHOLD = 0.0
    # published key; masks are always resized to the output before they are summed, which is the
    # same numbers in less memory
    former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_clip(cfg: CN) -> None:
    cfg.MODEL.CLIP_ADAPTER = CN()
    adapter = cfg.MODEL.CLIP_ADAPTER
    # "ViT-B/16", "ViT-L/14", another open_clip name, or the path of a checkpoint (OpenAI archive,
    # state dict, open_clip training checkpoint): the architecture is then read from the weights
    adapter.CLIP_MODEL_NAME = "ViT-B/16"
    # open_clip's tag of pretrained weights; "" when none are wanted. Fetched only when
    # MODEL.WEIGHTS does not carry CLIP's weights
    adapter.CLIP_PRETRAINED = "openai"
    # "vild", "imagenet" or "predefined"
    adapter.TEXT_TEMPLATES = "vild"
    # read for "predefined"; {} stands for the word
    adapter.PREDEFINED_PROMPT_TEMPLATES = ["a photo of a {}."]
    # published key of learned text prompts, which OVSeg does not have; a path is refused
    adapter.PROMPT_CHECKPOINT = ""
    # background of a crop: "mean" (CLIP's mean colour) or "zero" (black)
    adapter.MASK_FILL = "mean"
    adapter.MASK_EXPAND_RATIO = 1.0
    # a pixel belongs to a crop's mask when the mask's probability exceeds this
    adapter.MASK_THR = 0.4
    # fade the background by the mask's probability instead of cutting at the threshold
    adapter.MASK_MATTING = False
    # published key; crops always have CLIP's input size, False is refused
    adapter.REGION_RESIZED = True
    # layers whose background tokens are replaced by learned mask prompts; 0: no prompts in CLIP
    adapter.MASK_PROMPT_DEPTH = 3
    # use the mask prompts in the forward pass
    adapter.MASK_PROMPT_FWD = True
    # classify by MaskFormer and CLIP together; False: MaskFormer alone
    adapter.CLIP_ENSEMBLE = True
    # w of p = p_maskformer^(1-w) * p_clip^w; 0 has the published meaning "CLIP alone, over valid
    # masks"
    adapter.CLIP_ENSEMBLE_WEIGHT = 0.7

    # "fp32", or "bf16": autocast for backbone and CLIP on hardware that has it
    cfg.MODEL.PRECISION = "fp32"


def _add_solver(cfg: CN) -> None:
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.TEST_IMS_PER_BATCH = 1

    # Weights & Biases (extra "wandb"): used when ENABLED
    cfg.WANDB = CN()
    cfg.WANDB.ENABLED = False
    cfg.WANDB.PROJECT = "open_vocab_seg"
    cfg.WANDB.NAME = None


def _add_test(cfg: CN) -> None:
    # pictures of so many worst and so many best images are saved with the results
    cfg.TEST.VISUALIZE = 0
    # TEST.AUG is detectron2's: ENABLED averages over the sizes MIN_SIZES of the shorter side (in
    # place of INPUT.MIN_SIZE_TEST, the longer at most MAX_SIZE) and with FLIP over mirror images

    # segment square tiles and average where they overlap
    cfg.TEST.SLIDING_WINDOW = False
    # side of a tile, in pixels of the resized image
    cfg.TEST.SLIDING_TILE_SIZE = 224
    # share of a tile that the next one covers again
    cfg.TEST.SLIDING_OVERLAP = 2 / 3.0
    # folder of proposals that stand in for MaskFormer's (ovseg/data/proposals.py), "" for none; and
    # folder that MaskFormer's proposals are written to, besides an evaluation or a demo
    cfg.TEST.LOAD_PROPOSALS = ""
    cfg.TEST.SAVE_PROPOSALS = ""
    cfg.register_deprecated_key(DENSE_CRF)


#: least values of keys with which nothing sensible could be done below them
_LEAST = {
    "INPUT.MIN_SIZE_TEST": 0,
    "INPUT.MAX_SIZE_TEST": 1,
    "SOLVER.TEST_IMS_PER_BATCH": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.SLIDING_TILE_SIZE": 1,
    "MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH": 0,
    "MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO": 0,
}


def check_config(cfg: CN) -> None:
    """Refuse published keys whose meaning OVSeg does not offer.

    Raises:
        UserError: naming the key, its value and the way out.
    """
    refused = {
        "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": (cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON, True),
        "MODEL.CLIP_ADAPTER.REGION_RESIZED": (cfg.MODEL.CLIP_ADAPTER.REGION_RESIZED, False),
    }
    for key, (value, unsupported) in refused.items():
        if value == unsupported:
            raise UserError(f"{key} {value} is not supported: set it to {not value}")
    if cfg.DATASETS.SAMPLE_PER_CLASS != -1:
        raise UserError("DATASETS.SAMPLE_PER_CLASS is not supported: set it to -1")
    if cfg.MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT:
        raise UserError("MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT is not supported: leave it empty")
    _check_choice("MODEL.PRECISION", cfg.MODEL.PRECISION, ("fp32", "bf16"))
    _check_choice(
        "MODEL.CLIP_ADAPTER.MASK_FILL", cfg.MODEL.CLIP_ADAPTER.MASK_FILL, ("mean", "zero")
    )
    _check_choice("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("none", "horizontal", "vertical"))
    crops = ("relative", "relative_range", "absolute", "absolute_range")
    _check_choice("INPUT.CROP.TYPE", cfg.INPUT.CROP.TYPE, crops)
    for key in ("CLIP_ENSEMBLE_WEIGHT", "MASK_THR"):
        value = cfg.MODEL.CLIP_ADAPTER[key]
        if not 0 <= value <= 1:
            raise UserError(f"MODEL.CLIP_ADAPTER.{key} {value} must lie in 0..1")
    for key, least in _LEAST.items():
        value = functools.reduce(getattr, key.split("."), cfg)
        if value < least:
            raise UserError(f"{key} {value} must be at least {least}")
    if cfg.TEST.VISUALIZE < 0:
        raise UserError(f"TEST.VISUALIZE {cfg.TEST.VISUALIZE} is negative; set 0 for no pictures")
    _check_looks(cfg)


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


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{key} {value!r} is unknown; choose from {', '.join(choices)}")
