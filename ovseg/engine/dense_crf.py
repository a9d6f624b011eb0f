"""The published post-processing: a dense CRF over the scores of all classes (``TEST.DENSE_CRF``).

"Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", NIPS 2011, by the
package pydensecrf, with the published parameters. It works on the picture at its own size, and all
classes' scores are held for it at that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.modeling.class_names import vocabulary_of
from ovseg.utils.images import read_image

_ITERATIONS = 5
# of the smoothness: weight, and standard deviation in pixels
_SMOOTHNESS, _NEAR = 3, (3, 3)
# of the appearance: weight, and standard deviations in pixels and in colours of 0..255
_APPEARANCE, _FAR, _COLOURS = 10, (80, 80), (13, 13, 13)


def dense_crf(scores: Tensor, picture: np.ndarray) -> Tensor:
    """Refine scores by the picture.

    Args:
        scores: float (C, H, W); their softmax over the classes are the unary potentials.
        picture: uint8 (H, W, 3), RGB, 0..255.

    Returns:
        Probabilities float32 (C, H, W), on the device of ``scores``.
    """
    from pydensecrf import densecrf, utils

    classes, height, width = scores.shape
    probs = scores.float().softmax(dim=0).cpu().numpy()
    kind = {"kernel": densecrf.DIAG_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(utils.unary_from_softmax(probs)))
    crf.addPairwiseGaussian(sxy=_NEAR, compat=_SMOOTHNESS, **kind)
    writable = np.array(picture, order="C")  # a copy, since the package takes no other
    crf.addPairwiseBilateral(sxy=_FAR, srgb=_COLOURS, rgbim=writable, compat=_APPEARANCE, **kind)
    refined = np.asarray(crf.inference(_ITERATIONS), np.float32).reshape(classes, height, width)
    return torch.from_numpy(refined).to(scores.device)


class DenseCrfSegmenter(nn.Module):
    """Takes and gives what a model does in inference, its scores refined by a dense CRF."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap ``model``, an :class:`OVSeg` or a ``MultiViewSegmenter``."""
        super().__init__()
        self.model: Any = model
        # who evaluates puts the mode back as it was
        self.train(model.training)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Segment a batch, image after image; see :meth:`OVSeg.forward`."""
        encoded = self.encode(batched_inputs)
        return [self.segment(*each) for each in zip(batched_inputs, encoded, strict=True)]

    def encode(self, batched_inputs: list[dict[str, Any]]) -> Sequence[Any]:
        """As the model's own."""
        return self.model.encode(batched_inputs)

    def recrop(self, encoded: Any, mask_threshold: float) -> Any:
        """As the model's own."""
        return self.model.recrop(encoded, mask_threshold)

    def segment(self, inputs: dict[str, Any], encoded: Any, **settings: Any) -> dict[str, Any]:
        """As the model's own, with its ``settings``. The picture is ``inputs``' entry ``picture``,
        uint8 (height, width, 3), RGB, or is read from its ``file_name``."""
        result = self.model.segment({**inputs, "output": "scores"}, encoded, **settings)
        picture = inputs["picture"] if "picture" in inputs else read_image(inputs["file_name"])
        refined = dense_crf(result.pop("sem_seg"), picture)
        if inputs.get("output", "scores") == "scores":
            return {"sem_seg": refined, **result}
        scores, labels = refined.max(dim=0)
        # what comes after the classes is "others" or background
        labels[labels >= len(vocabulary_of(inputs))] = -1
        return {"labels": labels, "scores": scores.where(labels >= 0, 0), **result}
