"""CLIP's vision transformer with mask prompts (paper section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovseg.errors import UserError


class MaskPromptedViT(VisionTransformer):
    """open_clip's vision transformer in which background tokens may be learned prompts.

    A patch is foreground when any of its mask's pixels is. Row 0 of ``mask_embedding``
    [depth, patches, width] replaces the embeddings of background patches before class token and
    positions are added; row d replaces their tokens after block d, for d < depth. Prompts are zero
    until they are trained or loaded.
    """

    def __init__(self, *args: object, mask_prompt_depth: int = 0, **kwargs: object) -> None:
        """Arguments of :class:`open_clip.transformer.VisionTransformer`, and the prompt depth."""
        super().__init__(*args, **kwargs)
        self.mask_prompt_depth = mask_prompt_depth
        layers = len(self.transformer.resblocks)
        if not 0 <= mask_prompt_depth <= layers:
            raise UserError(
                f"mask prompts of depth {mask_prompt_depth} (MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH) "
                f"do not fit this CLIP's {layers} blocks; give 0..{layers}"
            )
        if mask_prompt_depth:
            patches, width = self.positional_embedding.shape
            self.mask_embedding = nn.Parameter(torch.zeros(mask_prompt_depth, patches - 1, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode images.

        Args:
            x: normalised RGB (B, 3, S, S) with S of ``image_size``.
            mask: (B, 1, S, S), above 0 on the region; None leaves every patch as it is.

        Returns:
            Image features (B, embed_dim), not normalised.
        """
        x = self.conv1(x).flatten(2).transpose(1, 2)
        background = None if mask is None else self.background_patches(mask)
        x = self._prompt(x, background, 0)
        class_token = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([class_token, x], dim=1) + self.positional_embedding.to(x.dtype)
        x = self.ln_pre(self.patch_dropout(x))
        blocks = self.transformer.resblocks
        for depth, block in enumerate(blocks[:-1], start=1):
            x = block(x)
            if background is not None and depth < self.mask_prompt_depth:
                patches = self._prompt(x[:, 1:], background, depth)
                x = torch.cat([x[:, :1], patches], dim=1)
        return self.ln_post(self._class_token_of_last_block(x))[:, 0] @ self.proj

    def background_patches(self, mask: Tensor) -> Tensor:
        """True for patches without a mask pixel: bool (B, patches, 1)."""
        foreground = F.max_pool2d(mask.float(), self.patch_size, stride=self.patch_size) > 0
        return ~foreground.flatten(1)[..., None]

    def _prompt(self, patches: Tensor, background: Tensor | None, depth: int) -> Tensor:
        if background is None or self.mask_prompt_depth == 0:
            return patches
        return torch.where(background, self.mask_embedding[depth].to(patches.dtype), patches)

    def _class_token_of_last_block(self, x: Tensor) -> Tensor:
        """The last block for the class token alone: nothing reads its other outputs."""
        block = self.transformer.resblocks[-1]
        normed = block.ln_1(x)
        attended = block.attn(normed[:, :1], normed, normed, need_weights=False)[0]
        x = x[:, :1] + block.ls_1(attended)
        return x + block.ls_2(block.mlp(block.ln_2(x)))
