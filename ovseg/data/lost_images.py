"""Images that a training leaves out since they cannot be read, and how many may be."""

from __future__ import annotations

import logging
import math

from ovseg.errors import UserError

logger = logging.getLogger(__name__)

#: however small their share, so many images may be lost
LEAST = 10


def allowed_losses(images: int, share: float) -> int:
    """How many of ``images`` may be lost: ``share``, at least 10, and at most half of them.

    0 with the share 0.
    """
    if share <= 0:
        return 0
    return min(max(LEAST, math.floor(share * images)), images // 2)


class LostImages:
    """The images that were left out, each counted once.

    Attributes:
        allowed: how many there may be.
        reasons: of each image's file the line that says why it cannot be read.
    """

    def __init__(self, allowed: int, silent: bool = False) -> None:
        """Allow ``allowed`` losses, and log each unless ``silent``."""
        self.allowed = allowed
        self._silent = silent
        self.reasons: dict[str, str] = {}

    def add(self, file: str, reason: str) -> None:
        """Count an image.

        Raises:
            UserError: now there are too many.
        """
        if file in self.reasons:
            return
        self.reasons[file] = reason
        if len(self.reasons) > self.allowed:
            raise UserError(self.too_many())
        if not self._silent:
            logger.warning(
                "left out an image, %d of at most %d: %s", len(self.reasons), self.allowed, reason
            )

    def too_many(self) -> str:
        """What is said when there are more than allowed."""
        first = next(iter(self.reasons.values()))
        if not self.allowed:
            return first
        return (
            f"{len(self.reasons)} training images cannot be used, more than the {self.allowed} "
            f"that may be left out (config key DATALOADER.MAX_LOST), the first: {first}"
        )
