"""What OVSeg asks of a CLIP, whichever it is: features of crops and of texts.

:class:`ClipEncoder` runs open_clip's own modules and is right for every CLIP. Of a CLIP with
OpenAI's text tower :class:`CausalTextEncoder` gives the same features in less time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .pixels import pixels_of
from .text import BATCH, encode_causal_texts
from .tokenizer import CONTEXT, Tokenizer
from .visual import MaskPromptedViT

logger = logging.getLogger(__name__)

# of a long word, the characters that a message shows
_SHOWN = 40
#: logits of a CLIP that was trained with a softmax are this many times the cosine similarity
TEMPERATURE = 100.0


class ClipEncoder:
    """A CLIP of any kind."""

    def __init__(self, model: nn.Module) -> None:
        """``model``: open_clip's ``CLIP`` or ``CustomTextCLIP``."""
        self.model: Any = model

    @property
    def width(self) -> int:
        """The width D of image and text features."""
        width: int = self.model.embed_dim
        return width

    @property
    def text_width(self) -> int:
        """The width of the text tower, where it is known; else D."""
        transformer = getattr(self.model, "transformer", None)
        return int(getattr(transformer, "width", self.width))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        height, width = self.model.visual.image_size
        return height, width

    @property
    def mean(self) -> tuple[float, ...]:
        """Of its pixels, RGB, for values in 0..1."""
        return pixels_of(self.model)[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Of its pixels, RGB, for values in 0..1."""
        return pixels_of(self.model)[1]

    @property
    def mask_prompt_depth(self) -> int:
        """Layers with mask prompts."""
        depth: int = getattr(self.model.visual, "mask_prompt_depth", 0)
        return depth

    @property
    def temperature(self) -> Tensor | float:
        """Factor on cosine similarities.

        100 as published, to which softmax trained CLIPs are close. A CLIP that was trained with a
        sigmoid for each pair (SigLIP; it has a ``logit_bias``) has its own, learned. Its bias is
        the same for all texts, so that it makes no difference to a softmax, and is left out.
        """
        if getattr(self.model, "logit_bias", None) is None:
            return TEMPERATURE
        scale: Tensor = self.model.logit_scale.detach().exp()
        return scale

    def image_features(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Features of images.

        Args:
            images: normalised RGB (B, 3, *image_size).
            masks: (B, 1, *image_size), above 0 on the region, for mask prompts; None: no prompts.

        Returns:
            (B, D), not normalised.

        Raises:
            ValueError: masks for an image tower that takes none.
        """
        if isinstance(self.model.visual, MaskPromptedViT):
            prompted: Tensor = self.model.visual(images, masks)
            return prompted
        if masks is not None:
            raise ValueError("this CLIP's image tower takes no mask prompts")
        features: Tensor = self.model.encode_image(images)
        return features

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Features float32 (N, D) of N texts, not normalised."""
        tokens = self.tokenizer(texts)
        device = next(self.model.parameters()).device
        return torch.cat(
            [self.model.encode_text(part.to(device)).float() for part in tokens.split(BATCH)]
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text tower."""
        tokenizer: Tokenizer = self.model.tokenizer
        return tokenizer


class CausalTextEncoder(ClipEncoder):
    """A CLIP whose text tower is OpenAI's: causal, and read at the end token."""

    @property
    def width(self) -> int:
        """The width D of image and text features."""
        width: int = self.model.text_projection.shape[1]
        return width

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Features float32 (N, D) of N texts, not normalised."""
        return encode_causal_texts(self.model, texts)


def encoder_of(model: nn.Module) -> ClipEncoder:
    """The encoder that fits a CLIP."""
    causal = (
        isinstance(model, open_clip.CLIP)
        and model.text_pool_type == "argmax"
        and model.attn_mask is not None
        and isinstance(model.text_projection, Tensor)
        and getattr(getattr(model, "tokenizer", None), "name", None) is None
    )
    return CausalTextEncoder(model) if causal else ClipEncoder(model)


def encode_texts(model: nn.Module, texts: Sequence[str]) -> Tensor:
    """Features float32 (N, D) of N texts, at least one; not normalised."""
    if not texts:
        raise ValueError("no texts to encode")
    return encoder_of(model).text_features(texts)


def template_features(model: nn.Module, words: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Features of words in each template; arguments as for :func:`word_features`.

    Returns:
        float32 (len(words), len(templates), D), of unit length.
    """
    warn_of_long_words(model, words, templates)
    texts = [template.replace("{}", word) for word in words for template in templates]
    features = F.normalize(encode_texts(model, texts), dim=-1)
    return features.view(len(words), len(templates), -1)


def word_features(model: nn.Module, words: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Features of words: normalised per text, averaged over templates, normalised again.

    Args:
        model: a CLIP; its text encoder runs where its weights are.
        words: any words; those longer than the context are cut, with a warning that names them.
        templates: see :func:`text_templates`.

    Returns:
        float32 (len(words), D), of unit length.
    """
    return F.normalize(template_features(model, words, templates).mean(dim=1), dim=-1)


def warn_of_long_words(model: nn.Module, words: Sequence[str], templates: Sequence[str]) -> None:
    """Name the words whose end CLIP's ordinary tokenizer cuts off."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and tokenizer.name:  # another one, which cuts in its own way
        return
    context = getattr(model, "context_length", CONTEXT)
    longest = max(templates, key=len)
    for word in words:
        text = longest.replace("{}", word)
        # a token is a byte at least, so most texts need not be looked at
        if len(text.encode()) <= context - 2:
            continue
        if open_clip.tokenize([text], context_length=context + 1)[0, -1]:
            shown = word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."
            logger.warning(
                "class name %r (%d characters) is longer than CLIP reads, %d tokens with its "
                "template; its end is cut off: give a shorter name", shown, len(word), context,
            )  # fmt: skip
