"""Label large collections of images, by one model or by many on a Ray cluster.

    ovseg label --class-names dog grass 'blue sky' --input photos --recursive --output labelled
    ovseg label --vocabulary words.txt --input 's3://bucket/shards/*.tar' --output s3://bucket/out
    ovseg label --config-file configs/methods/fcn.yaml --dataset stickerscenes_more \\
        --output labelled --opts MODEL.WEIGHTS output/methods/fcn/model_final.pth

The collection is cut into shards. Each becomes a file of --output, Parquet or WebDataset, which is
there whole or not at all: the same command goes on where it was interrupted. manifest.json lists
the files. An image that cannot be read becomes a row with the reason.

With Ray (pip install 'ovseg[ray]') the shards are shared among --workers, with a model each.
Without it this process labels them all. The files are the same.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ovseg.cli.model_choice import (
    add_model,
    check_labels_alone,
    check_model,
    chosen_config,
    chosen_words,
    config_at_once,
)
from ovseg.cli.options import add_opts
from ovseg.config.first_look import own_names
from ovseg.data.label_shards import ENDINGS, parquet
from ovseg.errors import Parser, UserError, check_share, cli_errors
from ovseg.labelling.output import Output
from ovseg.labelling.plan import make_plan
from ovseg.labelling.sources import find_sources, is_url
from ovseg.utils.counting import counted
from ovseg.utils.io import user_path
from ovseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ovseg.labelling.run import Distribute


def build_parser() -> Parser:
    """The options of the command."""
    usage, *details = (__doc__ or "").split("\n\n")
    parser = Parser(usage, epilog="\n\n".join(details))
    add = parser.add_argument
    add_model(parser)
    add("--input", nargs="*", action="extend", default=[], metavar="PATH|URL",
        help="images, folders, quoted patterns, .txt files with an image a line, WebDataset "
        "shards (.tar), Parquet files; on this machine or any URL that fsspec opens")  # fmt: skip
    add("--dataset", metavar="NAME|FILE",
        help="in place of --input and class names: label the images of a registered data set, or "
        "of the yaml file of your own, by its classes; its own labels are not read"
        )  # fmt: skip
    add("--recursive", action="store_true", help="search the folders in a folder, too")
    add("--output", required=True, metavar="PATH|URL", help="folder for the results")
    add("--format", default="parquet", choices=tuple(ENDINGS), help="default: parquet")
    add("--shard-size", type=int, default=500, metavar="N",
        help="images of a shard; a tar file is always one. Default: 500")  # fmt: skip
    add("--batch-size", type=int, default=1, metavar="N",
        help="images that go through a model together; default: 1")  # fmt: skip
    add("--image-column", metavar="NAME",
        help="of Parquet files: the images' bytes, or their paths; default: image, jpg, ... "
        "whichever is there")  # fmt: skip
    add("--score-maps", action="store_true", help="write the score of each pixel too")
    add("--min-score", type=float, metavar="SCORE",
        help="written to dataset.yaml, where there is none yet: a training ignores labels of lower "
        "scores; default: 0")  # fmt: skip
    add("--copy-images", action="store_true",
        help="write a copy of each image too, for a training with those of tar files, Parquet "
        "files or URLs")  # fmt: skip
    add("--workers", type=int, metavar="N",
        help="number of Ray workers, each with a model; 0: label in this process, without Ray. "
        "Default: one for each GPU, without GPUs one for each machine of a cluster; this process "
        "where that makes one")  # fmt: skip
    add("--cpus-per-worker", type=int, metavar="N",
        help="CPU cores of each worker; default: 1 with GPUs, else the cluster's cores divided by "
        "the number of workers"
        )  # fmt: skip
    add("--ray-address", metavar="ADDRESS",
        help="of a running cluster, for instance auto; default: $RAY_ADDRESS, or else Ray is "
        "started on this machine")  # fmt: skip
    add_opts(parser, "--opts")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Label a collection; exit code 1 when some of its images could not be labelled."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with cli_errors():
        manifest, output = label(build_parser().parse_args(argv))
        images, errors = manifest["images"], manifest["errors"]
        shards = len(manifest["shards"])
        print(f"{counted(images, 'image')} in {counted(shards, 'shard')} in {output}")
        if errors:
            print(
                f"error: {errors} of {images} images could not be labelled; their rows say why",
                file=sys.stderr,
            )
            raise SystemExit(1)


def label(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Do what a command line asks for; returns the manifest and where it is.

    Raises:
        UserError: a mistake in the command line, or see :func:`label_collection`.
    """
    _check_numbers(args)
    if args.format == "parquet":
        parquet("--format parquet")
    vocabulary = _given_words(args)
    check_labels_alone(config_at_once(args), "ovseg label")
    place = args.output if is_url(args.output) else _absolute(args.output)
    output = Output(place)
    cfg = chosen_config(args)
    check_labels_alone(cfg, "ovseg label")
    from ovseg.labelling.run import label_collection, planned_shards
    from ovseg.labelling.work import LabelJob, checkpoint_digest

    inputs = args.input
    if args.dataset:
        inputs, vocabulary = _of_dataset(args.dataset, cfg.DATASETS.CUSTOM)
    settings = {
        "words": [list(words) for words in vocabulary.words_of_class],
        "names": list(vocabulary.names),
        "config": _portable(cfg),
        "weights": checkpoint_digest(cfg),
        "input": [given if is_url(given) else _absolute(given) for given in args.input],
        "dataset": _absolute(args.dataset) if _is_yaml(args.dataset) else args.dataset,
        **{
            name: getattr(args, name)
            for name in ("recursive", "format", "shard_size", "batch_size", "image_column",
                         "score_maps", "copy_images")
        },
    }  # fmt: skip
    shards = planned_shards(
        output,
        settings,
        lambda: make_plan(find_sources(inputs, args.recursive), args.shard_size, args.image_column),
    )
    job = LabelJob(
        cfg, vocabulary, output, args.format, args.batch_size, args.image_column, args.score_maps,
        args.copy_images, args.min_score,
    )  # fmt: skip
    return label_collection(job, shards, _distribution(args, cfg.MODEL.DEVICE)), place


