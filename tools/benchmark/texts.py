#!/usr/bin/env python3
"""What the text features of many class names take: known to a new process, and encoded.

    python tools/benchmark/texts.py --words 847

The names of ADE20K-Full, random weights. First a new process reads the features of the names from
disk. Then they are encoded in the 14 ViLD templates: OVSeg's way, each beginning of a text once, is
compared with open_clip's own encoder, where every text has 77 places; such texts take the same time
each, so that every 24th of them stands for all (--every). All in seconds of the processor.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import ovseg  # isort: skip  # noqa: F401  before detectron2, which lets fvcore warn

import open_clip
import torch
from torch import Tensor

from ovseg.data.class_lists import load_class_list
from ovseg.errors import Parser, cli_errors
from ovseg.modeling.clip import (
    ClipAdapter,
    TextStore,
    architecture_of_name,
    build_untrained_clip,
    encode_texts,
    text_templates,
)
from ovseg.utils.hardware import processor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
from tools.benchmark.inference import encode_at_full_length


class Known(TextStore):
    """Features on disk to which nothing is added: all that is asked for has to be there."""

    def write(self, encoder: str, features: Mapping[str, Tensor]) -> None:
        raise AssertionError(f"{len(features)} class names of {encoder} were not known")


def cpu_seconds(call: Callable[[], object]) -> float:
    """Seconds of the processor for a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def clip(name: str) -> open_clip.CLIP:
    """A CLIP with random weights, the same in every process."""
    torch.manual_seed(0)
    return build_untrained_clip(architecture_of_name(name, "openai"), 0).eval()


def adapter(model: open_clip.CLIP, store: TextStore) -> ClipAdapter:
    """With one template: how many there are makes no difference to features that are known."""
    return ClipAdapter(model, ["{}"], mask_prompts=False, text_store=store)


def read_known(name: str, file: Path, words: list[str]) -> float:
    """Seconds for the features of class names that another process encoded."""
    known = adapter(clip(name), Known(file))
    return cpu_seconds(lambda: known.text_features(words))


@torch.inference_mode()
def run(args: argparse.Namespace) -> None:
    """Print the seconds."""
    model = clip(args.clip)
    words = list(load_class_list("ade20k_full_847").names)[: args.words]
    texts = [t.replace("{}", word) for word in words for t in text_templates("vild", [])]
    some = texts[:: args.every]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {processor()[0]}")
    print(f"{args.clip}, {len(words)} class names, {len(texts)} texts; seconds of the processor")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text_features.sqlite3")
        adapter(model, TextStore(file)).text_features(words)
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            known = process.submit(read_known, args.clip, file, words).result()
    print(f"known, in a new process: {known:.2f}", flush=True)
    encode_texts(model, texts[:2])  # first calls allocate
    plain = cpu_seconds(lambda: encode_at_full_length(model, some)) * len(texts) / len(some)
    print(f"77 places a text: {plain:.1f}, by {len(some)} of the texts", flush=True)
    ours = cpu_seconds(lambda: encode_texts(model, texts))
    print(f"each beginning once: {ours:.1f}, {plain / ours:.1f} times as fast", flush=True)


def main() -> None:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--clip", default="ViT-B/16", help="architecture (default: ViT-B/16)")
    parser.add_argument("--words", type=int, default=847, help="of ADE20K-Full (default: 847)")
    parser.add_argument("--every", type=int, default=24, help="default: 24")
    with cli_errors():
        run(parser.parse_args())


if __name__ == "__main__":
    main()
