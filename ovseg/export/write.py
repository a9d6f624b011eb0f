"""A model as a folder of files, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import open_clip.tokenizer
import torch
from detectron2.config import CfgNode

from ovseg.data.vocabulary import ClassNames, read_vocabulary
from ovseg.errors import UserError
from ovseg.export.graphs import Graph, proposal_graph, region_graph, shared_graph, text_graph
from ovseg.export.manifest import describe, describe_files
from ovseg.export.onnx_files import (
    PRECISIONS,
    require_onnx,
    save_onnx,
    to_onnx,
    with_precision,
)
from ovseg.modeling import OVSeg
from ovseg.runtime.folder import FEATURES, GRAPHS, MANIFEST, MERGES
from ovseg.utils.io import make_folder, naming_file, read_json, user_path, write_json
from ovseg.vocabulary import OTHERS

FORMATS = ("onnx", "pt2")


@dataclass(frozen=True)
class ExportOptions:
    """What is written.

    Attributes:
        precision: of the weights, one of :data:`PRECISIONS`.
        formats: some of :data:`FORMATS`; "pt2" adds archives of ``torch.export``, in float32.
        class_names: whose text features are written too; None: none.
    """

    precision: str = "fp32"
    formats: tuple[str, ...] = ("onnx",)
    class_names: ClassNames | None = None


def export_model(
    cfg: CfgNode,
    model: OVSeg,
    folder: str | os.PathLike[str],
    options: ExportOptions | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Path:
    """Write a model as a folder for :mod:`ovseg.runtime`.

    Args:
        cfg: of the model.
        model: with its weights, on the CPU.
        folder: where to; made if it is not there. An earlier export in it is replaced.
        options: what is written.
        progress: called with a line before each step.

    Returns:
        The folder.

    Raises:
        UserError: the folder holds something else, a package is missing, or the config asks for
            something that no export can do.
    """
    options = options or ExportOptions()
    _check(cfg, options)
    require_onnx()
    vocabulary = None if options.class_names is None else read_vocabulary(options.class_names)
    words = list(dict.fromkeys([*vocabulary.words, OTHERS])) if vocabulary else []
    model = model.eval()
    graphs = {"proposals": proposal_graph(model), "text": text_graph(model)}
    if model.clip_ensemble and model.shared_pass is not None:
        graphs["shared"] = shared_graph(model.shared_pass)
    elif model.clip_ensemble:
        graphs["regions"] = region_graph(model)
    if graphs["text"] is None and vocabulary is None:
        raise UserError(
            f"MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME {cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME} has a "
            "text tower or a tokenizer of its own, which is not exported; give --class-names or "
            "--vocabulary, whose text features are"
        )
    folder = user_path(folder)
    with _whole_folder(folder) as place:
        for name, graph in graphs.items():
            if graph is not None:
                progress(f"{GRAPHS[name]}: tracing")
                _write_graph(graph, place, name, options, progress)
        if graphs["text"] is not None:
            shutil.copyfile(open_clip.tokenizer.default_bpe(), place / MERGES)
        if words:
            progress(f"{FEATURES}: {len(words)} words")
            _write_features(model, words, place / FEATURES)
        manifest = describe(cfg, model, options.precision, vocabulary, words)
        files = describe_files([path for path in place.iterdir() if path.is_file()])
        write_json(place / MANIFEST, {**manifest, "files": files})
    return folder


def _check(cfg: CfgNode, options: ExportOptions) -> None:
    if options.precision not in PRECISIONS:
        raise UserError(f"--precision {options.precision!r} must be one of {', '.join(PRECISIONS)}")
    for kind in options.formats:
        if kind not in FORMATS:
            raise UserError(f"--format {kind!r} must be one of {', '.join(FORMATS)}")
    adapter, test = cfg.MODEL.CLIP_ADAPTER, cfg.TEST
    if adapter.REGION_ENCODER == "both" or adapter.CROPS != "all":
        raise UserError(
            f"MODEL.CLIP_ADAPTER.REGION_ENCODER {adapter.REGION_ENCODER} with CROPS "
            f"{adapter.CROPS} cannot be exported; leave out --speed, or set --speed exact"
        )
    for key, value, off in (
        ("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN", adapter.CLIP_ENSEMBLE_WEIGHT_UNSEEN, -1),
        ("MODEL.CLIP_ADAPTER.BEST_TEMPLATES", adapter.BEST_TEMPLATES, ""),
        ("MODEL.CLIP_ADAPTER.TEMPLATE_MAP", adapter.TEMPLATE_MAP, ""),
        ("MODEL.CLIP_ADAPTER.BACKGROUND", adapter.BACKGROUND, "keep"),
        ("TEST.MIN_CLASS_AREA", test.MIN_CLASS_AREA, 0),
        ("MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT", adapter.PROMPT_CHECKPOINT, ""),
    ):
        if value != off:
            raise UserError(f"{key} {value!r} is not part of an export; set it to {off!r}")
    if cfg.MODEL.PRECISION != "fp32":
        raise UserError(
            f"MODEL.PRECISION {cfg.MODEL.PRECISION} is how PyTorch computes, and graphs compute in "
            "float32; set it to fp32, and give --precision for smaller weights"
        )
    for key, on in (
        ("TEST.AUG.ENABLED", test.AUG.ENABLED), ("TEST.SLIDING_WINDOW", test.SLIDING_WINDOW),
        ("TEST.DENSE_CRF", test.DENSE_CRF),
    ):  # fmt: skip
        if on:
            raise UserError(
                f"{key} True is no part of the networks and cannot be exported; set False"
            )


def _write_graph(
    graph: Graph, place: Path, name: str, options: ExportOptions, progress: Callable[[str], None]
) -> None:
    program = graph.program()
    if "pt2" in options.formats:
        torch.export.save(program, place / f"{name}.pt2")
    progress(f"{GRAPHS[name]}: writing")
    save_onnx(with_precision(to_onnx(graph, program), options.precision), place / GRAPHS[name])


@torch.inference_mode()
def _write_features(model: OVSeg, words: list[str], path: Path) -> None:
    features: Any = model.clip_adapter.text_features(words)[:-1].float().cpu().numpy()
    path.write_bytes(features.astype(np.dtype("<f4")).tobytes())


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block succeeds.

    Raises:
        UserError: ``target`` is a file, or holds something else than an export.
    """
    if target.exists() and not _replaceable(target):
        raise UserError(
            f"--output {str(target)!r} exists and is no earlier export; give a new folder"
        )
    make_folder(target.parent, "--output")
    temporary = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    temporary.chmod(0o755)  # as of any other folder
    try:
        with naming_file(target):
            yield temporary
            old = temporary.with_name(f"{temporary.name}-old")
            if target.exists():
                target.rename(old)
            try:
                temporary.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if MANIFEST not in names:
        return not names
    return read_json(folder / MANIFEST, dict, "give another folder").get("format") == "ovseg-export"
