"""Images that a training has left out, in its checkpoints and at the end of its log."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.engine import HookBase

from ovseg.data.lost_images import LostImages

logger = logging.getLogger(__name__)


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
                "%d images were left out, since they cannot be read: %s",
                len(self._lost.reasons), ", ".join(sorted(self._lost.reasons)[:5]),
            )  # fmt: skip
