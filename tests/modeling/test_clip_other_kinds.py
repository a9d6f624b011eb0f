"""CLIPs of other kinds than OpenAI's: files, temperature, tokenizers, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from detectron2.modeling import build_model
from tiny_world import CLIP_ARCHITECTURE

from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.clip_exchange import feature_width
from ovseg.errors import UserError
from ovseg.modeling.clip import (
    ClipAdapter,
    architecture_of_file,
    architecture_of_name,
    build_clip,
    build_untrained_clip,
    encoder_of,
    load_clip_weights,
    read_clip_file,
)
from ovseg.modeling.clip.encoder import CausalTextEncoder
from ovseg.modeling.clip.tokenizer import Tokenizer

NO_PROMPTS = ("MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH", "0",
              "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", "False")  # fmt: skip
#: as SigLIP's: a tower of timm, bidirectional text read at its last place, a bias
SIGMOID: dict[str, Any] = {
    "embed_dim": 64,
    "custom_text": True,
    "init_logit_bias": -10,
    "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_proj": "none"},
    "text_cfg": {
        "context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
        "no_causal_mask": True, "pool_type": "last", "proj_bias": True,
        "norm_kwargs": {"eps": 1e-6},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}  # fmt: skip


@pytest.fixture
def sigmoid_clip() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_untrained_clip(SIGMOID, 0).eval()


@pytest.fixture
def sigmoid_file(sigmoid_clip, tmp_path) -> Path:
    path = tmp_path / "sigmoid.pt"
    torch.save({"state_dict": sigmoid_clip.state_dict(), "model_cfg": SIGMOID}, path)
    return path


@torch.no_grad()
def test_a_sigmoids_temperature_is_its_own(sigmoid_clip):
    adapter = ClipAdapter(sigmoid_clip, ("{}",), mask_prompts=False)
    sigmoid_clip.logit_scale.fill_(math.log(117.0))
    sigmoid_clip.logit_bias.fill_(-12.9)
    images = torch.randn(2, 3, 160, 160)
    text = adapter.text_features(["zebra", "sky"])
    logits = adapter.similarity(adapter.encoder.image_features(images), text)[:, :-1]
    tokens = open_clip.tokenize(["zebra", "sky"], context_length=16)
    theirs, _ = sigmoid_clip.get_logits(images, tokens)
    torch.testing.assert_close(logits - 12.9, theirs, atol=1e-4, rtol=0)
    # the bias is the same for all words
    torch.testing.assert_close(logits.softmax(-1), theirs.softmax(-1), atol=1e-5, rtol=0)


def test_a_softmaxs_temperature_is_100():
    model = build_untrained_clip(CLIP_ARCHITECTURE, 0)
    adapter = ClipAdapter(model, ("{}",), mask_prompts=False)
    with torch.no_grad():
        model.logit_scale.zero_()
    axes = torch.eye(16)
    assert adapter.similarity(axes[:1], axes[:2]).tolist() == [[100.0, 0.0]]


def test_a_file_says_all_of_it(sigmoid_clip, sigmoid_file, tmp_path):
    model = build_clip(str(sigmoid_file), "", 0)
    encoder = encoder_of(model)
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (encoder.image_size, encoder.width) == ((160, 160), 64)
    for name, value in model.state_dict().items():
        assert torch.equal(value, sigmoid_clip.state_dict()[name])
    # as open_clip saves to the Hub: weights, and a config beside them
    config = {key: value for key, value in SIGMOID.items() if key != "preprocess_cfg"}
    beside = {"model_cfg": config, "preprocess_cfg": {**SIGMOID["preprocess_cfg"], "size": [9, 9]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(beside))
    torch.save(sigmoid_clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    again = encoder_of(build_clip(str(tmp_path / "open_clip_pytorch_model.bin"), "", 0))
    assert again.mean == (0.5,) * 3
    assert architecture_of_name("ViT-B-32", str(tmp_path / "open_clip_pytorch_model.bin"))[
        "preprocess_cfg"
    ] == {"mean": [0.5] * 3, "std": [0.5] * 3}


def test_a_file_that_does_not_say_it_is_refused(sigmoid_clip, tmp_path):
    torch.save(sigmoid_clip.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(UserError, match=r"do not say their architecture.*CLIP_PRETRAINED"):
        build_clip(str(tmp_path / "plain.pt"), "", 0)
    weights, config = read_clip_file(tmp_path / "plain.pt")
    assert config is None
    load_clip_weights(build_untrained_clip(SIGMOID, 0), weights, "file")
    del weights["text.positional_embedding"]
    with pytest.raises(UserError, match=r"text.positional_embedding is missing"):
        load_clip_weights(build_untrained_clip(SIGMOID, 0), weights, "file")


def test_weights_of_the_other_layout_and_lists_of_one_number():
    """OpenAI's towers under CustomTextCLIP's names, and scales as lists."""
    plain = build_untrained_clip(CLIP_ARCHITECTURE, 0)
    custom = build_untrained_clip({**CLIP_ARCHITECTURE, "custom_text": True}, 2)
    weights = dict(plain.state_dict())
    weights["logit_scale"] = weights["logit_scale"].reshape(1)
    load_clip_weights(custom, weights, "file")
    tokens = open_clip.tokenize(["zebra", "a traffic light"])
    with torch.no_grad():
        torch.testing.assert_close(custom.encode_text(tokens), plain.encode_text(tokens))
    assert isinstance(encoder_of(plain), CausalTextEncoder)
    assert not isinstance(encoder_of(custom), CausalTextEncoder)
    # its image tower takes mask prompts all the same
    assert encoder_of(custom).mask_prompt_depth == 2


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("ViT-B-16-SigLIP", "timm's vit_base_patch16_siglip_224"),
        ("ViT-L-14-CLIPA", "avg pooling"),
        ("coca_ViT-B-32", "attention pooling"),
    ],
)
def test_mask_prompts_are_refused_where_the_tower_takes_none(name, tower):
    message = rf"MASK_PROMPT_DEPTH 3: .*this CLIP has {tower}; set .*DEPTH 0 .*FWD False"
    with pytest.raises(UserError, match=message):
        build_untrained_clip(architecture_of_name(name), 3)


def test_pixels_are_those_of_the_weights():
    def mean(name: str, pretrained: str) -> list[float] | None:
        return architecture_of_name(name, pretrained).get("preprocess_cfg", {}).get("mean")

    assert mean("ViT-L-14", "openai") is None  # OpenAI's
    assert mean("ViT-L-14", "laion2b_s32b_b82k") == [0.5] * 3
    assert mean("ViT-L/14", "laion2b_s32b_b82k") == [0.5] * 3
    assert mean("ViT-L/14", "") is None
    # what most of the weights of the name have
    assert mean("ViT-B-16-SigLIP", "") == [0.5] * 3
    assert mean("MobileCLIP-B", "my_weights.pt") == [0.0] * 3
    adapter = ClipAdapter(
        build_untrained_clip(
            {**CLIP_ARCHITECTURE, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}, 0
        ),
        ("{}",),
        mask_prompts=False,
    )
    torch.testing.assert_close(adapter.pixel_mean.flatten(), torch.tensor([25.5, 51.0, 76.5]))


def test_transformers_are_asked_for(monkeypatch):
    monkeypatch.setattr("ovseg.modeling.clip.tokenizer.find_spec", lambda _: None)
    for name, part in (("ViT-B-16-SigLIP", "its tokenizer timm/ViT-B-16-SigLIP"),
                       ("roberta-ViT-B-32", "its tokenizer roberta-base")):  # fmt: skip
        with pytest.raises(UserError, match=rf"transformers for {part}; .*ovseg\[hf-text\]"):
            build_untrained_clip(architecture_of_name(name), 0)


def test_a_tokenizer_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "zebra": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "words")
    given = {"hf_tokenizer_name": str(tmp_path / "words"), "context_length": 5,
             "tokenizer_kwargs": {"clean": "canonicalize"}}  # fmt: skip
    tokenizer = Tokenizer(given)
    assert tokenizer(["A  Zebra!", "a a a a a a"]).tolist() == [[3, 4, 0, 0, 0], [3] * 5]
    assert copy.deepcopy(tokenizer)(["a"]).tolist() == [[3, 0, 0, 0, 0]]
    with pytest.raises(UserError, match=r"tokenizer .*nowhere cannot be had"):
        Tokenizer({**given, "hf_tokenizer_name": str(tmp_path / "nowhere")})(["a"])


def test_a_model_with_such_a_clip_segments(small_config, sigmoid_file):
    keys = ("MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(sigmoid_file), *NO_PROMPTS,
            "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM", "64",
            "MODEL.CLIP_ADAPTER.MASK_THR", "0.0")  # fmt: skip
    torch.manual_seed(1)
    model = build_model(small_config(*keys)).eval()
    image = torch.randint(256, (3, 40, 56), dtype=torch.uint8)
    given = {"image": image, "height": 40, "width": 56, "class_names": ["zebra", "sky", "sand"]}
    with torch.no_grad():
        found = model([given])[0]["sem_seg"]
    assert found.shape == (3, 40, 56)
    assert found.isfinite().all()
    assert found.std() > 0
    assert model.crop_encoder.fill_colour == [127.5] * 3


def test_a_head_of_another_width_is_named(small_config, small_model, sigmoid_file, tmp_path):
    named = ("MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(sigmoid_file), *NO_PROMPTS)
    with pytest.raises(UserError) as raised:
        build_model(small_config(*named))
    assert "EMBEDDING_DIM 16 must be the width of" in str(raised.value)
    assert "set MODEL.SEM_SEG_HEAD.EMBEDDING_DIM 64" in str(raised.value)
    torch.save({"model": small_model().state_dict()}, tmp_path / "trained.pth")
    cfg = small_config(*named, "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM", "64")
    with pytest.raises(
        UserError, match=r"text features of width 16, and those of .* have 64: give"
    ):
        OVSegCheckpointer(build_model(cfg), cfg=cfg, trained=True).load(
            str(tmp_path / "trained.pth")
        )


def test_the_width_of_features_by_weights(sigmoid_clip):
    assert feature_width(sigmoid_clip.state_dict()) == 64
    assert feature_width(build_untrained_clip(CLIP_ARCHITECTURE, 0).state_dict()) == 16
    assert feature_width({}) is None


def test_an_architecture_of_a_file_keeps_what_it_is_made_of(sigmoid_clip, sigmoid_file):
    found = architecture_of_file(sigmoid_file, dict(sigmoid_clip.state_dict()), SIGMOID)
    assert found == SIGMOID
