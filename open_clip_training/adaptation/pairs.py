"""Tables and shards of mask-noun pairs: where each crop lies and what its noun is."""

from __future__ import annotations

import argparse
import glob
import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from open_clip_training.adaptation.released import (
    AS_IS,
    COLUMNS,
    LOOKED_FOR,
    TEMPLATE,
    FilledBackground,
    check_crops,
    read_released,
)
from open_clip_training.common.tables import path_below, read_columns, read_table
from ovseg.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Where bytes lie: a file, or ``size`` bytes of it from ``start``."""

    path: str
    start: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The bytes; raises ``OSError``."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return file.read(self.size)


@dataclass(frozen=True, slots=True)
class StoredPair:
    """Where a crop lies, and its noun.

    ``mask`` says which pixels are the region; None where nothing does, or it does not matter.
    """

    noun: str
    image: ByteRange
    mask: ByteRange | FilledBackground | None


def read_given_pairs(options: argparse.Namespace, with_masks: bool) -> list[StoredPair]:
    """:func:`read_pairs` of all that train.py's command line names, one after the other."""
    return [
        pair
        for source in options.train_data
        for pair in read_pairs(
            source,
            masked=options.crops == "masked",
            with_masks=with_masks,
            captions=options.captions,
            data_root=options.data_root,
            fill_tolerance=options.fill_tolerance,
        )
    ]


def read_pairs(
    source: str,
    *,
    masked: bool,
    with_masks: bool,
    captions: str | None = None,
    data_root: Path | None = None,
    fill_tolerance: int = 0,
) -> list[StoredPair]:
    """List mask-noun pairs: those that ``collect_pairs.py`` wrote, or the released ones.

    Args:
        source: a ``pairs.csv``, the folder that holds it, or a pattern of shards (``pairs-*.tar``);
            or a table of filepath and title, as ``coco_proposal_1cap.csv`` is.
        masked: take the crops whose background is filled; False: as they stand in their image.
        with_masks: masks are needed; otherwise they are taken for masked crops, where there are.
        captions: template of the released pairs' titles, or ``"as-is"``; None: "a photo of a {}.".
        data_root: what a table's relative paths are relative to; None: its folder.
        fill_tolerance: of the released pairs' background, see :class:`FilledBackground`.

    Raises:
        UserError: nothing is there, a column or member is lacking, there is no pair, or an option
            is not for pairs of this kind.
    """
    crop = "image" if masked else "raw"
    wanted = [crop, "noun", *(["mask"] if with_masks else [])]
    path = Path(source)
    path = path / "pairs.csv" if path.is_dir() else path
    sharded = path.suffix == ".tar" or "*" in source
    released = not sharded and set(COLUMNS) <= set(_columns(path))
    if not released and captions is not None:
        raise UserError(
            f"--captions is for tables of filepath and title; leave it out for {source}"
        )
    if sharded and data_root is not None:
        raise UserError("--data-root is for tables; leave it out for shards")
    if released:
        pairs = _released_pairs(
            path,
            masked,
            captions or TEMPLATE,
            data_root,
            FilledBackground(tolerance=fill_tolerance),
        )
    elif sharded:
        pairs = _read_shards(source, wanted, masks=masked or with_masks)
    else:
        pairs = _read_table(path, wanted, data_root, masks=masked or with_masks)
    if not pairs:
        raise UserError(f"--train-data {source}: there is no pair in it")
    return pairs


def _columns(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"--train-data {path} is not there; collect_pairs.py makes it")
    return read_columns(path, f"--train-data {path}")


def _released_pairs(
    path: Path, masked: bool, captions: str, root: Path | None, background: FilledBackground
) -> list[StoredPair]:
    if captions != AS_IS and "{}" not in captions:
        raise UserError(
            f"--captions {captions!r}: give as-is, or a template with {{}} for the noun"
        )
    if not masked:
        raise UserError(
            f"--crops unmasked: {path} has crops with filled background alone; leave the option out"
        )
    return [
        StoredPair(noun, ByteRange(str(crop)), background)
        for noun, crop in read_released(path, captions, root)
    ]


def _read_table(
    path: Path, wanted: Sequence[str], root: Path | None, masks: bool
) -> list[StoredPair]:
    rows = read_table(path, wanted, f"--train-data {path}", or_else=" and ".join(COLUMNS))
    complete = [row for row in rows if all(row[column] for column in wanted)]
    if len(complete) < len(rows):
        logger.warning("%s: left out %d rows with an empty cell", path, len(rows) - len(complete))
    folder = path.parent if root is None else root

    def place(name: str) -> ByteRange:
        return ByteRange(str(path_below(folder, name, f"--train-data {path}")))

    pairs = [
        StoredPair(
            row["noun"],
            place(row[wanted[0]]),
            place(row["mask"]) if masks and row.get("mask") else None,
        )
        for row in complete
    ]
    check_crops(path, [Path(pair.image.path) for pair in pairs[:LOOKED_FOR]])
    return pairs


def _read_shards(pattern: str, wanted: Sequence[str], masks: bool) -> list[StoredPair]:
    shards = sorted(glob.glob(pattern))
    if not shards:
        raise UserError(
            f"--train-data {pattern}: no such shard; collect_pairs.py makes them, and all are "
            "'pairs-*.tar' in its folder"
        )
    endings = {"image": ("png", "jpg"), "raw": ("raw.png",), "mask": ("mask.png",)}
    pairs, left_out = [], 0
    for shard in shards:
        for members in _samples(shard):
            places = {
                kind: next((members[end] for end in endings[kind] if end in members), None)
                for kind in wanted
                if kind != "noun"
            }
            noun = _noun_of(members.get("json"))
            image = places[wanted[0]]
            if not noun or image is None or None in places.values():
                left_out += 1
                continue
            pairs.append(StoredPair(noun, image, members.get("mask.png") if masks else None))
    if left_out:
        logger.warning("%s: left out %d samples without %s", pattern, left_out, ", ".join(wanted))
    return pairs


def _samples(shard: str) -> Iterator[dict[str, ByteRange]]:
    """The members of each sample of a shard by their ending; a sample's files are neighbours."""
    key = ""
    members: dict[str, ByteRange] = {}
    try:
        # not packed, since bytes are read from where they lie
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                folder, _, name = info.name.rpartition("/")
                stem, _, ending = name.partition(".")
                if f"{folder}/{stem}" != key:
                    if members:
                        yield members
                    key, members = f"{folder}/{stem}", {}
                members[ending] = ByteRange(shard, info.offset_data, info.size)
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"--train-data {shard} cannot be read as a tar file ({error}); give one that is whole "
            "and not packed"
        ) from error
    if members:
        yield members


def _noun_of(place: ByteRange | None) -> str:
    try:
        return str(json.loads(place.read())["noun"]) if place else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
