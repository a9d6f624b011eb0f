"""Segment a video, or what a camera sees, by any class names.

    ovseg video --class-names teapot grass 'night sky' --input clip.mp4 --output pred

The result for clip.mp4 is clip_overlay.mp4. --smooth averages the classes of proposals over time.
--input 0 is the first camera; Ctrl-C ends it. What is done is kept when a video breaks off.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.model_choice import (
    add_model,
    add_palette,
    add_reject,
    check_labels_alone,
    check_reject,
    chosen_config,
    chosen_words,
    config_at_once,
)
from ovseg.cli.options import add_opts
from ovseg.cli.windows import check_display, show
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.utils.io import atomic_path, make_folder, user_path
from ovseg.video.files import CODECS, VideoFile, VideoSource

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ovseg.prediction import Prediction
    from ovseg.predictor import Predictor
    from ovseg.vocabulary import Vocabulary

_NOT_WRITTEN = {".webm", ".gif", ".wmv", ".flv", ".mpg", ".mpeg", ".ts", ".ogv"}


def build_parser() -> Parser:
    """The options of ``ovseg video``."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    add_model(parser)
    add("--input", required=True, metavar="VIDEO", help="a video file, or the number of a camera")
    add("--output", metavar="PATH",
        help=f"a video file ({', '.join(CODECS)}), or a folder, made if missing. Without it the "
        "frames are shown in a window")  # fmt: skip
    add("--save-labels", metavar="DIR", help="write each frame's label map, 000000.png and so on, "
        "into a folder that has none yet")  # fmt: skip
    add("--smooth", type=float, default=0.0, metavar="ALPHA",
        help="average the classes of each proposal over time: the share of the past, from 0 (the "
        "default: every frame by itself) to less than 1")  # fmt: skip
    add("--max-frames", type=int, metavar="N", help="end after N frames")
    add_palette(parser)
    add_reject(parser)
    add_opts(parser, "--opts")
    return parser


def plan_output(source: VideoSource, output: str) -> Path:
    """The video to write.

    Raises:
        UserError: it would be the input, or cannot be written there.
    """
    target = user_path(output)
    if target.is_dir() or target.suffix.lower() not in CODECS:
        if not target.is_dir() and target.suffix.lower() in _NOT_WRITTEN:
            raise UserError(
                f"--output {output!r}: {target.suffix} files cannot be written; "
                f"give one of {', '.join(CODECS)}, or a folder"
            )
        make_folder(target, "--output")
        stem, suffix = Path(source.name).stem, Path(source.name).suffix.lower()
        name = f"camera{source.name}" if source.is_camera else stem
        target = target / f"{name}_overlay{suffix if suffix in CODECS else '.mp4'}"
    make_folder(target.parent, "--output")
    if not source.is_camera and target.resolve() == user_path(source.name).resolve():
        raise UserError(f"--output {output!r} would overwrite the input; give another name")
    return target


def _check_labels_folder(folder: Path) -> None:
    """Refuse a folder whose label maps would be mixed with those of this run."""
    if folder.is_dir():
        for path in folder.iterdir():
            if re.fullmatch(r"\d{6,}\.png", path.name):
                raise UserError(
                    f"--save-labels {str(folder)!r} holds label maps of an earlier run "
                    f"({path.name}); remove them, or give another folder"
                )


def _check_cfg(args: argparse.Namespace, cfg: CfgNode | None) -> None:
    """Refuse segments, and to smooth what is averaged over several views of a frame."""
    check_labels_alone(cfg, "ovseg video")
    if args.smooth and cfg is not None and (cfg.TEST.AUG.ENABLED or cfg.TEST.SLIDING_WINDOW):
        raise UserError(
            f"--smooth {args.smooth} needs one view of each frame: set TEST.AUG.ENABLED and "
            "TEST.SLIDING_WINDOW to False"
        )


