"""CLIP: architectures, files, mask prompts, text features."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import open_clip
import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE

from ovseg import UserError
from ovseg.modeling.clip import (
    ClipAdapter,
    architecture_of_file,
    architecture_of_name,
    build_clip,
    build_untrained_clip,
    encode_texts,
    find_pretrained,
    load_clip_weights,
    read_clip_file,
    text_templates,
    word_features,
)
from ovseg.modeling.clip.architecture import architecture_of_weights
from ovseg.modeling.clip.compact_embedding import CompactTokenEmbedding


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(1)
    model = build_untrained_clip(CLIP_ARCHITECTURE, 3).eval()
    torch.nn.init.normal_(model.visual.mask_embedding)
    return model


@pytest.fixture(scope="module")
def plain(clip) -> open_clip.CLIP:
    """open_clip's own class with the same weights, without prompts."""
    model = open_clip.CLIP(**CLIP_ARCHITECTURE).eval()
    weights = dict(clip.state_dict())
    del weights["visual.mask_embedding"]
    model.load_state_dict(weights)
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def prompted(visual, images, masks):
    """Mask prompting in open_clip's own blocks, the paper's text line by line."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    patches = masks.unfold(2, 8, 8).unfold(3, 8, 8).flatten(4).amax(dim=-1)
    foreground = (patches.flatten(1) > 0).float()[..., None]
    prompts = visual.mask_embedding
    x = x * foreground + prompts[0] * (1 - foreground)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding)
    for i, block in enumerate(visual.transformer.resblocks):
        x = block(x)
        if i + 1 < len(prompts):
            kept = x[:, 1:] * foreground + prompts[i + 1] * (1 - foreground)
            x = torch.cat([x[:, :1], kept], dim=1)
    return visual.ln_post(x[:, 0]) @ visual.proj


@torch.no_grad()
def test_without_mask_it_is_open_clips_own(clip, plain, images):
    torch.testing.assert_close(clip.visual(images), plain.visual(images))


@torch.no_grad()
def test_full_masks_change_nothing_and_background_is_replaced(clip, plain, images):
    masks = torch.ones(3, 1, 32, 32)
    torch.testing.assert_close(clip.visual(images, masks), plain.visual(images))
    masks[0, 0, :, 8:] = 0
    masks[1] = 0
    masks[1, 0, 17, 30] = 1  # one pixel makes a patch foreground
    expected = prompted(clip.visual, images, masks)
    torch.testing.assert_close(clip.visual(images, masks), expected)
    one = clip.visual(images[1:2], masks[1:2])
    torch.testing.assert_close(one, expected[1:2])


@torch.no_grad()
def test_text_cut_to_its_length_equals_77_positions(clip, plain):
    texts = ["a", "a photo of a very long word that fills many places " * 3, "traffic light", ""]
    expected = plain.encode_text(open_clip.tokenize(texts))
    torch.testing.assert_close(encode_texts(clip, texts), expected)


@torch.no_grad()
def test_word_features_average_over_templates(clip, plain):
    words, templates = ["dog", "traffic light"], ("{}", "a photo of a {}.", "no {} here")
    ours = word_features(clip, words, templates)
    for row, word in zip(ours, words, strict=True):
        texts = open_clip.tokenize([t.replace("{}", word) for t in templates])
        each = plain.encode_text(texts)
        mean = (each / each.norm(dim=-1, keepdim=True)).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm())


def test_a_word_that_the_context_cuts_is_named(clip, caplog):
    # the context of 77 has a place for the start and one for the end; "a {}" takes one more
    for templates, fits in ((("{}",), 75), (("{}", "a {}"), 74)):
        caplog.clear()
        words = [f"{'cat ' * fits}".strip(), f"{'dog ' * (fits + 1)}".strip(), "x" * 5000]
        word_features(clip, ["bird", *words], templates)
        cut, letters = (record.getMessage() for record in caplog.records)
        assert f"'{words[1][:40]}...' ({len(words[1])} characters)" in cut
        assert f"'{'x' * 40}...' (5000 characters)" in letters
        assert all("\n" not in text and len(text) < 250 for text in (cut, letters))


def test_text_features_are_kept_until_the_weights_change(clip, monkeypatch):
    adapter = ClipAdapter(copy.deepcopy(clip), ("{}",), mask_prompts=True)
    calls = []
    real = word_features

    def counted(model, words, templates):
        calls.append(list(words))
        return real(model, words, templates)

    monkeypatch.setattr("ovseg.modeling.clip.adapter.word_features", counted)
    with torch.inference_mode():
        first = adapter.text_features(["dog", "cat"])
    again = adapter.text_features(["cat", "bird", "dog"])
    assert calls == [["dog", "cat"], ["bird"]]
    torch.testing.assert_close(first[[1, 0]], again[[0, 2]])
    again.sum().backward()  # usable in training after inference
    with torch.no_grad():
        adapter.clip_model.text_projection.mul_(-1)
    changed = adapter.text_features(["dog"])
    torch.testing.assert_close(changed[0], -first[0])


def test_openai_names_mean_openais_architecture():
    vit = architecture_of_name("ViT-L/14", "openai")
    assert vit["quick_gelu"]
    assert vit["embed_dim"] == 768
    assert vit["vision_cfg"]["width"] == 1024
    assert not architecture_of_name("ViT-B-32", "laion2b_s34b_b79k").get("quick_gelu")
    assert architecture_of_name("ViT-B-32", "openai")["quick_gelu"]
    # of a name with a slash the tag decides too
    assert not architecture_of_name("ViT-B/32", "laion2b_s34b_b79k").get("quick_gelu")
    assert architecture_of_name("ViT-B/32")["quick_gelu"]


def test_openais_archive_means_openais_activation(clip, tmp_path):
    torch.jit.save(torch.jit.script(_Holder(clip.state_dict())), tmp_path / "ViT-B-32.pt")
    for name in ("ViT-B-32", "ViT-H-14"):
        assert architecture_of_name(name, str(tmp_path / "ViT-B-32.pt"))["quick_gelu"]


def test_a_file_that_says_no_architecture_is_read_as_openais(clip, tmp_path, caplog):
    weights = dict(clip.state_dict())
    torch.jit.save(torch.jit.script(_Holder(weights)), tmp_path / "openai.pt")
    architecture_of_file(tmp_path / "openai.pt", weights, None)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    torch.save(weights, tmp_path / "other.pt")
    found = architecture_of_file(tmp_path / "other.pt", weights, None)
    assert found["quick_gelu"]
    assert "other.pt does not say its architecture" in caplog.text
    known = architecture_of_file(tmp_path / "other.pt", weights, CLIP_ARCHITECTURE)
    assert known == CLIP_ARCHITECTURE


@pytest.mark.parametrize("name", ["ViT-Z/99", "RN50"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match=name):
        architecture_of_name(name)


def test_architecture_is_read_from_weights():
    wide = copy.deepcopy(CLIP_ARCHITECTURE)
    wide["vision_cfg"] |= {"width": 128, "head_width": 64, "image_size": 48}
    wide["text_cfg"] |= {"width": 64, "heads": 1}
    weights = build_untrained_clip(wide, 2).state_dict()
    assert architecture_of_weights(weights) == wide


def same(a: open_clip.CLIP, b: open_clip.CLIP) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    for key, value in left.items():
        torch.testing.assert_close(value.float(), right[key].float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "form", ["state_dict", "training", "half", "module", "ovseg", "script", "safetensors"]
)
def test_every_form_of_file_loads(clip, tmp_path, form):
    from safetensors.torch import save_file

    weights = clip.state_dict()
    path = tmp_path / "clip.pt"
    if form == "script":
        torch.jit.save(torch.jit.script(_Holder(weights)), path)
    elif form == "safetensors":
        path = tmp_path / "clip.safetensors"
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
    else:
        content = {
            "state_dict": weights,
            "training": {"epoch": 3, "state_dict": weights},
            "half": {"state_dict": {k: v.half() for k, v in weights.items()}},
            "module": {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
            "ovseg": {"model": {f"clip_adapter.clip_model.{k}": v for k, v in weights.items()}},
        }[form]
        torch.save(content, path)
    read, _ = read_clip_file(path)
    model = build_untrained_clip(CLIP_ARCHITECTURE, 3)
    load_clip_weights(model, read, "file")
    same(model, clip)


class _Holder(torch.nn.Module):
    """Weights under CLIP's names, for a TorchScript archive like OpenAI's."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            module = self
            *path, last = name.split(".")
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, torch.nn.Parameter(value, requires_grad=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_file_that_says_its_architecture(clip, clip_file):
    model = build_clip(str(clip_file), "openai", 3)
    assert model.visual.image_size == (32, 32)
    assert model.visual.transformer.resblocks[0].attn.num_heads == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("ln_final.bias"), "ln_final.bias is missing"),
        (lambda w: w.update({"more": torch.zeros(1)}), "more is left over"),
        (lambda w: w.update({"visual.proj": torch.zeros(2, 2)}), r"visual.proj is \(2, 2\)"),
        (lambda w: w.update({"visual.mask_embedding": torch.zeros(1, 16, 32)}), "DEPTH 1"),
    ],
)
def test_weights_that_do_not_fit_are_named(clip, change, message):
    weights = dict(clip.state_dict())
    change(weights)
    with pytest.raises(UserError, match=message):
        load_clip_weights(build_untrained_clip(CLIP_ARCHITECTURE, 3), weights, "file")


