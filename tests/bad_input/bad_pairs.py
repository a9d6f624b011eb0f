"""Broken and hostile tables of pairs, shards and collections."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from bad_cases import (
    Command,
    case,
    data_set,
    photo,
    written,
)
from clip_pairs import write_clip as write_small_clip
from clip_pairs import write_pairs

from open_clip_training import train as clip_training
from open_clip_training.common.scripts import run_script


def _adapt(folder: Path, data: Any, *more: Any) -> Command:
    clip = write_small_clip(folder / "clip.pt")
    argv = ["--clip", clip, "--train-data", data, "--output", folder / "out" / "clip.pt",
            "--steps", 2, "--warmup", 1, "--batch-size", 2, "--device", "cpu", *more]  # fmt: skip
    return lambda: run_script(lambda: clip_training.main([str(part) for part in argv]))


def _table(folder: Path, text: str, *more: Any) -> Command:
    write_pairs(folder / "pairs", count=3)
    return _adapt(folder, written(folder / "pairs" / "pairs.csv", text), *more)


@case
def pairs_missing(folder: Path) -> Command:
    return _adapt(folder, folder / "pairs.csv")


@case
def pairs_without_column(folder: Path) -> Command:
    return _table(folder, "image,word\nx.png,cat\n")


@case
def pairs_binary(folder: Path) -> Command:
    return _table(folder, "\0\udc80".encode("utf-8", "surrogateescape"))


@case
def pairs_path_leaves_the_folder(folder: Path) -> Command:
    photo(folder, "secret.png")
    return _table(folder, "image,mask,noun\n../secret.png,../secret.png,cat\n")


@case
def pairs_path_is_absolute(folder: Path) -> Command:
    secret = photo(folder, "secret.png")
    return _table(folder, f"filepath\ttitle\n{secret}\ta photo of a cat.\n")


@case
def pairs_empty(folder: Path) -> Command:
    return _table(folder, "image,mask,noun\n")


@case
def pairs_crop_missing(folder: Path) -> Command:
    return _table(folder, "image,mask,noun\nx.png,y.png,cat\nx.png,y.png,dog\n")


@case
def shards_of_text(folder: Path) -> Command:
    return _adapt(folder, written(folder / "pairs-000.tar", "no archive"))


@case
def shards_without_pairs(folder: Path) -> Command:
    path = folder / "pairs-000.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("../../evil.png"))
    return _adapt(folder, path)


@case
def shards_missing(folder: Path) -> Command:
    return _adapt(folder, folder / "pairs-*.tar")


def _label(folder: Path, *inputs: Any) -> Command:
    return ["label", "--class-names", "grass", "water", "--input", *inputs, "--output",
            folder / "out"]  # fmt: skip


@case
def collection_missing(folder: Path) -> Command:
    return _label(folder, folder / "shards-*.tar")


@case
def collection_of_unknown_system(folder: Path) -> Command:
    return _label(folder, "carrier-pigeon://photos")


@case
def collection_table_broken(folder: Path) -> Command:
    return _label(folder, written(folder / "a.parquet", b"PAR1 and no more PAR1"))


@case
def collection_list_empty(folder: Path) -> Command:
    return _label(folder, written(folder / "list.txt", "\n"))


@case
def collection_tar_of_text(folder: Path) -> Command:
    return _label(folder, written(folder / "a.tar", "no archive"))


@case
def collection_row_image_leaves_the_folder(folder: Path) -> Command:
    from ovseg.data.label_shards import shard_writer

    photo(folder, "secret.png")
    segments = [{"label": 0, "name": "grass", "area": 1, "score": 1.0, "rle": ""}]
    row = {"key": "0", "source": "", "image": "../secret.png", "width": 1, "height": 1,
           "score": 1.0, "segments": segments, "error": None, "labels": b"",
           "scores": None}  # fmt: skip
    (folder / "labelled").mkdir()
    with shard_writer("webdataset", folder / "labelled" / "a.tar") as writer:
        writer.write(row)
    manifest = {"classes": [["grass"]], "names": ["grass"], "shards": [{"file": "a.tar"}]}
    written(folder / "labelled" / "manifest.json", json.dumps(manifest))
    return data_set(folder, "name: x\nlabelled: labelled\n")
