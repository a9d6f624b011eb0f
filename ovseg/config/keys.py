"""Every config key of OVSeg, grouped by the stage that reads it.

Names and defaults are those of the published system, so that its yaml files load as they are.
Call after ``detectron2.projects.deeplab.add_deeplab_config``::

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_ovseg_config(cfg)
    cfg.merge_from_file("configs/ovseg_swinB_vitL_bs32_120k.yaml")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode as CN


def add_ovseg_config(cfg: CN) -> None:
    """Add OVSeg's keys to ``cfg`` in place."""
    _add_input(cfg)
    _add_backbone(cfg)
    _add_proposals(cfg)
    _add_clip(cfg)
    _add_methods(cfg)
    _add_solver(cfg)
    _add_test(cfg)


def _add_input(cfg: CN) -> None:
    # training: which mapper turns a dataset dict into a training example
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    # colour jitter of SSD: brightness, contrast, saturation, hue
    cfg.INPUT.COLOR_AUG_SSD = False
    # crops in which one class covers more than this share of the labelled pixels are drawn again
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # of MODEL.META_ARCHITECTURE "OpenSeg": the file of open_clip_training/caption_words.py with the
    # words of training images' captions
    cfg.INPUT.CAPTION_WORDS = ""
    # and how many captions of random images each image must not be taken for, besides those of its
    # batch
    cfg.INPUT.OTHER_CAPTIONS = 0
    # training images are padded to this size (both sides); < 1: only to the batch's largest
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # images and label maps of more megapixels are refused: a small file can fill the memory.
    # 0: as the environment variable OVSEG_MAX_MEGAPIXELS says, or 179
    cfg.INPUT.MAX_MEGAPIXELS = 0.0
    # published keys that thin out the training images of each class; all are used, others refused
    cfg.DATASETS.SAMPLE_PER_CLASS = -1
    cfg.DATASETS.SAMPLE_SEED = 0
    # yaml files that describe data sets of one's own (ovseg/data/own); DATASETS.TRAIN and
    # DATASETS.TEST may then name them
    cfg.DATASETS.CUSTOM = ()
    # share of the training images that may be left out because they cannot be read: at least 10 of
    # them, at most half; 0: none
    cfg.DATALOADER.MAX_LOST = 0.01


def _add_backbone(cfg: CN) -> None:
    cfg.MODEL.SWIN = type(cfg)()
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

    cfg.MODEL.MASK_FORMER = type(cfg)()
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

    former.TEST = type(cfg)()
    # besides the semantic segmentation give a panoptic one, and scored instances (at most
    # TEST.DETECTIONS_PER_IMAGE); see docs/panoptic.md, also for values of the two thresholds
    former.TEST.PANOPTIC_ON = False
    former.TEST.INSTANCE_ON = False
    # proposals whose best class scores no more than this are no segments
    former.TEST.OBJECT_MASK_THRESHOLD = 0.0
    # nor are those of whose mask less than this share is left by better proposals
    former.TEST.OVERLAP_THRESHOLD = 0.0
    # published key; masks are always resized to the output before they are summed, which is the
    # same numbers in less memory
    former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False


