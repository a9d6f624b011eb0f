"""Optimizer, schedule, reproducibility, resuming, writers."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, tiny_world
from torch import Tensor, nn

import ovseg  # noqa: F401  registers the architectures
from ovseg.config import setup_cfg
from ovseg.data import loader
from ovseg.data.loader import SeededStream, TrainLoader
from ovseg.engine import stopping
from ovseg.engine.optimizer import build_optimizer, parameter_groups
from ovseg.engine.resuming import remove_training
from ovseg.engine.trainer import Trainer
from ovseg.engine.writers import WandbWriter
from ovseg.errors import UserError

SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_world(tmp_path_factory.mktemp("world")) as path:
        yield path


def config(clip: Path, output: Path, **overrides: object) -> CfgNode:
    settings: dict[str, object] = {
        "DATASETS__TRAIN": "tiny_train",
        "DATASETS__TEST": "()",
        "OUTPUT_DIR": output,
    }
    return setup_cfg(SWIN, tiny_opts(clip, **(settings | overrides)))


def train(cfg: CfgNode, resume: bool = False) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.json").read_text().splitlines()
    return [json.loads(line)["total_loss"] for line in lines]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Net(nn.Module):
    """One parameter of every kind that has a rule of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "norm": nn.LayerNorm(2)})
        self.backbone.register_parameter(
            "relative_position_bias_table", nn.Parameter(torch.ones(3))
        )
        self.backbone.register_parameter("absolute_pos_embed", nn.Parameter(torch.ones(3)))
        self.head = nn.Linear(2, 2)
        self.tied = self.head
        self.norm = nn.GroupNorm(1, 2)
        self.queries = nn.Embedding(3, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def solver(**settings: Any) -> CfgNode:
    pairs = [part for key, value in settings.items() for part in (f"SOLVER.{key}", str(value))]
    return setup_cfg(SWIN, pairs)


def test_parameter_groups_follow_the_rules() -> None:
    cfg = solver(
        BASE_LR=0.1,
        BACKBONE_MULTIPLIER=0.5,
        WEIGHT_DECAY=0.01,
        WEIGHT_DECAY_NORM=0.02,
        WEIGHT_DECAY_EMBED=0.03,
    )
    model = Net()
    names = {value: name for name, value in model.named_parameters()}
    found = {
        names[value]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(cfg, model)
        for value in group["params"]
    }
    assert found == {
        "backbone.conv.weight": (0.05, 0.01),
        "backbone.conv.bias": (0.05, 0.01),
        "backbone.norm.weight": (0.05, 0.02),
        "backbone.norm.bias": (0.05, 0.02),
        "backbone.relative_position_bias_table": (0.05, 0.0),
        "backbone.absolute_pos_embed": (0.05, 0.0),
        "head.weight": (0.1, 0.01),
        "head.bias": (0.1, 0.01),
        "norm.weight": (0.1, 0.02),
        "norm.bias": (0.1, 0.02),
        "queries.weight": (0.1, 0.03),
    }
    counted = [value for group in parameter_groups(cfg, model) for value in group["params"]]
    assert len(counted) == len(found)


def test_clip_is_frozen_but_for_the_non_object_embedding(clip: Path, tmp_path: Path) -> None:
    cfg = config(clip, tmp_path)
    model = build_model(cfg)
    names = {value: name for name, value in model.named_parameters()}
    trained = {names[v] for group in parameter_groups(cfg, model) for v in group["params"]}
    in_adapter = {name for name in trained if name.startswith("clip_adapter.")}
    assert in_adapter == {"clip_adapter.non_object_embedding"}
    assert any(name.startswith("backbone.") for name in trained)
    assert any(name.startswith("sem_seg_head.") for name in trained)


def test_gradient_of_the_whole_model_is_clipped() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    cfg = solver(OPTIMIZER="SGD", BASE_LR=1.0, WEIGHT_DECAY=0.0, MOMENTUM=0.0)
    optimizer = build_optimizer(cfg, model)
    before = [value.detach().clone() for value in model.parameters()]
    (100 * model(torch.ones(5, 3)).sum()).backward()
    gradients = [value.grad.clone() for value in model.parameters()]
    optimizer.step()
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
    assert norm > cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE == 0.01
    for value, old, gradient in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(
            old - value.detach(), gradient * 0.01 / norm, rtol=1e-3, atol=1e-7
        )


def test_adamw_takes_the_textbook_step() -> None:
    model = nn.Linear(2, 1, bias=False)
    cfg = solver(BASE_LR=0.1, WEIGHT_DECAY=0.5, BACKBONE_MULTIPLIER=1.0)
    optimizer = build_optimizer(cfg, model)
    old = model.weight.detach().clone()
    model(torch.tensor([[3.0, -2.0]])).sum().backward()
    optimizer.step()
    # the first step of Adam is the gradient's sign (clipping keeps it); the decay stands apart
    expected = old * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-4, atol=1e-4)


