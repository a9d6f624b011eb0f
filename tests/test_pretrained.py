"""Names of weights, where their files come from, and models that are saved and read again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import md5
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import ROOT
from detectron2.modeling import build_model
from local_server import LocalServer, serving
from safetensors import safe_open
from torch import nn

from ovseg.config import setup_cfg
from ovseg.engine.checkpoint import OVSegCheckpointer, check_weights
from ovseg.errors import UserError
from ovseg.modeling.clip import RegionTokens, architecture_of_name, text_templates
from ovseg.pretrained import RELEASED, resolve, save_pretrained
from ovseg.released import fetch, home
from ovseg.utils.downloads import DriveFile
from ovseg.utils.package_files import config_path, package_folder

TINY = ROOT / "resources" / "ovseg_tiny.pth"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of the user's cache is used or written."""
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def saved(small_model, small_config, tmp_path: Path) -> tuple[nn.Module, Path]:
    """A small OVSeg, and the folder that it was saved to."""
    model = small_model()
    return model, save_pretrained(small_config(), model.state_dict(), tmp_path / "saved")


@pytest.fixture
def hub(saved: tuple[nn.Module, Path], monkeypatch, tmp_path: Path) -> Iterator[LocalServer]:
    """huggingface_hub's own client, with the saved model on a server of this machine."""
    with serving() as server:
        for file in saved[1].iterdir():
            server.files[f"/me/ovseg-small/resolve/main/{file.name}"] = file.read_bytes()
            server.files[f"/me/ovseg-small/resolve/v1/{file.name}"] = file.read_bytes()
        options = {"endpoint": server.address, "cache_dir": tmp_path / "hub"}
        from_here = partial(huggingface_hub.hf_hub_download, **options)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_here)
        yield server


def loaded(name: str, **options: str) -> nn.Module:
    found = resolve(name, **options)
    cfg = setup_cfg(found.config, [*found.opts, "MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    return model


def assert_equal(left: nn.Module, right: nn.Module, **tolerance: float) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], **tolerance)


def test_the_table_is_the_published_one() -> None:
    text = (ROOT / "GETTING_STARTED.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"\[(\S+)\]\(https://drive\.google\.com/file/d/([^/]+)/.*?\) \| `(\w+)`", text
    )
    assert len(rows) == 3
    ours = [(r.file, r.drive.id, r.drive.md5) for r in RELEASED.values() if r.drive]
    assert sorted(ours) == sorted(rows)
    for released in RELEASED.values():
        assert config_path(released.config).is_file()
        assert config_path(released.demo_config).is_file()


def test_tiny_lies_in_the_package() -> None:
    found = resolve("tiny")
    assert found.config == config_path("ovseg_tiny_demo.yaml")
    assert found.weights == package_folder("resources") / "ovseg_tiny.pth"
    assert resolve("ovseg://tiny", use="evaluation").config == config_path("ovseg_tiny.yaml")
    # as configs have named it so far
    assert fetch("ovseg://ovseg_tiny.pth") == found.weights
    assert resolve("tiny", config="my.yaml").config == Path("my.yaml")


def test_a_released_name_is_fetched_once(monkeypatch, own_home: Path) -> None:
    gdown = pytest.importorskip("gdown")
    download, content = gdown.download, TINY.read_bytes()
    drive = DriveFile("the-id", md5(content).hexdigest()[:6])
    monkeypatch.setitem(RELEASED, "swinB-vitL14", replace(RELEASED["swinB-vitL14"], drive=drive))
    with serving(**{"the-id": content}) as server:
        monkeypatch.setattr(
            gdown, "download", lambda id, **o: download(url=f"{server.address}/{id}", **o)
        )
        check_weights("ovseg://swinB-vitL14")
        found = resolve("swinB-vitL14")
        evaluated = resolve("ovseg://swinB-vitL14", use="evaluation")
        assert len(server.gets("/the-id")) == 1
    assert found.weights == own_home / "weights" / "ovseg_swinbase_vitL14_ft_mpt.pth"
    assert found.weights.read_bytes() == content
    assert found.config == config_path("ovseg_swinB_vitL_demo.yaml")
    assert evaluated.config == config_path("ovseg_swinB_vitL_bs32_120k.yaml")
    # as MODEL.WEIGHTS it is that file: here the embedded model's
    cfg = setup_cfg(config_path("ovseg_tiny.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    OVSegCheckpointer(model, cfg=cfg, trained=True).load("ovseg://swinB-vitL14")
    assert_equal(model, loaded("tiny"))


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch) -> None:
    monkeypatch.delenv("OVSEG_HOME")
    assert home() == Path.home() / ".cache" / "ovseg"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swinB-vitL", "give tiny, swinB-vitL14, R101c-vitB16"),
        ("ovseg://swinb-vitl14", "known are tiny, swinB-vitL14, R101c-vitB16"),
        ("hf://me", "give hf://owner/name"),
        ("hf://me/model@", "give hf://owner/name"),
    ],
)
def test_unknown_names_are_answered(name: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(name)) as raised:
        resolve(name)
    assert message in str(raised.value)


