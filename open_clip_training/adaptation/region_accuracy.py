"""Zero-shot accuracy on the ground-truth regions of any registered data set."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor

from open_clip_training.common.images import normalise
from open_clip_training.common.processes import Processes
from open_clip_training.common.regions import MIN_PIXELS, cut_regions, percent, region_sizes
from ovseg.data.datasets import class_groups, dataset_classes, load_dataset
from ovseg.data.label_maps import matching_truth
from ovseg.data.own.registration import register_custom
from ovseg.errors import UserError
from ovseg.modeling.clip import text_templates, word_features
from ovseg.structures import Crops
from ovseg.utils.images import read_image

logger = logging.getLogger(__name__)


class RegionCheck:
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
        self.name = name
        self.records = load_dataset(name, unpaired=True)[: limit or None]
        self.names = dataset_classes([name])
        self.groups = class_groups(name)

    @torch.no_grad()
    def __call__(self, model: CLIP, processes: Processes) -> dict[str, float]:
        """Accuracies in percent.

        Returns:
            ``accuracy`` over all regions, ``accuracy_class_mean`` over the classes that occur,
            ``accuracy_<group>`` over the regions of each group of classes, the number of
            ``regions``, and how many images were ``left_out`` since they cannot be used.
        """
        text = word_features(model, self.names, text_templates("vild", []))
        # rows: regions, hits
        counts = torch.zeros(2, len(self.names), dtype=torch.int64, device=processes.device)
        left_out = torch.zeros(1, dtype=torch.int64, device=processes.device)
        for record in self.records[processes.rank :: processes.world]:
            try:
                crops, labels = self._crops(record, model.visual.image_size)
            except UserError as error:
                logger.warning("%s: left out an image: %s", self.name, error)
                left_out += 1
                continue
            if len(labels) == 0:
                continue
            masks = crops.masks.to(processes.device) if model.visual.mask_prompt_depth else None
            features = model.visual(normalise(crops.images.to(processes.device)), masks)
            hits = (F.normalize(features, dim=-1) @ text.T).argmax(dim=-1).cpu() == labels
            both = torch.stack([torch.ones_like(labels), hits.long()])
            counts.index_add_(1, labels.to(counts.device), both.to(counts.device))
        regions, hits = processes.add_up(counts).cpu()
        occurring = regions > 0
        if not occurring.any():
            raise UserError(f"--eval-data {self.name}: none of its images has a region to check")
        result = {
            "accuracy": percent(hits.sum() / regions.sum(), 2),
            "accuracy_class_mean": percent((hits[occurring] / regions[occurring]).mean(), 2),
        }
        for group, members in self.groups.items():
            if regions[members].any():
                result[f"accuracy_{group}"] = percent(
                    hits[members].sum() / regions[members].sum(), 2
                )
        return {
            **result,
            "regions": int(regions.sum()),
            "left_out": int(processes.add_up(left_out)),
        }

    def _crops(self, record: dict[str, str], size: tuple[int, int]) -> tuple[Crops, Tensor]:
        image = read_image(record["file_name"])
        labels = matching_truth(record, image.shape[:2])
        chosen = [
            label
            for label, pixels in region_sizes(labels).items()
            if 0 <= label < len(self.names) and pixels >= MIN_PIXELS
        ]
        return cut_regions(image, labels, chosen, size), torch.tensor(chosen, dtype=torch.int64)
