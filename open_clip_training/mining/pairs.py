"""From an image to mask-noun pairs: proposals that CLIP finds best for a noun, or ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image
from torch import Tensor

from open_clip_training.common.regions import region_sizes
from ovseg.data.mapper import resize_short_side
from ovseg.modeling import OVSeg
from ovseg.modeling.clip.pixels import pixels_of_name
from ovseg.modeling.crops import expand_boxes, mask_boxes
from ovseg.vocabulary import Vocabulary


@dataclass
class MaskNounPair:
    """A region of an image and its noun.

    Attributes:
        noun: as in the caption, or the class's name.
        score: 0..1; 1 for ground truth.
        box: left, top, right, bottom in pixels of the resized image, right and bottom exclusive.
        raw: uint8 (h, w, 3), RGB; the box as it is.
        mask: bool (h, w); the region in the box.
    """

    noun: str
    score: float
    box: tuple[int, int, int, int]
    raw: np.ndarray
    mask: np.ndarray

    def filled(self, colour: Sequence[int]) -> np.ndarray:
        """The crop as CLIP sees it, uint8 (h, w, 3): ``colour`` (RGB) outside the region."""
        return np.where(self.mask[..., None], self.raw, np.array(colour, np.uint8))


@dataclass(frozen=True)
class Rules:
    """Which regions become pairs.

    Attributes:
        min_area: least share of the image's pixels.
        min_score: least probability of the noun among all nouns of the data set.
        min_objectness: least probability of the proposal to be anything, by MaskFormer.
    """

    min_area: float
    min_score: float
    min_objectness: float


def fill_colour(cfg: CfgNode) -> tuple[int, int, int]:
    """The colour of crops outside their region, RGB 0..255, as in inference."""
    adapter = cfg.MODEL.CLIP_ADAPTER
    if adapter.MASK_FILL == "zero":
        return 0, 0, 0
    name = adapter.CLIP_MODEL_NAME
    means, _ = pixels_of_name(name, name if Path(name).is_file() else adapter.CLIP_PRETRAINED)
    red, green, blue = (round(255 * mean) for mean in means)
    return red, green, blue


def resize_image(image: np.ndarray, cfg: CfgNode) -> np.ndarray:
    """An image (H, W, 3) at the size of inference."""
    return resize_short_side(image, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)


def resize_labels(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A label map (H, W) of any integers, at the size of its resized image (h, w, 3)."""
    # Pillow's 32-bit integers hold labels of any type
    as_image = Image.fromarray(labels.astype(np.int32))
    size = image.shape[1], image.shape[0]
    return np.asarray(as_image.resize(size, Image.Resampling.NEAREST))


class KnownNouns:
    """The nouns of a data set, which CLIP classifies all of its proposals among.

    Attributes:
        text: their features.
        place: of each noun among them.
    """

    @torch.inference_mode()
    def __init__(self, model: OVSeg, words: Sequence[str]) -> None:
        """``words``: distinct."""
        self.text = model.text(Vocabulary.of(words))
        self.place = {word: index for index, word in enumerate(words)}


@torch.inference_mode()
def mine(
    model: OVSeg,
    image: np.ndarray,
    nouns: Sequence[str],
    known: KnownNouns,
    rules: Rules,
    counts: Counter[str],
) -> list[MaskNounPair]:
    """The best proposal for each noun of an image (paper section 3.2).

    CLIP classifies the masked crop of every proposal among all known nouns. Each noun takes the
    proposal where its probability is highest, and keeps it when none of the image's other nouns is
    more probable there: one region cannot teach two names.

    Args:
        model: in evaluation mode; its ``INPUT.FORMAT`` is RGB.
        image: uint8 (H, W, 3), RGB, at the size of inference.
        nouns: of the image's captions, distinct, all of them known.
        known: the nouns of the whole data set.
        rules: which proposals and pairs count.
        counts: reasons why nouns found no region are added here.

    Returns:
        At most one pair a noun, in the order of ``nouns``.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    regions = model.propose([{"image": tensor}])[0]
    text = known.text
    clip = model.classify_crops(model.encode_crops(regions), text)
    masks = regions.masks[clip.valid] > model.mask_threshold
    usable = masks.flatten(1).float().mean(dim=1) >= rules.min_area
    objectness = model.classify_queries(regions, text)
    if objectness is not None:  # else the proposals are of another system
        usable &= objectness.sum(dim=1)[clip.valid] >= rules.min_objectness
    if not usable.any():
        counts["nouns of images without a usable proposal"] += len(nouns)
        return []
    probs = clip.class_probs[:, [known.place[noun] for noun in nouns]][usable]
    masks = masks[usable]
    pairs = []
    for index, best in enumerate(probs.argmax(dim=0).tolist()):
        score = float(probs[best, index])
        if int(probs[best].argmax()) != index:
            counts["nouns whose region fits another noun better"] += 1
        elif score < rules.min_score:
            counts["nouns below the minimum score"] += 1
        else:
            pairs.append(
                _cut(image, masks[best], nouns[index], score, model.crop_encoder.expand_ratio)
            )
    return pairs


def ground_truth_pairs(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    ignore_label: int,
    rules: Rules,
    counts: Counter[str],
    expand_ratio: float,
) -> list[MaskNounPair]:
    """One pair for every class in a label map (the first case of the paper's Table 2).

    Args:
        image: uint8 (H, W, 3), RGB.
        labels: integer (H, W), indices into ``names`` or ``ignore_label``.
        names: of the classes.
        ignore_label: of pixels that belong to no region.
        rules: of which the least area counts.
        counts: "regions below the minimum area" and "unknown labels" are added here.
        expand_ratio: factor on the boxes' sides.
    """
    pairs = []
    for label, pixels in region_sizes(labels).items():
        if label == ignore_label:
            continue
        if not 0 <= label < len(names):
            counts["unknown labels"] += 1
        elif pixels / labels.size < rules.min_area:
            counts["regions below the minimum area"] += 1
        else:
            mask = torch.from_numpy(labels == label)
            pairs.append(_cut(image, mask, names[label], 1.0, expand_ratio))
    return pairs


def _cut(
    image: np.ndarray, mask: Tensor, noun: str, score: float, expand_ratio: float
) -> MaskNounPair:
    tight = mask_boxes(mask[None])
    left, top, right, bottom = expand_boxes(tight, expand_ratio, *image.shape[:2])[0].tolist()
    box = (left, top, right, bottom)
    inside = np.s_[top:bottom, left:right]
    return MaskNounPair(noun, score, box, image[inside], mask.cpu().numpy()[inside])
