"""Methods that are OVSeg's parts otherwise put together."""

from __future__ import annotations

import torch
from tiny_world import CONFIGS

from ovseg.data.stickerscenes import load_concepts
from ovseg.modeling.ensemble import ensemble
from ovseg.vocabulary import Vocabulary

ZEGFORMER = "methods/zegformer.yaml"


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
            weight = 0.7 if concept.split == "unseen" else 0.3
            expected = ensemble(probs, clip.class_probs, clip.valid, weight).class_probs
            torch.testing.assert_close(found.class_probs[:, column], expected[:, column])
    assert {concept.split for concept in concepts} == {"seen", "stuff", "unseen"}
