"""How CLIPs are scored on recorded proposals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from clip_pairs import write_embedded_clip

from open_clip_training.ablation import scoring
from open_clip_training.ablation.scoring import adapted_config, record_proposals, score_clip
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.evaluation import SemSegEvaluator
from ovseg.predictor import Predictor

CONFIG, FROZEN = "configs/ovseg_tiny.yaml", "stickerscenes_frozen"
WEIGHTS = ["MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu"]
SHARED = ["MODEL.CLIP_ADAPTER.REGION_ENCODER", "shared"]


@pytest.mark.parametrize("way", [[], SHARED], ids=["crops", "shared"])
def test_evaluation_equals_the_evaluator(
    way: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = setup_cfg(CONFIG, [*WEIGHTS, *way])
    saved = tmp_path / "proposals.npz"
    record_proposals(cfg, FROZEN, 4, saved)
    clip = write_embedded_clip(tmp_path / "clip.pt")
    monkeypatch.setattr(scoring, "WEIGHTS", (0.2, 0.9))
    opts = ["MODEL.DEVICE", "cpu", *way]
    result = score_clip(adapted_config(CONFIG, opts, clip), saved, saved, (FROZEN, FROZEN))

    assert result["weight"] == max((0.2, 0.9), key=lambda weight: result["sweep"][str(weight)])
    model = Predictor(cfg).model
    examples = load_dataset(FROZEN)[:4]
    mapper = scoring.EvaluationMapper(cfg, FROZEN)
    with torch.inference_mode():
        inputs = mapper(examples[3])
        regions = model.propose([inputs])[0]
        expected_probs = model.classify_queries(regions, model.text(inputs["class_names"]))
    with np.load(saved) as arrays:
        masks, probs = arrays["masks"][3], arrays["class_probs"][3]
    np.testing.assert_array_equal(masks / 255 > 0.5, regions.masks.numpy() > 0.5)
    np.testing.assert_allclose(probs, expected_probs.numpy(), atol=1e-6)

    for kind, weight, with_clip in (
        ("ensemble", result["weight"], True), ("clip", 0.0, True), ("maskformer", 0.5, False),
    ):  # fmt: skip
        model.clip_ensemble, model.clip_ensemble_weight = with_clip, weight
        evaluator = SemSegEvaluator(FROZEN)
        evaluator.reset()
        for example in examples:
            with torch.inference_mode():
                evaluator.process([example], model([mapper(example)]))
        expected = evaluator.evaluate()["sem_seg"]
        # the saved masks have 256 levels
        assert result[kind]["all"] == pytest.approx(expected["mIoU"], abs=0.3)
        for group in ("seen", "unseen", "stuff"):
            assert result[kind][group] == pytest.approx(expected[f"mIoU_{group}"], abs=0.6)
