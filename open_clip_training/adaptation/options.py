"""The command line of train.py."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from open_clip_training.common.options import (
    SEEDS,
    add_run,
    check_dataset,
    check_ranges,
    check_there,
)
from open_clip_training.common.scripts import refuse_several_processes
from ovseg.engine.process_options import add_processes
from ovseg.errors import Parser, UserError
from ovseg.utils.clip_names import CLIP_FILES, check_clip_name

#: what can be trained for each way of showing CLIP a region
TRAINED = {
    "crops": ("visual", "mask-prompts", "both", "text-prompts", "template-map"),
    "shared": ("visual", "mask-queries", "mask-bias"),
}
#: what is learned with CLIP frozen
FROZEN = ("text-prompts", "template-map")
#: options of trainings in several processes, and their defaults
_SEVERAL: dict[str, object] = {"num_gpus": None, "num_processes": None, "num_machines": 1}
#: options that crops do not have, and their defaults
_NOT_FOR_CROPS: dict[str, object] = {"resolution": None, "first_block": 0, "region_lr": 1e-3}
#: options that what is learned with CLIP frozen does not have, and their defaults
_NOT_FOR_FROZEN: dict[str, object] = {
    **_SEVERAL, "augment": True, "eval_data": None, "templates": None, "accumulate": 1,
    "plain_loss": False, "precision": "fp32", "published": False,
}  # fmt: skip
#: options that a shared pass does not have, and their defaults
_NOT_FOR_SHARED: dict[str, object] = {
    **_SEVERAL, "templates": None, "accumulate": 1, "plain_loss": False, "precision": "fp32",
    "crops": "masked", "mask_prompt_depth": None, "epochs": 5, "data_root": None, "captions": None,
    "fill_tolerance": 0, "eval_classes": None, "published": False,
    "prompts": 16,
}  # fmt: skip
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("epochs", "steps", "accumulate"), (1, math.inf)),
    **dict.fromkeys(("mask_prompt_depth", "warmup", "workers", "eval_images"), (0, math.inf)),
    **dict.fromkeys(("lr", "weight_decay", "prompt_lr", "region_lr"), (0, math.inf)),
    **dict.fromkeys(("resolution",), (1, math.inf)),
    **dict.fromkeys(("first_block",), (0, math.inf)),
    "batch_size": (2, math.inf),
    "prompts": (1, math.inf),
    "fill_tolerance": (0, 255),
    "seed": SEEDS,
}


def parse_arguments(
    arguments: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Read the command line; ``description`` is the script's, for ``--help``.

    Raises:
        UserError: it cannot be used.
    """
    parser = Parser(description)
    add = parser.add_argument
    add("--clip", required=True, help="CLIP to adapt: ViT-B/16, ViT-L/14, another name, or a file")
    add("--pretrained", default="openai", help="weights of a CLIP given by name: open_clip's tag "
        "(default: openai), or a file")  # fmt: skip
    add("--train-data", required=True, nargs="+", metavar="PAIRS", help="pairs.csv, its folder, or "
        "'pairs-*.tar'; or a table of filepath and title (coco_proposal_1cap.csv); several are "
        "taken together")  # fmt: skip
    add("--data-root", type=Path, help="folder that relative paths of a table start from; default: "
        "the table's")  # fmt: skip
    add("--captions", help="of a table of filepath and title: the template of its titles "
        "(default: 'a photo of a {}.'), or as-is: take whole titles as texts")  # fmt: skip
    add("--fill-tolerance", type=int, default=0, help="of crops without mask files: by how much a "
        "channel of the background may differ from (124, 116, 103), for JPEG")  # fmt: skip
    add("--output", type=Path, required=True, help="the checkpoint to write")
    add("--regions", choices=tuple(TRAINED), default="crops",
        help="what CLIP is adapted to: crops of regions, or a shared pass of the whole image "
        "(docs/speed.md), for which --train-data is a data set with ground truth")  # fmt: skip
    add("--train", choices=sorted({kind for kinds in TRAINED.values() for kind in kinds}),
        default="visual", help="visual (the default): fine-tune the image tower. With crops: "
        "mask-prompts; both at once; text-prompts or template-map, with CLIP frozen. With a shared "
        "pass: mask-queries or mask-bias of the regions")  # fmt: skip
    add("--resolution", type=int, help="of a shared pass: shorter side of the image in pixels; "
        "default: CLIP's input size")  # fmt: skip
    add("--first-block", type=int, default=0, help="of a shared pass: block from which regions "
        "take part; default: 0, from the first on")  # fmt: skip
    add("--teacher", choices=("classes", "crops"), default="classes",
        help="what a shared pass learns: the classes of true regions, or CLIP's own features of "
        "the crops of regions of many shapes")  # fmt: skip
    add("--region-lr", type=float, default=1e-3, help="learning rate of mask queries and "
        "mask bias (default: 0.001)")  # fmt: skip
    add("--mask-prompt-depth", type=int, help="layers with mask prompts; default: the "
        "CLIP's own, 3 for new ones")  # fmt: skip
    add("--prompts", type=int, default=16, metavar="N", help="number of text prompts; default: 16")
    add("--crops", choices=("masked", "unmasked"), default="masked",
        help="fill the background of crops (the default), or leave it in as a control")  # fmt: skip
    add("--background", choices=("fill", "drop"), default="fill",
        help="fill (the default): the colour, or mask prompts, stand for a crop's background; "
        "drop: its patches are left out (MODEL.CLIP_ADAPTER.BACKGROUND drop)")  # fmt: skip
    add("--plain-loss", action="store_true", help="the published loss: crops of one noun "
        "are each other's negatives")  # fmt: skip
    add("--published", action="store_true", help="where the published training differs: "
        "--plain-loss, --templates 'a photo of a {}.', and crops are not mirrored")  # fmt: skip
    add("--templates", help="vild (default) or imagenet, a random one for each noun and step; or a "
        "text with {}")  # fmt: skip
    add("--no-augment", dest="augment", action="store_false", help="do not mirror or zoom crops")
    add("--epochs", type=int, default=5, help="default: 5")
    add("--steps", type=int, help="number of steps, in place of --epochs")
    add("--batch-size", type=int, help="of all processes together; default: 256 for ViT-L, "
        "else 1024")  # fmt: skip
    add("--accumulate", type=int, default=1, help="compute a batch in N passes: less memory, "
        "the same result")  # fmt: skip
    add("--warmup", type=int, default=100, help="steps of warm-up (default: 100)")
    add("--lr", type=float, default=5e-6, help="learning rate of fine-tuning (default: 5e-6)")
    add("--weight-decay", type=float, default=0.2, help="of fine-tuning (default: 0.2)")
    add("--prompt-lr", type=float, help="learning rate of prompts (default: 0.05; mask prompts "
        "have no weight decay) and of a template map (default: 0.002)")  # fmt: skip
    add("--precision", choices=("fp32", "amp", "amp_bf16"), default="fp32",
        help="default: fp32")  # fmt: skip
    add("--device", help="default: cuda where there is a GPU, else cpu")
    add("--workers", type=int, default=4, help="loading processes; unused where all fits in memory")
    add("--eval-data", help="a registered data set (ade20k_sem_seg_val), the yaml of your own, or "
        "a folder of class folders with crops (ade_gt_150cls_val)")  # fmt: skip
    add("--eval-classes", help="of a folder of class folders: a file of class names, or the name "
        "of a vocabulary (ade20k-150, the default for ade_gt_150cls_val)")  # fmt: skip
    add("--eval-images", type=int, default=0, help="measure on its first N images (of a folder of "
        "class folders: on N crops, evenly taken); 0 (the default): on all")  # fmt: skip
    add_run(parser)
    add_processes(parser, all_gpus=False)
    options = parser.parse_args(arguments)
    if options.prompt_lr is None:
        # a template weighs 1/14, so that larger steps throw the weights about
        options.prompt_lr = 0.002 if options.train == "template-map" else 0.05
    check_ranges(options, RANGES)
    allowed = TRAINED[options.regions]
    if options.train not in allowed:
        raise UserError(
            f"--train {options.train} is not for --regions {options.regions}; choose from "
            f"{', '.join(allowed)}"
        )
    if options.teacher == "crops" and options.regions != "shared":
        raise UserError("--teacher crops is for --regions shared; leave it out")
    if options.background == "drop" and (options.train != "visual" or options.regions != "crops"):
        raise UserError(
            "--background drop is for --regions crops --train visual; with --train "
            f"{options.train} leave it out"
        )
    if options.regions == "crops":
        _refuse(options, _NOT_FOR_CROPS, "--regions crops")
        if options.train != "text-prompts":
            _refuse(options, {"prompts": 16}, f"--train {options.train}")
    if options.train in FROZEN:
        refuse_several_processes()
        why = f"--train {options.train}, which sees every crop once, in one process"
        _refuse(options, _NOT_FOR_FROZEN, why)
    if options.regions == "shared":
        refuse_several_processes()
        why = "--regions shared, which sees whole images, in one process"
        _refuse(options, _NOT_FOR_SHARED, why)
        if len(options.train_data) > 1:
            raise UserError(
                f"--train-data {' '.join(options.train_data)}: --regions shared takes one data "
                "set; leave the others out"
            )
    return options


