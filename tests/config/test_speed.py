"""Presets of speed: which keys they set, and what takes precedence."""

from __future__ import annotations

import pytest
from tiny_world import CONFIGS

from ovseg import UserError
from ovseg.cli import search, segment, train
from ovseg.cli.model_choice import chosen_config
from ovseg.config import setup_cfg
from ovseg.config.speed import SPEEDS, speed_opts
from ovseg.predictor import Predictor

CONFIG = str(CONFIGS / "ovseg_tiny.yaml")
CROPS = "MODEL.CLIP_ADAPTER.CROPS"
WEIGHTS = ["MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth"]


def test_exact_is_what_holds_without_a_preset() -> None:
    plain, exact = setup_cfg(CONFIG), setup_cfg(CONFIG, speed_opts("exact"))
    assert plain == exact
    assert speed_opts(None) == []
    # each sets the same keys, so that one takes back all that another has set
    assert len({frozenset(keys) for keys in SPEEDS.values()}) == 1
    changed = setup_cfg(CONFIG, [*speed_opts("fastest"), *speed_opts("exact")])
    assert changed == plain


@pytest.mark.parametrize("speed", ["fast", "fastest"])
def test_every_command_knows_the_presets(speed: str) -> None:
    expected = setup_cfg(CONFIG, speed_opts(speed)).MODEL.CLIP_ADAPTER
    assert expected != setup_cfg(CONFIG).MODEL.CLIP_ADAPTER
    options = ["--config-file", CONFIG, "--speed", speed]
    args = train.build_parser().parse_args([*options, "--eval-only"])
    assert expected == train.setup(args).MODEL.CLIP_ADAPTER
    given = ["--class-names", "dog", "--input", "a.jpg", "--opts", *WEIGHTS]
    args = segment.build_parser().parse_args([*options, *given])
    assert expected == chosen_config(args).MODEL.CLIP_ADAPTER
    assert search.build_parser().parse_args(options).speed == speed


def test_a_key_takes_precedence_over_the_preset() -> None:
    opts = ["--opts", *WEIGHTS, CROPS, "all"]
    options = ["--config-file", CONFIG, "--speed", "fast", "--class-names", "dog", *opts]
    cfg = chosen_config(segment.build_parser().parse_args(options))
    assert cfg.MODEL.CLIP_ADAPTER.CROPS == "all"


def test_python_knows_the_presets() -> None:
    predictor = Predictor.from_pretrained("tiny", device="cpu", speed="fastest")
    choice = predictor.model.crop_choice
    assert (choice.visible_only, choice.min_area, choice.borrow_iou) == (True, 0.01, 0.9)
    again = Predictor(predictor.cfg, predictor.model, speed="exact")
    assert again.cfg.MODEL.CLIP_ADAPTER.CROPS == "all"
    assert predictor.cfg.MODEL.CLIP_ADAPTER.CROPS == "visible"


def test_an_unknown_speed_is_named() -> None:
    with pytest.raises(UserError, match="speed 'fastes' is unknown; did you mean fastest"):
        speed_opts("fastes")
