"""Where metrics go: log, JSON and TensorBoard by detectron2; Weights & Biases here."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from ovseg.errors import UserError
from ovseg.utils.io import write_text

#: in OUTPUT_DIR: Weights & Biases' id of its training
WANDB_RUN = "wandb_run.txt"


class WandbWriter(EventWriter):
    """Sends scalars to Weights & Biases (the extra ``wandb``)."""

    def __init__(self, cfg: CfgNode) -> None:
        """Start a run named and configured by ``cfg``, or go on with that of ``OUTPUT_DIR``.

        Raises:
            UserError: the package ``wandb`` is not installed.
        """
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "config key WANDB.ENABLED: True needs the package wandb; "
                "install it with: pip install wandb, or set it False"
            ) from error
        # a training that goes on draws on its own curves
        kept = Path(cfg.OUTPUT_DIR, WANDB_RUN)
        if not kept.is_file():
            write_text(kept, secrets.token_hex(8))
        self._run: Any = wandb.init(
            id=kept.read_text(encoding="utf-8"),
            project=cfg.WANDB.PROJECT,
            name=cfg.WANDB.NAME,
            config=_plain(cfg),
            dir=cfg.OUTPUT_DIR,
            resume="allow",
        )
        self._last_written = -1

    def write(self) -> None:
        """Send what is new since the last call, each scalar at its own iteration."""
        latest = get_event_storage().latest_with_smoothing_hint(window_size=20)
        by_iteration: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in latest.items():
            if iteration > self._last_written:
                by_iteration.setdefault(iteration, {})[name] = value
        for iteration in sorted(by_iteration):
            self._run.log(by_iteration[iteration], step=iteration)
            self._last_written = iteration

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _plain(node: CfgNode) -> dict[str, Any]:
    return {
        key: _plain(value) if isinstance(value, CfgNode) else value for key, value in node.items()
    }
