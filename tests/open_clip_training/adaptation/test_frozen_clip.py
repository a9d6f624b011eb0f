"""Text prompts and template maps: the loss, a run from its command line, and going on."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from adaptation_world import command, history, write_world
from torch.nn import functional as F

from open_clip_training.adaptation.frozen_clip import PromptRun, PromptSettings, prompt_loss
from open_clip_training.adaptation.model import load_clip
from open_clip_training.train import main
from ovseg.errors import UserError
from ovseg.modeling.clip import TemplateMap, encode_texts, text_templates
from ovseg.modeling.clip.learned_prompts import ENTRY
from ovseg.modeling.clip.template_map import ENTRY as WEIGHTS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with pairs and a CLIP without mask prompts."""
    return write_world(tmp_path_factory.mktemp("prompts"))


def test_the_loss_is_that_of_each_crop_among_all_nouns():
    features, texts = torch.randn(3, 4), F.normalize(torch.randn(5, 4), dim=-1)
    labels = torch.tensor([4, 0, 4])
    terms = []
    for row, label in zip(features.double().numpy(), labels, strict=True):
        logits = 100 * (row / np.linalg.norm(row)) @ texts.double().numpy().T
        terms.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[label])
    assert prompt_loss(features, texts, labels).item() == pytest.approx(np.mean(terms), rel=1e-4)


def learn(world, output, *extra):
    main(command(world, output, "--train", "text-prompts", "--prompts", 4, "--prompt-lr", 0.05,
                 "--batch-size", 14, *extra))  # fmt: skip


def test_learning_lowers_the_loss(world, tmp_path):
    learn(world, tmp_path / "prompts.pt", "--steps", 15)
    losses = history(tmp_path / "prompts.pt")["losses"]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    saved = torch.load(tmp_path / "prompts.pt", weights_only=True)
    assert list(saved) == [ENTRY]
    assert saved[ENTRY].shape[0] == 4


def test_a_run_goes_on_as_if_it_had_not_been_stopped(world, tmp_path, monkeypatch):
    learn(world, tmp_path / "whole.pt", "--steps", 6)
    advance = PromptRun.advance

    def interrupted_in_the_fourth(run, indices):
        if run.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(run, indices)

    with monkeypatch.context() as patch:
        patch.setattr(PromptRun, "advance", interrupted_in_the_fourth)
        with pytest.raises(SystemExit) as caught:
            learn(world, tmp_path / "parts.pt", "--steps", 6)
    assert caught.value.code == 130
    assert history(tmp_path / "parts.pt")["step"] == 4
    again = command(world, tmp_path / "parts.pt", "--train", "text-prompts", "--prompts", 4,
                    "--prompt-lr", 0.05, "--batch-size", 14, "--steps", 6)  # fmt: skip
    main([*again, "--resume"])
    whole, parts = (torch.load(tmp_path / f"{name}.pt", weights_only=True)[ENTRY]
                    for name in ("whole", "parts"))  # fmt: skip
    torch.testing.assert_close(whole, parts)
    assert history(tmp_path / "parts.pt")["losses"] == history(tmp_path / "whole.pt")["losses"]
    with pytest.raises(UserError, match=r"was made with|begun with other settings"):
        main([*again[:-1], "7", "--resume"])


def test_a_map_begins_as_the_mean_of_cosines_and_learns(world, tmp_path):
    output = tmp_path / "map.pt"
    main(command(world, output, "--train", "template-map", "--steps", 15, "--batch-size", 14,
                 "--prompt-lr", 0.02))  # fmt: skip
    saved = torch.load(output, weights_only=True)
    templates = text_templates("vild", [])
    assert saved["templates"] == list(templates)
    assert TemplateMap.read(output, templates).weights.tolist() == saved[WEIGHTS].tolist()
    assert len(saved[WEIGHTS].unique()) > 1
    losses = history(output)["losses"]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])

    model, _ = load_clip(str(world / "clip.pt"), "openai", 0, prompts_train=False)
    features, labels = torch.randn(6, model.text_projection.shape[1]), torch.arange(6) % 2
    settings = PromptSettings("template-map", 0, 5, 6, 0, 0.1, 0, templates)
    run = PromptRun(model.requires_grad_(False), features, labels, ["owl", "dog"], settings)
    texts = [[t.replace("{}", noun) for t in templates] for noun in run.nouns]
    cosines = [
        F.cosine_similarity(features[:, None], encode_texts(model, of_noun), dim=-1).mean(dim=1)
        for of_noun in texts
    ]
    expected = F.cross_entropy(100 * torch.stack(cosines, dim=1), labels)
    assert run.advance(torch.arange(6)) == pytest.approx(expected.item(), rel=1e-4)
    assert run.learned.grad is not None
    assert (run.learned.grad != 0).all()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--prompts", 70), "--prompts 70 leave no place for words"),
        (("--prompts", 0), "--prompts"),
        (("--batch-size", 5000), "--batch-size 5000 is more than the"),
        (("--precision", "amp"), "--precision is not for --train text-prompts"),
        (("--templates", "imagenet"), "--templates is not for --train text-prompts"),
        (("--num-processes", 2), "--num-processes is not for --train text-prompts"),
    ],
)
def test_mistakes(world, tmp_path, extra, message):
    with pytest.raises((UserError, SystemExit)) as caught:
        main(command(world, tmp_path / "new.pt", "--train", "text-prompts", *extra))
    assert message in str(caught.value)
