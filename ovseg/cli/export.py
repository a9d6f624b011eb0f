"""Write a model as ONNX graphs, for onnxruntime and other programs without PyTorch.

    ovseg export --output exported
    ovseg export --model swinB-vitL14 --precision fp16 --output exported
    ovseg export --config-file configs/ovseg_swinB_vitL_demo.yaml --output exported \\
        --opts MODEL.WEIGHTS ovseg_swinbase_vitL14_ft_mpt.pth

python tools/export.py is the same. Without --model and --config-file it is the small model that
comes with OVSeg. The folder holds proposals.onnx (image to masks and class embeddings),
regions.onnx (crops to CLIP features), text.onnx (words to features) with the tokenizer's merges,
and manifest.json (sizes, means, thresholds, templates, versions, hashes). Segment with it by

    ovseg segment --runtime exported --class-names dog grass --input photo.jpg --output pred

It needs onnx, onnxscript and onnxruntime: pip install 'ovseg[export]'
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import time
from collections.abc import Sequence

from ovseg.cli.model_choice import add_model, check_model, chosen_config, given_words
from ovseg.cli.options import add_opts
from ovseg.errors import Parser, UserError, cli_errors

_PRECISIONS = {
    "fp32": "32 bits, the default",
    "fp16": "half the size, the same arithmetic",
    "int8": "about 30 %% of the size, linear layers in 8-bit arithmetic",
}
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def build_parser() -> Parser:
    """The options of the command."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    add_model(
        parser, speed=False,
        words="class names whose text features are written too, and then need no encoding",
    )  # fmt: skip
    add("--output", required=True, metavar="DIR",
        help="folder, made if missing; an earlier export in it is replaced")  # fmt: skip
    add("--precision", default="fp32", choices=list(_PRECISIONS),
        help="how the weights are stored; " + "; ".join(f"{k}: {v}" for k, v in _PRECISIONS.items())
        )  # fmt: skip
    add("--format", nargs="+", default=["onnx"], choices=["onnx", "pt2"], metavar="FORMAT",
        help="onnx, which is always written, and pt2: archives of torch.export too, in float32"
        )  # fmt: skip
    add_opts(parser, "--opts")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; ends with exit code 2 on wrong usage."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        run(build_parser().parse_args(argv))


def run(args: argparse.Namespace) -> None:
    """Export as a command line asks for.

    Raises:
        UserError: something cannot be used, see :func:`ovseg.export.write.export_model`.
    """
    check_model(args)
    vocabulary = given_words(args)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ovseg export needs {', '.join(missing)}; install: pip install 'ovseg[export]'"
        )
    # traced there, whatever the device of the config
    args.opts = [*args.opts, "MODEL.DEVICE", "cpu"]
    cfg = chosen_config(args)
    from detectron2.modeling import build_model

    from ovseg.engine.checkpoint import OVSegCheckpointer
    from ovseg.engine.test_time import as_ovseg
    from ovseg.export.write import ExportOptions, export_model

    if not cfg.MODEL.WEIGHTS:
        raise UserError("MODEL.WEIGHTS is empty; give the path of a trained checkpoint")
    model = as_ovseg(build_model(cfg))
    OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
    options = ExportOptions(args.precision, tuple(args.format), vocabulary)
    began = time.perf_counter()
    folder = export_model(cfg, model, args.output, options, progress=print)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.0f} MB in {time.perf_counter() - began:.0f} s")
    names = "" if vocabulary else " --class-names dog grass"
    print(f"next: ovseg segment --runtime {folder}{names} --input IMAGE --output FOLDER")
