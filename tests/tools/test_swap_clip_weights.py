"""CLIP into an OVSeg checkpoint and out of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from conftest import ROOT
from detectron2.modeling import build_model
from tiny_world import CLIP_ARCHITECTURE

from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.clip_exchange import NO_OBJECT
from ovseg.modeling.clip import (
    OVSEG_PREFIX,
    architecture_of_name,
    build_clip,
    build_untrained_clip,
)
from tools.swap_clip_weights import main

PROMPTS = "visual.mask_embedding"


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Runs the tool in this process."""

    def call(*arguments):
        code = 0
        capsys.readouterr()
        try:
            main([str(word) for word in arguments])
        except SystemExit as end:
            code = end.code
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def checkpoint(small_model, small_config, tmp_path_factory):
    """A small OVSeg with mask prompts of depth 3."""
    folder = tmp_path_factory.mktemp("ovseg")
    OVSegCheckpointer(small_model(), str(folder), cfg=small_config()).save("ovseg", iteration=7)
    return folder / "ovseg.pth"


def adapted(path, text, depth=0, **changes):
    """A CLIP whose text tower is ``text``'s, its other weights random."""
    architecture = {**CLIP_ARCHITECTURE, **changes}
    torch.manual_seed(5)
    state = build_untrained_clip(architecture, depth).state_dict()
    if depth:
        torch.nn.init.normal_(state[PROMPTS])
    state |= {k: v for k, v in text.items() if not k.startswith("visual.") and k in state}
    torch.save({"state_dict": state, "model_cfg": architecture}, path)
    return state


def clip_in(checkpoint):
    model = torch.load(checkpoint, weights_only=True)["model"]
    return {
        key.removeprefix(OVSEG_PREFIX): value
        for key, value in model.items()
        if key.startswith(OVSEG_PREFIX)
    }


@pytest.mark.parametrize("depth", [0, 2])
def test_put_changes_clip_alone_and_names_the_keys(checkpoint, tmp_path, small_config, depth, run):
    clip = adapted(tmp_path / "clip.pt", clip_in(checkpoint), depth)
    done = run("put", checkpoint, tmp_path / "clip.pt", tmp_path / "new.pth", "--verify")
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert "warning" not in done.stdout
    assert f"MASK_PROMPT_DEPTH {depth}" in done.stdout
    assert f"MASK_PROMPT_FWD {depth > 0}" in done.stdout
    old, new = (torch.load(p, weights_only=True) for p in (checkpoint, tmp_path / "new.pth"))
    assert new["iteration"] == 7
    for key, value in new["model"].items():
        place = key.removeprefix(OVSEG_PREFIX)
        assert torch.equal(value, clip[place] if place in clip else old["model"][key]), key
    # with the keys that were named it loads into a model
    keys = done.stdout.split("set ")[1].split()
    keys += ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(tmp_path / "clip.pt")]
    model = build_model(small_config(*keys))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    OVSegCheckpointer(model, cfg=small_config(*keys), trained=True).load(str(tmp_path / "new.pth"))
    loaded = model.clip_adapter.clip_model.state_dict()
    assert loaded.keys() == clip.keys()
    assert all(torch.equal(loaded[key], value) for key, value in clip.items())


def test_take_gives_what_put_takes(checkpoint, tmp_path, run):
    done = run("take", checkpoint, tmp_path / "clip.pt", "--verify")
    assert done.returncode == 0, done.stderr
    assert "mask prompts of depth 3" in done.stdout
    assert "OpenAI" in done.stdout
    taken = torch.load(tmp_path / "clip.pt", weights_only=True)["state_dict"]
    assert taken.keys() == clip_in(checkpoint).keys()
    run("put", checkpoint, tmp_path / "clip.pt", tmp_path / "again.pth")
    old, new = (torch.load(p, weights_only=True) for p in (checkpoint, tmp_path / "again.pth"))
    assert old["model"].keys() == new["model"].keys()
    assert all(torch.equal(value, new["model"][key]) for key, value in old["model"].items())


def test_a_name_makes_the_result_say_its_architecture(tmp_path, run):
    source = ROOT / "resources/ovseg_tiny.pth"
    done = run("take", source, tmp_path / "clip.pt", "--name", "ovseg-tiny-clip", "--verify")
    assert done.returncode == 0, done.stderr
    clip = build_clip(str(tmp_path / "clip.pt"), "", 0)
    assert clip.transformer.resblocks[0].attn.num_heads == 4
    assert clip.visual.image_size == (64, 64)


