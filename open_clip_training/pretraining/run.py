"""One pretraining run: model, optimizers, loss, and its state on disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import PatchDropout
from torch import Tensor, nn

from open_clip_training.common.contrastive import contrastive_loss
from open_clip_training.common.images import CPU_CHUNK, normalise
from open_clip_training.common.run_state import (
    base_rates,
    half_precision,
    learning_rate,
    read_resume,
    seed_everything,
    start_step,
    write_clip,
    write_resume,
)
from open_clip_training.pretraining.captioned_images import PretrainingData, jitter_images
from open_clip_training.pretraining.muon import Muon
from open_clip_training.pretraining.settings import PretrainingSettings
from ovseg.data.stickerscenes import load_concepts
from ovseg.modeling.clip import encode_tokens, text_templates
from ovseg.modeling.clip.compact_embedding import CompactTokenEmbedding
from ovseg.utils.digests import digest
from ovseg.utils.finite import check_weights_finite, loss_error

# the name of the class that stands for everything else when a user gives a single word
EXTRA_WORDS = ("others", "other", "background")
MAX_LOGIT_SCALE = 100.0


def build_model(config: dict[str, Any], token_ids: set[int]) -> open_clip.CLIP:
    """A fresh CLIP whose token embedding holds ``token_ids`` only."""
    model = open_clip.CLIP(**config)
    width = config["text_cfg"]["width"]
    model.token_embedding = CompactTokenEmbedding.from_ids(token_ids, width)
    return model


def tokens_in_use(tokenizer: open_clip.SimpleTokenizer, captions: list[str]) -> set[int]:
    """Ids of all tokens of the captions, the names and synonyms, and the ViLD templates."""
    templates = [template.replace("{}", "") for template in text_templates("vild", [])]
    texts = {*captions, *EXTRA_WORDS, *templates}
    for concept in load_concepts():
        texts.update([concept.name, *concept.synonyms])
    ids = {token for text in texts for token in tokenizer.encode(text)}
    return ids | {tokenizer.sot_token_id, tokenizer.eot_token_id}


def build_pretraining_optimizers(
    model: open_clip.CLIP, settings: PretrainingSettings
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of transformer blocks, AdamW for everything else."""
    blocks, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            continue
        if "resblocks" in name and parameter.ndim == 2:
            blocks.append(parameter)
        elif parameter.ndim >= 2 and "embedding" not in name:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
        # a short run would end before the temperature arrives at the common rate
        {"params": [model.logit_scale], "weight_decay": 0.0, "lr": 3 * settings.lr},
    ]
    return [
        Muon(blocks, lr=settings.muon_lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), eps=1e-6),
    ]


def encode_by_length(model: open_clip.CLIP, tokens: Tensor, chunks: int = 4) -> Tensor:
    """Text features of token ids ``(B, 77)``, ``(B, D)``, with their gradient.

    Texts are sorted by length so that each chunk is short.
    """
    order = tokens.argmax(dim=-1).argsort()
    features = torch.cat([encode_tokens(model, part) for part in tokens[order].chunk(chunks)])
    return features[order.argsort()]


def batch_indices(step: int, total: int, settings: PretrainingSettings) -> Tensor:
    """Images of a step: every epoch is a permutation of its own, its last part is dropped."""
    per_epoch = max(1, total // settings.batch)
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + step // per_epoch)
    order = torch.randperm(total, generator=generator)
    start = step % per_epoch * settings.batch
    return order[start : start + settings.batch]


def train_step(
    model: open_clip.CLIP, data: PretrainingData, indices: Tensor, settings: PretrainingSettings
) -> Tensor:
    """Loss of one batch."""
    images = normalise(jitter_images(data.images[indices]))
    captions, text_ids = torch.unique(data.caption_ids[indices], return_inverse=True)
    tokens = data.tokens[captions]
    # now and then a word is one the model does not know, so that row 0 learns to say nothing
    inside = (tokens > 0) & (tokens < data.first_special_token)
    unknown = inside & (torch.rand(tokens.shape) < settings.unknown_tokens)
    tokens = torch.where(unknown, data.unknown_token, tokens)
    features = torch.cat([model.encode_image(part) for part in images.split(CPU_CHUNK)])
    texts = encode_by_length(model, tokens)
    return contrastive_loss(features, texts, text_ids, model.logit_scale.exp())


class PretrainingRun:
    """A training run that can be saved and continued."""

    def __init__(
        self, data: PretrainingData, config: dict[str, Any], settings: PretrainingSettings
    ) -> None:
        seed_everything(settings.seed)
        self.data, self.config, self.settings = data, config, settings
        parts = (data.images, data.caption_ids, data.tokens, torch.tensor(sorted(data.token_ids)))
        self.made_of = {
            "images and captions": digest(part.contiguous().numpy().data for part in parts),
            "the architecture": digest([json.dumps(config, sort_keys=True)]),
        }
        self.model = build_model(config, data.token_ids)
        self.dropout = PatchDropout(settings.patch_dropout)
        self.model.visual.patch_dropout = self.dropout
        self.optimizers = build_pretraining_optimizers(self.model, settings)
        self.rates = [base_rates(optimizer) for optimizer in self.optimizers]
        self.step = 0

    def advance(self) -> float:
        """Do one step and return its loss; it depends on the state and the step's number only."""
        settings = self.settings
        seed_everything(settings.seed * 1_000_003 + self.step + 1)
        self.model.train()
        last_part = self.step >= settings.steps * (1 - settings.full_steps)
        self.dropout.prob = 0.0 if last_part else settings.patch_dropout
        factor = learning_rate(self.step, settings.warmup, settings.steps)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            start_step(optimizer, rates, factor)
        indices = batch_indices(self.step, len(self.data.images), settings)
        loss = train_step(self.model, self.data, indices, settings)
        value = float(loss.detach())
        if not math.isfinite(value):
            way_out = "go on with --resume from the last file, or start anew with another --seed"
            raise loss_error({"loss": value}, self.step, factor * settings.lr, way_out, "step")
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
        self.step += 1
        return value

    def save(self, output: Path) -> None:
        """Write ``output`` (half precision, for use) and its neighbour to resume from."""
        check_weights_finite(
            self.model.named_parameters(), output, "start anew with another --seed"
        )
        # readers make the token embedding as large as the config says
        rows = len(self.model.token_embedding.token_ids)
        text = {**self.config["text_cfg"], "vocab_size": rows}
        config = {**self.config, "text_cfg": text}
        write_clip(output, half_precision(self.model), config, self.step)
        write_resume(
            output,
            {
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "settings": asdict(self.settings),
                "made_of": self.made_of,
                "step": self.step,
            },
        )

    def resume(self, output: Path) -> None:
        """Continue from what :meth:`save` left beside ``output``.

        Raises:
            UserError: nothing is there, or it was made with other settings or of other data.
        """
        names = {"batch": "--batch-size", **{name: name for name in self.made_of}}
        saved = read_resume(output, {**asdict(self.settings), **self.made_of}, names)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step = saved["step"]
