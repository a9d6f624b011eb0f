"""What can be found wrong with a run before any work: weights, data sets, labels, proposals."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ovseg.config.overrides import missing_weights
from ovseg.data.data_check import check_data
from ovseg.data.data_report import DataReport
from ovseg.data.datasets import dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.loader import Example
from ovseg.data.lost_images import allowed_losses
from ovseg.data.proposal_files import check_image_names, check_proposals, dataset_folder
from ovseg.data.segment_maps import check_segment_truth
from ovseg.engine.place import is_first_process
from ovseg.engine.resuming import (
    check_fresh,
    check_last_checkpoint,
    check_resume,
    checkpoints,
)
from ovseg.errors import UserError
from ovseg.evaluation.segments import check_panoptic_quality
from ovseg.released import HUB_SCHEME, OVSEG_SCHEME, WEIGHTS_FILE, fetch, is_released


def weights_exist(path: str) -> bool:
    """Whether a checkpoint is there; one on the net is only fetched when a model is loaded."""
    if path.startswith(OVSEG_SCHEME):
        return is_released(path.removeprefix(OVSEG_SCHEME))
    try:
        return bool(PathManager.isfile(path)) or os.path.isfile(os.path.join(path, WEIGHTS_FILE))
    except NotImplementedError:
        return True


def check_weights(path: str) -> None:
    """Find out whether ``MODEL.WEIGHTS`` is there; fetch it if it is a name.

    Raises:
        UserError: it is empty, not there, or cannot be had.
    """
    if path.startswith((OVSEG_SCHEME, HUB_SCHEME)):
        fetch(path)
    elif not path or not weights_exist(path):
        raise missing_weights(path)


def check_checkpoint(cfg: CfgNode, resume: bool) -> None:
    """Find out whether there is a checkpoint to evaluate.

    Raises:
        UserError: ``MODEL.WEIGHTS`` is not there, or with ``resume`` the last one in
            ``OUTPUT_DIR``.
    """
    if not resume:
        check_weights(cfg.MODEL.WEIGHTS)
    elif checkpoints(cfg.OUTPUT_DIR):
        check_last_checkpoint(cfg.OUTPUT_DIR)
    else:
        raise UserError(
            f"--resume: {cfg.OUTPUT_DIR!r} holds no training whose last checkpoint could be "
            "evaluated; correct OUTPUT_DIR, or leave out --resume and give MODEL.WEIGHTS"
        )


def check_datasets(names: Iterable[str], key: str = "DATASETS.TEST") -> None:
    """Find out whether all data sets are there.

    Raises:
        UserError: names the data set, what is missing, and the way out.
    """
    for name in names:
        try:
            load_dataset(name)
        except UserError as error:
            raise UserError(f"{error} (or leave it out of {key})") from error
        dataset_classes([name])


def check_evaluation(cfg: CfgNode, all_data: bool = False) -> list[DataReport]:
    """Find out whether there is something to evaluate on, and its proposals where they are files.

    Args:
        cfg: names the data sets.
        all_data: look at all their files, not at a sample of large ones.

    Returns:
        What was seen of each data set, see :func:`check_ground_truth`.

    Raises:
        UserError: ``DATASETS.TEST`` is empty or not there, or see :func:`check_proposal_files`,
            :func:`check_segments` and :func:`check_ground_truth`.
    """
    if not cfg.DATASETS.TEST:
        raise UserError(
            "config key DATASETS.TEST: empty; name a data set to evaluate on, DATASETS.TEST name"
        )
    check_datasets(cfg.DATASETS.TEST)
    check_proposal_files(cfg)
    check_segments(cfg)
    return check_ground_truth(cfg.DATASETS.TEST, all_data)


def check_training(
    cfg: CfgNode, resume: bool = False, overwrite: bool = False, all_data: bool = False
) -> list[DataReport]:
    """Find out whether a training can be started, and its data sets are there.

    Args:
        cfg: of the training.
        resume: it goes on with the one in ``OUTPUT_DIR``.
        overwrite: it takes the place of the one in ``OUTPUT_DIR``.
        all_data: look at all files of its data sets, not at a sample of large ones.

    Returns:
        What was seen of each data set, see :func:`check_ground_truth`.

    Raises:
        UserError: see :func:`check_datasets`, :func:`check_segments`, :func:`check_ignore_value`,
            :func:`ovseg.engine.resuming.check_resume`, :func:`ovseg.engine.resuming.check_fresh`
            and :func:`check_ground_truth`.
    """
    check_datasets(cfg.DATASETS.TEST)
    check_datasets(cfg.DATASETS.TRAIN, key="DATASETS.TRAIN")
    check_segments(cfg)
    check_ignore_value(cfg)
    if resume:
        check_resume(cfg)
    else:
        check_fresh(cfg, overwrite)
    reports = check_ground_truth(cfg.DATASETS.TRAIN, all_data, cfg.DATALOADER.MAX_LOST)
    return reports + check_ground_truth(cfg.DATASETS.TEST, all_data)


def check_ground_truth(
    names: Iterable[str], all_data: bool, max_lost: float | None = None
) -> list[DataReport]:
    """Look at label maps, and at the sizes of their images, before any work.

    Of several processes the first does so for all; the others see nothing.

    Args:
        names: of registered data sets.
        all_data: look at all files, not at a sample of large data sets.
        max_lost: for a training, which share of its images it may lose.

    Returns:
        What was seen of each data set.

    Raises:
        UserError: no run with one of them can succeed.
    """
    if not is_first_process():
        return []
    reports = []
    for name in dict.fromkeys(names):
        report = check_data(name, all_data)
        allowed = allowed_losses(report.images, max_lost or 0)
        problem = report.problem(training=max_lost is not None, allowed=allowed)
        if problem is not None:
            raise UserError(problem)
        reports.append(report)
    return reports


def check_ignore_value(cfg: CfgNode) -> None:
    """Find out whether training ignores the pixels that its data sets mean.

    Raises:
        UserError: ``MODEL.SEM_SEG_HEAD.IGNORE_VALUE`` is not a data set's own.
    """
    value = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    for name in cfg.DATASETS.TRAIN:
        ignored = ignore_label(name, default=value)
        if ignored != value:
            raise UserError(
                f"config key MODEL.SEM_SEG_HEAD.IGNORE_VALUE: {value}, but data set {name} "
                f"ignores {ignored}; give MODEL.SEM_SEG_HEAD.IGNORE_VALUE {ignored}"
            )


def check_truth(names: Sequence[str], halves: int = 1, limit: int | None = None) -> None:
    """Find out whether data sets have ground truth, up to the first labelled pixel.

    Args:
        names: of registered data sets.
        halves: 2 if each half, that is every other image, must have some.
        limit: only the first so many images.

    Raises:
        UserError: the label maps are missing, or all their pixels ignored.
    """
    for name in names:
        ignored = ignore_label(name)
        examples = load_dataset(name, unpaired=True)[:limit]  # as they will be counted
        for half in range(halves):
            if not any(_labelled(example, ignored) for example in examples[half::halves]):
                raise UserError(
                    f"data set {name}: there is no ground truth in its label maps"
                    f"{' (or in one half of them)' if halves > 1 else ''}; choose another one"
                )


def _labelled(example: Example, ignored: int) -> bool:
    try:
        return bool((read_truth(example) != ignored).any())
    except UserError:  # the image will be left out
        return False


def check_proposal_files(cfg: CfgNode) -> None:
    """Find out whether proposals are there, or can be written.

    Raises:
        UserError: an image of ``DATASETS.TEST`` has no file, or shares it with another.
    """
    for name in cfg.DATASETS.TEST:
        images = [example["file_name"] for example in load_dataset(name)]
        if cfg.TEST.LOAD_PROPOSALS:
            check_proposals(dataset_folder(cfg.TEST.LOAD_PROPOSALS, name), images)
        if cfg.TEST.SAVE_PROPOSALS:
            check_image_names(images)


def check_segments(cfg: CfgNode) -> None:
    """Find out whether panoptic segments and instances can be evaluated, where they are on.

    Raises:
        UserError: a data set of ``DATASETS.TEST`` has no ground truth for them, or a package is
            missing.
    """
    asked = cfg.MODEL.MASK_FORMER.TEST
    if asked.PANOPTIC_ON and cfg.DATASETS.TEST:
        check_panoptic_quality()
    if asked.PANOPTIC_ON or asked.INSTANCE_ON:
        check_segment_truth(cfg.DATASETS.TEST)


def check_single_view(cfg: CfgNode) -> None:
    """Refuse several views of an image, and what follows the classification, where proposals and
    classes are looked at apart.

    Raises:
        UserError: test-time augmentation, the sliding window or the dense CRF is on.
    """
    for key, used in (
        ("TEST.AUG.ENABLED", cfg.TEST.AUG.ENABLED),
        ("TEST.SLIDING_WINDOW", cfg.TEST.SLIDING_WINDOW),
    ):
        if used:
            raise UserError(f"{key} True: images are looked at once here; set it to False")
    if cfg.TEST.DENSE_CRF:
        raise UserError("TEST.DENSE_CRF True: labels are not refined here; set it to False")
    if cfg.TEST.REJECT:
        raise UserError(f"TEST.REJECT {cfg.TEST.REJECT}: every pixel has a class here; set it to 0")
