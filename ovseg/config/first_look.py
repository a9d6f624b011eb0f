"""What can be found wrong with a command line before PyTorch is imported, which takes seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.data.splits import check_dataset_names
from ovseg.errors import UserError
from ovseg.released import OVSEG_SCHEME, released_as
from ovseg.utils.clip_names import check_clip_name
from ovseg.utils.io import user_path

from .overrides import missing_weights
from .quick import quick_cfg

if TYPE_CHECKING:
    from fvcore.common.config import CfgNode


def first_look(
    config_file: str | os.PathLike[str],
    opts: Sequence[str] = (),
    *,
    datasets: Iterable[str] = (),
    keys: Collection[str] = (),
    weights: bool = True,
    needed: bool = False,
) -> CfgNode | None:
    """Look at a config and its overrides, and at the files and data sets that they name.

    Args:
        config_file: a yaml file.
        opts: KEY VALUE pairs.
        datasets: yaml files of data sets of one's own, which stand in for those of the config.
        keys: of the lists of data sets that the command will look at.
        weights: whether ``MODEL.WEIGHTS`` will be read.
        needed: whether the command can do nothing without them.

    Returns:
        The config, see :func:`ovseg.config.quick.quick_cfg`; not for a model.

    Raises:
        UserError: something is wrong.
    """
    cfg = quick_cfg(config_file, opts)
    files = [*datasets]
    given = {key for key in keys if not files or key in opts[::2]}
    # those of a config that came with a model may lie elsewhere, and need not be there to use it
    custom = cfg.DATASETS.CUSTOM if cfg is not None and given and not files else ()
    own = own_names([*files, *custom])
    if cfg is None:
        return None
    # where detectron2 is imported already, a program may have registered more
    if "detectron2" not in sys.modules:
        names = [name for key in sorted(given) for name in cfg.DATASETS[key.rsplit(".")[-1]]]
        check_dataset_names(name for name in names if name not in own)
    if weights:
        _check_weights(cfg.MODEL.WEIGHTS, needed)
    check_proposals_folder(cfg.TEST.LOAD_PROPOSALS)
    name = "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME"
    check_clip_name(name, cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME)
    return cfg


def own_names(files: Iterable[str]) -> set[str]:
    """The names of the data sets that yaml files describe.

    Raises:
        UserError: a file is missing, or no such description.
    """
    names = set()
    for file in files:
        from ovseg.data.own.description import read_description  # not where there is no such file

        names.add(read_description(user_path(file)).name)
    return names


def _check_weights(path: str, needed: bool) -> None:
    if path.startswith(OVSEG_SCHEME):
        released_as(path.removeprefix(OVSEG_SCHEME))
    elif "://" not in path and not os.path.exists(path) and (path or needed):
        raise missing_weights(path)


def check_proposals_folder(folder: str) -> None:
    """Find out whether a folder of proposals, if one is given, is there.

    Raises:
        UserError: it is not.
    """
    if folder and not os.path.isdir(folder):
        raise UserError(f"folder of proposals {folder!r} does not exist; check the path")


def check_output_folder(path: str, argument: str) -> None:
    """Find out whether results can lie in a folder, as far as can be told without making it.

    Raises:
        UserError: it, or one that it would lie in, is a file.
    """
    for place in (Path(path), *Path(path).parents):
        if place.is_dir():
            return
        if place.exists():
            what = "is a file" if place == Path(path) else f"cannot be made, {place} is a file"
            raise UserError(f"{argument} {path!r} {what}; give another folder")
