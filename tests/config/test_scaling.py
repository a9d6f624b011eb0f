"""Learning rate and iterations of another batch size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import ROOT
from detectron2.config import CfgNode

from ovseg.config import setup_cfg
from ovseg.config.scaling import scale_to_batch
from ovseg.errors import UserError


def make(opts: Sequence[object]) -> CfgNode:
    return setup_cfg(str(ROOT / "configs/ovseg_swinB_vitL_bs32_120k.yaml"), list(opts))


def test_a_quarter_of_the_batch() -> None:
    opts = ["SOLVER.IMS_PER_BATCH", "8", "SEED", "1"]
    scaled, line = scale_to_batch(opts, 8, make)
    cfg = make([*opts, *scaled])
    before = make([])
    assert before.SOLVER.IMS_PER_BATCH == 32
    assert cfg.SOLVER.IMS_PER_BATCH == 8
    assert pytest.approx(1.5e-5) == cfg.SOLVER.BASE_LR
    assert cfg.SOLVER.MAX_ITER == 480_000
    assert cfg.SOLVER.WARMUP_ITERS == 4 * before.SOLVER.WARMUP_ITERS
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 4 * before.SOLVER.CHECKPOINT_PERIOD
    assert line.startswith("--scale-lr: 8 images a batch in place of 32: SOLVER.BASE_LR 6e-05 -> ")
    assert "SOLVER.MAX_ITER 120000 -> 480000" in line


def test_what_is_given_stays() -> None:
    opts = ["SOLVER.BASE_LR", "1e-4", "SOLVER.IMS_PER_BATCH", "64"]
    scaled, line = scale_to_batch(opts, 64, make)
    cfg = make([*opts, *scaled])
    assert cfg.SOLVER.BASE_LR == 1e-4
    assert cfg.SOLVER.MAX_ITER == 60_000
    assert "BASE_LR" not in line


def test_the_batch_has_to_be_given() -> None:
    with pytest.raises(UserError, match=r"--scale-lr .*give SOLVER\.IMS_PER_BATCH N"):
        scale_to_batch(["SEED", "1"], 32, make)


def test_the_steps_of_a_schedule_go_with_its_iterations() -> None:
    opts = ["SOLVER.IMS_PER_BATCH", "8"]

    def with_steps(more: Sequence[object]) -> CfgNode:
        cfg = make(more)
        if "SOLVER.STEPS" not in more:
            cfg.defrost()
            cfg.SOLVER.STEPS = (60_000, 90_000)
        return cfg

    scaled, line = scale_to_batch(opts, 8, with_steps)
    assert make([*opts, *scaled]).SOLVER.STEPS == (240_000, 360_000)
    assert "SOLVER.STEPS (60000, 90000) -> (240000, 360000)" in line
