"""The ablation: what is trained, how weights are chosen, what the tables say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from open_clip_training import ablation_eval, ablations
from open_clip_training.ablation_eval import adapted_config, evaluate, save_proposals
from open_clip_training.ablation_report import draw_chart, mean_and_spread, tables
from open_clip_training.ablation_runs import BASELINE, RECIPES, Schedule, train_arguments
from open_clip_training.train import parse_arguments
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.errors import UserError
from ovseg.evaluation import SemSegEvaluator
from ovseg.modeling.clip import read_clip_file
from ovseg.predictor import Predictor

CONFIG, FROZEN = "configs/ovseg_tiny.yaml", "stickerscenes_frozen"
WEIGHTS = ["MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu"]


def scores_of(value: float, weight: float = 0.2) -> dict[str, Any]:
    columns = dict.fromkeys(("all", "seen", "unseen"), value)
    kinds = {"maskformer": columns, "clip": columns, "ensemble": columns}
    return {"weight": weight, "history": {"pairs": 7, "nouns": 3}, **kinds}


def test_recipes_are_commands_of_train(tmp_path: Path) -> None:
    schedule = Schedule(steps=60, batch=128, lr=1e-4, prompt_lr=0.02)
    options = {
        recipe.name: parse_arguments(
            train_arguments(recipe, 2, schedule, tmp_path / "in.pt", tmp_path, tmp_path / "out.pt")
        )
        for recipe in RECIPES
    }
    assert {name for name, o in options.items() if o.train == "mask-prompts"} == {
        "prompts", "both", "both_long", "prompts_depth1", "prompts_depth6",
    }  # fmt: skip
    assert {name for name, o in options.items() if o.train == "both"} == {"joint"}
    assert options["joint"].steps == options["finetuned"].steps
    assert {name for name, o in options.items() if o.crops == "unmasked"} == {"unmasked"}
    # "both" and its control take as many steps
    starts = {recipe.name: recipe.start for recipe in RECIPES}
    for name, control, steps in (("both", "finetuned_long", 120),
                                 ("both_long", "finetuned_longer", 180)):  # fmt: skip
        both = options[name].steps + options[starts[name]].steps
        assert options[control].steps == both == steps
    assert [options[n].mask_prompt_depth for n in ("prompts_depth1", "prompts", "joint")] == [
        1,
        3,
        3,
    ]
    assert all(o.seed == 2 and o.warmup < o.steps for o in options.values())
    # a run's start is trained before it
    for recipe in RECIPES:
        assert not starts.get(recipe.start, "")


def test_evaluation_equals_the_evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = setup_cfg(CONFIG, WEIGHTS)
    saved = tmp_path / "proposals.npz"
    save_proposals(cfg, FROZEN, 4, saved)
    clip = write_embedded_clip(tmp_path / "clip.pt")
    monkeypatch.setattr(ablation_eval, "WEIGHTS", (0.2, 0.9))
    opts = ["MODEL.DEVICE", "cpu"]
    result = evaluate(adapted_config(CONFIG, opts, clip), saved, saved, (FROZEN, FROZEN))

    assert result["weight"] == max((0.2, 0.9), key=lambda weight: result["sweep"][str(weight)])
    model = Predictor(cfg).model
    examples = load_dataset(FROZEN)[:4]
    mapper = ablation_eval.EvaluationMapper(cfg, FROZEN)
    with torch.inference_mode():
        regions = model.propose([mapper(examples[3])])[0]
    with np.load(saved) as arrays:
        masks, probs = arrays["masks"][3], arrays["class_probs"][3]
    np.testing.assert_array_equal(masks / 255 > 0.5, regions.masks.numpy() > 0.5)
    np.testing.assert_allclose(probs, regions.class_probs.numpy(), atol=1e-6)

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


def write_embedded_clip(path: Path) -> Path:
    """The CLIP of the embedded checkpoint, as pretrain.py writes one."""
    weights, _ = read_clip_file("resources/ovseg_tiny.pth")
    config = json.loads(
        Path("ovseg/modeling/clip/model_configs/ovseg-tiny-clip.json").read_text(encoding="utf-8")
    )
    config["text_cfg"]["vocab_size"] = len(weights["token_embedding.weight"])
    torch.save({"state_dict": weights, "model_cfg": config}, path)
    return path


def write_scenes(root: Path) -> None:
    """A ``stickerscenes`` of the frozen scenes, four for each split, with captions."""
    names = MetadataCatalog.get(FROZEN).stuff_classes
    captions: dict[str, Any] = {"images": [], "annotations": []}
    for index, example in enumerate(load_dataset(FROZEN)[:12]):
        split = ("train", "dev", "test")[index % 3]
        labels = np.array(Image.open(example["sem_seg_file_name"]))
        if split == "train":
            words = " and ".join(names[label] for label in np.unique(labels) if label < len(names))
            captions["images"].append({"id": index, "file_name": f"{index:05d}.png"})
            captions["annotations"].append(
                {"id": index, "image_id": index, "caption": f"a photo of {words}"}
            )
            labels[labels >= 144] = 255  # as the segmentation network is not to see them
        for folder, picture in (
            ("images", Image.open(example["file_name"])), ("annotations", Image.fromarray(labels)),
        ):  # fmt: skip
            place = root / "stickerscenes" / folder / split
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{index:05d}.png")
    file = root / "stickerscenes" / "captions_train.json"
    file.write_text(json.dumps(captions), encoding="utf-8")


def test_the_command_from_captions_to_tables(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    output = tmp_path / "ablations"
    command = [
        sys.executable, "open_clip_training/ablations.py", "--quick", "--output", str(output),
        "--weights", "ovseg://ovseg_tiny.pth",
        "--clip", str(write_embedded_clip(tmp_path / "clip.pt")),
        "--opts", "MODEL.DEVICE", "cpu",
    ]  # fmt: skip

    def run() -> str:
        environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in output.glob("[pr]*/**/*")}

    first = run()
    content = json.loads((output / "table.json").read_text(encoding="utf-8"))
    results = content["results"]
    assert set(results) == {BASELINE, *(recipe.name for recipe in RECIPES)}
    for recipe in RECIPES:
        (result,) = results[recipe.name]
        assert len(result["history"]["losses"]) == 2 * recipe.length
        assert result["history"]["pairs"] == content["pairs"][recipe.pairs]["pairs"] > 4
    # the same proposals and MaskFormer, whatever CLIP; and CLIPs that differ
    assert len({json.dumps(of_seeds[0]["maskformer"]) for of_seeds in results.values()}) == 1
    assert len({json.dumps(of_seeds[0]["sweep"]) for of_seeds in results.values()}) > 8
    text = (output / "table.md").read_text(encoding="utf-8")
    assert text == tables(results)
    assert text in first
    # the same command again finds everything done
    before = written()
    assert text in run()
    assert written() == before


def test_tables_hold_mean_and_spread(tmp_path: Path) -> None:
    results = {recipe.name: [scores_of(10.0), scores_of(14.0, 0.4)] for recipe in RECIPES}
    results[BASELINE] = [scores_of(8.04)]
    text = tables(results)
    assert mean_and_spread([10.0, 14.0]) == "12.0 ± 2.8"  # sqrt(8)
    lines = text.splitlines()
    baseline = next(line for line in lines if "original CLIP" in line)
    assert [cell.strip() for cell in baseline.strip("|").split("|")][1:] == [*["8.0"] * 6, "0.2"]
    both = next(line for line in lines if "both: fine-tuning" in line)
    cells = [cell.strip() for cell in both.strip("|").split("|")][1:]
    assert cells == [*["12.0 ± 2.8"] * 6, "0.2, 0.4"]
    assert all(f"(Table {number})" in text for number in (2, 3, 4, 6))
    draw_chart(results, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000


def test_bad_settings(tmp_path: Path) -> None:
    output = ["--output", str(tmp_path)]
    with pytest.raises(UserError, match=r"--clip 'nowhere.pt'"):
        ablations.main(["--clip", "nowhere.pt", *output])
    clip = ["--clip", __file__]  # looked into later
    for weights in ("nowhere.pth", "ovseg://nowhere.pth"):
        with pytest.raises(UserError, match=f"--weights '{weights}' is not there"):
            ablations.main([*clip, "--weights", weights, *output])
    for option in ("--processes", "--seeds"):
        with pytest.raises(UserError, match=f"{option} 0: give 1 or more"):
            ablations.main([option, "0", *output])
    assert not list(tmp_path.iterdir())
    options = ablations.parse_arguments(["--quick", *output])
    ablations.check_settings(options)
    ablations.check_settings(options)
    with pytest.raises(UserError, match=r"other settings .--mine-images 12, now 5000"):
        ablations.check_settings(ablations.parse_arguments(output))
