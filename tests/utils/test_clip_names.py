"""Names of CLIPs, told without open_clip."""

from __future__ import annotations

import sys

import open_clip
import pytest

from ovseg.errors import UserError
from ovseg.modeling.clip import architecture_of_name
from ovseg.utils.clip_names import check_clip_name


@pytest.fixture
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had imported open_clip."""
    monkeypatch.delitem(sys.modules, "open_clip")


@pytest.mark.usefixtures("not_imported")
def test_every_name_of_open_clip_is_known() -> None:
    for name in open_clip.list_models():
        check_clip_name("--clip", name)
    for name in ("ViT-B/16", "ViT-B-16-gelu", "ViT-L/14-quickgelu", "ovseg-tiny-clip"):
        assert architecture_of_name(name)["embed_dim"]
        check_clip_name("--clip", name)
    # files, which may be missing, and places of open_clip's own kind are looked at later
    for name in ("gone.pt", "gone.safetensors", "hf-hub:owner/name"):
        check_clip_name("--clip", name)


@pytest.mark.usefixtures("not_imported")
@pytest.mark.parametrize("name", ["nonsense", "ViT-B/17", "ViT-B/16-glue", ""])
def test_another_name_is_told_as_by_open_clip(name: str) -> None:
    with pytest.raises(UserError) as early:
        check_clip_name("MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", name)
    with pytest.raises(UserError) as late:
        architecture_of_name(name)
    assert f"CLIP_MODEL_NAME {name!r} is neither a file nor a model" in str(early.value)
    if name.startswith("ViT-B"):
        assert "ViT-B-16" in str(early.value)
    assert str(early.value) == str(late.value)


def test_names_that_a_program_added_are_left_to_open_clip() -> None:
    check_clip_name("--clip", "nonsense")
