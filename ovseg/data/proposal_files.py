"""Proposals as files: a folder with one file for each image, named like it.

For ``photo.jpg`` that is ``photo.npz`` or ``photo.json``. Several data sets share a folder by
subfolders named like them. Masks may have any resolution and any number; they show the whole image.

NPZ (written by OVSeg, and by ``numpy.savez_compressed``):

* ``masks`` (N, h, w): bool; or uint8, 0..255 for probabilities 0..1; or float, 0..1.
* ``embeddings`` (N, D), optional: class embeddings in the text space of the CLIP in use, by which
  the proposals of OVSeg's own MaskFormer are classified for any words. Without, CLIP alone
  classifies the masks, and the ensemble's weight has no effect.

JSON: a list of COCO run-length encodings ``{"size": (h, w), "counts": ...}``, or of objects that
hold one as ``segmentation``, as Segment Anything's mask generator writes them.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from ovseg.data.coco_masks import check_mask_size, decode_rle
from ovseg.data.loader import Example, Mapper
from ovseg.data.mapper import EvaluationMapper
from ovseg.data.own.coco_instances import describe_json
from ovseg.errors import UserError
from ovseg.structures import GivenProposals, Regions
from ovseg.utils.io import atomic_path, parse_json

SUFFIXES = (".npz", ".json")
_LARGEST_ARRAY = 4 << 30  # bytes
# an array that says what stands for a probability of 1, in the files that are written here
_SCALE = "scale"


def dataset_folder(folder: str | os.PathLike[str], dataset_name: str) -> Path:
    """Where the proposals for a data set are: its subfolder if there is one, else ``folder``."""
    own = Path(folder, dataset_name)
    return own if own.is_dir() else Path(folder)


def find_proposals(folder: Path, image: str | os.PathLike[str]) -> Path:
    """The file of proposals for an image.

    Raises:
        UserError: there is none, or there are two.
    """
    stem = Path(image).stem
    found = [path for path in (folder / f"{stem}{end}" for end in SUFFIXES) if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"proposals {found[0]} and {found[1]} are for the same image; remove one")
    raise UserError(
        f"no proposals for {os.fspath(image)}: {folder / stem}.npz and .json are missing; make one "
        "(it may hold no mask), or leave the image out"
    )


def check_proposals(folder: Path, images: Iterable[str | os.PathLike[str]]) -> None:
    """Find out before any work whether every image has its file.

    Raises:
        UserError: the folder is missing, an image has no file, or two images share a name.
    """
    if not folder.is_dir():
        raise UserError(f"folder of proposals {str(folder)!r} does not exist; check the path")
    check_image_names(images)
    missing = []
    for image in images:
        try:
            find_proposals(folder, image)
        except UserError as error:
            missing.append(str(error))
    if missing:
        others = f" ({len(missing) - 1} more like this)" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{others}")


def check_image_names(images: Iterable[str | os.PathLike[str]]) -> None:
    """Raise a :class:`UserError` when two images would share a file of proposals."""
    seen: dict[str, str] = {}
    for image in (os.fspath(path) for path in images):
        other = seen.setdefault(Path(image).stem, image)
        if other != image:
            raise UserError(
                f"images {other} and {image} have one name and would share a file of proposals; "
                "rename one"
            )


def read_proposals(
    path: Path, size: tuple[int, int] | None = None, text_dim: int | None = None
) -> GivenProposals:
    """Read a file of proposals.

    Args:
        path: ``.npz`` or ``.json``.
        size: height and width of its image, if masks of another shape are to be refused.
        text_dim: width of CLIP's text features, if embeddings of another are to be refused.

    Raises:
        UserError: the file is broken or not as described above.
    """
    try:
        masks, embeddings = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
    except Exception as error:  # decoders raise nearly anything on a broken file
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise UserError(f"proposals {path} cannot be read ({reason}); write them again") from error
    h, w = masks.shape[1:]
    if len(masks) and 0 in (h, w):
        raise UserError(f"proposals {path}: masks of {w} x {h} pixels show nothing; write it again")
    if embeddings is not None and text_dim not in (None, embeddings.shape[1]):
        raise UserError(
            f"proposals {path}: embeddings of {embeddings.shape[1]} numbers, this CLIP's text "
            f"features have {text_dim}; make it with this model, or leave embeddings out"
        )
    if len(masks) and size is not None:
        height, width = size
        # a resized image has the same shape but for a pixel
        if abs(h - w * height / width) > 1 + 0.01 * h:
            raise UserError(
                f"proposals {path}: masks of {w} x {h} pixels do not fit their image of {width} x "
                f"{height}; they must show the whole image"
            )
    return GivenProposals(
        torch.from_numpy(masks), None if embeddings is None else torch.from_numpy(embeddings)
    )


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no NPZ file")
    _check_arrays(path)
    with np.load(path, allow_pickle=False) as file:
        masks = file["masks"]
        embeddings = file["embeddings"].astype(np.float32) if "embeddings" in file else None
        are_shares = _SCALE in file
    if masks.ndim != 3:
        raise ValueError(f"masks has shape {masks.shape}, not (number, height, width)")
    if embeddings is not None and (embeddings.ndim != 2 or len(embeddings) != len(masks)):
        raise ValueError(f"embeddings has shape {embeddings.shape}, for {len(masks)} masks")
    if embeddings is not None and not np.isfinite(embeddings).all():
        raise ValueError("embeddings has values that are no finite numbers")
    if masks.dtype == np.uint8:
        if masks.max(initial=0) == 1 and not are_shares:
            raise ValueError("masks is uint8 with values 0 and 1; save it as bool")
        return masks.astype(np.float32) / 255, embeddings
    masks = masks.astype(np.float32)
    if not (masks.min(initial=0) >= 0 and masks.max(initial=0) <= 1):
        raise ValueError("masks has values outside 0..1")
    return masks, embeddings


def _check_arrays(path: Path) -> None:
    """Refuse what is no array, and arrays by which a small file would fill the memory."""
    with zipfile.ZipFile(path) as archive:
        if "masks.npy" not in archive.namelist():
            raise ValueError("it has no array masks")
        for name in {"masks.npy", "embeddings.npy", f"{_SCALE}.npy"} & {*archive.namelist()}:
            with archive.open(name) as file:
                major, _ = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0
                shape, _, dtype = (read if major == 1 else np.lib.format.read_array_header_2_0)(
                    file
                )
            if dtype.hasobject:
                raise ValueError(f"{name} holds Python objects, which are not read")
            size = math.prod(shape) * dtype.itemsize
            if size > _LARGEST_ARRAY:
                raise ValueError(f"{name} has {size} bytes, more than {_LARGEST_ARRAY}")


def _read_json(path: Path) -> tuple[np.ndarray, None]:
    entries = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise ValueError(
            f"it is {describe_json(entries)} of a data set's yaml file (docs/own-data.md); "
            "proposals are a list of run-length encodings for each image"
        )
    codes = [
        entry.get("segmentation", entry) if isinstance(entry, dict) else entry for entry in entries
    ]
    for number, code in enumerate(codes, start=1):
        if isinstance(code, list):
            raise ValueError(
                f"entry {number} is a polygon; proposals are run-length encodings, as "
                "pycocotools.mask.frPyObjects makes them. Ground truth of polygons is read by the "
                "key coco_json of a data set's yaml file (docs/own-data.md)"
            )
    if not codes:
        return np.zeros((0, 1, 1), np.float32), None
    height, width = map(int, codes[0]["size"])
    check_mask_size(height, width)
    if any(list(code["size"]) != [height, width] for code in codes):
        raise ValueError("its masks differ in size")
    masks = [decode_rle(code, height, width) for code in codes]
    return np.stack(masks).astype(np.float32), None


def write_proposals(path: Path, regions: Regions) -> None:
    """Write an image's proposals as NPZ: masks as uint8 probabilities, and embeddings.

    The masks have the resolution that the image was given to the model in.

    Raises:
        UserError: the file cannot be written.
    """
    masks = (255 * regions.masks).round().to(torch.uint8).cpu().numpy()
    arrays = {"masks": masks, _SCALE: np.uint8(255)}
    if regions.embeddings is not None:
        arrays["embeddings"] = regions.embeddings.float().cpu().numpy()
    try:
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise UserError(
            f"proposals {path} cannot be written ({error.strerror}); give another folder"
        ) from error


class WithProposals:
    """A mapper whose examples carry ``proposals`` from a folder."""

    def __init__(self, mapper: Mapper, folder: Path, text_dim: int) -> None:
        """Wrap ``mapper``, whose examples have ``file_name``, ``height`` and ``width``.

        Args:
            mapper: reads the image.
            folder: of the files.
            text_dim: width of CLIP's text features.
        """
        self._mapper = mapper
        self._folder = folder
        self._text_dim = text_dim

    def __call__(self, dataset_dict: Example) -> Example:
        """The mapper's example with a :class:`GivenProposals`.

        Raises:
            UserError: the image or its proposals are missing or broken.
        """
        example = self._mapper(dataset_dict)
        path = find_proposals(self._folder, example["file_name"])
        size = example["height"], example["width"]
        return {**example, "proposals": read_proposals(path, size, self._text_dim)}


def evaluation_mapper(cfg: CfgNode, dataset_name: str) -> Mapper:
    """What reads the images of a data set, with the proposals that ``cfg`` wants loaded."""
    mapper = EvaluationMapper(cfg, dataset_name)
    if not cfg.TEST.LOAD_PROPOSALS:
        return mapper
    folder = dataset_folder(cfg.TEST.LOAD_PROPOSALS, dataset_name)
    return WithProposals(mapper, folder, cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM)