def test_prompts_may_be_missing_or_unwanted(clip, tmp_path):
    weights = dict(clip.state_dict())
    load_clip_weights(build_untrained_clip(CLIP_ARCHITECTURE, 0), weights, "file")
    del weights["visual.mask_embedding"]
    model = build_untrained_clip(CLIP_ARCHITECTURE, 3)
    load_clip_weights(model, weights, "file")
    assert not model.visual.mask_embedding.any()
    # such prompts pass for none
    torch.save(model.state_dict(), tmp_path / "untrained.pt")
    assert read_clip_file(tmp_path / "untrained.pt")[0].keys() == weights.keys()


def test_broken_files_are_named(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        read_clip_file(tmp_path / "none.pt")
    with pytest.raises(UserError, match="no such file"):
        build_clip(str(tmp_path / "none.pt"), "openai", 0)
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(UserError, match="cannot be read: it is no checkpoint") as raised:
        read_clip_file(tmp_path / "noise.pt")
    assert "weights_only" not in str(raised.value)
    for content in ([torch.zeros(2)], {"state_dict": [torch.zeros(2)]}):
        torch.save(content, tmp_path / "list.pt")
        with pytest.raises(UserError, match="holds a list in place of a state dict"):
            read_clip_file(tmp_path / "list.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no CLIP"):
        read_clip_file(tmp_path / "other.pt")


def test_a_clip_that_lacks_its_form_is_named(clip, tmp_path: Path):
    weights = dict(clip.state_dict())
    torch.save({"state_dict": weights, "model_cfg": {"embed_dim": 1}}, tmp_path / "config.pt")
    with pytest.raises(UserError, match="model_cfg is none of open_clip's"):
        read_clip_file(tmp_path / "config.pt")
    del weights["text_projection"]
    torch.save(weights, tmp_path / "part.pt")
    with pytest.raises(UserError, match="text_projection is missing"):
        read_clip_file(tmp_path / "part.pt")


def test_weights_that_cannot_be_fetched(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(UserError, match=r"download .* pass its path as .*CLIP_PRETRAINED"):
        find_pretrained("ViT-B/16", "openai")
    with pytest.raises(UserError, match="neither a file nor a tag"):
        find_pretrained("ViT-B/16", "nonsense")
    file = tmp_path / "clip.pt"
    file.touch()
    assert find_pretrained("ViT-B/16", str(file)) == file


def test_templates():
    assert len(text_templates("vild", [])) == 14
    assert len(text_templates("imagenet", [])) == 80
    assert text_templates("predefined", ["a {}"]) == ("a {}",)
    for kind, predefined in [("other", []), ("predefined", []), ("predefined", ["no place"])]:
        with pytest.raises(UserError, match="TEMPLATES"):
            text_templates(kind, predefined)


def test_compact_vocabulary_keeps_the_ids_of_the_tokenizer():
    tokens = open_clip.tokenize(["a dog", "zyzzyva"])
    used = open_clip.tokenize(["a dog"]).flatten().tolist()
    embedding = CompactTokenEmbedding.from_ids(used, 4)
    assert len(embedding.weight) == len(set(used)) + 1
    out = embedding(tokens)
    for place, token in zip(out[0], tokens[0].tolist(), strict=True):
        row = sorted(set(used)).index(token) + 1
        torch.testing.assert_close(place, embedding.weight[row])
    unknown = torch.tensor([t not in used for t in tokens[1].tolist()])
    assert unknown.any()
    assert (out[1][unknown] == embedding.weight[0]).all()
