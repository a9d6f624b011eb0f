"""Measure how much the labels of a video flicker, with and without smoothing.

    python tools/measure_flicker.py --clip clip.avi --truth clip_labels --scene-frames 40 \\
        --smooth 0 0.5 0.7 0.9

Flicker is the share of pixels that change their label between frames where the truth does not.
Each frame is encoded once for all values of --smooth.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ovseg.cli.model_choice import add_model, chosen_config, chosen_words
from ovseg.cli.options import add_opts
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.video.files import VideoSource
from ovseg.video.flicker import Flicker


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--clip", required=True, metavar="VIDEO", help="the video")
    add("--truth", required=True, type=Path, metavar="DIR", help="a label map for each frame")
    add("--scene-frames", type=int, default=0, metavar="N",
        help="a new scene begins every N frames; default: there is one")  # fmt: skip
    add("--smooth", type=float, nargs="+", default=[0.0, 0.5, 0.7, 0.9], metavar="ALPHA")
    add_model(parser)
    add_opts(parser, "--opts")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    args = build_parser().parse_args(argv)
    vocabulary = chosen_words(args)
    source = VideoSource(args.clip)
    truths = sorted(args.truth.glob("*.png"))
    cfg = chosen_config(args)
    from ovseg.predictor import Predictor
    from ovseg.video.smoothing import Smoother

    smoothers = [Smoother(alpha) for alpha in args.smooth]
    counts = [Flicker() for _ in smoothers]
    predictor = Predictor(cfg)
    for index, frame in enumerate(tqdm(source, total=len(truths), unit="frame", disable=None)):
        if index >= len(truths):
            raise UserError(
                f"--truth {str(args.truth)!r} has {len(truths)} PNGs, fewer than frames"
            )
        with Image.open(truths[index]) as file:
            truth = np.asarray(file)
        if args.scene_frames and index % args.scene_frames == 0:
            for count in counts:
                count.start_over()
        encoded = predictor.encode(frame)
        for smoother, count in zip(smoothers, counts, strict=True):
            prediction = encoded.segment(vocabulary, smoother=smoother)
            count.add(prediction.labels, truth)
    print("| smooth | flicker | pixels right |\n|---|---|---|")
    for alpha, count in zip(args.smooth, counts, strict=True):
        print(f"| {alpha:g} | {100 * count.flicker:.2f} % | {100 * count.accuracy:.1f} % |")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        main()
