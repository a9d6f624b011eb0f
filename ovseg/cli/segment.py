"""Segment images by any class names.

    ovseg segment --config-file configs/ovseg_swinB_vitL_demo.yaml \\
        --class-names 'Oculus' 'Ukulele' --input photo.jpg --output pred \\
        --opts MODEL.WEIGHTS ovseg_swinbase_vitL14_ft_mpt.pth

Without --model and --config-file the small model that comes with OVSeg runs. python demo.py is the
same command. With --runtime FOLDER an exported model runs, without PyTorch: see ovseg export.

The results for NAME.jpg are NAME_overlay.jpg, NAME_labels.png (value = position among the class
names, from 0; 255 = no class, or 65535 in the 16-bit map of more than 254 classes) and NAME.json.
With MODEL.MASK_FORMER.TEST.PANOPTIC_ON True also NAME_panoptic.png, whose colours are the ids of
segments (red + 256 green + 65536 blue).
--save chooses others; an interrupted run goes on with --skip-existing.
"""

from __future__ import annotations

import argparse
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

from ovseg.cli.model_choice import add_model, add_palette, add_reject, check_reject
from ovseg.cli.options import add_opts, add_proposals
from ovseg.cli.segment_run import SegmentJob, conclude, segment_alone, segment_share
from ovseg.cli.segmenters import ExportedSegmenter, ModelSegmenter, Segmenter
from ovseg.cli.windows import check_display
from ovseg.engine.place import find_place
from ovseg.engine.process_options import add_processes, several_processes
from ovseg.errors import Parser, UserError, cli_errors
from ovseg.found_images import FoundImages, find_images
from ovseg.results.files import ResultPaths, is_done, names_overlay, plan_outputs
from ovseg.results.formats import DEFAULT_FORMATS, FORMATS, SUMMARY, read_formats
from ovseg.utils.io import user_path


def build_parser() -> Parser:
    """Every published option under its name."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    add_model(parser)
    add("--runtime", metavar="FOLDER",
        help="a model that ovseg export wrote, in place of --model: runs on onnxruntime, without "
        "PyTorch")  # fmt: skip
    add("--input", nargs="*", action="extend", default=[], metavar="PATH",
        help="images: files, folders (the images directly in them) and quoted patterns"
        )  # fmt: skip
    add("--recursive", action="store_true", help="search the folders in a folder, too")
    add("--dataset", metavar="FILE",
        help="yaml file of your own data set: its images in place of --input, and its class "
        "names where --class-names gives none")  # fmt: skip
    add("--output", metavar="PATH",
        help="folder for the results, made if missing; for a single image also the overlay's "
        "file name. Without it the overlays are shown in a window")  # fmt: skip
    add("--thing-classes", nargs="*", action="extend", metavar="CLASS",
        help="which class names are things, each object of which is a segment of its own; used "
        "with MODEL.MASK_FORMER.TEST.PANOPTIC_ON or INSTANCE_ON True; default: all")  # fmt: skip
    known = "; ".join(f"{name}: {format.about}" for name, format in FORMATS.items())
    default = ",".join((*DEFAULT_FORMATS, SUMMARY))
    add("--save", metavar="FORMATS",
        help=f"what to write, separated by commas; default: {default}. {known}; {SUMMARY}: what "
        "was found where, which is always written")  # fmt: skip
    add_palette(parser)
    add("--batch-size", type=int, default=1, metavar="N",
        help="images that go through the model together; default: 1")  # fmt: skip
    add("--skip-existing", action="store_true",
        help="leave out images whose results an earlier run wrote to --output, in all formats, "
        "for the same class names and model")  # fmt: skip
    add_reject(parser)
    add_proposals(parser)
    add_processes(parser, all_gpus=False)
    add_opts(parser, "--opts")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the demo; ends with exit code 2 on wrong usage, 1 when some of the inputs failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors(), several_processes():
        args = build_parser().parse_args(argv)
        found = _inputs(args)
        if found.images:
            _segment(args, found)
        else:
            conclude(found, found.errors)


def _inputs(args: argparse.Namespace) -> FoundImages:
    """The images that a command line names; sets the class names of a data set.

    Raises:
        UserError: there is nothing to segment.
    """
    if args.dataset is None:
        return find_images(args.input, args.recursive)
    if args.input:
        raise UserError("--input and --dataset are both given; give one of them")
    if args.recursive:
        raise UserError("--recursive is for folders of --input; leave it out with --dataset")
    try:
        from ovseg.data.own.description import read_description
    except ModuleNotFoundError:  # not part of ovseg-runtime
        raise UserError(
            "--dataset needs the package ovseg; give --input and --class-names"
        ) from None

    description = read_description(user_path(args.dataset))
    if args.class_names is None and args.vocabulary is None:
        args.class_names = description.vocabulary
    return FoundImages(description.images.paths(), [])


def _segment(args: argparse.Namespace, found: FoundImages) -> None:
    """Segment images as a command line asks for.

    Raises:
        UserError: a mistake in it.
        SystemExit: images failed.
    """
    # what can be checked at once, before anything is imported or loaded
    inputs = found.images
    formats = DEFAULT_FORMATS if args.save is None else read_formats(args.save)
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size} must be at least 1")
    if args.save is not None and not args.output:
        raise UserError(f"--save {args.save} needs --output, a folder for the files")
    if args.skip_existing and not args.output:
        raise UserError("--skip-existing needs --output, the folder of the earlier run")
    check_reject(args)
    _check_processes(args)
    model = None if args.runtime else ModelSegmenter(args)
    segmenter: Segmenter = model or ExportedSegmenter(args)
    plan: dict[Path, ResultPaths | None] = dict.fromkeys(inputs)
    if args.output:
        if names_overlay(args.output) and "overlay" not in formats:
            raise UserError(
                f"--output {args.output!r} names the overlay, which --save {args.save} leaves out; "
                "add overlay, or give a folder"
            )
        plan.update(zip(inputs, plan_outputs(inputs, args.output), strict=True))
    else:
        check_display()
    segmenter.prepare(inputs)
    there = [
        path
        for path, paths in plan.items()
        if args.skip_existing
        and paths
        and is_done(paths, formats, segmenter.vocabulary.names, str(path), segmenter.about)
    ]
    job = SegmentJob(segmenter, plan, there, formats, args.palette, args.batch_size, found)
    if not job.left():
        job.end([], [], 0.0)
    elif model is None:
        segment_alone(job)  # without PyTorch
    else:
        from ovseg.engine.processes import config_settings, start

        start(
            functools.partial(segment_share, job),
            args,
            device=model.cfg.MODEL.DEVICE,
            output=None,  # it is there already
            settings={
                **config_settings(model.cfg),
                "the images": [str(path) for path in job.left()],
            },
        )


def _check_processes(args: argparse.Namespace) -> None:
    """Find out whether several processes are asked for where one alone works.

    Raises:
        UserError: they are.
    """
    given = (args.num_gpus, args.num_processes, args.num_machines)
    if find_place() is None and all(count is None or count <= 1 for count in given):
        return
    if args.runtime:
        raise UserError(f"--runtime {args.runtime!r} works in one process; start one alone")
    if not args.output:
        raise UserError("several processes show nothing: give --output, a folder for the results")
