"""What is found wrong with a run before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from detectron2.config import CfgNode
from tiny_world import CONFIGS, tiny_opts, tiny_world

from ovseg.config import setup_cfg
from ovseg.engine import checks
from ovseg.errors import UserError

SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_world(tmp_path_factory.mktemp("world"), prefix="checked") as path:
        yield path


def config(clip: Path, **overrides: object) -> CfgNode:
    settings: dict[str, object] = {
        "DATASETS__TRAIN": "checked_train",
        "DATASETS__TEST": "checked_dev",
    }
    return setup_cfg(SWIN, tiny_opts(clip, **(settings | overrides)))


def test_data_sets_are_checked_before_any_work() -> None:
    with pytest.raises(UserError, match=r"'nowhere'.*leave it out of DATASETS\.TEST"):
        checks.check_datasets(["nowhere"])


def test_what_is_there_passes(clip: Path) -> None:
    checks.check_training(config(clip))
    checks.check_evaluation(config(clip))
    checks.check_truth(["checked_dev"], halves=2)


def test_an_evaluation_needs_data_and_weights(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DATASETS\.TEST: empty"):
        checks.check_evaluation(config(clip, DATASETS__TEST="()"))
    cfg = config(clip, OUTPUT_DIR=tmp_path)
    with pytest.raises(UserError, match="holds no training whose last checkpoint"):
        checks.check_checkpoint(cfg, resume=True)
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    (tmp_path / "model_0000001.pth").touch()
    checks.check_checkpoint(cfg, resume=True)
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS: empty"):
        checks.check_checkpoint(cfg, resume=False)


def test_weights_are_a_file_a_name_or_on_the_net(tmp_path: Path) -> None:
    (tmp_path / "model.pth").touch()
    for path in (str(tmp_path / "model.pth"), "ovseg://ovseg_tiny.pth", "https://host.org/x.pth"):
        assert checks.weights_exist(path)
        checks.check_weights(path)
    for path, expected in (
        (str(tmp_path / "gone.pth"), r"gone\.pth': there is no such file"),
        (str(tmp_path), r"the folder holds no model\.safetensors"),
        ("ovseg://gone.pth", r"ovseg://gone\.pth: there are no weights of that name"),
    ):
        assert not checks.weights_exist(path)
        with pytest.raises(UserError, match=expected):
            checks.check_weights(path)


def test_training_ignores_what_its_data_sets_do(clip: Path) -> None:
    cfg = config(clip, MODEL__SEM_SEG_HEAD__IGNORE_VALUE=7)
    with pytest.raises(UserError, match=r"IGNORE_VALUE: 7, but data set checked_train ignores 255"):
        checks.check_training(cfg)


@pytest.mark.parametrize(("aug", "window"), [(True, False), (False, True)])
def test_several_views_are_refused_where_one_is_looked_at(aug: bool, window: bool) -> None:
    test = SimpleNamespace(AUG=SimpleNamespace(ENABLED=aug), SLIDING_WINDOW=window)
    with pytest.raises(UserError, match=r"TEST\..* True: images are looked at once"):
        checks.check_single_view(SimpleNamespace(TEST=test))
