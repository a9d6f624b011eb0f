"""Models small enough to build in a moment, and the published implementation's inputs."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from tiny_world import SMALL_MODEL, as_pairs, write_clip

from ovseg import OVSeg, Predictor, add_ovseg_config
from ovseg.data.preparation.command import prepare as run_preparation

ROOT = Path(__file__).resolve().parent.parent
PARITY = Path(__file__).parent / "data" / "parity"


def load_config(name: str, *opts: str) -> CfgNode:
    """A config of ``configs/`` with changes, the way users of the published code load one."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_ovseg_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs" / name))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *opts])
    return cfg


@pytest.fixture(scope="session")
def seeded() -> ModuleType:
    """Weights, images and masks on which the published implementation was run."""
    spec = importlib.util.spec_from_file_location("seeded", PARITY / "seeded.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parity() -> Callable[[str], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """How a case of the published implementation was made, and its answers."""

    def case(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        made = json.loads((PARITY / f"{name}.json").read_text())
        answers = PARITY / f"{name}.npz"
        return made, dict(np.load(answers)) if answers.exists() else {}

    return case


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of 32-pixel input as a training checkpoint that says its architecture."""
    return write_clip(tmp_path_factory.mktemp("clip") / "small.pt")


@pytest.fixture(scope="session")
def small_config(clip_file: Path) -> Callable[..., CfgNode]:
    """Makes configs of a small random OVSeg: ``small_config(*opts, base=...)``."""

    def make(*opts: str, base: str = "ovseg_swinB_vitL_bs32_120k.yaml") -> CfgNode:
        clip = ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(clip_file)]
        return load_config(base, *as_pairs(SMALL_MODEL), *clip, *opts)

    return make


@pytest.fixture(scope="session")
def small_model(small_config: Callable[..., CfgNode], seeded: ModuleType) -> Callable[..., OVSeg]:
    """Builds small models with seeded weights in evaluation mode; arguments as the config's."""

    def make(*opts: str, **kwargs: str) -> OVSeg:
        model = build_model(small_config(*opts, **kwargs))
        seeded.fill(model)
        return model.eval()

    return make


def prepare(name: str, root: Path, *options: str) -> int:
    """Run ``datasets/prepare_<name>.py`` on a root of data sets; returns its exit code."""
    script = importlib.import_module(f"prepare_{name}")
    arguments = ["--root", str(root), "--num-workers", "2", *options]
    return run_preparation(script.__doc__, script.plan, arguments)


@pytest.fixture(scope="session")
def embedded() -> Predictor:
    """The embedded model."""
    return Predictor.from_pretrained("tiny", device="cpu")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it loudly when the web page was to be tried in a browser and was not."""
    reasons = {
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
        if "browser" in getattr(report, "keywords", ())
    }
    if reasons:
        terminalreporter.section("THE WEB PAGE WAS NOT TRIED IN A BROWSER", red=True, bold=True)
        for reason in sorted(reasons):
            terminalreporter.line(reason)


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The error lines so far."""
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    return [line for line in lines if line.startswith("error: ")]
