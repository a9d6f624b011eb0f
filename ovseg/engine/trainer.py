"""Training and evaluation: detectron2's trainer with OVSeg's data, optimizer and evaluator."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import (
    AMPTrainer,
    DefaultTrainer,
    HookBase,
    SimpleTrainer,
    TrainerBase,
)
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ovseg.data.datasets import load_dataset
from ovseg.data.loader import SeededStream, TrainLoader, build_test_loader
from ovseg.data.lost_images import allowed_losses
from ovseg.data.mapper import TrainingMapper
from ovseg.data.proposal_files import evaluation_mapper
from ovseg.engine import stopping
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.dense_crf import DenseCrfSegmenter
from ovseg.engine.hooks import CheckpointHook, EvaluationHook, LostHook, SeedHook, StopHook
from ovseg.engine.optimizer import build_optimizer
from ovseg.engine.proposals import SaveProposals
from ovseg.engine.resuming import last_checkpoint, training_settings
from ovseg.engine.sharing import share_model
from ovseg.engine.test_time import as_ovseg, for_inference
from ovseg.engine.unreadable import MarkUnreadable, SkipUnreadable
from ovseg.engine.writers import WandbWriter
from ovseg.errors import UserError
from ovseg.evaluation import CountInBackground, SemSegEvaluator
from ovseg.modeling import OVSeg
from ovseg.utils.finite import loss_error

logger = logging.getLogger(__name__)

# what WarmupPolyLR is made with; it counts them among its state
_CURVE = frozenset(
    {"max_iters", "warmup_factor", "warmup_iters", "warmup_method", "power", "constant_ending"}
    | {"base_lrs"}
)


class Trainer(DefaultTrainer):
    """Trains by ``cfg.SOLVER`` on ``cfg.DATASETS.TRAIN`` and evaluates on ``cfg.DATASETS.TEST``.

    With ``cfg.SEED`` >= 0 on a CPU, two runs give the same weights, whatever the number of loading
    processes and wherever a run was stopped and resumed.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build model, optimizer, loader, schedule, checkpointer and hooks.

        detectron2's own constructor does not train on several processes of a CPU.
        """
        TrainerBase.__init__(self)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = share_model(model)
        kind = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = kind(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = OVSegCheckpointer(
            model, cfg.OUTPUT_DIR, cfg=cfg, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """detectron2's hooks, one to stop when asked and, given a seed, one for the seed."""
        hooks = [self._own_hook(hook) for hook in super().build_hooks()]
        self._settings = training_settings(self.cfg)
        self._losses: dict[str, Tensor] = {}
        self.model.register_forward_hook(self._remember_losses)
        hooks.insert(0, LostHook(self.data_loader.lost))
        if self.cfg.SEED >= 0:
            hooks.insert(0, SeedHook(self.cfg.SEED))
        return [*hooks, StopHook()]

    def _own_hook(self, hook: HookBase) -> HookBase:
        """What takes the place of one of detectron2's hooks; most stay."""
        if isinstance(hook, PeriodicCheckpointer):
            return CheckpointHook(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        if isinstance(hook, EvalHook):
            return EvaluationHook(self.cfg.TEST.EVAL_PERIOD, hook._func)
        return hook

    def build_writers(self) -> list[EventWriter]:
        """Log, ``metrics.json``, TensorBoard and, if asked for, Weights & Biases."""
        writers = super().build_writers()
        if self.cfg.WANDB.ENABLED:
            writers.append(WandbWriter(self.cfg))
        return writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Load ``MODEL.WEIGHTS``; with ``resume`` the last checkpoint, and go on from there."""
        if resume and not self.checkpointer.has_checkpoint():
            logger.warning("No checkpoint in %s: starting anew.", self.cfg.OUTPUT_DIR)
        super().resume_or_load(resume=resume)
        self.data_loader.start_iter = self.start_iter

    def train(self) -> Any:
        """Train to the last iteration, or until the process is asked to end; then save first."""
        with stopping.step_by_step("the training ends this iteration and is saved"):
            return super().train()

    def save_where_it_is(self) -> None:
        """Write a checkpoint of the iteration that has just ended, if none is there yet."""
        name = f"model_{self.iter:07d}"
        saved = last_checkpoint(self.cfg.OUTPUT_DIR)
        if saved is None or saved.stem != name:
            self.checkpointer.save(name, iteration=self.iter)

    def _remember_losses(self, model: nn.Module, inputs: Any, output: Any) -> None:
        if model.training:
            self._losses = {name: loss.detach() for name, loss in output.items()}

    def run_step(self) -> None:
        """One iteration.

        Raises:
            UserError: a loss is not finite, of this process or of another; the weights are those of
                the iteration before.
        """
        try:
            super().run_step()
        except FloatingPointError as error:  # detectron2's, of the main process alone
            losses = {name: float(loss) for name, loss in self._losses.items()}
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            raise loss_error(losses, self.iter, rate, _way_out(self.cfg)) from error

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks, settings, the seed of the batches, which may be a random one, and the
        optimizer, which detectron2 0.6 forgets."""
        return {
            **super().state_dict(),
            "_trainer": self._trainer.state_dict(),
            "settings": self._settings,
            "stream_seed": self.data_loader.stream.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The reverse of :meth:`state_dict`; takes checkpoints without an optimizer too.

        The schedule goes on from its place, but along the curve of this run's config: a run may be
        resumed with a larger ``MAX_ITER`` or another ``BASE_LR``. What else may differ is said by
        :data:`ovseg.engine.resuming.MAY_CHANGE`.
        """
        curve = {name: value for name, value in vars(self.scheduler).items() if name in _CURVE}
        super().load_state_dict(state_dict)
        self.scheduler.__dict__.update(curve)
        if "stream_seed" in state_dict:
            self.data_loader.stream.seed = state_dict["stream_seed"]
        if "_trainer" in state_dict:
            fused = [group.get("fused") for group in self.optimizer.param_groups]
            # of a run without mixed precision the scale of the gradients is missing
            own = self._trainer.state_dict()
            scale = {"grad_scaler": own["grad_scaler"]} if "grad_scaler" in own else {}
            self._trainer.load_state_dict({**scale, **state_dict["_trainer"]})
            # how to compute depends on this machine, not on the one that wrote the checkpoint
            for group, value in zip(self.optimizer.param_groups, fused, strict=True):
                group["fused"] = value
        if curve:
            rates = self.scheduler.get_lr()
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`ovseg.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """DeepLab's poly schedule with warm-up, or one of detectron2's, by ``SOLVER``."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """Endless batches of augmented examples of ``DATASETS.TRAIN``."""
        if not cfg.DATASETS.TRAIN:
            raise UserError("config key DATASETS.TRAIN: empty; name a data set to train on")
        examples = [example for name in cfg.DATASETS.TRAIN for example in load_dataset(name)]
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        allowed = allowed_losses(len(examples), cfg.DATALOADER.MAX_LOST)
        stream = SeededStream(examples, TrainingMapper(cfg, cfg.DATASETS.TRAIN), seed, allowed)
        return TrainLoader(stream, cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS, allowed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable[list[dict[str, Any]]]:
        """One pass over a data set; an image that cannot be read is a dict with ``error``."""
        return build_test_loader(
            load_dataset(dataset_name, unpaired=True),
            MarkUnreadable(evaluation_mapper(cfg, dataset_name)),
            cfg.SOLVER.TEST_IMS_PER_BATCH,
            cfg.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> SemSegEvaluator:
        """Writes into ``OUTPUT_DIR/inference/<data set>``."""
        return SemSegEvaluator(
            dataset_name,
            os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name),
            cfg.TEST.VISUALIZE,
            panoptic=cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON,
            instances=cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON,
        )

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on ``DATASETS.TEST``; images that cannot be read are left out.

        Images are looked at as ``TEST.AUG`` and ``TEST.SLIDING_WINDOW`` say.

        Returns:
            ``{"sem_seg": {name: percent}}``, with ``panoptic_seg`` and ``segm`` where they are on
            and ``failed_images`` when some were left out; of several data sets one such dict each,
            by name. Empty but on the main process.
        """
        model = for_inference(cfg, model)
        if cfg.TEST.SAVE_PROPOSALS:
            # of one view
            model = model.module if isinstance(model, DistributedDataParallel) else model
            assert isinstance(model, OVSeg | DenseCrfSegmenter)
            model = SaveProposals(model, Path(cfg.TEST.SAVE_PROPOSALS))
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        counting = [CountInBackground(evaluator) for evaluator in evaluators]
        with stopping.at_once():
            return super().test(cfg, SkipUnreadable(model), counting)


def _way_out(cfg: CfgNode) -> str:
    """What to try when a training has gone astray."""
    tries = ["a smaller SOLVER.BASE_LR", "a longer SOLVER.WARMUP_ITERS"]
    if cfg.SOLVER.AMP.ENABLED:
        tries.append("SOLVER.AMP.ENABLED False")
    kept = last_checkpoint(cfg.OUTPUT_DIR)
    start = f"--resume, which goes on from {kept}" if kept else "--overwrite, to start anew"
    return f"give {' or '.join(tries)}, and {start}"


def load_model(cfg: CfgNode) -> OVSeg:
    """The model with ``MODEL.WEIGHTS``, in evaluation mode."""
    model = as_ovseg(Trainer.build_model(cfg)).eval()
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    return model
