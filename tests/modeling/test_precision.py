"""Precisions: which one a device gets, and that CLIP's features stay near those of float32."""

from __future__ import annotations

import copy
import functools
import logging
import sys

import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE
from torch import Tensor

from ovseg.errors import UserError
from ovseg.modeling import precision as precision_module
from ovseg.modeling.clip import ClipAdapter, build_untrained_clip
from ovseg.modeling.clip.lowered import LoweredTowers
from ovseg.modeling.memory import in_parts, rows_at
from ovseg.modeling.precision import device_precision
from ovseg.structures import Crops

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    device_precision.cache_clear()


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch):
    """Sets what devices have instructions for."""

    def say(*precisions: str) -> None:
        monkeypatch.setattr(precision_module, "native_precisions", lambda device: list(precisions))

    return say


@pytest.mark.parametrize(
    ("device", "capability", "has", "expected"),
    [
        ("cpu", None, ["fp32"], "fp32"),
        ("cpu", None, ["fp32", "bf16", "int8"], "bf16"),
        ("cpu", None, ["fp32", "int8"], "fp32"),
        ("cuda", (6, 1), ["fp32", "fp16", "int8"], "fp32"),
        ("cuda", (7, 5), ["fp32", "fp16", "int8"], "fp16"),
        ("cuda", (9, 0), ["fp32", "fp16", "int8", "bf16", "tf32"], "fp16"),
    ],
)
def test_auto_is_what_the_device_has(native, monkeypatch, device, capability, has, expected):
    native(*has)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device_precision("MODEL.PRECISION", "auto", torch.device(device)) == expected


def test_emulated_precisions_are_warned_of_once(native, caplog):
    native("fp32")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for name in ("fp32", "int8", "tf32", "bf16", "fp16"):
                assert device_precision("MODEL.PRECISION", name, CPU) == name
    tf32, bf16, fp16 = (record.getMessage() for record in caplog.records)
    assert "MODEL.PRECISION tf32: cpu" in tf32
    assert "about 6 times the time of fp32" in bf16
    assert "about 4 times the time of fp32" in fp16
    caplog.clear()
    device_precision.cache_clear()
    native("fp32", "bf16")
    device_precision("MODEL.PRECISION", "bf16", CPU)
    assert not caplog.records


def test_int8_is_for_cpus(native):
    native("fp32", "int8")
    with pytest.raises(UserError, match=r"MODEL\.PRECISION int8 is for CPUs; give fp16 on cuda"):
        device_precision("MODEL.PRECISION", "int8", torch.device("cuda"))


@pytest.fixture(scope="module")
def clip() -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_untrained_clip(CLIP_ARCHITECTURE, 2).eval()
    torch.nn.init.normal_(model.visual.mask_embedding)
    return model


@pytest.fixture(scope="module")
def crops() -> Crops:
    generator = torch.Generator().manual_seed(1)
    masks = (torch.rand(5, 1, 4, 4, generator=generator) > 0.4).float()
    masks = masks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = 255 * torch.rand(5, 3, 32, 32, generator=generator)
    return Crops(images, masks, torch.ones(5, dtype=torch.bool))


def adapter(clip: torch.nn.Module, precision: str = "fp32", compiled: bool = False) -> ClipAdapter:
    return ClipAdapter(
        clip, ["{}"], mask_prompts=True, precision=precision, compiled=compiled
    ).eval()


def encode(clip: ClipAdapter, crops: Crops) -> Tensor:
    """Crops that are cut already."""
    return clip.encode_crops(
        len(crops.images),
        lambda part: Crops(crops.images[part], crops.masks[part], crops.valid[part]),
    )


@pytest.mark.parametrize(
    ("precision", "least"), [("tf32", 1), ("fp16", 0.9999), ("bf16", 0.999), ("int8", 0.99)]
)
@torch.inference_mode()
def test_features_stay_near_those_of_fp32(clip, crops, precision, least):
    if precision == "int8":
        pytest.importorskip("torchao")
    expected = encode(adapter(clip), crops)
    keys = set(clip.state_dict())
    low = adapter(clip, precision)
    found = encode(low, crops)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found, expected).min() >= least - 1e-6
    assert torch.equal(found, expected) == (least == 1)
    # the model itself stays as it is
    assert set(clip.state_dict()) == keys
    assert {weight.dtype for weight in clip.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):  # of somebody else
        torch.testing.assert_close(encode(low, crops), found)


