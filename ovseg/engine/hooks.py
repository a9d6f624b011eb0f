"""What a training does around its iterations."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm

from ovseg.data.lost_images import LostImages
from ovseg.engine import stopping
from ovseg.engine.joining import stop_agreed
from ovseg.utils.counting import counted

logger = logging.getLogger(__name__)


class SeedHook(HookBase):
    """Seeds dropout and the like for every iteration by seed, iteration and process.

    So what an iteration draws does not depend on what was drawn before, and a resumed run goes the
    way that the uninterrupted one would have gone.
    """

    def __init__(self, seed: int) -> None:
        """Seed iterations by ``seed`` >= 0."""
        self._seed = seed

    def before_step(self) -> None:
        """Seed PyTorch's generators, CPU and current GPU."""
        parts = np.random.SeedSequence((self._seed, 2, self.trainer.iter, comm.get_rank()))
        value = int(parts.generate_state(1)[0])
        torch.default_generator.manual_seed(value)
        if torch.cuda.is_available():
            torch.cuda.manual_seed(value)


class LostHook(HookBase):
    """Keeps with checkpoints which images a training has left out, and says at its end how many."""

    def __init__(self, lost: LostImages) -> None:
        """Keep ``lost``, of the main process."""
        self._lost = lost

    def state_dict(self) -> dict[str, Any]:
        """Files and reasons; empty without any."""
        return dict(self._lost.reasons)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up those of an earlier part of the run."""
        self._lost.reasons.update(state)

    def after_train(self) -> None:
        """Say how many there are."""
        if self._lost.reasons:
            logger.warning(
                "%s left out, since they cannot be read: %s",
                counted(len(self._lost.reasons), "image", "was/were"),
                ", ".join(sorted(self._lost.reasons)[:5]),
            )  # fmt: skip


class CheckpointHook(PeriodicCheckpointer):
    """detectron2's, but of the last iteration there is ``model_final.pth`` alone.

    A run that is killed between two files of it would go on from the first, find nothing to do and
    end without the second.
    """

    def after_step(self) -> None:
        """Save after every period and after the last iteration."""
        if self.trainer.iter + 1 < self.trainer.max_iter:
            super().after_step()
        else:
            self.checkpointer.save("model_final", iteration=self.trainer.iter)


class EvaluationHook(EvalHook):
    """detectron2's, but a training that is asked to end while it is evaluated is saved.

    An evaluation may be left anywhere, and so comes before the end of an iteration, after which
    :class:`StopHook` saves.
    """

    def _do_eval(self) -> None:
        try:
            super()._do_eval()
        except BaseException:
            # after the last iteration it has been saved
            if stopping.stop_wanted() and self.trainer.iter + 1 < self.trainer.max_iter:
                self.trainer.save_where_it_is()
            raise


class StopHook(HookBase):
    """Ends a training that has been asked to end, in all processes after the same iteration."""

    def after_step(self) -> None:
        """Save and end, if asked to.

        Raises:
            BaseException: see :func:`ovseg.engine.stopping.stopped`.
        """
        if stop_agreed(self.trainer.iter) and self.trainer.iter + 1 < self.trainer.max_iter:
            self.trainer.save_where_it_is()
            comm.synchronize()  # a process that ends takes the others with it
            raise stopping.stopped()
