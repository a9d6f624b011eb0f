"""The best templates, from the command line to a file that an evaluation takes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from conftest import said
from tiny_world import SWIN, tiny_opts, tiny_world
from torch.nn import functional as F

from ovseg.cli import templates, train
from ovseg.config import setup_cfg
from ovseg.data.datasets import dataset_classes
from ovseg.engine.trainer import Trainer, load_model
from ovseg.modeling.clip import encode_texts

TEMPLATES = ["a photo of a {}.", "{} in the scene", "a drawing of many {}", "the {}"]
BEST = "MODEL.CLIP_ADAPTER.BEST_TEMPLATES"


def slow_choice(opts: list[str], number: int) -> dict[str, list[int]]:
    """The best templates, crop by crop and template by template."""
    cfg = setup_cfg(str(SWIN), opts)
    model = load_model(cfg)
    names = dataset_classes(cfg.DATASETS.TEST)
    entropies: dict[str, dict[int, list[float]]] = {name: {} for name in names}
    clip = model.clip_adapter.clip_model
    with torch.inference_mode():
        texts = [encode_texts(clip, [t.replace("{}", n) for n in names]) for t in TEMPLATES]
        loaders = (Trainer.build_test_loader(cfg, name) for name in cfg.DATASETS.TEST)
        for batch in itertools.chain.from_iterable(loaders):
            for features in model.encode(batch)[0].crops.features:
                for place, text in enumerate(texts):
                    probs = (100 * F.cosine_similarity(features, text)).softmax(dim=0).double()
                    entropy = -sum(p * p.log() for p in probs if p > 0)
                    best = entropies[names[int(probs.argmax())]]
                    best.setdefault(place, []).append(float(entropy))
    means = {n: {t: sum(e) / len(e) for t, e in each.items()} for n, each in entropies.items()}
    return {n: sorted(each, key=each.__getitem__)[:number] for n, each in means.items() if each}


def test_the_file_holds_the_templates_of_lowest_entropy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tiny_world(tmp_path, prefix="templated") as clip:
        weights = tmp_path / "model.pth"
        opts = tiny_opts(
            clip, MODEL__WEIGHTS=weights, DATASETS__TEST="templated_dev", OUTPUT_DIR=tmp_path
        )
        opts += ["MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES", str(TEMPLATES)]
        torch.manual_seed(0)
        torch.save({"model": Trainer.build_model(setup_cfg(str(SWIN), opts)).state_dict()}, weights)
        output = tmp_path / "templates"
        command = ["--config-file", str(SWIN), "--number", "2", "--output", str(output)]
        templates.main([*command, *opts])
        file = output / "best_templates.json"
        content = json.loads(file.read_text())
        assert content["templates"] == TEMPLATES
        assert content["best"] == slow_choice(opts, 2)
        assert len(content["best"]) > 1
        assert sorted(path.name for path in output.iterdir() if path.suffix != ".txt") == [
            file.name
        ]
        assert f"{BEST} {file}" in capsys.readouterr().out

        # of two data sets with the same words all crops count
        both = tiny_opts(
            clip, MODEL__WEIGHTS=weights, DATASETS__TEST="templated_dev,templated_test",
            OUTPUT_DIR=tmp_path,
        )  # fmt: skip
        both += ["MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES", str(TEMPLATES)]
        two = tmp_path / "two"
        templates.main([*command[:-1], str(two), *both])
        found = json.loads((two / "best_templates.json").read_text())["best"]
        assert found == slow_choice(both, 2)

        train.main(["--eval-only", "--config-file", str(SWIN), *opts, BEST, str(file)])
        assert (tmp_path / "inference" / "templated_dev" / "results.json").is_file()
        with pytest.raises(SystemExit):
            templates.main([*command, *opts, BEST, str(file)])
        assert "leave it empty to find new ones" in said(capsys)[0]
        with pytest.raises(SystemExit):
            templates.main([*command, *opts, "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "learned"])
        assert "learned has no templates to choose from" in said(capsys)[0]


def test_no_templates_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        templates.main(["--config-file", str(SWIN), "--number", "0"])
    assert said(capsys) == ["error: --number 0 is too small; give 1 or more"]
