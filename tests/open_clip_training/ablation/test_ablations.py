"""The ablation: what is trained, the whole command, settings that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_pairs import write_embedded_clip
from detectron2.data import MetadataCatalog
from PIL import Image

from open_clip_training import ablations
from open_clip_training.ablation.options import parse_arguments as parse_ablations
from open_clip_training.ablation.recipes import BASELINE, RECIPES, Schedule, train_arguments
from open_clip_training.ablation.report import tables
from open_clip_training.ablation.steps import begin_folder
from open_clip_training.adaptation.options import parse_arguments
from ovseg.config import setup_cfg
from ovseg.data.datasets import load_dataset
from ovseg.errors import UserError

FROZEN = "stickerscenes_frozen"


def test_recipes_are_commands_of_train(tmp_path: Path) -> None:
    schedule = Schedule(steps=60, batch=128, lr=1e-4, prompt_lr=0.02)
    options = {
        recipe.name: parse_arguments(
            train_arguments(recipe, 2, schedule, tmp_path / "in.pt", tmp_path, tmp_path / "out.pt")
        )
        for recipe in RECIPES
        if recipe.train
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
    frozen = {"text_prompts": "text-prompts", "template_map": "template-map"}
    frozen["tuned_map"] = "template-map"
    assert {name: options[name].train for name in frozen} == frozen
    assert {options[name].steps for name in frozen} == {300}
    assert {name: options[name].prompt_lr for name in frozen} == {
        "text_prompts": 0.02, "template_map": 0.002, "tuned_map": 0.002,
    }  # fmt: skip
    assert all(o.seed == 2 and o.warmup < o.steps for o in options.values())
    shared = {name: o for name, o in options.items() if o.regions == "shared"}
    assert {(o.train, o.teacher) for o in shared.values()} == {
        ("mask-queries", "classes"), ("mask-queries", "crops"), ("mask-bias", "classes"),
        ("visual", "classes"),
    }  # fmt: skip
    assert {(o.steps, o.batch_size, o.resolution) for o in shared.values()} == {(180, 32, 128)}
    assert {name for name, o in options.items() if o.background == "drop"} == {"dropped"}
    # a run's start is trained before it
    for recipe in RECIPES:
        assert not starts.get(recipe.start, "")


def test_a_model_is_scored_in_the_way_of_its_recipe(tmp_path: Path) -> None:
    recipes = {recipe.name: recipe for recipe in RECIPES}
    found = {
        name: setup_cfg("configs/ovseg_tiny.yaml", recipe.opts(tmp_path / "x.pt"))
        for name, recipe in recipes.items()
    }
    adapters = {name: cfg.MODEL.CLIP_ADAPTER for name, cfg in found.items()}
    dropped = {name for name, adapter in adapters.items() if adapter.BACKGROUND == "drop"}
    assert dropped == {"dropped", "undropped"}
    assert [name for name, a in adapters.items() if a.TEXT_TEMPLATES == "learned"] == [
        "text_prompts"
    ]
    assert str(tmp_path / "x.pt") == adapters["text_prompts"].PROMPT_CHECKPOINT
    mapped = {name for name, adapter in adapters.items() if adapter.TEMPLATE_MAP}
    assert mapped == {"template_map", "tuned_map"}
    own = {name for name, adapter in adapters.items() if adapter.SHARED_WEIGHTS}
    assert own == {"shared_queries", "shared_teacher", "shared_bias"}
    shared = {name for name, adapter in adapters.items() if adapter.REGION_ENCODER == "shared"}
    assert shared == own | {"shared", "shared_visual"}
    assert {recipes[name].start for name in shared} == {"finetuned_longer"}


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
        if recipe.train:
            assert len(result["history"]["losses"]) == 2 * recipe.length
        if not recipe.train or recipe.shared or recipe.is_frozen:
            continue
        assert result["history"]["pairs"] == content["pairs"][recipe.pairs]["pairs"] > 4
    # the same proposals and MaskFormer, whatever CLIP; and CLIPs that differ
    assert len({json.dumps(of_seeds[0]["maskformer"]) for of_seeds in results.values()}) == 1
    assert len({json.dumps(of_seeds[0]["sweep"]) for of_seeds in results.values()}) > 12
    text = (output / "table.md").read_text(encoding="utf-8")
    assert text == tables(results)
    assert text in first
    # the same command again finds everything done
    before = written()
    assert text in run()
    assert written() == before


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
    options = parse_ablations(["--quick", *output])
    begin_folder(options)
    begin_folder(options)
    with pytest.raises(UserError, match=r"other settings .--mine-images 12, now 5000"):
        begin_folder(parse_ablations(output))
