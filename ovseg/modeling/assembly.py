"""From classified regions to what is given out: labels, scores, segments and instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ovseg.structures import Classified, PartialScores, Regions
from ovseg.vocabulary import Vocabulary

from .class_names import things_of, vocabulary_of
from .ensemble import best_proposals
from .memory import rows_at
from .panoptic import SegmentFinder
from .segmentation import label_map, label_maps, word_scores

Inputs = Mapping[str, Any]


class Assembly:
    """The last stage of :class:`ovseg.modeling.OVSeg`, whose attributes these are."""

    best_proposals_only: bool
    mask_threshold: float
    segment_finder: SegmentFinder
    reject: float

    def vocabulary(self, inputs: Inputs) -> Vocabulary:
        """What to look for in an image, and how readily to find none of it."""
        return vocabulary_of(inputs, inputs.get("reject", self.reject))

    def partial_scores(
        self,
        regions: Regions,
        classified: Classified,
        vocabulary: Vocabulary,
        mask_threshold: float | None = None,
    ) -> PartialScores:
        """What the regions of one view of an image add to its segmentation.

        ``mask_threshold`` stands in place of the model's own.
        """
        masks = self._segmentation_masks(regions, mask_threshold)
        classified = self._selected(classified, masks, vocabulary)
        return PartialScores(classified.class_probs, rows_at(masks, classified.queries))

    def label_maps(
        self,
        inputs: Inputs,
        regions: Regions,
        alternatives: Sequence[Classified],
        mask_threshold: float | None = None,
    ) -> Tensor:
        """The labels of several classifications of one image's regions, sharing their work.

        Args:
            inputs: of the image.
            regions: its proposals.
            alternatives: N classifications of them by the words of ``inputs``, at least one.
            mask_threshold: in place of the model's own.

        Returns:
            int32 (N, height, width), each as the ``labels`` of :meth:`forward`.
        """
        vocabulary = vocabulary_of(inputs)
        masks = self._segmentation_masks(regions, mask_threshold)
        selected = [self._selected(classified, masks, vocabulary) for classified in alternatives]
        labels = label_maps(selected, masks, _output_size(inputs, regions.image.shape[-2:]))
        return vocabulary.class_labels(labels)

    def assemble(
        self, inputs: Inputs, parts: Sequence[PartialScores], image_size: Sequence[int]
    ) -> dict[str, Tensor]:
        """The segmentation of one image from its parts, as :meth:`forward` returns it.

        Args:
            inputs: of the image.
            parts: at least one.
            image_size: height and width of the output where ``inputs`` does not say.
        """
        size = _output_size(inputs, image_size)
        vocabulary = self.vocabulary(inputs)
        if inputs.get("output", "scores") == "scores":
            return {"sem_seg": vocabulary.competing_scores(word_scores(parts, size))}
        labels, scores = label_map(parts, size)
        labels = vocabulary.class_labels(labels)
        return {"labels": labels, "scores": scores.masked_fill_(labels < 0, 0)}

    def _segmentation_masks(self, regions: Regions, mask_threshold: float | None) -> Tensor:
        masks = regions.masks
        threshold = self.mask_threshold if mask_threshold is None else mask_threshold
        return (masks > threshold).to(masks.dtype) if self.best_proposals_only else masks

    def _selected(
        self, classified: Classified, masks: Tensor, vocabulary: Vocabulary
    ) -> Classified:
        """The proposals that the segmentation is made of."""
        if self.best_proposals_only:
            return best_proposals(classified, masks, vocabulary)
        return classified

    def find_segments(
        self,
        inputs: Inputs,
        regions: Regions,
        classified: Classified,
        finder: SegmentFinder | None = None,
    ) -> dict[str, Any]:
        """Panoptic segments and instances of an image, those that are asked for.

        Args:
            inputs: of the image.
            regions: its proposals.
            classified: by the words of ``inputs``.
            finder: in place of the model's own.
        """
        vocabulary = self.vocabulary(inputs)
        size = _output_size(inputs, regions.image.shape[-2:])
        things = things_of(inputs, vocabulary)
        return (finder or self.segment_finder)(classified, regions.masks, vocabulary, things, size)


def _output_size(inputs: Inputs, image_size: Sequence[int]) -> tuple[int, int]:
    return inputs.get("height", image_size[0]), inputs.get("width", image_size[1])
