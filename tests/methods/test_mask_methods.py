"""Methods that are OVSeg's parts otherwise put together."""

from __future__ import annotations

import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from tiny_world import CONFIGS

from ovseg.config import setup_cfg
from ovseg.data.stickerscenes import load_concepts
from ovseg.modeling.backbone.swin import D2SwinTransformer
from ovseg.modeling.ensemble import ensemble
from ovseg.vocabulary import Vocabulary

ZEGFORMER = "methods/zegformer.yaml"


def test_the_other_backbone_is_a_swin_that_learns():
    keys = ("BACKBONE", "SWIN", "MASK_FORMER")
    cfg = setup_cfg(CONFIGS / "methods/ovseg_swin.yaml", ["MODEL.DEVICE", "cpu"])
    resnet = setup_cfg(CONFIGS / "methods/ovseg.yaml")
    assert {key for key in cfg.MODEL if cfg.MODEL[key] != resnet.MODEL[key]} <= {*keys, "DEVICE"}
    model = build_model(cfg)
    assert isinstance(model.backbone, D2SwinTransformer)
    strides = {name: shape.stride for name, shape in model.backbone.output_shape().items()}
    assert strides[cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE] == 16
    truth = Instances((128, 128))
    truth.gt_classes, truth.gt_masks = torch.tensor([1]), torch.ones(1, 128, 128).bool()
    inputs = {"image": torch.zeros(3, 128, 128), "instances": truth, "class_names": ["a", "b"]}
    sum(model.train()([inputs]).values()).backward()
    assert all(p.grad is not None for p in model.backbone.layers.parameters())


def test_ovseg_and_zegformer_are_one_training():
    # of CLIP's image tower and the ensemble's weights no loss depends
    own = {"CLIP_PRETRAINED", "CLIP_ENSEMBLE_WEIGHT", "CLIP_ENSEMBLE_WEIGHT_UNSEEN"}
    ovseg, zegformer = (setup_cfg(CONFIGS / f"methods/{m}.yaml") for m in ("ovseg", "zegformer"))
    ovseg.defrost()
    for key in own:
        ovseg.MODEL.CLIP_ADAPTER[key] = zegformer.MODEL.CLIP_ADAPTER[key]
    ovseg.OUTPUT_DIR = zegformer.OUTPUT_DIR
    assert ovseg == zegformer


def test_zegformer_fuses_seen_and_unseen_classes_by_a_weight_each(small_model, seeded):
    assert (CONFIGS / ZEGFORMER).is_file()
    # the small CLIP has no mask prompts to switch on
    model = small_model("MODEL.CLIP_ADAPTER.MASK_THR", "0.3", base=ZEGFORMER)
    concepts = [load_concepts()[label] for label in (0, 130, 150, 160)]
    vocabulary = Vocabulary.of([concept.name for concept in concepts])
    image = seeded.image(64, 96, 1)
    with torch.inference_mode():
        regions = model.encode([{"image": image}])[0]
        text = model.text(vocabulary)
        found = model.classify(regions, text)
        probs = model.classify_queries(regions, text)
        clip = model.classify_crops(regions.crops, text)
        for column, concept in enumerate(concepts):
            weight = 0.6 if concept.split == "unseen" else 0.1
            expected = ensemble(probs, clip.class_probs, clip.valid, weight).class_probs
            torch.testing.assert_close(found.class_probs[:, column], expected[:, column])
    assert {concept.split for concept in concepts} == {"seen", "stuff", "unseen"}
