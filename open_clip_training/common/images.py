"""Images on their way into CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

#: of OpenAI's CLIP's pixels, RGB, for values in 0..1
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
#: images a forward pass on a CPU: activations of more do not fit its cache
CPU_CHUNK = 64


def normalise(images: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """RGB ``(B, 3, S, S)`` in 0..255 to a CLIP's standardised values; OpenAI's by default."""
    means = torch.tensor(mean, device=images.device).view(3, 1, 1)
    deviations = torch.tensor(std, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - means) / deviations


def zoom_grid(scale: Tensor, mirrored: Tensor, shift: Tensor, images: Tensor) -> Tensor:
    """Where ``grid_sample`` looks to zoom in, mirror and shift images.

    Args:
        scale: ``(B, 2)``, shares of width and height that stay in view, 0..1.
        mirrored: bool ``(B,)``, images whose left and right change sides.
        shift: ``(B, 2)``, centre of the view, right and down, -1..1.
        images: ``(B, C, S, S)``; they say size and device.

    Returns:
        ``(B, S, S, 2)``, for ``align_corners=False``.
    """
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = scale[:, 0] * torch.where(mirrored, -1.0, 1.0)
    theta[:, 1, 1] = scale[:, 1]
    theta[:, :, 2] = shift
    return F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