def test_nothing_to_train() -> None:
    with pytest.raises(UserError, match="no parameter to train"):
        build_optimizer(solver(), nn.Linear(1, 1).requires_grad_(False))


def test_poly_schedule_with_warm_up() -> None:
    cfg = solver(MAX_ITER=10, WARMUP_ITERS=4, WARMUP_FACTOR=0.1, BASE_LR=2.0)
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    schedule = Trainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    warm = [0.1 * (1 - i / 4) + i / 4 for i in range(4)] + [1.0] * 6
    assert rates == pytest.approx([2 * w * (1 - i / 10) ** 0.9 for i, w in enumerate(warm)])


@pytest.fixture(scope="module")
def start(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that runs of this module start from."""
    path = tmp_path_factory.mktemp("start")
    torch.manual_seed(1)
    model = build_model(config(clip, path))
    torch.save({"model": model.state_dict()}, path / "start.pth")
    return path / "start.pth"


def test_runs_depend_on_the_seed_alone(clip: Path, start: Path, tmp_path: Path) -> None:
    common = {"MODEL__WEIGHTS": start, "SOLVER__MAX_ITER": 3}
    first = train(config(clip, tmp_path / "a", **common))
    torch.rand(3), np.random.rand(3)
    second = train(config(clip, tmp_path / "b", DATALOADER__NUM_WORKERS=2, **common))
    other = train(config(clip, tmp_path / "c", SEED=4, **common))
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))
    trained = weights(first)
    untrained = torch.load(start, weights_only=True)["model"]
    moved = {name for name in trained if not torch.equal(trained[name], untrained[name])}
    assert any(name.startswith("backbone.") for name in moved)
    assert any(name.startswith("sem_seg_head.") for name in moved)
    assert not any(name.startswith("clip_adapter.clip_model.") for name in moved)


def test_resumed_run_equals_the_uninterrupted_one(clip: Path, start: Path, tmp_path: Path) -> None:
    common = {"MODEL__WEIGHTS": start, "SOLVER__MAX_ITER": 6, "SOLVER__CHECKPOINT_PERIOD": 3}
    straight = train(config(clip, tmp_path / "straight", **common))
    # of the last iteration there is one file: killed between two, a run would never write the other
    written = sorted(path.name for path in (tmp_path / "straight").glob("model_*"))
    assert written == ["model_0000002.pth", "model_final.pth"]
    # what a run that was killed after 3 iterations leaves behind
    (tmp_path / "killed").mkdir()
    shutil.copy(tmp_path / "straight" / "model_0000002.pth", tmp_path / "killed")
    (tmp_path / "killed" / "last_checkpoint").write_text("model_0000002.pth")
    resumed = train(config(clip, tmp_path / "killed", **common), resume=True)
    assert resumed.start_iter == 3
    assert same(weights(straight), weights(resumed))
    rates = [group["lr"] for group in straight.optimizer.param_groups]
    assert [group["lr"] for group in resumed.optimizer.param_groups] == rates


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_training_that_ends_around_an_evaluation_is_saved(
    when: str, clip: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []

    def evaluate(cls: type, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        with stopping.at_once():
            reached.append("evaluation")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            return {}

    run_step = Trainer.run_step

    def run_or_end(trainer: Trainer) -> None:
        if when == "before" and trainer.iter == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        run_step(trainer)

    monkeypatch.setattr(Trainer, "test", classmethod(evaluate))
    monkeypatch.setattr(Trainer, "run_step", run_or_end)
    cfg = config(
        clip, tmp_path, MODEL__WEIGHTS=start, SOLVER__MAX_ITER=6, SOLVER__CHECKPOINT_PERIOD=5,
        TEST__EVAL_PERIOD=4,
    )  # fmt: skip
    with stopping.handled(), pytest.raises(SystemExit) as ended:
        train(cfg)
    assert ended.value.code == 128 + signal.SIGTERM
    assert reached == ([] if when == "before" else ["evaluation"])
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    assert torch.load(tmp_path / "model_0000003.pth", weights_only=True)["iteration"] == 3


def test_a_random_seed_is_kept_with_the_run(clip: Path, start: Path, tmp_path: Path) -> None:
    common = {"MODEL__WEIGHTS": start, "SEED": -1, "SOLVER__CHECKPOINT_PERIOD": 2}
    begun = train(config(clip, tmp_path, **common, SOLVER__MAX_ITER=2))
    other = Trainer(config(clip, tmp_path, **common, SOLVER__MAX_ITER=3))
    assert other.data_loader.stream.seed != begun.data_loader.stream.seed
    other.resume_or_load(resume=True)
    assert other.data_loader.stream.seed == begun.data_loader.stream.seed
    for position in range(8):
        found, expected = (each.data_loader.stream[position]["image"] for each in (other, begun))
        assert torch.equal(found, expected)


def test_resume_without_checkpoint_says_so(
    clip: Path, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(config(clip, tmp_path, MODEL__WEIGHTS=start))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0
    assert "starting anew" in caplog.text


def test_processes_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SeededStream([{"n": n} for n in range(7)], lambda example: dict(example), seed=1)

    def of_rank(rank: int, world: int) -> list[list[int]]:
        monkeypatch.setattr(loader.comm, "get_rank", lambda: rank)
        monkeypatch.setattr(loader.comm, "get_world_size", lambda: world)
        batches = iter(TrainLoader(stream, batch_size=4))
        return [[example["n"] for example in next(batches)] for _ in range(5)]

    alone, first, second = of_rank(0, 1), of_rank(0, 2), of_rank(1, 2)
    for whole, a, b in zip(alone, first, second, strict=True):
        assert sorted(whole) == sorted(a + b)
        assert len(a) == len(b) == 2
    with pytest.raises(UserError, match=r"IMS_PER_BATCH: 4 .*3 processes"):
        of_rank(0, 3)


def test_evaluation_equals_scores_of_the_models_own_labels(
    clip: Path, start: Path, tmp_path: Path
) -> None:
    cfg = config(clip, tmp_path, DATASETS__TEST="tiny_dev", SOLVER__TEST_IMS_PER_BATCH=2)
    trainer = Trainer(config(clip, tmp_path, MODEL__WEIGHTS=start))
    trainer.resume_or_load(resume=False)
    found = Trainer.test(cfg, trainer.model)["sem_seg"]

    right = total = 0
    trainer.model.eval()
    for batch in Trainer.build_test_loader(cfg, "tiny_dev"):
        for example in batch:
            truth = np.asarray(Image.open(example["sem_seg_file_name"]))
            plain = {k: v for k, v in example.items() if k != "output"}
            with torch.no_grad():
                labels = trainer.model([plain])[0]["sem_seg"].argmax(0).numpy()
            right += int(((labels == truth) & (truth != 255)).sum())
            total += int((truth != 255).sum())
    assert found["pACC"] == pytest.approx(100 * right / total)


def test_no_training_data_is_answered(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN: empty"):
        Trainer(config(clip, tmp_path, DATASETS__TRAIN="()"))


class Run:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, scalars: dict[str, float], step: int) -> None:
        self.logged.append((step, scalars))

    def finish(self) -> None:
        self.finished = True


def test_wandb_gets_each_scalar_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Run] = []

    def init(**settings: Any) -> Run:
        runs.append(Run(**settings))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    cfg = setup_cfg(SWIN, ["WANDB.NAME", "trial", "OUTPUT_DIR", str(tmp_path)])
    writer = WandbWriter(cfg)
    with EventStorage(0) as storage:
        for loss in (4.0, 2.0):
            storage.put_scalar("loss", loss, smoothing_hint=False)
            writer.write()
            storage.step()
        writer.write()
        writer.close()
    assert runs[0].settings["name"] == "trial"
    assert runs[0].settings["config"]["SOLVER"]["BASE_LR"] == 6e-5
    assert runs[0].logged == [(0, {"loss": 4.0}), (1, {"loss": 2.0})]
    assert runs[0].finished
    # a training that goes on is the same run, a new one in the folder is another
    WandbWriter(cfg)
    remove_training(tmp_path)
    WandbWriter(cfg)
    first, again, other = (run.settings["id"] for run in runs)
    assert first == again != other


def test_wandb_missing_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        WandbWriter(setup_cfg(SWIN))
