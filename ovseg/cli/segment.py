"""Segment pictures by any words.

    ovseg segment --config-file configs/ovseg_swinB_vitL_demo.yaml \\
        --class-names 'Oculus' 'Ukulele' --input photo.jpg --output pred \\
        --opts MODEL.WEIGHTS ovseg_swinbase_vitL14_ft_mpt.pth

Without --model and --config-file the small model that comes with OVSeg runs. python demo.py is the
same command.

The results for NAME.jpg are NAME_overlay.jpg, NAME_labels.png (value = position among the class
names, from 0; 255 = no class, or 65535 in the 16-bit map of more than 254 classes) and NAME.json.
With MODEL.MASK_FORMER.TEST.PANOPTIC_ON True also NAME_panoptic.png, whose colours are the ids of
segments (red + 256 green + 65536 blue).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.cli.lean_imports import import_libraries
from ovseg.cli.options import add_opts, add_proposals, check_command
from ovseg.data.vocabulary import read_vocabulary, thing_names
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.result_files import ResultPaths, plan_outputs, save_result
from ovseg.utils.found_images import FoundImages, find_images
from ovseg.utils.images import read_image
from ovseg.utils.package_files import config_path

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ovseg.predictor import Predictor
    from ovseg.structures import GivenProposals
    from ovseg.vocabulary import Vocabulary

#: the demo of the small model whose weights come with OVSeg
EMBEDDED_CONFIG = config_path("ovseg_tiny_demo.yaml")
WINDOW = "OVSeg"


def build_parser() -> Parser:
    """Every published option under its name."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    add("--model", metavar="NAME",
        help="tiny (the default, which comes with OVSeg), swinB-vitL14, R101c-vitB16, "
        "hf://owner/name, or the folder of a saved model; see: ovseg weights list")  # fmt: skip
    add("--config-file", metavar="FILE", help="model config, whose MODEL.WEIGHTS are --opts'")
    add("--class-names", nargs="*", metavar="WORD",
        help="the words to look for, each quoted if it has blanks; commas belong to a word. "
        "The embedded model without words looks for everything it was made for")  # fmt: skip
    add("--input", nargs="*", default=[], metavar="PATH",
        help="pictures: files, folders (the pictures directly in them) and quoted patterns"
        )  # fmt: skip
    add("--dataset", metavar="FILE",
        help="yaml file of your own data set: its pictures in place of --input, and its class "
        "names where --class-names gives none")  # fmt: skip
    add("--recursive", action="store_true", help="of a folder, the pictures in its folders too")
    add("--output", metavar="PATH",
        help="folder for the results, made if missing; for a single picture also the overlay's "
        "file name. Without it the overlays are shown in a window")  # fmt: skip
    add("--thing-classes", nargs="*", metavar="WORD",
        help="those of the words that are things, each of which is a segment of its own, where "
        "MODEL.MASK_FORMER.TEST.PANOPTIC_ON or INSTANCE_ON is True; default: all")  # fmt: skip
    add_proposals(parser)
    add_opts(parser, "--opts")
    return parser


