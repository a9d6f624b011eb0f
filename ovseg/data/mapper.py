"""From a dataset dict to what the model takes; the paper's training augmentation (section 4.1).

Training follows MaskFormer's recipe: resize the shorter side to a random size, crop, jitter colours
as in SSD, flip, pad to one size; every class in the label map becomes one mask.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.structures import Instances
from torch.nn import functional as F

from ovseg.data.datasets import dataset_classes
from ovseg.data.label_maps import matching_truth, truth_place, way_out
from ovseg.data.own.registration import dataset_vocabulary
from ovseg.data.segment_maps import thing_classes
from ovseg.errors import UserError
from ovseg.utils.images import read_image
from ovseg.utils.io import read_json
from ovseg.vocabulary import Vocabulary

#: grey value of padded image borders
PAD_VALUE = 128


def test_size(cfg: CfgNode) -> tuple[int, int]:
    """The size that images are resized to before the model sees them.

    Returns:
        Lengths in pixels for :func:`resize_short_side`. The shorter is 0 with ``TEST.AUG``, which
        resizes the original image itself.
    """
    return 0 if cfg.TEST.AUG.ENABLED else cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST


def resize_short_side(image: np.ndarray, short: int, longest: int) -> np.ndarray:
    """Resize bilinearly, keeping the aspect.

    Args:
        image: uint8 or float (H, W, C).
        short: new length of the shorter side in pixels; 0 leaves the image as it is.
        longest: most pixels of the longer side; where it would be exceeded, both sides shrink.
    """
    if short == 0:
        return image
    height, width = T.ResizeShortestEdge.get_output_shape(*image.shape[:2], short, longest)
    # a very long and narrow image would vanish
    size = max(height, 1), max(width, 1)
    return T.ResizeTransform(*image.shape[:2], *size).apply_image(image)


class _ColorAugSSD(T.Augmentation):
    """SSD's colour jitter, drawn anew for every image."""

    def __init__(self, image_format: str) -> None:
        super().__init__()
        self.image_format = image_format

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return ColorAugSSDTransform(img_format=self.image_format)


def build_train_augmentation(cfg: CfgNode) -> list[T.Augmentation]:
    """The training augmentation that ``cfg.INPUT`` describes, in its order."""
    augmentations: list[T.Augmentation] = [
        T.ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        )
    ]
    if cfg.INPUT.CROP.ENABLED:
        augmentations.append(
            T.RandomCrop_CategoryAreaConstraint(
                cfg.INPUT.CROP.TYPE,
                cfg.INPUT.CROP.SIZE,
                cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA,
                cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            )
        )
    if cfg.INPUT.COLOR_AUG_SSD:
        augmentations.append(_ColorAugSSD(cfg.INPUT.FORMAT))
    if cfg.INPUT.RANDOM_FLIP != "none":
        vertical = cfg.INPUT.RANDOM_FLIP == "vertical"
        augmentations.append(T.RandomFlip(horizontal=not vertical, vertical=vertical))
    return augmentations


