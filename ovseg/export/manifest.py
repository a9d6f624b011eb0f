"""What a program has to know of an exported model besides its graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch.nn import functional as F

from ovseg import __version__
from ovseg.data.mapper import test_size
from ovseg.export.graphs import takes_masks
from ovseg.modeling import OVSeg
from ovseg.runtime.folder import VERSION
from ovseg.utils.digests import file_digest
from ovseg.vocabulary import Vocabulary


def describe(
    cfg: CfgNode, model: OVSeg, precision: str, vocabulary: Vocabulary | None, words: Sequence[str]
) -> dict[str, Any]:
    """The manifest without its files, ready for JSON; ``docs/export.md`` explains every entry.

    Args:
        cfg: of the model.
        model: which is exported.
        precision: of the weights.
        vocabulary: the class names that were given, if any.
        words: those whose features are exported.
    """
    import onnx

    adapter = model.clip_adapter
    short, longest = test_size(cfg)
    temperature = adapter.encoder.temperature
    no_object = F.normalize(adapter.non_object_embedding.detach(), dim=-1)[0]
    return {
        "format": "ovseg-export",
        "version": VERSION,
        "made_by": {"ovseg": __version__, "torch": torch.__version__, "onnx": onnx.__version__},
        "model": {
            "architecture": cfg.MODEL.META_ARCHITECTURE,
            "weights": Path(cfg.MODEL.WEIGHTS).name,
            "clip": Path(cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME).name,
        },
        "precision": precision,
        "image": {
            "channels": cfg.INPUT.FORMAT,
            "short_side": short,
            "longest_side": longest,
            "size_divisibility": model.size_divisibility,
            "mean": model.pixel_mean.flatten().tolist(),
            "std": model.pixel_std.flatten().tolist(),
        },
        "crops": {
            "size": list(adapter.input_size),
            "mask_threshold": model.mask_threshold,
            "fill": model.crop_encoder.fill_colour,
            "expand_ratio": model.crop_encoder.expand_ratio,
            "matting": model.crop_encoder.matting,
            "mask_prompts": takes_masks(model),
            "mean": adapter.pixel_mean.flatten().tolist(),
            "std": adapter.pixel_std.flatten().tolist(),
        },
        "shared": None
        if model.shared_pass is None
        else {"short_side": model.shared_pass.short_side, "patch": model.shared_pass.patch},
        "classification": {
            "clip_ensemble": model.clip_ensemble,
            "ensemble_weight": model.clip_ensemble_weight,
            "temperature": float(temperature),
            "reject": model.reject,
            "best_proposals_only": model.best_proposals_only,
            "no_object": no_object.tolist(),
        },
        "segments": {
            "object_mask_threshold": model.segment_finder.object_mask_threshold,
            "overlap_threshold": model.segment_finder.overlap_threshold,
            "max_instances": model.segment_finder.max_instances,
        },
        "text": {
            "templates": list(adapter.templates),
            "context_length": adapter.encoder.tokenizer.context_length,
            "class_names": [list(entry) for entry in vocabulary.words_of_class]
            if vocabulary
            else [],
            "shown_names": list(vocabulary.names) if vocabulary else [],
            "words": list(words),
        },
    }


def describe_files(paths: Sequence[Path]) -> Mapping[str, Any]:
    """Size and SHA-256 of files by their names."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(paths)
    }
