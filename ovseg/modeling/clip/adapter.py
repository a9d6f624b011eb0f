"""CLIP as a classifier of regions and of query embeddings."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.errors import UserError
from ovseg.modeling.memory import in_parts
from ovseg.modeling.precision import DTYPES, autocast, device_precision
from ovseg.structures import Crops
from ovseg.utils.digests import digest

from .encoder import (
    ClipEncoder,
    encoder_of,
    template_features,
    warn_of_long_words,
    word_features,
)
from .foreground import foreground_features
from .learned_prompts import prompted_features
from .lowered import LOWERED, LoweredTowers
from .template_choice import TemplateChoice
from .template_map import TemplateMap
from .text_cache import TextCache
from .text_store import TextStore, text_encoder_digest
from .visual import MaskPromptedViT

# Crops that go through CLIP together on a CPU: so many, and of so many pixels. Beyond that every
# layer's output is memory that the system hands out anew: of 224 pixels 4 take 0.85 times as long
# as 32, with int8 half as long.
CPU_CROPS = 32
CPU_PIXELS = 4 * 224**2


class ClipAdapter(nn.Module):
    """A frozen CLIP with a learned embedding for "no object"."""

    pixel_mean: Tensor
    pixel_std: Tensor
    text_prompts: Tensor | None

    def __init__(
        self,
        clip_model: nn.Module,
        templates: Sequence[str],
        *,
        mask_prompts: bool,
        template_choice: TemplateChoice | TemplateMap | None = None,
        text_prompts: Tensor | None = None,
        text_store: TextStore | None = None,
        drop_background: bool = False,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> None:
        """
        Args:
            clip_model: made by :func:`build_untrained_clip`.
            templates: of the texts; see :func:`text_templates`.
            mask_prompts: replace background patches by mask prompts.
            template_choice: how crops are classified by templates; None: by their mean.
            text_prompts: learned, float (N, width), in place of templates; None: these.
            text_store: keeps text features for later processes.
            drop_background: leave background patches out, see :func:`foreground_features`.
            precision: of the image tower, see :func:`device_precision`. Texts are encoded in fp32.
            compiled: the image tower goes through ``torch.compile``.

        Raises:
            UserError: this CLIP's image tower, or a copy of it, cannot leave them out.
        """
        super().__init__()
        self.clip_model = clip_model.requires_grad_(False).eval()
        self.templates = tuple(templates)
        self.mask_prompts = mask_prompts
        self.template_choice = template_choice
        # of a file of their own, so no part of checkpoints
        self.register_buffer("text_prompts", text_prompts, persistent=False)
        self.drop_background = drop_background
        if drop_background and not isinstance(clip_model.visual, MaskPromptedViT):
            raise UserError(
                "MODEL.CLIP_ADAPTER.BACKGROUND drop needs open_clip's own vision transformer with "
                "a class token; set it to keep for this CLIP"
            )
        if drop_background and (compiled or precision == "int8"):
            raise UserError(
                "MODEL.CLIP_ADAPTER.BACKGROUND drop goes with neither MODEL.PRECISION int8 nor "
                "MODEL.COMPILE True; set it to keep, or leave these out"
            )
        encoder = self.encoder
        self.non_object_embedding = nn.Parameter(torch.empty(1, encoder.width))
        nn.init.normal_(self.non_object_embedding, std=encoder.text_width**-0.5)
        self.register_buffer("pixel_mean", 255 * torch.tensor(encoder.mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(encoder.std).view(1, 3, 1, 1))
        self.text_cache = TextCache()
        self._crop_text_cache = TextCache()
        self.text_store = text_store
        self.precision = precision
        self.compiled = compiled
        self._towers = LoweredTowers()
        self._crops_at_once: int | None = None
        self._digests: dict[str, str] = {}
        self._digests_of: object = None

    @property
    def encoder(self) -> ClipEncoder:
        """CLIP as what gives features of images and texts."""
        return encoder_of(self.clip_model)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of CLIP's input in pixels."""
        return self.encoder.image_size

    def train(self, mode: bool = True) -> ClipAdapter:
        """As ``nn.Module.train``; CLIP itself stays in evaluation mode."""
        super().train(mode)
        self.clip_model.eval()
        return self

    def text_features(self, words: Sequence[str]) -> Tensor:
        """Unit features (len(words) + 1, D) of words, the last row standing for "no object".

        Features of words are computed once and kept while CLIP's weights stay the same.
        """
        known = self.text_cache.features(words, self._encode_words, self._encoder_state())
        return torch.cat([known, F.normalize(self.non_object_embedding, dim=-1)])

    def crop_text_features(self, words: Sequence[str]) -> Tensor | None:
        """Features (len(words), D) that crops are classified by; None: :meth:`text_features`.

        See :class:`TemplateChoice` and :class:`TemplateMap`.
        """
        choice = self.template_choice
        if choice is None:
            return None
        encode = functools.partial(self._encode_words, choice=choice)
        return self._crop_text_cache.features(words, encode, self._encoder_state())

    def _encode_words(
        self, words: list[str], choice: TemplateChoice | TemplateMap | None = None
    ) -> Tensor:
        # kept features may be used later in training, which inference tensors may not; and they
        # are the same whatever precision the images have
        device = self.pixel_mean.device
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):

            def features(words: list[str]) -> Tensor:
                if self.text_prompts is not None:
                    model: Any = self.clip_model
                    return prompted_features(model, self.text_prompts, words)
                if choice is None:
                    return word_features(self.clip_model, words, self.templates)
                each = template_features(self.clip_model, words, self.templates)
                return choice.mix(words, each)

            if self.text_store is None:
                return features(words)
            encoder = self._encoder_digest("" if choice is None else choice.digest)
            known = self.text_store.read(encoder, words)
            warn_of_long_words(self.clip_model, list(known), self.templates)
            new = [word for word in words if word not in known]
            if new:
                known.update(zip(new, features(new).cpu(), strict=True))
                self.text_store.write(encoder, {word: known[word] for word in new})
            return torch.stack([known[word] for word in words]).to(device)

    def _encoder_digest(self, choice: str) -> str:
        state = self._encoder_state()
        if self._digests_of != state:
            self._digests_of, self._digests = state, {}
        if choice not in self._digests:
            templates = (*self.templates, choice) if choice else self.templates
            if self.text_prompts is not None:
                templates = (*templates, digest([self.text_prompts.cpu().numpy().data]))
            self._digests[choice] = text_encoder_digest(self.clip_model, templates)
        return self._digests[choice]

    def _encoder_state(self) -> tuple[object, ...]:
        """What changes with the weights of the text encoder."""
        return tuple(
            (p.data_ptr(), 0 if p.is_inference() else p._version)
            for name, p in self.clip_model.named_parameters()
            if not name.startswith("visual.")
        )

    def similarity(self, embeddings: Tensor, text_features: Tensor) -> Tensor:
        """Logits (..., W + 1) of embeddings (..., D) against :meth:`text_features`.

        They are the cosine similarity times CLIP's temperature, see
        :attr:`ClipEncoder.temperature`.
        """
        temperature = self.encoder.temperature
        # under autocast the product would be rounded to 8 bits, and temperature enlarges that
        with torch.autocast(embeddings.device.type, enabled=False):
            return temperature * F.normalize(embeddings.float(), dim=-1) @ text_features.T

    def no_features(self) -> Tensor:
        """Features (0, D) of no crop."""
        return self.pixel_mean.new_zeros((0, self.non_object_embedding.shape[1]))

    def encode_crops(self, count: int, cut: Callable[[slice], Crops]) -> Tensor:
        """CLIP's features float32 (N, D) of N crops, not normalised.

        Where they do not fit into memory at once, they are cut and encoded in smaller parts.

        Args:
            count: N.
            cut: gives the crops of a slice of them.

        Raises:
            torch.OutOfMemoryError: not even one of them fits.
        """
        if count == 0:
            return self.no_features()

        def encode(part: slice) -> Tensor:
            crops = cut(part)
            return self.image_features(crops.images, crops.masks)

        at_once = self._crops_at_once or count
        if self.pixel_mean.device.type == "cpu":
            height, width = self.input_size
            at_once = min(at_once, CPU_CROPS, max(1, CPU_PIXELS // (height * width)))
        features, fitted = in_parts(encode, count, at_once)
        if fitted < at_once:
            self._crops_at_once = fitted
        return features

    def image_features(self, images: Tensor, masks: Tensor) -> Tensor:
        """CLIP's features float32 (B, D) of crops (B, 3, S, S), RGB 0..255, and their masks."""
        encoder = self.encoder
        prompted = self.mask_prompts and encoder.mask_prompt_depth > 0
        given = (masks,) if prompted else ()
        images = (images - self.pixel_mean) / self.pixel_std
        precision = device_precision("MODEL.PRECISION", self.precision, images.device)
        # what surrounds the model may ask for another precision
        with torch.autocast(images.device.type, enabled=False):
            if self.drop_background:
                with autocast(precision, images.device):
                    visual: Any = self.clip_model.visual
                    return foreground_features(visual, images, masks).float()
            if precision not in LOWERED and not self.compiled:
                return encoder.image_features(images, *given)
            tower = self._towers.get(self.clip_model.visual, precision, self.compiled)
            return tower(images.to(DTYPES.get(precision, torch.float32)), *given).float()