@pytest.fixture(scope="module")
def with_vit_b(tmp_path_factory):
    """An OVSeg head with a CLIP of ViT-B/16's shapes."""
    with torch.device("meta"):
        shapes = build_untrained_clip(architecture_of_name("ViT-B/16", "openai"), 0).state_dict()
    weights = {OVSEG_PREFIX + k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}
    path = tmp_path_factory.mktemp("vit_b") / "ovseg.pth"
    torch.save({"model": {**weights, NO_OBJECT: torch.zeros(1, 512)}}, path)
    return path


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("ViT-B/16", "QuickGELU"),
        ("ViT-B-16", "QuickGELU"),
        ("ViT-B-16-quickgelu", "QuickGELU"),
        ("ViT-B-16-gelu", "GELU"),
    ],
)
def test_both_forms_of_a_name_mean_the_same_activation(with_vit_b, tmp_path, run, name, activation):
    done = run("take", with_vit_b, tmp_path / "clip.pt", "--name", name)
    assert done.returncode == 0, done.stderr
    assert f"the activation is {activation}\n" in done.stdout
    model_cfg = torch.load(tmp_path / "clip.pt", weights_only=True)["model_cfg"]
    assert model_cfg["quick_gelu"] == (activation == "QuickGELU")


def test_a_half_precision_checkpoint_stays_one(checkpoint, tmp_path, run):
    content = torch.load(checkpoint, weights_only=True)
    half = {k: v.half() if v.is_floating_point() else v for k, v in content["model"].items()}
    torch.save({"model": half}, tmp_path / "half.pth")
    adapted(tmp_path / "clip.pt", clip_in(checkpoint), 1)
    done = run("put", tmp_path / "half.pth", tmp_path / "clip.pt", tmp_path / "new.pth", "--verify")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    assert {v.dtype for v in clip_in(tmp_path / "new.pth").values()} == {torch.float16}


def test_another_text_tower_is_pointed_out(checkpoint, tmp_path, run):
    adapted(tmp_path / "clip.pt", {})
    done = run("put", checkpoint, tmp_path / "clip.pt", tmp_path / "new.pth")
    assert done.returncode == 0
    assert "warning: the text tower" in done.stdout


def test_a_second_clip_beside_the_checkpoints_is_pointed_out(
    checkpoint, tmp_path, small_config, clip_file, caplog, run
):
    adapted(tmp_path / "clip.pt", clip_in(checkpoint), 3)
    assert run("put", checkpoint, tmp_path / "clip.pt", tmp_path / "new.pth").returncode == 0
    for clip, warned in ((tmp_path / "clip.pt", False), (clip_file, True)):
        cfg = small_config("MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(clip))
        caplog.clear()
        OVSegCheckpointer(build_model(cfg), cfg=cfg).load(str(tmp_path / "new.pth"))
        assert ("carries another CLIP than CLIP_MODEL_NAME" in caplog.text) == warned


def test_what_does_not_fit_is_named(checkpoint, tmp_path, run):
    text, vision = CLIP_ARCHITECTURE["text_cfg"], CLIP_ARCHITECTURE["vision_cfg"]
    adapted(tmp_path / "wide.pt", {}, embed_dim=24)
    adapted(tmp_path / "deep.pt", {}, text_cfg={**text, "layers": 3})
    adapted(tmp_path / "coarse.pt", {}, vision_cfg={**vision, "patch_size": 16})
    (tmp_path / "noise.pt").write_bytes(b"noise")
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "backbone.pth")
    bare = adapted(tmp_path / "bare.pt", {})
    del bare["text_projection"]
    torch.save(bare, tmp_path / "bare.pt")
    torch.save({"model": {NO_OBJECT: torch.zeros(16)}}, tmp_path / "flat.pth")
    cases = {
        ("put", checkpoint, tmp_path / "wide.pt"): "width 24, the OVSeg head wants 16",
        ("put", checkpoint, tmp_path / "deep.pt"): "transformer.resblocks.2.attn",
        ("put", checkpoint, tmp_path / "coarse.pt"): "visual.conv1.weight is (32, 3, 16, 16)",
        ("put", checkpoint, tmp_path / "noise.pt"): "noise.pt",
        ("put", checkpoint, tmp_path / "bare.pt"): "bare.pt' holds no CLIP",
        ("put", tmp_path / "noise.pt", tmp_path / "wide.pt"): "noise.pt' cannot be read",
        ("put", tmp_path / "flat.pth", tmp_path / "wide.pt"): "is no OVSeg checkpoint",
        ("take", "--name", "ViT-L/14", checkpoint): "--name 'ViT-L/14' is not the architecture",
        ("take", tmp_path / "gone.pth"): "gone.pth' does not exist",
        ("take", tmp_path / "backbone.pth"): "is no OVSeg checkpoint",
    }
    for arguments, message in cases.items():
        done = run(*arguments, tmp_path / "new.pth")
        assert done.returncode == 2, arguments
        assert done.stderr.startswith("error: ")
        assert message in done.stderr
        assert not (tmp_path / "new.pth").exists()


def test_a_folder_is_no_place_for_the_result(checkpoint, tmp_path, run):
    (tmp_path / "new.pth").mkdir()
    done = run("take", checkpoint, tmp_path / "new.pth")
    assert done.returncode == 2
    assert done.stderr == f"error: '{tmp_path / 'new.pth'}': Is a directory\n"
    assert [path.name for path in tmp_path.iterdir()] == ["new.pth"]
