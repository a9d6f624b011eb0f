"""Zero-shot accuracy on the ground-truth regions of any registered data set."""

from __future__ import annotations

import torch

from open_clip_training.adaptation.zero_shot import Sample, ZeroShotCheck
from open_clip_training.common.regions import MIN_PIXELS, cut_regions, region_sizes
from ovseg.data.datasets import class_groups, dataset_classes, load_dataset
from ovseg.data.label_maps import matching_truth
from ovseg.data.own.registration import register_custom
from ovseg.modeling.clip import ClipEncoder
from ovseg.utils.images import read_image


class RegionCheck(ZeroShotCheck[dict[str, str]]):
    """The ADE-150 protocol of the paper: ground-truth regions, classified among all names.

    A region is all of one class in one image. It is cut out as the segmentation network cuts its
    proposals, its background filled; regions of fewer than 64 pixels are left out. Texts are those
    of the 14 ViLD templates.
    """

    def __init__(self, name: str, limit: int = 0) -> None:
        """
        Args:
            name: a registered data set, or the yaml file of one's own.
            limit: how many images of it, the first; 0: all.

        Raises:
            UserError: there is no such data set, or its files are missing.
        """
        if name.endswith((".yaml", ".yml")):
            name = register_custom([name])[0]
        records = load_dataset(name, unpaired=True)[: limit or None]
        super().__init__(name, records, dataset_classes([name]), class_groups(name))

    def read(self, record: dict[str, str], encoder: ClipEncoder) -> Sample:
        """The regions of an image."""
        image = read_image(record["file_name"])
        labels = matching_truth(record, image.shape[:2])
        chosen = [
            label
            for label, pixels in region_sizes(labels).items()
            if 0 <= label < len(self.names) and pixels >= MIN_PIXELS
        ]
        crops = cut_regions(image, labels, chosen, encoder.image_size, mean=encoder.mean)
        return Sample(crops.images, crops.masks, torch.tensor(chosen, dtype=torch.int64))