def _add_clip(cfg: CN) -> None:
    cfg.MODEL.CLIP_ADAPTER = type(cfg)()
    adapter = cfg.MODEL.CLIP_ADAPTER
    # "ViT-B/16", "ViT-L/14", another open_clip name, or the path of a checkpoint (OpenAI archive,
    # state dict, open_clip training checkpoint, Hugging Face's CLIPModel): the architecture is then
    # read from the weights. QuickGELU or GELU: ovseg/modeling/clip/activation.py says which; an
    # ending "-quickgelu" or "-gelu" of the name settles it
    adapter.CLIP_MODEL_NAME = "ViT-B/16"
    # open_clip's tag of pretrained weights, or a file of them; "" when none are wanted. Fetched
    # only when MODEL.WEIGHTS does not carry CLIP's weights
    adapter.CLIP_PRETRAINED = "openai"
    # "vild", "imagenet", "predefined", or "learned": the prompts of PROMPT_CHECKPOINT
    adapter.TEXT_TEMPLATES = "vild"
    # read for "predefined"; {} stands for the word
    adapter.PREDEFINED_PROMPT_TEMPLATES = ["a photo of a {}."]
    # file of "ovseg templates" with the best templates of each word, by which CLIP then classifies
    # (clip/template_choice.py); "": all templates
    adapter.BEST_TEMPLATES = ""
    # file of "train.py --train template-map" with the weights of the templates' cosines, of which
    # CLIP's scores are the sum (clip/template_map.py); "": their mean
    adapter.TEMPLATE_MAP = ""
    # keep text features in $OVSEG_HOME for later processes
    adapter.TEXT_CACHE = True
    # of "learned": the file that train.py --train text-prompts wrote (clip/learned_prompts.py)
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
    # the same for classes that are none of DATASETS.TRAIN's; -1: one weight for all
    adapter.CLIP_ENSEMBLE_WEIGHT_UNSEEN = -1.0

    # what CLIP sees: "crops", one for each proposal; "shared": the whole image, once for all of
    # them (clip/shared_pass.py); "both": that, and crops of the proposals that decide
    adapter.REGION_ENCODER = "crops"
    # of the shared pass: shorter side in pixels; 0: CLIP's own input size
    adapter.SHARED_RESOLUTION = 0
    # block from which proposals take part; 0: all
    adapter.SHARED_FIRST_BLOCK = 0
    # "tokens": a copy of the class token for each proposal; "values": the last block's values
    adapter.SHARED_READOUT = "tokens"
    # file of what was trained for the copies (train.py --regions shared); "": CLIP as it is
    adapter.SHARED_WEIGHTS = ""
    # background patches of a crop: "keep", as published, or "drop": they are left out
    # (clip/foreground.py)
    adapter.BACKGROUND = "keep"
    # which proposals CLIP sees: "all", or "visible": those that can show (crop_choice.py)
    adapter.CROPS = "all"
    # of "visible": a proposal can show where mask * strength is at least this times the largest
    adapter.CROPS_TOLERANCE = 1.0
    # on more than this share of the pixels
    adapter.CROPS_MIN_AREA = 0.0
    # others follow that could change more than this share of the pixels; 0: none
    adapter.CROPS_SECOND_ROUND = 0.0
    # those left out have the features of one that they overlap by this IoU; 1: they drop out
    adapter.CROPS_BORROW_IOU = 1.0

    # what CLIP's image tower computes in: "fp32", "tf32", "fp16", "bf16", "int8" (on CPUs), or
    # "auto": what the device has instructions for (docs/speed.md)
    cfg.MODEL.PRECISION = "fp32"
    # the same for the backbone: "fp32", "tf32", "fp16", "bf16" or "auto"
    cfg.MODEL.PRECISION_BACKBONE = "fp32"
    # CLIP's image tower through torch.compile
    cfg.MODEL.COMPILE = False


def _add_methods(cfg: CN) -> None:
    # the other methods of the published table (ovseg/methods)
    cfg.MODEL.METHOD = type(cfg)()
    method = cfg.MODEL.METHOD
    # of MODEL.META_ARCHITECTURE "PixelSegmenter": what gives pixels their class
    # "fixed": a list of classes; or of SPNet "word_vectors", of LSeg "pixel_text", of ZS3Net
    # "generated"
    method.CLASSIFIER = "fixed"
    # of "word_vectors": taken from the logits of seen classes in inference (calibrated stacking)
    method.SEEN_PENALTY = 0.0
    # of "generated": data sets whose classes are known by name in training
    method.NAMED_CLASSES = ()
    # and the share of the training after which it learns of generated features, and the real ones
    # stay as they are
    method.GENERATED_FROM = 0.75
    # of "pixel_text": blocks of spatial regularisation
    method.SPATIAL_BLOCKS = 0
    # of self-training: the data set whose images a teacher labels for it in "ovseg compare"
    method.UNLABELLED = ""
    # and the least score of a label that the student learns from
    method.MIN_SCORE = 0.5


def _add_solver(cfg: CN) -> None:
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    cfg.SOLVER.TEST_IMS_PER_BATCH = 1

    # Weights & Biases (extra "wandb"): used when ENABLED
    cfg.WANDB = type(cfg)()
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
    # how readily pixels get none of the classes, 0..1; 0: each gets its best one, as published
    # (ovseg/modeling/reject.py)
    cfg.TEST.REJECT = 0.0
    # classes that win no more than this share of an image's pixels are dropped, and the others
    # decided again; 0: none (ovseg/modeling/present_classes.py)
    cfg.TEST.MIN_CLASS_AREA = 0.0
    # folder of proposals that stand in for MaskFormer's (ovseg/data/proposal_files.py), "" for
    # none; and folder that MaskFormer's proposals are written to, besides an evaluation or a demo
    cfg.TEST.LOAD_PROPOSALS = ""
    cfg.TEST.SAVE_PROPOSALS = ""
    # refine the scores of all classes by a dense CRF with the published parameters; needs the
    # package pydensecrf (extra "crf")
    cfg.TEST.DENSE_CRF = False
