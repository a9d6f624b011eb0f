"""Where pairs come from: images with captions and a trained OVSeg, or label maps."""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from typing import Protocol

from detectron2.config import CfgNode
from detectron2.utils import comm

from open_clip_training.mining.captions import CaptionedImage, read_captions
from open_clip_training.mining.nouns import frequent, load_tagger, nouns_of_captions
from open_clip_training.mining.pairs import (
    KnownNouns,
    MaskNounPair,
    Rules,
    fill_colour,
    ground_truth_pairs,
    mine,
    resize_image,
    resize_labels,
)
from ovseg.data.datasets import dataset_classes, ignore_label, load_dataset
from ovseg.data.label_maps import matching_truth
from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.predictor import Predictor
from ovseg.utils.digests import digest
from ovseg.utils.images import read_image
from ovseg.utils.io import read_json, write_json

logger = logging.getLogger("collect_pairs")
UNREADABLE = "unreadable images"


class PairSource(Protocol):
    """Images and what makes pairs of them.

    Attributes:
        kind: the column ``source``.
        fill: colour outside the regions, RGB 0..255.
        counts: of what was seen and left out before any image was looked at.
    """

    kind: str
    fill: tuple[int, int, int]
    counts: Counter[str]

    def __len__(self) -> int:
        """The number of images."""

    def image_id(self, index: int) -> str:
        """What the image is called."""

    def prepare(self) -> None:
        """Do what takes long and all images need, before the first one.

        Every process of a run calls it, or none.

        Raises:
            UserError: an argument cannot be used.
        """

    def pairs(self, index: int, counts: Counter[str]) -> list[MaskNounPair]:
        """The pairs of an image; reasons for less are added to ``counts``."""


class CaptionSource:
    """Mined pairs: proposals of a trained OVSeg, nouns of the captions."""

    kind = "proposal"

    def __init__(self, options: argparse.Namespace, cfg: CfgNode) -> None:
        """Read the captions.

        Raises:
            UserError: they cannot be used.
        """
        self.cfg, self.fill, self.rules = cfg, fill_colour(cfg), _rules(options)
        self.counts: Counter[str] = Counter()
        self._options = options
        self._images = read_captions(
            options.captions,
            options.images,
            options.captions_per_image,
            options.seed,
            options.limit,
            self.counts,
        )

    def prepare(self) -> None:
        """Build the model and find the nouns; see :class:`PairSource`."""
        model = Predictor(self.cfg).model
        assert isinstance(model, OVSeg)
        options, self._model = self._options, model
        self._nouns = self._find_nouns()
        flat = [nouns for of_image in self._nouns for nouns in of_image]
        self.counts["captions without nouns"] = sum(not nouns for nouns in flat)
        excluded = {noun.lower() for noun in options.exclude_nouns}
        self.words = [n for n in frequent(flat, options.min_noun_count) if n not in excluded]
        if not self.words:
            raise UserError(
                f"--captions {str(options.captions)!r}: no caption holds a noun that is not left "
                "out; look at the captions, --min-noun-count and --exclude-nouns"
            )
        logger.info("%d captions, %d distinct nouns", len(flat), len(self.words))
        self._known = KnownNouns(model, self.words)

    def _find_nouns(self) -> list[list[list[str]]]:
        """Nouns of every caption of every image.

        They are kept in a file, with what they were made from, for the other processes and since a
        run may be resumed.
        """
        options = self._options
        path = options.output / "nouns.json"
        captions = [caption for image in self._images for caption in image.captions]
        made_from = [options.spacy_model, options.adjectives, digest([json.dumps(captions)])]
        known = path.is_file() and read_json(path, dict).get("made from") == made_from
        if comm.is_main_process() and not known:
            nouns = iter(
                nouns_of_captions(captions, load_tagger(options.spacy_model), options.adjectives)
            )
            of_images = [[next(nouns) for _ in image.captions] for image in self._images]
            write_json(path, {"made from": made_from, "nouns": of_images})
        comm.synchronize()
        return read_json(path, dict)["nouns"]

    def __len__(self) -> int:
        """The number of images."""
        return len(self._images)

    def image_id(self, index: int) -> str:
        """What the captions' file calls the image."""
        return self._images[index].image_id

    def pairs(self, index: int, counts: Counter[str]) -> list[MaskNounPair]:
        """See :class:`PairSource`."""
        item: CaptionedImage = self._images[index]
        found = list(dict.fromkeys(noun for nouns in self._nouns[index] for noun in nouns))
        nouns = [noun for noun in found if noun in self._known.place]
        counts["nouns"] += len(found)
        counts["nouns left out by the filters"] += len(found) - len(nouns)
        if not nouns:
            counts["images without nouns"] += 1
            return []
        try:
            image = read_image(item.path)
        except UserError as error:
            return _left_out(error, counts)
        image = resize_image(image, self.cfg)
        return mine(self._model, image, nouns, self._known, self.rules, counts)


class LabelSource:
    """Pairs of ground-truth regions and class names."""

    kind = "ground-truth"

    def __init__(self, options: argparse.Namespace, cfg: CfgNode) -> None:
        """Find the images of a registered data set.

        Raises:
            UserError: it is not registered or its files are missing.
        """
        self.cfg, self.fill, self.rules = cfg, fill_colour(cfg), _rules(options)
        self._dicts = load_dataset(options.ground_truth, unpaired=True)[: options.limit]
        self._names = dataset_classes([options.ground_truth])
        self._ignore = ignore_label(options.ground_truth)
        self.counts: Counter[str] = Counter(images=len(self._dicts))

    def __len__(self) -> int:
        """The number of images."""
        return len(self._dicts)

    def image_id(self, index: int) -> str:
        """The image's file name."""
        return str(self._dicts[index]["file_name"]).rsplit("/", 1)[-1]

    def prepare(self) -> None:
        """Nothing is needed."""

    def pairs(self, index: int, counts: Counter[str]) -> list[MaskNounPair]:
        """See :class:`PairSource`."""
        example = self._dicts[index]
        try:
            image = read_image(example["file_name"])
            labels = matching_truth(example, image.shape[:2])
        except UserError as error:
            return _left_out(error, counts)
        image = resize_image(image, self.cfg)
        return ground_truth_pairs(
            image,
            resize_labels(labels, image),
            self._names,
            self._ignore,
            self.rules,
            counts,
            self.cfg.MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO,
        )


def _left_out(error: UserError, counts: Counter[str]) -> list[MaskNounPair]:
    logger.warning("left out: %s", error)
    counts[UNREADABLE] += 1
    return []


def _rules(options: argparse.Namespace) -> Rules:
    return Rules(options.min_area, options.min_score, options.min_objectness)
