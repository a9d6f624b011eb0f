#!/usr/bin/env python3
"""What the exact savings of inference bring, as ratios taken in one run.

    python tools/benchmark/inference.py --clip ViT-B/16 --words 40

Each line compares OVSeg's way with the plain one on the same random weights and inputs, alternating
between the two; the ratio is plain time over OVSeg's. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.data.class_lists import load_class_list
from ovseg.errors import Parser, cli_errors
from ovseg.modeling.clip import (
    ClipAdapter,
    architecture_of_name,
    build_untrained_clip,
    encode_texts,
    text_templates,
)
from ovseg.modeling.segmentation import label_map
from ovseg.structures import PartialScores


def compare(name: str, plain: Callable[[], object], ours: Callable[[], object], repeat: int) -> str:
    """Time both in turn and describe their ratio."""
    plain(), ours()  # first calls allocate
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(repeat):
        for kind, call in (("plain", plain), ("ours", ours)):
            began = time.perf_counter()
            call()
            seconds[kind].append(time.perf_counter() - began)
    slow, fast = (statistics.median(seconds[kind]) for kind in ("plain", "ours"))
    return f"{name:58s} {slow:8.3f} s {fast:8.3f} s   x {slow / fast:.2f}"


def encode_at_full_length(model: open_clip.CLIP, texts: Sequence[str]) -> Tensor:
    """open_clip's own text encoder: every text has 77 places."""
    return torch.cat([model.encode_text(open_clip.tokenize(list(texts))[i : i + 256])
                      for i in range(0, len(texts), 256)])  # fmt: skip


def whole_vit(visual: Any, images: Tensor) -> Tensor:
    """The vision transformer with a complete last block."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding)
    for block in visual.transformer.resblocks:
        x = block(x)
    return visual.ln_post(x)[:, 0] @ visual.proj


def argmax_of_resized_scores(probs: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Class maps of the whole image, resized, then their best class."""
    scores = torch.einsum("qc,qhw->chw", probs, masks)
    return F.interpolate(scores[None], size=size, mode="bilinear")[0].argmax(dim=0)


def likely_proposals() -> tuple[Tensor, Tensor]:
    """Class probabilities [100, 847] with a few likely classes and smooth masks [100, 160, 213]."""
    generator = torch.Generator().manual_seed(0)
    probs = (4 * torch.randn(100, 847, generator=generator)).softmax(dim=-1)
    logits = 8 * torch.randn(1, 100, 10, 13, generator=generator) - 8
    return probs, F.interpolate(logits, size=(160, 213), mode="bicubic")[0].sigmoid()


@torch.inference_mode()
def run(args: argparse.Namespace) -> None:
    """Print the ratios."""
    model = build_untrained_clip(architecture_of_name(args.clip, "openai"), 0).eval()
    words = list(load_class_list("ade20k_full_847").names)[: args.words]
    templates = text_templates("vild", [])
    texts = [template.replace("{}", word) for word in words for template in templates]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.processor()}")
    print(f"{args.clip}, {len(texts)} texts, {args.crops} crops; median of {args.repeat} turns")
    print(f"{'':58s} {'plain':>10s} {'OVSeg':>10s}")
    line = compare(
        "texts: each beginning once",
        lambda: encode_at_full_length(model, texts),
        lambda: encode_texts(model, texts),
        args.repeat,
    )
    print(line, flush=True)

    adapter = ClipAdapter(model, templates, mask_prompts=False)

    def forget() -> None:
        adapter.text_cache.clear()
        adapter.text_features(words)

    print(
        compare("word features kept", forget, lambda: adapter.text_features(words), args.repeat),
        flush=True,
    )
    crops = torch.randn(args.crops, 3, *adapter.input_size)
    line = compare(
        "last block for the class token alone",
        lambda: whole_vit(model.visual, crops),
        lambda: model.visual(crops),
        args.repeat,
    )
    print(line, flush=True)
    probs, masks = likely_proposals()
    size = (512, 683)
    line = compare(
        "labels of 847 classes: masks resized, classes ruled out",
        lambda: argmax_of_resized_scores(probs, masks, size),
        lambda: label_map([PartialScores(probs, masks)], size),
        args.repeat,
    )
    print(line)
    whole = 847 * (masks[0].numel() + size[0] * size[1]) * 4 / 2**20
    print(f"{'  largest arrays':58s} {whole:8.0f} MB {2 * 2**24 * 4 / 2**20:8.0f} MB")


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--clip", default="ViT-B/16", help="architecture (default: ViT-B/16)")
    parser.add_argument("--words", type=int, default=40, help="of ADE20K-847 (default: 40)")
    parser.add_argument("--crops", type=int, default=16, help="through CLIP at once (default: 16)")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each (default: 3)")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