def check_display() -> None:
    """Raise a UserError where no window can be opened."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise UserError("no display to show a window on; give --output, for example --output pred")


def show(overlay: Image.Image) -> bool:
    """Show a picture until a key is pressed; False after Escape."""
    import cv2
    import numpy as np

    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW, cv2.cvtColor(np.asarray(overlay), cv2.COLOR_RGB2BGR))
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


def about_model(predictor: Predictor, config_file: str | Path) -> dict[str, object]:
    """What the JSON says of the model."""
    cfg = predictor.cfg
    return {
        "config": Path(config_file).name,
        "weights": cfg.MODEL.WEIGHTS,
        "architecture": cfg.MODEL.META_ARCHITECTURE,
        "clip": cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME,
        "ensemble": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE,
        "ensemble_weight": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT,
        "device": cfg.MODEL.DEVICE,
    }


def given_proposals(predictor: Predictor, path: Path, image: np.ndarray) -> GivenProposals | None:
    """The proposals for a picture that the config wants loaded; None for MaskFormer's."""
    from ovseg.data.proposal_files import find_proposals, read_proposals

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
    things: Sequence[str] | None = None,
) -> list[str]:
    """Segment every picture, and save it or, without outputs, show it.

    ``things`` are the classes that are things, for segments and instances; None: all.

    Returns:
        the errors of pictures that failed, one line each.
    """
    from tqdm import tqdm

    from ovseg.data.proposal_files import write_proposals

    errors: list[str] = []
    asked = predictor.cfg.MODEL.MASK_FORMER.TEST
    done = 0
    start = time.perf_counter()
    for index, path in enumerate(tqdm(inputs, unit="picture", disable=None)):
        try:
            image = read_image(path)
            began = time.perf_counter()
            given = given_proposals(predictor, path, image)
            encoded = predictor.encode(image, proposals=given)
            prediction = encoded.segment(vocabulary)
            panoptic = encoded.panoptic(vocabulary, things) if asked.PANOPTIC_ON else None
            instances = encoded.instances(vocabulary, things) if asked.INSTANCE_ON else None
            seconds = round(time.perf_counter() - began, 3)
            if predictor.cfg.TEST.SAVE_PROPOSALS:
                file = Path(predictor.cfg.TEST.SAVE_PROPOSALS, f"{path.stem}.npz")
                write_proposals(file, encoded.regions)
            if outputs:
                entries = {"file": str(path), "seconds": seconds, "model": model}
                save_result(prediction, outputs[index], entries, panoptic, instances)
            elif not show((panoptic or prediction).overlay()):
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
    with cli_errors():
        args = build_parser().parse_args(argv)
        found = _inputs(args)
        errors = found.errors
        several = len(found.images) + len(errors) > 1
        if found.images:
            errors += _segment(args, found.images)
        if found.others:
            print(f"passed over: {found.passed_over()}")
        if errors and not several:
            raise UserError(errors[0])
        for error in errors:
            print(f"error: {' '.join(error.split())}", file=sys.stderr)
        if errors:
            raise SystemExit(1)


def _inputs(args: argparse.Namespace) -> FoundImages:
    """The pictures; sets the class names of a data set.

    Raises:
        UserError: there is nothing to segment.
    """
    if args.dataset is None:
        return find_images(args.input, args.recursive)
    if args.input:
        raise UserError("--input and --dataset are both given; give one of them")
    from ovseg.data.own.description import read_description

    description = read_description(Path(args.dataset).expanduser())
    if args.class_names is None:
        args.class_names = [list(names) for names in description.words]
    return FoundImages(description.images.paths(), [])


def _segment(args: argparse.Namespace, inputs: Sequence[Path]) -> list[str]:
    """Segment pictures as a command line asks for; returns the errors of those that failed."""
    if args.model and args.config_file:
        raise UserError("--model and --config-file are both given; give one of them")
    embedded = args.config_file is None and args.model in {None, "tiny"}
    if embedded:
        args.config_file = EMBEDDED_CONFIG
    # what can be checked at once, before anything is imported or loaded
    class_names = args.class_names or []
    if embedded and args.class_names is None:
        class_names = "stickerscenes"
    vocabulary = read_vocabulary(class_names)
    things = args.thing_classes
    if things is None:
        things = thing_names(class_names)
    for name in things or ():
        if name not in vocabulary.names:
            raise UserError(f"--thing-classes {name!r} is none of the words of --class-names")
    if args.config_file:
        check_command(args, keys=())
    outputs = plan_outputs(inputs, args.output) if args.output else []
    if not outputs:
        check_display()

    import_libraries()
    from ovseg.config import setup_cfg
    from ovseg.data.proposal_files import check_image_names, check_proposals
    from ovseg.predictor import Predictor

    weights: list[str] = []
    if not args.config_file:
        from ovseg.pretrained import resolve

        pretrained = resolve(args.model)
        args.config_file, weights = pretrained.config, pretrained.opts
    cfg = setup_cfg(args.config_file, [*weights, *proposal_opts(args), *args.opts])
    if cfg.TEST.LOAD_PROPOSALS:
        check_proposals(Path(cfg.TEST.LOAD_PROPOSALS), inputs)
    if cfg.TEST.SAVE_PROPOSALS:
        check_image_names(inputs)
    predictor = Predictor(cfg)
    model = about_model(predictor, args.config_file)
    return run(predictor, vocabulary, inputs, outputs, model, things)
