"""Models small enough to build in a moment, and the published implementation's inputs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from tiny_world import SMALL_MODEL, as_pairs, write_clip

from ovseg import OVSeg, Predictor, add_ovseg_config
from ovseg.data.preparation.command import prepare as run_preparation
from ovseg.engine.test_time import plain_model

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


@pytest.fixture
def forget_data_sets() -> Iterator[None]:
    """Data sets that a test registers are gone after it."""
    known = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(autouse=True, scope="session")
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes what the user's own runs keep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_HOME", str(tmp_path_factory.mktemp("home")))
        yield


#: whose text features the exported model has in its folder
EXPORTED_WORDS = ("teapot", "grass", "night sky")


@pytest.fixture(scope="session")
def exported(embedded: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, exported once for all tests; nobody changes it."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"no {package}: pip install 'ovseg[export]'")
    from ovseg.export.write import ExportOptions, export_model

    options = ExportOptions(formats=("onnx", "pt2"), class_names=EXPORTED_WORDS)
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    return export_model(embedded.cfg, plain_model(embedded.model), folder, options)


@pytest.fixture(autouse=True)
def _no_handlers_of_earlier_tests() -> None:
    """Logs that commands set up in earlier tests may write to streams that are closed by now."""
    for name in (None, "ovseg", "detectron2", "fvcore"):
        log = logging.getLogger(name)
        for handler in list(log.handlers):
            if getattr(getattr(handler, "stream", None), "closed", False):
                log.removeHandler(handler)


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


#: files whose tests train, evaluate, build large models or start processes; `make test-fast` leaves
#: them out
SLOW_FILES = frozenset(
    {
        "bad_input/test_bad_input.py",
        "cli/test_analyze.py",
        "cli/test_compare.py",
        "cli/test_install_detectron2.py",
        "cli/test_main.py",
        "cli/test_panoptic_commands.py",
        "cli/test_search.py",
        "cli/test_segment.py",
        "cli/test_templates.py",
        "cli/test_train.py",
        "cli/test_train_again.py",
        "cli/test_video_command.py",
        "cli/test_web.py",
        "data/own/test_exports.py",
        "data/own/test_own_data.py",
        "data/test_prepare.py",
        "data/test_prepare_broken.py",
        "data/test_prepare_scores.py",
        "data/test_proposal_files.py",
        "datasets/test_stickerscenes_clips.py",
        "datasets/test_stickerscenes_render.py",
        "datasets/test_stickerscenes_sprites.py",
        "engine/test_checkpoint.py",
        "engine/test_lost_images.py",
        "engine/test_several_processes.py",
        "engine/test_shared_training.py",
        "engine/test_test_time.py",
        "engine/test_trainer.py",
        "engine/test_vanished_folders.py",
        "export/test_export.py",
        "export/test_shared_export.py",
        "fuzz/test_fuzz_files.py",
        "fuzz/test_fuzz_model.py",
        "labelling/test_label_command.py",
        "labelling/test_label_on_ray.py",
        "labelling/test_self_training.py",
        "methods/test_pixel_methods.py",
        "modeling/test_clip_kinds.py",
        "modeling/test_parity.py",
        "open_clip_training/ablation/test_ablation_scoring.py",
        "open_clip_training/ablation/test_ablations.py",
        "open_clip_training/adaptation/test_adaptation_resume.py",
        "open_clip_training/adaptation/test_adaptation_run.py",
        "open_clip_training/mining/test_collect_mined_pairs.py",
        "open_clip_training/mining/test_mined_for_open_clip.py",
        "open_clip_training/pretraining/test_pretraining.py",
        "open_clip_training/test_clip_scripts.py",
        "runtime/test_exported_model.py",
        "test_documented_python.py",
        "test_embedded.py",
        "test_faster_modes.py",
        "test_no_network.py",
        "test_notebook.py",
        "test_runtime_distribution.py",
        "test_wheel.py",
        "tools/test_convert_tools.py",
        "tools/test_export_checkpoint.py",
        "tools/test_kill_runs.py",
        "tools/test_make_sample_archives.py",
        "tools/test_swap_clip_weights.py",
        "utils/test_downloads.py",
        "video/test_videos.py",
        "web/test_live_demo.py",
        "web/test_page.py",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of :data:`SLOW_FILES` as slow."""
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix() in SLOW_FILES:
            item.add_marker("slow")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the other processes have; sums of several threads have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
