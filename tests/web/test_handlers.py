"""What the page's events do: the right answer, only the open tab, and messages that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_samples import FLAMINGO, picture_of

from ovseg.errors import UserError
from ovseg.predictor import Predictor
from ovseg.web.handlers import AREAS, FILES, PROPOSALS, Handlers, Outcome
from ovseg.web.models import Models
from ovseg.web.tasks import Tasks
from ovseg.web.views import area_rows

TEXT = "flamingo\nforest\ngravel | pebbles"
NAMES = ["flamingo", "forest", "gravel | pebbles"]


@pytest.fixture
def models(embedded: Predictor) -> Models:
    return Models({"tiny": lambda: embedded})


@pytest.fixture
def handlers(models: Models, tmp_path: Path) -> Handlers:
    return Handlers(Tasks(models), tmp_path)


def segment(handlers: Handlers, **changes: Any) -> Outcome:
    values = {
        "image": picture_of(FLAMINGO), "text": TEXT, "model": "tiny", "weight": 0.65,
        "threshold": 0.5, "reject": 0.0, "opacity": 0.5, "tab": AREAS,
    }  # fmt: skip
    return handlers.segment(**{**values, **changes})


def test_the_answer_is_the_predictors(handlers: Handlers, embedded: Predictor) -> None:
    outcome = segment(handlers, weight=0.3, threshold=0.6, reject=0.1, opacity=0.2)
    expected = embedded(FLAMINGO, NAMES, ensemble_weight=0.3, mask_threshold=0.6, reject=0.1)
    assert (expected.labels < 0).any()
    assert outcome.areas == area_rows(expected)
    assert outcome.regions is not None
    np.testing.assert_array_equal(outcome.regions.image, expected.image)
    for mask, name in outcome.regions.masks:
        label = expected.class_names.index(name)
        np.testing.assert_array_equal(mask > 0, expected.labels == label)
        assert mask[mask > 0].min() == pytest.approx(0.2)
    assert outcome.shown is not None
    settings = {"ensemble_weight": 0.3, "mask_threshold": 0.6, "reject": 0.1}
    assert outcome.shown.task.settings == settings
    assert "classes found · 512 × 512 pixels · encoded in" in outcome.status
    assert "encoded in" not in segment(handlers, weight=0.4).status


def test_only_the_open_tab_is_filled(handlers: Handlers) -> None:
    for tab in (AREAS, PROPOSALS, FILES):
        outcome = segment(handlers, tab=tab)
        filled = {AREAS: outcome.areas, PROPOSALS: outcome.cards, FILES: outcome.files}
        assert [name for name, content in filled.items() if content] == [tab]
        opened = handlers.open_tab(outcome.shown, tab)
        assert (opened.shown, opened.regions) == (None, None)
        again = {AREAS: opened.areas, PROPOSALS: opened.cards, FILES: opened.files}
        assert [name for name, content in again.items() if content] == [tab]
    assert handlers.open_tab(None, PROPOSALS) == Outcome()


def test_cards_follow_the_threshold(handlers: Handlers, embedded: Predictor) -> None:
    expected = embedded(FLAMINGO, NAMES, proposals=True, mask_threshold=0.8).proposals
    assert expected is not None
    cards = segment(handlers, tab=PROPOSALS, threshold=0.8).cards
    assert cards is not None
    assert len(cards) == (expected.masks > 0.8).any(axis=(1, 2)).sum()


def test_files_of_different_visitors_do_not_meet(handlers: Handlers) -> None:
    first = segment(handlers, tab=FILES, weight=0.1).files
    second = segment(handlers, tab=FILES, weight=0.9).files
    assert first
    assert second
    assert not {*first} & {*second}
    summaries = [json.loads(files[2].read_text("utf-8")) for files in (first, second)]
    assert [summary["ensemble_weight"] for summary in summaries] == [0.1, 0.9]
    assert summaries[0]["file"] == "flamingo.jpg"


def test_a_new_picture_is_encoded_or_segmented(handlers: Handlers) -> None:
    settings = ("tiny", 0.65, 0.5, 0.0, 0.5, AREAS)
    ahead = handlers.upload(picture_of(FLAMINGO), "  ", *settings)
    assert (ahead.shown, ahead.regions) == (None, None)
    assert "Type class names" in ahead.status
    done = handlers.upload(picture_of(FLAMINGO), TEXT, *settings)
    assert done.regions is not None
    assert "encoded in" not in done.status


def test_several_names_on_a_line_are_told_of(handlers: Handlers) -> None:
    assert "Type a class a line" in segment(handlers, text="flamingo, forest").warning
    assert segment(handlers).warning == ""


def test_a_model_without_ensemble_takes_no_weight(embedded: Predictor, tmp_path: Path) -> None:
    alone = Predictor.from_pretrained(
        "tiny", device="cpu", opts={"MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": False}
    )
    handlers = Handlers(Tasks(Models({"tiny": lambda: alone})), tmp_path)
    outcome = segment(handlers, weight=0.2)
    assert outcome.areas == area_rows(alone(FLAMINGO, NAMES))


def test_proposals_need_a_single_view(tmp_path: Path) -> None:
    opts = {"TEST.SLIDING_WINDOW": True, "TEST.SLIDING_TILE_SIZE": 96}
    tiles = Predictor.from_pretrained("tiny", device="cpu", opts=opts)
    handlers = Handlers(Tasks(Models({"tiny": lambda: tiles})), tmp_path)
    assert segment(handlers).areas
    with pytest.raises(UserError, match=r"TEST\.SLIDING_WINDOW"):
        segment(handlers, tab=PROPOSALS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "no image"),
        ({"image": {}}, "no image"),
        ({"text": " "}, "no class names"),
        ({"model": "huge"}, "model 'huge': there is none"),
        ({"weight": 2}, "ensemble weight 2 must be a number in 0..1"),
        ({"threshold": "x"}, "mask threshold 'x' must be a number"),
        ({"threshold": None}, "mask threshold None must be a number"),
        ({"reject": 1.5}, "reject 1.5 must be a number in 0..1"),
        ({"opacity": float("nan")}, "opacity nan must be a number"),
    ],
)
def test_what_cannot_be_used_is_told(
    handlers: Handlers, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        segment(handlers, **changes)


def test_a_broken_picture_is_told(handlers: Handlers, tmp_path: Path) -> None:
    whole = FLAMINGO.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"'cut\.jpg' cannot be read as an image"):
        segment(handlers, image=picture_of(tmp_path / "cut.jpg"))


def test_a_narrow_picture(handlers: Handlers, tmp_path: Path) -> None:
    Image.new("L", (1, 300), 90).save(tmp_path / "line.png")
    outcome = segment(handlers, image=picture_of(tmp_path / "line.png"), tab=PROPOSALS)
    assert outcome.regions is not None
    assert outcome.regions.image.shape == (300, 1, 3)
