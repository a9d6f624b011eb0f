"""The network that proposes regions: image -> backbone -> proposals (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ovseg.structures import Proposals, Regions

from .clip import ClipAdapter
from .precision import autocast, device_precision
from .proposals.masks import fit_given, image_masks


class ProposalNetwork(nn.Module):
    """Backbone and proposal head, and how images are made ready for them."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        clip_adapter: ClipAdapter,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        backbone_precision: str = "fp32",
    ) -> None:
        """Arguments as those of :class:`ovseg.modeling.OVSeg`."""
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.clip_adapter = clip_adapter
        own = backbone.size_divisibility
        self.size_divisibility = size_divisibility if size_divisibility > 0 else own
        self.backbone_precision = backbone_precision
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def propose(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[Regions]:
        """The proposals of each image, without crops (paper section 3.1).

        Raises:
            UserError: given proposals do not fit the model.
        """
        own = [inputs for inputs in batched_inputs if "proposals" not in inputs]
        found = iter(self._own_regions(own) if own else [])
        return [
            self._given_regions(inputs) if "proposals" in inputs else next(found)
            for inputs in batched_inputs
        ]

    def _normalised(self, batched_inputs: Sequence[Mapping[str, Any]]) -> ImageList:
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(normalised, self.size_divisibility)

    def _proposals(self, images: ImageList) -> Proposals:
        tensor = images.tensor
        if tensor.is_cuda or self.training:  # the layout that convolutions are fastest in
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        key = "MODEL.PRECISION_BACKBONE"
        precision = device_precision(key, self.backbone_precision, self.device)
        if self.training and precision in {"fp16", "bf16"}:  # SOLVER.AMP scales its losses
            precision = "fp32"
        with autocast(precision, self.device):
            features = self.backbone(tensor)
        return self.sem_seg_head({name: x.float() for name, x in features.items()})

    def _own_regions(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[Regions]:
        """Those of images that are padded to the same size go through the network together."""
        found: dict[int, Regions] = {}
        for places in self._by_padded_size(batched_inputs):
            group = [batched_inputs[place] for place in places]
            found.update(zip(places, self._regions_of_one_size(group), strict=True))
        return [found[place] for place in range(len(batched_inputs))]

    def _by_padded_size(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        # padded further than alone an image would have other proposals: the network sees padding
        groups: dict[tuple[int, ...], list[int]] = {}
        step = max(self.size_divisibility, 1)
        for place, inputs in enumerate(batched_inputs):
            padded = tuple(-(-side // step) for side in inputs["image"].shape[-2:])
            groups.setdefault(padded, []).append(place)
        return list(groups.values())

    def _regions_of_one_size(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[Regions]:
        images = self._normalised(batched_inputs)
        proposals = self._proposals(images)
        each = zip(
            batched_inputs, proposals.mask_logits, images.image_sizes, proposals.embeddings,
            strict=True,
        )  # fmt: skip
        padded = images.tensor.shape[-2:]
        return [
            Regions(inputs["image"].to(self.device), image_masks(logits, size, padded), embeddings)
            for inputs, logits, size, embeddings in each
        ]

    def _given_regions(self, inputs: Mapping[str, Any]) -> Regions:
        width = self.clip_adapter.non_object_embedding.shape[1]
        size = inputs["image"].shape[-2:]
        given = fit_given(inputs["proposals"], size, width, self.device)
        return Regions(inputs["image"].to(self.device), given.masks, given.embeddings)