def test_paths_of_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "model_final.pth"
    path.write_bytes(TINY.read_bytes())
    with pytest.raises(UserError, match=r"no config\.yaml beside it; give its config \(config=, "):
        resolve(path)
    assert resolve(path, config="x.yaml").weights == path
    (tmp_path / "config.yaml").touch()
    assert resolve(path).config == tmp_path / "config.yaml"
    # a released file is known wherever it lies
    released = tmp_path / "downloads" / "ovseg_R101c_vitB16_ft_mpt.pth"
    released.parent.mkdir()
    released.touch()
    assert resolve(released).config == config_path("ovseg_R101c_vitB_bs32_120k.yaml")


def test_a_saved_model_is_the_same_and_portable(saved, clip_file: Path) -> None:
    model, folder = saved
    assert {file.name for file in folder.iterdir()} == {"config.yaml", "model.safetensors"}
    modes = {file.stat().st_mode for file in folder.iterdir()}
    assert len(modes) == 1  # readable by the same people
    config = (folder / "config.yaml").read_text()
    # that file is of this machine
    assert str(clip_file) not in config
    assert re.search(r"^\s+DEVICE: cuda$", config, flags=re.MULTILINE)
    again = loaded(str(folder))
    assert_equal(again, model)
    # the architecture of CLIP, whose heads and activation weights do not tell
    with safe_open(folder / "model.safetensors", "pt") as file:
        architecture = json.loads(file.metadata()["model_cfg"])
    assert architecture["quick_gelu"]
    assert again.clip_adapter.clip_model.visual.transformer.resblocks[0].attn.num_heads == 2


