#!/usr/bin/env python3
"""Make a training checkpoint fit to give away: weights alone, in half precision.

    python tools/export_checkpoint.py output/ovseg_tiny/model_final.pth resources/ovseg_tiny.pth

The result has the released format, ``{"model": state_dict}``; it loads as ``MODEL.WEIGHTS``,
where the weights become float32 again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ovseg.errors import UserError, cli_errors
from ovseg.utils.io import atomic_path
from ovseg.utils.weights import read_checkpoint


def export(source: Path, target: Path) -> int:
    """Write the half-precision weights of ``source`` to ``target``; returns its size in bytes.

    Raises:
        UserError: ``source`` is missing or is no checkpoint.
    """
    content = read_checkpoint(source)
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(torch.is_tensor(v) for v in weights.values()):
        raise UserError(f"{str(source)!r} is not a checkpoint of train_net.py")
    half = {
        key: value.half() if value.dtype == torch.float32 else value
        for key, value in weights.items()
    }
    with atomic_path(target) as temporary:
        torch.save({"model": half}, temporary)
    return target.stat().st_size


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="checkpoint of train_net.py")
    parser.add_argument("target", type=Path, help="file to write")
    args = parser.parse_args(arguments)
    with cli_errors():
        size = export(args.source, args.target)
        print(f"{args.target}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
