"""Learned text prompts: vectors in place of a template's words."""

from __future__ import annotations

import open_clip
import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE
from torch.nn import functional as F

from ovseg import UserError
from ovseg.modeling.clip import build_untrained_clip, encode_texts, prompted_features, read_prompts
from ovseg.modeling.clip.learned_prompts import ENTRY

WORDS = ["dog", "traffic light", "sky"]
LEARNED = ["MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "learned", "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT"]


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return build_untrained_clip(CLIP_ARCHITECTURE, 0).requires_grad_(False).eval()


def embedded(clip, text: str) -> torch.Tensor:
    """The token vectors of a text's words."""
    tokens = open_clip.tokenize([text])[0]
    return clip.token_embedding(tokens[1 : int(tokens.argmax())])


def test_vectors_of_a_templates_words_are_that_template(clip):
    found = prompted_features(clip, embedded(clip, "a photo of a"), WORDS)
    texts = [f"a photo of a {word}." for word in WORDS]
    torch.testing.assert_close(found, F.normalize(encode_texts(clip, texts), dim=-1))


def test_many_words_have_the_same_features_and_gradient_in_parts(clip, monkeypatch):
    found = []
    for size in (512, 2):
        monkeypatch.setattr("ovseg.modeling.clip.learned_prompts.BATCH", size)
        prompts = embedded(clip, "a photo of a").clone().requires_grad_()
        features = prompted_features(clip, prompts, WORDS)
        (features * torch.arange(features.numel()).view_as(features)).sum().backward()
        found.append((features.detach(), prompts.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_the_gradient_reaches_the_vectors_alone(clip):
    prompts = torch.randn(3, 16).requires_grad_()
    prompted_features(clip, prompts, WORDS)[:, 0].sum().backward()
    assert prompts.grad is not None
    assert (prompts.grad.abs().sum(dim=1) > 0).all()
    assert all(parameter.grad is None for parameter in clip.parameters())


def test_words_in_parts(clip, monkeypatch):
    prompts = torch.randn(2, 16)
    whole = prompted_features(clip, prompts, WORDS)
    monkeypatch.setattr("ovseg.modeling.clip.learned_prompts.BATCH", 1)
    torch.testing.assert_close(prompted_features(clip, prompts, WORDS), whole)


def test_the_model_classifies_by_them(small_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path / "home"))
    found = []
    for seed in (0, 1):
        prompts = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
        file = tmp_path / f"{seed}.pt"
        torch.save({ENTRY: prompts}, file)
        model = small_model(*LEARNED, str(file))
        found.append(model.clip_adapter.text_features(WORDS)[:-1])
        expected = prompted_features(model.clip_adapter.clip_model, prompts, WORDS)
        torch.testing.assert_close(found[-1], expected)
        # of another file, so no part of a checkpoint
        assert not any("text_prompts" in key for key in model.state_dict())
    assert not torch.allclose(*found)  # kept on disk apart


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; MODEL.CLIP_ADAPTER.TEXT_TEMPLATES learned needs the one that"),
        (b"nothing", "cannot be read"),
        ({"a": 1}, "holds no learned text prompts"),
        ({ENTRY: torch.full((2, 16), torch.nan)}, "holds no learned text prompts"),
        ({ENTRY: torch.zeros(2, 8)}, "holds 2 prompts of width 8, which do not fit this CLIP"),
        ({ENTRY: torch.zeros(80, 16)}, "holds 80 prompts of width 16, which do not fit"),
    ],
)
def test_files_that_are_none(clip, tmp_path, content, message):
    file = tmp_path / "prompts.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UserError, match=message):
        read_prompts(file, clip)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT", "a.pt"], "TEXT_TEMPLATES learned: set that, or"),
        ([*LEARNED, "gone.pt"], r"PROMPT_CHECKPOINT 'gone\.pt': no such file"),
        (
            [*LEARNED, "a.pt", "MODEL.CLIP_ADAPTER.BEST_TEMPLATES", "b.json"],
            "learned has no templates to choose from",
        ),
    ],
)
def test_mistakes(small_model, opts, message):
    with pytest.raises(UserError, match=message):
        small_model(*opts)
