"""``ovseg train`` whose process 1 is killed before iteration 6, unless it was started again."""

from __future__ import annotations

import os
import signal
import sys

from ovseg.cli import train
from ovseg.engine.trainer import Trainer

run_step = Trainer.run_step


def run_or_die(trainer: Trainer) -> None:
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first and os.environ["RANK"] == "1" and trainer.iter == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    run_step(trainer)


if __name__ == "__main__":
    Trainer.run_step = run_or_die
    train.main(sys.argv[1:])