def test_half_precision(small_model, small_config, tmp_path: Path) -> None:
    model = small_model()
    whole = save_pretrained(small_config(), model.state_dict(), tmp_path / "whole")
    half = save_pretrained(small_config(), model.state_dict(), tmp_path / "half", half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.55 * sizes[1]
    assert_equal(loaded(str(half)), model, rtol=1e-3, atol=1e-4)


def test_a_trained_shared_pass_goes_along(small_model, small_config, tmp_path: Path) -> None:
    opts = ["MODEL.CLIP_ADAPTER.REGION_ENCODER", "shared"]
    tokens = RegionTokens(small_model(*opts).clip_adapter.clip_model.visual, 0, "mask-queries")
    file = tmp_path / "queries.pt"
    torch.save({name: 2 * value for name, value in tokens.state_dict().items()}, file)
    opts += ["MODEL.CLIP_ADAPTER.SHARED_WEIGHTS", str(file)]
    model = small_model(*opts)
    folder = save_pretrained(small_config(*opts), model.state_dict(), tmp_path / "saved")
    moved = folder.rename(tmp_path / "moved")
    file.unlink()
    again = loaded(str(moved))
    found, expected = again.shared_pass.tokens, model.shared_pass.tokens
    torch.testing.assert_close(found.queries, expected.queries)
    with pytest.raises(UserError, match=r"SHARED_WEIGHTS .*queries\.pt' is not there any more"):
        save_pretrained(small_config(*opts), model.state_dict(), tmp_path / "other")


def test_a_map_of_templates_goes_along(small_model, small_config, tmp_path: Path) -> None:
    templates = text_templates("vild", [])
    file = tmp_path / "map.pt"
    weights = torch.linspace(0, 1, len(templates))
    torch.save({"template_weights": weights, "templates": list(templates)}, file)
    opts = ["MODEL.CLIP_ADAPTER.TEMPLATE_MAP", str(file)]
    model = small_model(*opts)
    folder = save_pretrained(small_config(*opts), model.state_dict(), tmp_path / "saved")
    file.unlink()
    again = loaded(str(folder.rename(tmp_path / "moved")))
    torch.testing.assert_close(again.clip_adapter.template_choice.weights.cpu(), weights)


def test_what_a_file_of_weights_says_of_a_named_clip_goes_along(
    small_config, clip_file: Path, tmp_path: Path
) -> None:
    """Another machine has no such file, and would guess the activation by the name."""
    content = torch.load(clip_file, weights_only=True)
    file = tmp_path / "gelu.pt"
    architecture = {**architecture_of_name("ViT-B-16"), "quick_gelu": False}
    torch.save({**content, "model_cfg": architecture}, file)
    key = "MODEL.CLIP_ADAPTER.CLIP_"
    cfg = small_config(f"{key}MODEL_NAME", "ViT-B-16", f"{key}PRETRAINED", str(file))
    folder = save_pretrained(cfg, {"a": torch.ones(1)}, tmp_path / "saved")
    config = (folder / "config.yaml").read_text()
    assert str(file) not in config
    assert "CLIP_MODEL_NAME: model.safetensors" in config
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert json.loads(weights.metadata()["model_cfg"])["quick_gelu"] is False


def test_saving_again_is_whole_or_not_at_all(saved, small_config, monkeypatch) -> None:
    model, folder = saved
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(small_config("SEED", "7"), model.state_dict(), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("lacking", ["config.yaml", "model.safetensors"])
def test_half_a_folder_is_refused(saved, lacking: str) -> None:
    _, folder = saved
    (folder / lacking).unlink()
    with pytest.raises(UserError, match=rf"the folder lacks {lacking}"):
        resolve(folder)


def test_a_folder_and_its_file_are_weights(saved, small_config) -> None:
    model, folder = saved
    for weights in (folder, folder / "model.safetensors"):
        check_weights(str(weights))
        other = build_model(small_config())
        OVSegCheckpointer(other, cfg=small_config(), trained=True).load(str(weights))
        assert_equal(other, model)


def test_a_model_of_the_hub(hub: LocalServer, saved, small_config) -> None:
    model, _ = saved
    for name in ("hf://me/ovseg-small", "hf://me/ovseg-small@v1"):
        assert_equal(loaded(name), model)
    asked = len(hub.gets("/me/ovseg-small/resolve/main/model.safetensors"))
    other = build_model(small_config())
    OVSegCheckpointer(other, cfg=small_config(), trained=True).load("hf://me/ovseg-small")
    assert_equal(other, model)
    assert len(hub.gets("/me/ovseg-small/resolve/main/model.safetensors")) == asked


def test_what_the_hub_does_not_have(hub: LocalServer) -> None:
    del hub.files["/me/ovseg-small/resolve/main/config.yaml"]
    with pytest.raises(UserError, match=r"hf://me/ovseg-small: config\.yaml .*it has no file"):
        resolve("hf://me/ovseg-small")
    with pytest.raises(UserError, match=r"hf://me/ovseg-small@v9: .* could not be fetched"):
        check_weights("hf://me/ovseg-small@v9")
