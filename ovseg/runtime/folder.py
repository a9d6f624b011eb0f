"""The folder that ``ovseg export`` writes: its files, its manifest, and whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.errors import UserError
from ovseg.utils.digests import file_digest
from ovseg.utils.io import read_json, user_path

MANIFEST = "manifest.json"
#: of the manifest; a reader of one version reads no other
VERSION = 1
#: the graphs by what they do, and where they lie
GRAPHS = {name: f"{name}.onnx" for name in ("proposals", "regions", "shared", "text")}
#: the tokenizer's merges, as OpenAI published them
MERGES = "bpe_simple_vocab_16e6.txt.gz"
#: float32 (W, D), little endian: the features of the manifest's W words
FEATURES = "text_features.bin"
_AGAIN = "export it again with: ovseg export"


@dataclass(frozen=True)
class Settings:
    """What the manifest says of the model.

    Attributes:
        channels: order of an image's channels, "RGB" or "BGR".
        short_side, longest_side: see :func:`ovseg.runtime.resize.resize_short_side`.
        size_divisibility: images are padded to a multiple of this.
        image_mean: of the channels, 0..255; what images are padded with.
        crop_size: height and width of CLIP's input in pixels.
        mask_threshold, expand_ratio, matting: see :func:`ovseg.runtime.crops.cut_crops`.
        fill: the background of crops, RGB, 0..255.
        mask_prompts: whether the graph of the crops takes masks.
        shared: of a model whose CLIP sees the whole image once, see
            :func:`ovseg.runtime.shared_pass.shared_inputs`: shorter side and patch in pixels; None
            of one that sees crops.
        clip_ensemble: whether CLIP classifies proposals.
        ensemble_weight, temperature, reject, best_proposals_only: as the model's.
        object_mask_threshold, overlap_threshold: see
            :func:`ovseg.runtime.panoptic.panoptic_segments`.
        max_instances: see :func:`ovseg.runtime.panoptic.instances`.
        no_object: the feature of "no object", D numbers, of unit length.
        templates: of the texts, ``{}`` in each for the word.
        context_length: the most tokens of a text.
        class_names: of the export, a list of words each; empty where none were given.
        shown_names: what these classes are called; empty: by their first words.
        words: those whose features are in the folder.
    """

    channels: str
    short_side: int
    longest_side: int
    size_divisibility: int
    image_mean: tuple[float, ...]
    crop_size: tuple[int, int]
    mask_threshold: float
    expand_ratio: float
    matting: bool
    fill: tuple[float, ...]
    mask_prompts: bool
    shared: tuple[int, int] | None
    clip_ensemble: bool
    ensemble_weight: float
    temperature: float
    reject: float
    best_proposals_only: bool
    object_mask_threshold: float
    overlap_threshold: float
    max_instances: int
    no_object: tuple[float, ...]
    templates: tuple[str, ...]
    context_length: int
    class_names: tuple[tuple[str, ...], ...]
    shown_names: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True)
class ExportFolder:
    """A folder whose manifest was read.

    Attributes:
        path: of the folder.
        manifest: its content.
        settings: what it says of the model.
    """

    path: Path
    manifest: Mapping[str, Any]
    settings: Settings

    @classmethod
    def read(cls, path: str | os.PathLike[str], check: bool = True) -> ExportFolder:
        """Read a folder.

        Args:
            path: of the folder.
            check: compare the contents of all files with the manifest's SHA-256.

        Raises:
            UserError: there is no such folder, a file is missing or another one, or the manifest is
                of another version.
        """
        folder = user_path(path)
        file = folder / MANIFEST
        if not file.is_file():
            missing = f"has no {MANIFEST}" if folder.is_dir() else "is not there"
            raise UserError(
                f"export folder {str(path)!r} {missing}; give a folder that ovseg export wrote"
            )
        manifest = read_json(file, dict, _AGAIN)
        if manifest.get("version") != VERSION:
            raise UserError(
                f"{file}: version {manifest.get('version')!r} of the manifest, and this OVSeg "
                f"reads version {VERSION}; {_AGAIN}"
            )
        try:
            found = cls(folder, manifest, _settings(manifest))
            found._check_files(check)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{file} is broken ({type(error).__name__}: {error}); {_AGAIN}"
            ) from error
        return found

    def __contains__(self, name: str) -> bool:
        """Whether the export has a file."""
        return name in self.manifest["files"]

    def features(self) -> np.ndarray:
        """float32 (W, D): the features of the manifest's words; none without them."""
        width = len(self.settings.no_object)
        if not self.settings.words:
            return np.zeros((0, width), np.float32)
        values = np.fromfile(self.path / FEATURES, "<f4").astype(np.float32)
        return values.reshape(len(self.settings.words), width)

    def _check_files(self, contents: bool) -> None:
        for name, about in self.manifest["files"].items():
            file = self.path / name
            if Path(name).name != name:
                raise UserError(f"{self.path / MANIFEST}: file {name!r} lies elsewhere; {_AGAIN}")
            if not file.is_file():
                raise UserError(f"export folder {str(self.path)!r} lacks {name}; {_AGAIN}")
            same = file.stat().st_size == about["bytes"]  # which is quickly known
            if contents and not (same and file_digest(file) == about["sha256"]):
                raise UserError(
                    f"{file} is not the file that was exported: its content differs from the "
                    f"SHA-256 in {MANIFEST}; {_AGAIN}"
                )


def _settings(manifest: Mapping[str, Any]) -> Settings:
    image, crops, text = manifest["image"], manifest["crops"], manifest["text"]
    classification = manifest["classification"]
    height, width = crops["size"]
    shared, segments = manifest["shared"], manifest["segments"]
    return Settings(
        channels=image["channels"],
        short_side=int(image["short_side"]),
        longest_side=int(image["longest_side"]),
        size_divisibility=int(image["size_divisibility"]),
        image_mean=tuple(float(value) for value in image["mean"]),
        crop_size=(int(height), int(width)),
        mask_threshold=float(crops["mask_threshold"]),
        expand_ratio=float(crops["expand_ratio"]),
        matting=bool(crops["matting"]),
        fill=tuple(float(value) for value in crops["fill"]),
        mask_prompts=bool(crops["mask_prompts"]),
        shared=shared and (int(shared["short_side"]), int(shared["patch"])),
        clip_ensemble=bool(classification["clip_ensemble"]),
        ensemble_weight=float(classification["ensemble_weight"]),
        temperature=float(classification["temperature"]),
        reject=float(classification["reject"]),
        best_proposals_only=bool(classification["best_proposals_only"]),
        object_mask_threshold=float(segments["object_mask_threshold"]),
        overlap_threshold=float(segments["overlap_threshold"]),
        max_instances=int(segments["max_instances"]),
        no_object=tuple(float(value) for value in classification["no_object"]),
        templates=tuple(text["templates"]),
        context_length=int(text["context_length"]),
        class_names=tuple(tuple(entry) for entry in text["class_names"]),
        shown_names=tuple(text.get("shown_names", ())),
        words=tuple(text["words"]),
    )