def _refuse(options: argparse.Namespace, others: Mapping[str, object], why: str) -> None:
    """Refuse options that would be ignored."""
    for name, usual in others.items():
        if getattr(options, name) != usual:
            option = "no-augment" if name == "augment" else name.replace("_", "-")
            raise UserError(f"--{option} is not for {why}; leave it out")


def check_inputs(options: argparse.Namespace) -> None:
    """Check that the files and data sets of a command line are there.

    Raises:
        UserError: one is not.
    """
    if options.regions == "shared":
        check_dataset("--train-data", options.train_data[0])
    else:
        for source in options.train_data:
            if "*" not in source and not source.endswith(".tar"):
                given = argparse.Namespace(train_data=source)
                check_there(given, {"train_data": "collect_pairs.py makes it"})
    if Path(options.clip).suffix in CLIP_FILES:
        check_there(options, {"clip": "give the path of a CLIP, or a name such as ViT-B/16"})
    check_clip_name("--clip", options.clip)
    check_dataset("--eval-data", options.eval_data)
    check_output(options.output, options.clip)


def check_output(path: Path, clip: str) -> None:
    """Check that the result can be written and spoils nothing, before hours of training.

    Raises:
        UserError: it cannot.
    """
    if path.is_dir():
        raise UserError(f"--output {str(path)!r} is a folder; give a file, such as {path}/clip.pt")
    if path.is_file() and Path(clip).is_file() and path.samefile(clip):
        raise UserError(
            f"--output {str(path)!r} is the file of --clip, which a resumed run would need again; "
            "give another"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"--output {str(path)!r} cannot be written ({error.strerror}); give another place"
        ) from error
