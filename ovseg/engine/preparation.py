"""What some methods of a comparison need before their training: labels, words, an adapted CLIP.

It is made by ordinary commands, in stages. Each leaves a file when it is done, and is not done
again where that is there.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovseg.errors import UserError
from ovseg.utils.package_files import clone_folder

SCRIPTS = "open_clip_training/"


@dataclass(frozen=True)
class Preparation:
    """What a method needs.

    In texts ``{folder}`` is where it is kept, ``{network}`` the folder of the network's run,
    ``{configs}`` that of all configs, ``{scenes}`` that of StickerScenes, ``{clip}`` the CLIP that
    is not adapted, ``{train}`` the data sets of the training, ``{unlabelled}`` and ``{min_score}``
    are config keys of ``MODEL.METHOD``, ``{custom}`` the comparison's ``DATASETS.CUSTOM``, each
    with a comma, and ``{opts}`` its KEY VALUE pairs.

    Attributes:
        stages: commands in their order, each after the file that it leaves.
        gives: KEY VALUE pairs for the method's training and evaluation. Where the comparison is
            given a value of the first key, nothing is prepared, unless it is ``DATASETS.CUSTOM``.
        network: a method whose network is needed, trained with the same seed; "": none.
        is_network: it differs from ``network`` in the weights of CLIP's image tower alone, which
            take no part in training. So it is not trained: its model is that of ``network`` with
            the same seed, with its own CLIP in it.
        shared: it is the same for all seeds, and not made where the file that the method's config
            names for the first key is there.
        always: KEY VALUE pairs that it has whether anything is prepared or not.
        package: what the stages need besides OVSeg: a module, and the command that installs it.
    """

    stages: tuple[tuple[str, str], ...]
    gives: tuple[str, ...]
    network: str = ""
    is_network: bool = False
    shared: bool = True
    always: tuple[str, ...] = ()
    package: tuple[str, str] | None = None

    def run(
        self, names: Mapping[str, str], opts: Sequence[str], call: Callable[[list[str]], None]
    ) -> list[str]:
        """Do the stages that are not done.

        Args:
            names: what the names in braces stand for.
            opts: KEY VALUE pairs.
            call: runs a command.

        Returns:
            What it gives.

        Raises:
            UserError: a command left no file, or see :func:`whole_command`.
        """
        for file, command in self.stages:
            result = Path(file.format_map(names))
            # some commands save their file on the way
            begun = result.with_name(f"{result.name}.begun")
            if result.is_file() and not begun.is_file():
                continue
            result.parent.mkdir(parents=True, exist_ok=True)
            begun.touch()
            call(whole_command(command, names, opts))
            if not result.is_file():
                raise UserError(f"{result} was not written by {command.split()[0]}, see above")
            begun.unlink()
        return [part.format_map(names) for part in self.gives]


def whole_command(command: str, names: Mapping[str, str], opts: Sequence[str]) -> list[str]:
    """A command of a stage as a process takes it.

    Raises:
        UserError: it is one of ``open_clip_training``, which an installation does not have.
    """
    program, *arguments = shlex.split(command)
    whole = [sys.executable, "-m", program]
    if program.startswith(SCRIPTS):
        clone = clone_folder()
        if clone is None:
            raise UserError(f"{program} is part of a clone; run the comparison from one")
        whole = [sys.executable, str(clone / program)]
    for argument in arguments:
        whole += opts if argument == "{opts}" else [argument.format_map(names)]
    return whole


_PAIRS = f"{SCRIPTS}collect_pairs.py --config-file {{configs}}/ovseg_tiny.yaml"
_CAPTIONS = "--captions {scenes}/captions_train.json --images {scenes}/images/train --adjectives"

_MINING = ("spacy", "pip install -e '.[mining]'")

#: by method
PREPARATIONS = {
    "selftrain": Preparation(
        stages=(
            (
                "{folder}/pseudo_labels/dataset.yaml",
                "ovseg label --config-file {configs}/methods/deeplabv3plus.yaml "
                "--dataset {unlabelled} --score-maps --min-score {min_score} "
                "--output {folder}/pseudo_labels "
                "--opts {opts} MODEL.WEIGHTS {network}/model_final.pth",
            ),
        ),
        gives=(
            *("DATASETS.CUSTOM", "{custom}{folder}/pseudo_labels/dataset.yaml"),
            *("DATASETS.TRAIN", "{train},pseudo_labels"),
        ),
        network="deeplabv3plus",
        shared=False,
        package=("pyarrow", "pip install pyarrow"),
    ),
    "openseg": Preparation(
        stages=(
            (
                "{folder}/caption_words.json",
                f"{SCRIPTS}caption_words.py {_CAPTIONS} --output {{folder}}/caption_words.json",
            ),
        ),
        gives=("INPUT.CAPTION_WORDS", "{folder}/caption_words.json"),
        package=_MINING,
    ),
    "simbaseline": Preparation(
        stages=(
            (
                "{folder}/pairs_seen/summary.json",
                f"{_PAIRS} --ground-truth {{train}} --output {{folder}}/pairs_seen --opts {{opts}}",
            ),
            (
                "{folder}/text_prompts.pt",
                f"{SCRIPTS}train.py --train text-prompts --clip {{clip}} --prompt-lr 0.02 "
                "--train-data {folder}/pairs_seen --overwrite --output {folder}/text_prompts.pt",
            ),
        ),
        gives=("MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT", "{folder}/text_prompts.pt"),
    ),
    "ovseg": Preparation(
        stages=(
            (
                "{folder}/pairs_mined/summary.json",
                f"{_PAIRS} {_CAPTIONS} --output {{folder}}/pairs_mined "
                "--opts {opts} MODEL.WEIGHTS {network}/model_final.pth",
            ),
            (
                "{folder}/adapted.pt",
                f"{SCRIPTS}train.py --train visual --clip {{clip}} --steps 180 --warmup 18 "
                "--batch-size 128 --lr 1e-4 --train-data {folder}/pairs_mined "
                "--overwrite --output {folder}/adapted.pt",
            ),
        ),
        gives=("MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "{folder}/adapted.pt"),
        network="zegformer",
        is_network=True,
        package=_MINING,
    ),
}
# it is trained, and what the comparison's ResNets start from is not for its backbone
PREPARATIONS["ovseg_swin"] = replace(
    PREPARATIONS["ovseg"], is_network=False, always=("MODEL.WEIGHTS", "")
)