def _of_dataset(dataset: str, custom: Sequence[str]) -> tuple[list[str], Vocabulary]:
    """The images of a data set, those without ground truth too, and its classes."""
    from detectron2.data import DatasetCatalog

    from ovseg.data.datasets import load_dataset
    from ovseg.data.own.description import read_description
    from ovseg.data.own.registration import dataset_vocabulary, register_custom

    if _is_yaml(dataset):
        description = read_description(user_path(dataset))
        if description.form != "labelled":
            images = [str(path) for path in description.images.paths()]
            return images, description.vocabulary
        (dataset,) = register_custom([dataset])
    elif dataset not in DatasetCatalog.list():
        register_custom(custom)
    return [example["file_name"] for example in load_dataset(dataset)], dataset_vocabulary(dataset)


def _is_yaml(dataset: str | None) -> bool:
    return dataset is not None and dataset.endswith((".yaml", ".yml"))


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _check_numbers(args: argparse.Namespace) -> None:
    for option, least in (("shard_size", 1), ("batch_size", 1), ("workers", 0),
                          ("cpus_per_worker", 1)):  # fmt: skip
        value = getattr(args, option)
        if value is not None and value < least:
            raise UserError(f"--{option.replace('_', '-')} {value} must be at least {least}")
    if args.min_score is not None:
        check_share("--min-score", args.min_score)
    if args.workers == 0 and (args.ray_address or args.cpus_per_worker is not None):
        raise UserError(
            "--workers 0 is this process alone; leave out --ray-address and --cpus-per-worker"
        )


def _given_words(args: argparse.Namespace) -> Vocabulary:
    """The words of a command line; none with ``--dataset``, whose classes are read later."""
    if args.dataset:
        if args.input or args.class_names or args.vocabulary:
            raise UserError(
                f"--dataset {args.dataset!r} stands in place of --input, --class-names and "
                "--vocabulary; leave these out"
            )
        if args.recursive or args.image_column:
            raise UserError("--recursive and --image-column are for --input; leave them out")
        if _is_yaml(args.dataset):
            own_names([args.dataset])  # finds mistakes in it at once
        check_model(args)
        return Vocabulary.of([])
    if not args.input:
        raise UserError("no input; give images, folders, patterns, .txt, .tar or .parquet files")
    return chosen_words(args)


def _portable(cfg: Any) -> str:
    """The config without what makes no difference to the rows."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = cfg.MODEL.WEIGHTS = cfg.OUTPUT_DIR = ""
    return str(cfg.dump())


def _distribution(args: argparse.Namespace, device: str) -> Distribute | None:
    """Ray's workers, where they are wanted and Ray is there; None: this process."""
    if args.workers == 0:
        return None
    cluster = args.ray_address or os.environ.get("RAY_ADDRESS")
    if args.workers is None and not cluster and _gpus() < 2:
        return None
    from ovseg.labelling.on_ray import RayWorkers, is_installed

    if not is_installed():
        print("Ray is not installed (pip install 'ovseg[ray]'): labelling in this process alone")
        return None
    return RayWorkers(args.workers, args.cpus_per_worker, args.ray_address, device != "cpu")


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