def test_int8_without_its_package(clip, crops, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(UserError, match=r"pip install 'ovseg\[int8\]'"):
        encode(adapter(clip, "int8"), crops)


@torch.no_grad()
def test_the_copy_follows_the_weights(clip, crops):
    low = adapter(copy.deepcopy(clip), "bf16")
    before = encode(low, crops)
    kept = low._towers.get(low.clip_model.visual, "bf16", False)
    assert low._towers.get(low.clip_model.visual, "bf16", False) is kept
    low.clip_model.visual.proj.mul_(2)
    torch.testing.assert_close(encode(low, crops), 2 * before)
    assert copy.deepcopy(low)._towers._kept is None


@pytest.mark.slow
@torch.no_grad()
def test_compiled_gives_the_same(clip, crops, monkeypatch):
    eager = functools.partial(torch.compile, backend="eager")  # without a C++ compiler
    monkeypatch.setattr(torch, "compile", eager)
    torch.testing.assert_close(
        encode(adapter(clip, compiled=True), crops), encode(adapter(clip), crops)
    )


def short_of_memory(fits: int, seen: list[int]):
    """Work that doubles numbers, at most so many at once."""

    def work(part: slice) -> Tensor:
        numbers = torch.arange(100)[part]
        seen.append(len(numbers))
        if len(numbers) > fits:
            raise torch.OutOfMemoryError
        return 2 * numbers

    return work


def test_parts_are_halved_until_they_fit(caplog):
    seen: list[int] = []
    results, at_once = in_parts(short_of_memory(3, seen), 11, 11)
    assert results.tolist() == list(range(0, 22, 2))
    assert seen == [11, 6, 3, 3, 3, 2]
    assert at_once == 3
    assert "out of memory with 11 crops at once: going on with 6" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(short_of_memory(0, []), 5, 5)


def test_rows_are_copied_only_where_some_are_left_out() -> None:
    values = torch.arange(12.0).view(4, 3)
    assert rows_at(values, torch.arange(4)) is values
    for places in ([3, 1], [0, 1, 2], [1, 0, 2, 3], [0, 1, 2, 3, 3], []):
        found = rows_at(values, torch.tensor(places, dtype=torch.int64))
        assert found.tolist() == [values.tolist()[place] for place in places]


@torch.no_grad()
def test_crops_that_do_not_fit_are_encoded_in_parts(clip, crops, monkeypatch):
    expected = encode(adapter(clip), crops)
    low = adapter(clip)
    whole, seen = low.image_features, []

    def small_memory(images: Tensor, masks: Tensor) -> Tensor:
        seen.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return whole(images, masks)

    monkeypatch.setattr(low, "image_features", small_memory)
    torch.testing.assert_close(encode(low, crops), expected)
    assert seen == [5, 3, 2, 2, 1]
    seen.clear()
    encode(low, crops)  # it is not tried again
    assert seen == [2, 2, 1]


def test_towers_are_kept_one_at_a_time(clip):
    towers = LoweredTowers()
    first = towers.get(clip.visual, "fp16", False)
    towers.get(clip.visual, "bf16", False)
    assert towers.get(clip.visual, "fp16", False) is not first
    assert towers.get(clip.visual, "fp32", False) is clip.visual


def test_a_precision_of_its_own_or_that_of_the_training():
    matrix = torch.ones(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with precision_module.autocast("fp32", CPU):
            assert (matrix @ matrix).dtype == torch.bfloat16
        with precision_module.autocast("fp16", CPU):
            assert (matrix @ matrix).dtype == torch.float16
    with precision_module.autocast("fp32", CPU):
        assert (matrix @ matrix).dtype == torch.float32
