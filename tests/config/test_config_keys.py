"""Configs: ours, and yaml files written for the published code."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import ROOT, load_config
from detectron2.modeling import build_model

from ovseg import UserError
from ovseg.config import setup_cfg
from ovseg.config.checks import check_config

# the large model's demo config as the published code spells one
PUBLISHED = """
MODEL:
  META_ARCHITECTURE: "OVSegDEMO"
  BACKBONE: {FREEZE_AT: 0, NAME: "D2SwinTransformer"}
  SWIN:
    EMBED_DIM: 128
    DEPTHS: [2, 2, 18, 2]
    NUM_HEADS: [4, 8, 16, 32]
    WINDOW_SIZE: 12
    APE: False
    DROP_PATH_RATE: 0.3
    PATCH_NORM: True
    PRETRAIN_IMG_SIZE: 384
  WEIGHTS: "swin_base_patch4_window12_384_22k.pkl"
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  SEM_SEG_HEAD:
    NAME: "OpenVocabMaskFormerHead"
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    IGNORE_VALUE: 255
    NUM_CLASSES: 171
    EMBEDDING_DIM: 768
    EMBED_LAYERS: 2
    COMMON_STRIDE: 4
    LOSS_WEIGHT: 1.0
    CONVS_DIM: 256
    MASK_DIM: 256
    NORM: "GN"
  MASK_FORMER:
    TRANSFORMER_IN_FEATURE: "res5"
    DEEP_SUPERVISION: True
    NO_OBJECT_WEIGHT: 0.1
    DICE_WEIGHT: 1.0
    MASK_WEIGHT: 20.0
    HIDDEN_DIM: 256
    NUM_OBJECT_QUERIES: 100
    NHEADS: 8
    DROPOUT: 0.1
    DIM_FEEDFORWARD: 2048
    ENC_LAYERS: 0
    DEC_LAYERS: 6
    PRE_NORM: False
  CLIP_ADAPTER:
    TEXT_TEMPLATES: "vild"
    CLIP_MODEL_NAME: "ViT-L/14"
    MASK_FILL: "mean"
    MASK_EXPAND_RATIO: 1.0
    MASK_THR: 0.35
    MASK_MATTING: False
    MASK_PROMPT_DEPTH: 3
    MASK_PROMPT_FWD: True
    REGION_RESIZED: True
    CLIP_ENSEMBLE: True
    CLIP_ENSEMBLE_WEIGHT: 0.0
DATASETS:
  TRAIN: ("coco_2017_train_stuff_sem_seg",)
  TEST: ("ade20k_sem_seg_val",)
SOLVER:
  IMS_PER_BATCH: 32
  BASE_LR: 0.00006
  MAX_ITER: 120000
  WARMUP_FACTOR: 1e-6
  WARMUP_ITERS: 1500
  LR_SCHEDULER_NAME: "WarmupPolyLR"
  WEIGHT_DECAY: 0.01
  WEIGHT_DECAY_NORM: 0.0
  WEIGHT_DECAY_EMBED: 0.0
  BACKBONE_MULTIPLIER: 1.0
  TEST_IMS_PER_BATCH: 1
  CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: "full_model", CLIP_VALUE: 0.01, NORM_TYPE: 2.0}
INPUT:
  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 21)]"]
  MIN_SIZE_TRAIN_SAMPLING: "choice"
  MIN_SIZE_TEST: 640
  MAX_SIZE_TRAIN: 2560
  MAX_SIZE_TEST: 2560
  CROP:
    ENABLED: True
    TYPE: "absolute"
    SIZE: (640, 640)
    SINGLE_CATEGORY_MAX_AREA: 1.0
  COLOR_AUG_SSD: True
  SIZE_DIVISIBILITY: 640
  FORMAT: "RGB"
TEST:
  EVAL_PERIOD: 5000
  AUG: {ENABLED: False, MIN_SIZES: [256, 384, 512, 640, 768, 896], MAX_SIZE: 3584, FLIP: True}
DATALOADER: {FILTER_EMPTY_ANNOTATIONS: True, NUM_WORKERS: 4}
VERSION: 2
"""


def test_published_yaml_loads_and_means_what_ours_means(tmp_path: Path):
    file = tmp_path / "published.yaml"
    file.write_text(PUBLISHED)
    cfg = setup_cfg(file, ["MODEL.DEVICE", "cpu"])
    assert cfg == load_config("ovseg_swinB_vitL_demo.yaml")
    with pytest.raises(yaml.YAMLError):  # yaml's own loader is as it was
        yaml.safe_load(PUBLISHED)


def test_other_expressions_are_not_evaluated(tmp_path: Path):
    file = tmp_path / "evil.yaml"
    tag = "!!python/object/apply:eval"
    file.write_text(f"SEED: {tag} [\"open('{tmp_path}/made', 'w').close() or 1\"]\n")
    with pytest.raises(UserError, match="refused"):
        setup_cfg(file)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_our_configs_are_plain_yaml_with_known_keys(path: Path):
    assert "!!" not in path.read_text()
    yaml.safe_load(path.read_text())
    load_config(path.name)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.MASK_FORMER.NHEADS", "5"), "describe no network"),
        (("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res9"), "describe no network"),
        (("MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH", "99"), r"depth 99 .*4 blocks; give 0\.\.4"),
    ],
)
def test_networks_that_cannot_be_built(small_config, opts, message):
    with pytest.raises(UserError, match=message):
        build_model(small_config(*opts))


def test_a_shared_pass_has_no_int8() -> None:
    opts = ("MODEL.CLIP_ADAPTER.REGION_ENCODER", "shared", "MODEL.PRECISION", "int8")
    with pytest.raises(UserError, match="int8 is for crops"):
        check_config(load_config("ovseg_tiny.yaml", *opts))
    check_config(load_config("ovseg_tiny.yaml", *opts[:1], "both", *opts[2:]))