class VideoRun:
    """A run over the frames of a video.

    Attributes:
        interrupted: it was ended by Ctrl-C.
        stopped: it was ended before the video's end, as was asked for.
        count: frames that are done.
        seconds: how long it took.
    """

    def __init__(
        self, predictor: Predictor, vocabulary: Vocabulary, args: argparse.Namespace
    ) -> None:
        """Ready for frames."""
        from ovseg.video.smoothing import Smoother

        self._predictor = predictor
        self._vocabulary = vocabulary
        self._args = args
        self._smoother = Smoother(args.smooth) if args.smooth else None
        self.interrupted = self.stopped = False
        self.count = 0
        self.seconds = 0.0

    def run(self, source: VideoSource, use: Callable[[Prediction], bool]) -> None:
        """Segment frame after frame, until the end, Ctrl-C, or ``use`` returns False."""
        from tqdm import tqdm

        limit = self._args.max_frames
        total = min(filter(None, (source.announced, limit)), default=None)
        start = time.perf_counter()
        try:
            frames = islice(source, limit)
            for index, frame in enumerate(tqdm(frames, total=total, unit="frame", disable=None)):
                encoded = self._predictor.encode(frame)
                prediction = encoded.segment(self._vocabulary, smoother=self._smoother)
                prediction.palette = self._args.palette
                if self._args.save_labels:
                    with atomic_path(self._args.save_labels / f"{index:06d}.png") as path:
                        prediction.label_image().save(path)
                self.stopped = not use(prediction) or index + 1 == limit
                self.count += 1
                if self.stopped:
                    break
        except KeyboardInterrupt:
            self.interrupted = True
        self.seconds = time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    """Segment a video; exit code 2 on wrong usage, 1 where the video breaks off."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        args = build_parser().parse_args(argv)
        if not 0 <= args.smooth < 1:
            raise UserError(f"--smooth {args.smooth} must be at least 0 and less than 1")
        if args.max_frames is not None and args.max_frames < 1:
            raise UserError(f"--max-frames {args.max_frames} must be at least 1")
        check_reject(args)
        source = VideoSource(args.input)
        if args.save_labels:
            args.save_labels = user_path(args.save_labels)
            _check_labels_folder(args.save_labels)
        vocabulary = chosen_words(args)
        _check_cfg(args, config_at_once(args))
        target = plan_output(source, args.output) if args.output else None
        if target is None:
            check_display()
        if args.save_labels:
            make_folder(args.save_labels, "--save-labels")
        opts = [] if args.reject is None else ["TEST.REJECT", str(args.reject)]
        cfg = chosen_config(args, opts)
        _check_cfg(args, cfg)
        from ovseg.predictor import Predictor

        run = VideoRun(Predictor(cfg), vocabulary, args)
        if target is None:
            run.run(source, lambda prediction: show(prediction.overlay(steady=True), wait_ms=1))
        else:
            _write(run, source, target)
        source.close()
        _say(run, source, target)


def _write(run: VideoRun, source: VideoSource, target: Path) -> None:
    import numpy as np

    with atomic_path(target) as path:
        with VideoFile(path, source.rate) as video:

            def use(prediction: Prediction) -> bool:
                video.write(np.asarray(prediction.overlay(steady=True)))
                return True

            run.run(source, use)
        if not video.count:
            if run.interrupted:
                raise KeyboardInterrupt
            raise UserError(f"input {source.name!r} gave no frame; give an intact video")


def _say(run: VideoRun, source: VideoSource, target: Path | None) -> None:
    where = f"; result in {target}" if target else ""
    rate = run.count / max(run.seconds, 1e-9)
    plural = "s" * (run.count != 1)
    print(f"{run.count} frame{plural}, {rate:.2f} frames a second{where}")
    if run.interrupted and not source.is_camera:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130)
    if source.broke_off and not run.stopped:
        print(
            f"error: input {source.name!r} breaks off after {source.count} of {source.announced} "
            "frames; what was read is kept",
            file=sys.stderr,
        )
        raise SystemExit(1)