class TrainingMapper:
    """Dataset dict -> augmented training example with one mask for every class present."""

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        image_format: str,
        ignore_label: int,
        size_divisibility: int,
        class_names: Sequence[str],
        caption_words: Mapping[str, Sequence[str]] | None = None,
        other_captions: int = 0,
    ) -> None:
        """Build the mapper by hand; from a config: ``TrainingMapper(cfg, dataset_names)``.

        Args:
            augmentations: applied to image and label map in turn.
            image_format: ``"RGB"`` or ``"BGR"``.
            ignore_label: label of pixels without a class.
            size_divisibility: both sides are padded to a multiple of it; < 1: no padding.
            class_names: the name of every label.
            caption_words: words of each image's captions, by its file's name; None: of no use.
            other_captions: how many captions of random images an example has with it.
        """
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.ignore_label = ignore_label
        self.size_divisibility = size_divisibility
        self.class_names = list(class_names)
        self.caption_words = caption_words
        self.captioned = list(caption_words or ())
        self.other_captions = other_captions

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_names: Sequence[str]) -> dict[str, Any]:
        """Constructor's arguments from ``cfg`` for data sets that share their classes."""
        if cfg.INPUT.DATASET_MAPPER_NAME != "mask_former_semantic":
            raise UserError(
                f"config key INPUT.DATASET_MAPPER_NAME: {cfg.INPUT.DATASET_MAPPER_NAME!r} is not "
                "known; set mask_former_semantic"
            )
        return {
            "augmentations": build_train_augmentation(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "ignore_label": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
            "class_names": _searched_names(dataset_names),
            "caption_words": _caption_words(cfg.INPUT.CAPTION_WORDS),
            "other_captions": cfg.INPUT.OTHER_CAPTIONS,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read, augment and pad one example. The dict given is left as it is.

        Returns:
            ``image``: uint8 tensor (3, H, W), 0..255 in ``image_format`` order, padded at the right
            and bottom with grey; ``instances``: ``gt_classes`` int64 (N,), ascending, and
            ``gt_masks`` bool tensor (N, H, W), False where padded; ``height``, ``width``: of the
            file; ``class_names`` and ``file_name``; with captions ``caption_words``, none of an
            image without a caption, and ``other_captions``, the words of each. N is 0 when the crop
            has no labelled pixel.

        Raises:
            UserError: a file is missing or broken, sizes differ, or a label has no class.
        """
        image = _read(dataset_dict["file_name"], self.image_format)
        labels = matching_truth(dataset_dict, image.shape[:2])
        height, width = labels.shape
        if labels.dtype != np.uint8:
            labels = labels.astype(np.float32)  # exact for 16 bit; what detectron2 can resize
        inputs = T.AugInput(image, sem_seg=labels)
        self.augmentations(inputs)
        image_tensor = torch.from_numpy(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        label_tensor = torch.from_numpy(np.ascontiguousarray(inputs.sem_seg).astype(np.int64))
        image_tensor, label_tensor = self._pad(image_tensor, label_tensor)
        return {
            "file_name": dataset_dict["file_name"],
            "height": height,
            "width": width,
            "image": image_tensor,
            "instances": self._instances(label_tensor, dataset_dict),
            "class_names": self.class_names,
            **self._words(dataset_dict["file_name"]),
        }

    def _words(self, path: str) -> dict[str, Any]:
        if self.caption_words is None:
            return {}
        name, known = os.path.basename(path), self.captioned
        drawn = np.random.randint(len(known), size=self.other_captions) if known else ()
        return {
            "caption_words": list(self.caption_words.get(name, ())),
            "other_captions": [self.caption_words[known[i]] for i in drawn if known[i] != name],
        }

    def _pad(self, image: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.size_divisibility < 1:
            return image, labels
        height, width = labels.shape
        border = (0, -width % self.size_divisibility, 0, -height % self.size_divisibility)
        return F.pad(image, border, value=PAD_VALUE), F.pad(labels, border, value=self.ignore_label)

    def _instances(self, labels: torch.Tensor, dataset_dict: dict[str, Any]) -> Instances:
        classes = torch.unique(labels)
        classes = classes[classes != self.ignore_label]
        outside = classes[(classes < 0) | (classes >= len(self.class_names))]
        if len(outside):
            raise UserError(
                f"{truth_place(dataset_dict)}: label {int(outside[0])} is outside the "
                f"{len(self.class_names)} classes (and not the ignored {self.ignore_label}); "
                f"{way_out(dataset_dict)}"
            )
        instances = Instances((labels.shape[0], labels.shape[1]))
        instances.gt_classes = classes
        instances.gt_masks = labels[None] == classes[:, None, None]
        return instances


class EvaluationMapper:
    """Dataset dict -> the resized image and where its ground truth lies."""

    @configurable
    def __init__(
        self,
        *,
        size: tuple[int, int],
        image_format: str,
        vocabulary: Vocabulary,
        dataset_name: str,
        thing_classes: Sequence[str] | None = None,
    ) -> None:
        """Build the mapper by hand; from a config: ``EvaluationMapper(cfg, dataset_name)``.

        Args:
            size: lengths of the shorter and the longer side, see :func:`resize_short_side`.
            image_format: ``"RGB"`` or ``"BGR"``.
            vocabulary: the classes to look for.
            dataset_name: goes into ``meta``.
            thing_classes: the classes that are things; None: all.
        """
        self.size = size
        self.image_format = image_format
        self.vocabulary = vocabulary
        self.dataset_name = dataset_name
        self.thing_classes = vocabulary.names if thing_classes is None else tuple(thing_classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """Constructor's arguments from ``cfg`` for one data set."""
        return {
            "size": test_size(cfg),
            "image_format": cfg.INPUT.FORMAT,
            "vocabulary": dataset_vocabulary(dataset_name),
            "dataset_name": dataset_name,
            "thing_classes": thing_classes(dataset_name),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and resize one image. The dict given is left as it is.

        Returns:
            The dict's entries, ``image`` (uint8 tensor (3, H, W), 0..255), ``height`` and ``width``
            of the file, ``class_names`` (the :class:`Vocabulary`), ``thing_classes`` (names of
            classes), ``meta``, and ``output: "labels"``, which asks the model for a label map in
            place of scores for every class.

        Raises:
            UserError: the image is missing or broken.
        """
        image = _read(dataset_dict["file_name"], self.image_format)
        resized = resize_short_side(image, *self.size)
        return {
            **dataset_dict,
            "height": image.shape[0],
            "width": image.shape[1],
            "image": torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1))),
            "class_names": self.vocabulary,
            "thing_classes": self.thing_classes,
            "meta": {"dataset_name": self.dataset_name},
            "output": "labels",
        }


def _searched_names(dataset_names: Sequence[str]) -> list[str]:
    """Of each class the first word that it is found by, mostly its name."""
    dataset_classes(dataset_names)  # they are the same in all data sets
    return [words[0] for words in dataset_vocabulary(dataset_names[0]).words_of_class]


def _caption_words(path: str) -> dict[str, list[str]] | None:
    hint = "make INPUT.CAPTION_WORDS with open_clip_training/caption_words.py"
    return read_json(path, dict, hint) if path else None


def _read(path: str, image_format: str) -> np.ndarray:
    image = read_image(path)
    return image if image_format == "RGB" else np.ascontiguousarray(image[:, :, ::-1])
