"""CLIP's contrastive loss when several images of a batch share a text."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def contrastive_loss(images: Tensor, texts: Tensor, text_ids: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss in which images of one text are not each other's negatives.

    Args:
        images: features ``(B, D)``.
        texts: features of the *distinct* texts ``(U, D)``.
        text_ids: int64 ``(B,)``, the text of every image.
        scale: factor on cosine similarities.

    A text occurs once among the candidates of an image, and every image that has it counts as a
    positive of the text.
    """
    logits = scale * functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T
    to_text = functional.cross_entropy(logits, text_ids)
    own = torch.arange(len(text_ids), device=logits.device)
    to_image = -logits.log_softmax(dim=0)[own, text_ids].mean()
    return (to_text + to_image) / 2


def plain_contrastive_loss(
    images: Tensor, texts: Tensor, text_ids: Tensor, scale: Tensor
) -> Tensor:
    """The published loss: of a batch only an image's own text is right, equal ones are wrong.

    Arguments as of :func:`contrastive_loss`.
    """
    logits = scale * functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T
    logits = logits[:, text_ids]
    own = torch.arange(len(text_ids), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
