#!/usr/bin/env python3
"""Segment pictures by any words.

    python demo.py --config-file configs/ovseg_swinB_vitL_demo.yaml \\
        --class-names 'Oculus' 'Ukulele' --input photo.jpg --output pred \\
        --opts MODEL.WEIGHTS ovseg_swinbase_vitL14_ft_mpt.pth

Without --config-file the small model that comes with the repository runs.

The results for NAME.jpg are NAME_overlay.jpg, NAME_labels.png (value = position among the class
names, from 0; 255 = no class, or 65535 in the 16-bit map of more than 254 classes) and NAME.json.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ovseg.config import setup_cfg
from ovseg.data.proposal_files import (
    check_names,
    check_proposals,
    find_proposals,
    read_proposals,
    write_proposals,
)
from ovseg.data.vocabulary import BUILT_IN_NAMES, read_vocabulary
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.predictor import Predictor
from ovseg.result_files import ResultPaths, plan_outputs, save_result
from ovseg.structures import GivenProposals, Vocabulary
from ovseg.utils.images import find_images, read_image
from ovseg.utils.package_files import config_path

WINDOW = "OVSeg"
EMBEDDED_CONFIG = config_path("ovseg_tiny_demo.yaml")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; every published option under its name."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    parser.add_argument(
        "--config-file", metavar="FILE", help="model config; default: the embedded small model"
    )
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--class-names", nargs="*", metavar="WORD",
        help="the words to look for, each quoted if it has blanks; commas belong to a word. "
        "'sofa|couch' is one class by two words. "
        "The embedded model without words looks for everything it was made for",
    )  # fmt: skip
    words.add_argument(
        "--vocabulary", metavar="FILE|NAME",
        help="the words as a text file with a class a line, a JSON file with a list, or with "
        f"synonyms by class, or a built-in list: {', '.join(BUILT_IN_NAMES)}",
    )  # fmt: skip
    parser.add_argument(
        "--input", nargs="*", default=[], metavar="PATH",
        help="pictures: files, folders (the pictures directly in them) and quoted patterns",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="PATH",
        help="folder for the results, made if missing; for a single picture also the overlay's "
        "file name. Without it the overlays are shown in a window",
    )  # fmt: skip
    parser.add_argument(
        "--load-proposals", metavar="DIR",
        help="a file of proposals for each picture, in place of MaskFormer's",
    )  # fmt: skip
    parser.add_argument(
        "--save-proposals", metavar="DIR", help="write MaskFormer's proposals for each picture"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="config overrides, last on the line, for instance MODEL.WEIGHTS model.pth",
    )  # fmt: skip
    return parser.parse_args(argv)


def check_display() -> None:
    """Raise a UserError where no window can be opened."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise UserError("no display to show a window on; give --output, for example --output pred")


def show(overlay: np.ndarray) -> bool:
    """Show an RGB picture until a key is pressed; False after Escape."""
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW, cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(0) != 27
    except cv2.error as error:
        raise UserError("this OpenCV cannot open windows; give --output") from error


def proposal_opts(args: argparse.Namespace) -> list[str]:
    """The config overrides that --load-proposals and --save-proposals stand for."""
    pairs = (
        ("TEST.LOAD_PROPOSALS", args.load_proposals),
        ("TEST.SAVE_PROPOSALS", args.save_proposals),
    )
    return [part for key, value in pairs if value for part in (key, value)]


def about_model(predictor: Predictor, config_file: str) -> dict[str, object]:
    """What the JSON says of the model."""
    cfg = predictor.cfg
    return {
        "config": config_file,
        "weights": cfg.MODEL.WEIGHTS,
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "clip": cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME,
        "ensemble": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE,
        "ensemble_weight": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT,
        "device": cfg.MODEL.DEVICE,
    }


def given_proposals(predictor: Predictor, path: Path, image: np.ndarray) -> GivenProposals | None:
    """The proposals for a picture that the config wants loaded; None for MaskFormer's."""
    cfg = predictor.cfg
    if not cfg.TEST.LOAD_PROPOSALS:
        return None
    file = find_proposals(Path(cfg.TEST.LOAD_PROPOSALS), path)
    return read_proposals(file, image.shape[:2], cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM)


def run(
    predictor: Predictor,
    vocabulary: Vocabulary,
    inputs: Sequence[Path],
    outputs: Sequence[ResultPaths],
    model: dict[str, object],
) -> list[str]:
    """Segment every picture, and save it or, without outputs, show it.

    Returns:
        the errors of pictures that failed, one line each.
    """
    errors: list[str] = []
    done = 0
    start = time.perf_counter()
    for index, path in enumerate(tqdm(inputs, unit="picture", disable=None)):
        try:
            image = read_image(path)
            began = time.perf_counter()
            given = given_proposals(predictor, path, image)
            encoded = predictor.encode(image, proposals=given)
            prediction = encoded.segment(vocabulary)
            seconds = round(time.perf_counter() - began, 3)
            if predictor.cfg.TEST.SAVE_PROPOSALS:
                file = Path(predictor.cfg.TEST.SAVE_PROPOSALS, f"{path.stem}.npz")
                write_proposals(file, encoded.regions)
            if outputs:
                entries = {"file": str(path), "seconds": seconds, "model": model}
                save_result(prediction, outputs[index], entries)
            elif not show(np.asarray(prediction.overlay())):
                break
            done += 1
        except UserError as error:
            errors.append(str(error))
    if done:
        each = (time.perf_counter() - start) / done
        where = f"; results in {outputs[0].overlay.parent}" if outputs else ""
        print(f"{done} picture{'s' * (done > 1)}, {each:.2f} s a picture{where}")
    return errors


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo; ends with exit code 2 on wrong usage, 1 when some of the inputs failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    args = parse_args(argv)
    given = args.class_names if args.vocabulary is None else args.vocabulary
    if args.config_file is None and given is None:
        given = "stickerscenes"
    vocabulary = read_vocabulary([] if given is None else given)
    inputs, errors = find_images(args.input)
    several = len(inputs) + len(errors) > 1
    if inputs:
        # what can be checked at once, before the model is loaded
        outputs = plan_outputs(inputs, args.output) if args.output else []
        if not outputs:
            check_display()
        config_file = args.config_file or EMBEDDED_CONFIG
        cfg = setup_cfg(config_file, [*proposal_opts(args), *args.opts])
        if cfg.TEST.LOAD_PROPOSALS:
            check_proposals(Path(cfg.TEST.LOAD_PROPOSALS), inputs)
        if cfg.TEST.SAVE_PROPOSALS:
            check_names(inputs)
        predictor = Predictor(cfg)
        model = about_model(predictor, Path(config_file).name)
        errors += run(predictor, vocabulary, inputs, outputs, model)
    if errors and not several:
        raise UserError(errors[0])
    for error in errors:
        print(f"error: {' '.join(error.split())}", file=sys.stderr)
    if errors:
        raise SystemExit(1)


if __name__ == "__main__":
    with cli_errors():
        main()
