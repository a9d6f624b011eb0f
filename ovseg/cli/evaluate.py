"""Evaluate a checkpoint on data sets.

    ovseg evaluate --config-file configs/ovseg_swinB_vitL_bs32_120k.yaml \\
        MODEL.WEIGHTS checkpoint.pth DATASETS.TEST ade20k_sem_seg_val,pascalvoc20_sem_seg_val

Results are logged and written to OUTPUT_DIR. Exit code: 1 when images could not be evaluated (the
others are), 2 for a mistake in the command.
"""

from __future__ import annotations

from collections.abc import Sequence

from ovseg.cli.train import make_parser, train_or_evaluate
from ovseg.engine.process_options import several_processes
from ovseg.errors import Parser, cli_errors


def build_parser() -> Parser:
    """Those options of ``ovseg train`` that have to do with evaluating."""
    return make_parser(__doc__, evaluating=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    with cli_errors(), several_processes():
        train_or_evaluate(build_parser().parse_args(argv))
