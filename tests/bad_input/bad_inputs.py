"""Inputs that cannot be used, by name: each makes its files and says how to run into them.

A case is a function of an empty folder that returns a command line of `ovseg`, or a function to be
called. What is said of it stands in docs/bad-input.md, under the case's name.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clip_pairs import write_clip as write_small_clip
from clip_pairs import write_pairs
from conftest import ROOT
from PIL import Image

from open_clip_training import train as clip_training
from open_clip_training.common.scripts import run_script
from ovseg.errors import cli_errors
from ovseg.utils.package_files import package_folder
from ovseg.video.files import VideoFile

Command = list[Any] | Callable[[], object]
CASES: dict[str, Callable[[Path], Command]] = {}

TINY = ROOT / "configs" / "ovseg_tiny_demo.yaml"
WEIGHTS = package_folder("resources") / "ovseg_tiny.pth"
#: what code in a file would make
RAN = "ran"


def case(make: Callable[[Path], Command]) -> Callable[[Path], Command]:
    """Register a case under the name of its function."""
    CASES[make.__name__] = make
    return make


class Code:
    """Pickled, it is a call that makes a file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / RAN)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def photo(folder: Path, name: str = "photo.png") -> Path:
    """A sound image."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(path)
    return path


def written(path: Path, content: bytes | str) -> Path:
    """A file of this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def segment(folder: Path, *more: Any, input: Any = None, words: list[str] | None = None) -> Command:
    """`ovseg segment` of an image."""
    named = ["--class-names", *(words or ["grass", "water"])]
    given = photo(folder) if input is None else input
    return ["segment", "--input", given, "--output", folder / "out", *named, *more]


def deep(opening: str, closing: str, depth: int = 100_000) -> str:
    """Brackets in brackets."""
    return opening * depth + closing * depth


# ------------------------------------------------------------------------------------- images


@case
def image_missing(folder: Path) -> Command:
    return segment(folder, input=folder / "photo.jpg")


@case
def image_empty(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.jpg", b""))


@case
def image_of_text(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.jpg", "no image"))


@case
def image_cut_off(folder: Path) -> Command:
    path = folder / "photo.jpg"
    Image.effect_noise((300, 200), 90).save(path)
    return segment(folder, input=written(path, path.read_bytes()[:3000]))


@case
def image_is_folder(folder: Path) -> Command:
    (folder / "photos").mkdir()
    return segment(folder, input=folder / "photos")


@case
def image_pattern_without_match(folder: Path) -> Command:
    return segment(folder, input=folder / "*.jpg")


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IEND", b"")


@case
def image_bomb(folder: Path) -> Command:
    data = _chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return segment(folder, input=written(folder / "photo.png", _png(60_000, 60_000, data)))


@case
def image_text_bomb(folder: Path) -> Command:
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    data = _chunk(b"IDAT", zlib.compress(bytes(4 * (1 + 3 * 4))))
    return segment(folder, input=written(folder / "photo.png", _png(4, 4, text, data)))


@case
def image_without_pixels(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.png", _png(0, 4)))


@case
def image_svg(folder: Path) -> Command:
    return segment(folder, input=written(folder / "photo.svg", "<svg xmlns='x'><a/></svg>"))


@case
def image_named_pipe(folder: Path) -> Command:
    os.mkfifo(folder / "photo.jpg")
    return segment(folder, input=folder / "photo.jpg")


@case
def image_one_of_several(folder: Path) -> Command:
    photo(folder, "photos/a.png")
    written(folder / "photos" / "b.png", b"no image")
    return segment(folder, input=folder / "photos")


@case
def image_limit_is_no_number(folder: Path) -> Command:
    def run() -> None:
        from ovseg.cli import main

        os.environ["OVSEG_MAX_MEGAPIXELS"] = "many"
        try:
            main([str(part) for part in segment(folder)])  # type: ignore[union-attr]
        finally:
            del os.environ["OVSEG_MAX_MEGAPIXELS"]

    return run


@case
def output_is_a_file(folder: Path) -> Command:
    return segment(folder, "--output", written(folder / "taken", b""))


@case
def output_would_overwrite_the_image(folder: Path) -> Command:
    return segment(folder, "--output", photo(folder))


@case
def output_one_file_for_several(folder: Path) -> Command:
    photo(folder, "photos/a.png"), photo(folder, "photos/b.png")
    return segment(folder, "--output", folder / "x.png", input=folder / "photos")


# ---------------------------------------------------------------------------------------- words


@case
def words_none(folder: Path) -> Command:
    return ["segment", "--input", photo(folder), "--output", folder / "out", "--class-names"]


@case
def words_empty(folder: Path) -> Command:
    return segment(folder, words=["grass", " "])


@case
def words_twice(folder: Path) -> Command:
    return segment(folder, words=["grass", "Grass"])


@case
def words_not_unicode(folder: Path) -> Command:
    return segment(folder, words=["grass", "caf\udce9"])


def _vocabulary(folder: Path, name: str, content: bytes | str) -> Command:
    return ["segment", "--input", photo(folder), "--output", folder / "out",
            "--vocabulary", written(folder / name, content)]  # fmt: skip


@case
def words_of_unknown_list(folder: Path) -> Command:
    return ["segment", "--input", photo(folder), "--vocabulary", "ade20k-151"]


@case
def words_and_list(folder: Path) -> Command:
    return segment(folder, "--vocabulary", "ade20k-150")


@case
def words_file_not_utf8(folder: Path) -> Command:
    return _vocabulary(folder, "words.txt", "café\n".encode("latin-1"))


@case
def words_file_binary(folder: Path) -> Command:
    return _vocabulary(folder, "words.txt", WEIGHTS.read_bytes()[:4000])


@case
def words_file_empty(folder: Path) -> Command:
    return _vocabulary(folder, "words.txt", "\n\n")


@case
def words_json_broken(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", '["grass", ')


@case
def words_json_number(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", "3")


@case
def words_json_of_numbers(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", '["grass", 3]')


@case
def words_json_deep(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", deep("[", "]"))


@case
def words_things_not_among_them(folder: Path) -> Command:
    return segment(folder, "--thing-classes", "cat")


# -------------------------------------------------------------------------------------- configs


def _config(folder: Path, content: bytes | str) -> Command:
    return segment(folder, "--config-file", written(folder / "config.yaml", content))


@case
def config_missing(folder: Path) -> Command:
    return segment(folder, "--config-file", folder / "config.yaml")


@case
def config_broken_yaml(folder: Path) -> Command:
    return _config(folder, "MODEL: {WEIGHTS: [")


@case
def config_binary(folder: Path) -> Command:
    return _config(folder, WEIGHTS.read_bytes()[:4000])


@case
def config_python_tag(folder: Path) -> Command:
    return _config(folder, f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{folder / RAN}']\n")


@case
def config_evaluates(folder: Path) -> Command:
    text = f"""INPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["__import__('os').mkdir('{folder / RAN}')"]\n"""  # noqa: E501
    return _config(folder, text)


@case
def config_evaluates_a_huge_list(folder: Path) -> Command:
    text = """INPUT:\n  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 999999999)]"]\n"""  # noqa: E501
    return _config(folder, text)


def aliases(count: int = 40) -> str:
    """A small yaml text of 10 ** 40 entries."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, count)]
    return "\n".join(lines) + "\n"


@case
def config_alias_bomb(folder: Path) -> Command:
    return _config(folder, aliases())


@case
def config_deep(folder: Path) -> Command:
    return _config(folder, f"MODEL: {deep('[', ']', 1000)}\n")


@case
def config_list(folder: Path) -> Command:
    return _config(folder, "- MODEL\n")


@case
def config_unknown_key(folder: Path) -> Command:
    return _config(folder, "MODEL:\n  WEIHGTS: x.pth\n")


@case
def config_wrong_type(folder: Path) -> Command:
    return _config(folder, "INPUT:\n  MIN_SIZE_TEST: large\n")


@case
def config_base_missing(folder: Path) -> Command:
    return _config(folder, "_BASE_: none.yaml\n")


@case
def config_base_is_itself(folder: Path) -> Command:
    return _config(folder, "_BASE_: config.yaml\n")


@case
def config_override_without_value(folder: Path) -> Command:
    return segment(folder, "--opts", "MODEL.WEIGHTS")


@case
def config_override_of_code(folder: Path) -> Command:
    return segment(folder, "--opts", "INPUT.MIN_SIZE_TEST",
                   f"__import__('os').mkdir('{folder / RAN}')")  # fmt: skip


@case
def config_size_zero(folder: Path) -> Command:
    return segment(folder, "--opts", "INPUT.MIN_SIZE_TEST", "-5")


# ---------------------------------------------------------------------------------- checkpoints


def _weights(folder: Path, path: Path) -> Command:
    return segment(folder, "--config-file", TINY, "--opts", "MODEL.WEIGHTS", path)


def _state() -> dict[str, Any]:
    state: dict[str, Any] = torch.load(WEIGHTS, weights_only=True)["model"]
    return dict(state)


def _saved(folder: Path, content: Any, name: str = "weights.pth") -> Command:
    torch.save(content, folder / name)
    return _weights(folder, folder / name)


@case
def checkpoint_missing(folder: Path) -> Command:
    return _weights(folder, folder / "weights.pth")


@case
def checkpoint_empty(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", b""))


@case
def checkpoint_text(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", "no weights"))


@case
def checkpoint_web_page(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", "<!DOCTYPE html><html>quota"))


@case
def checkpoint_git_lfs(folder: Path) -> Command:
    note = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
    return _weights(folder, written(folder / "weights.pth", note))


@case
def checkpoint_cut_off(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pth", WEIGHTS.read_bytes()[:1_000_000]))


@case
def checkpoint_of_code(folder: Path) -> Command:
    return _saved(folder, {"model": Code(folder)})


@case
def checkpoint_pickle_of_code(folder: Path) -> Command:
    return _weights(folder, written(folder / "weights.pkl", pickle.dumps({"model": Code(folder)})))


@case
def checkpoint_torchscript_of_code(folder: Path) -> Command:
    """The archive of a script whose pickle calls."""
    path = folder / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Code(folder), 2))
        archive.writestr("a/code/x.py", "")
        archive.writestr("a/version", "3")
        archive.writestr("a/constants.pkl", pickle.dumps((), 2))
    return _weights(folder, path)


@case
def checkpoint_of_another_model(folder: Path) -> Command:
    return _saved(folder, {"model": {"conv.weight": torch.zeros(2, 2)}})


@case
def checkpoint_of_other_shapes(folder: Path) -> Command:
    state = _state()
    name = "sem_seg_head.predictor.query_embed.weight"
    return _saved(folder, {"model": {**state, name: state[name][:3]}})


@case
def checkpoint_without_weights(folder: Path) -> Command:
    return _saved(folder, {"iteration": 3})


@case
def checkpoint_list(folder: Path) -> Command:
    return _saved(folder, [torch.zeros(2)])


@case
def checkpoint_with_nan(folder: Path) -> Command:
    state = _state()
    name = "sem_seg_head.predictor.query_embed.weight"
    state[name] = state[name].clone()
    state[name][0, 0] = torch.nan
    return _saved(folder, {"model": state})


@case
def checkpoint_with_infinity(folder: Path) -> Command:
    state = _state()
    name = "clip_adapter.clip_model.visual.proj"
    state[name] = state[name].clone()
    state[name][1, 1] = torch.inf
    return _saved(folder, {"state_dict": state})


@case
def checkpoint_zip_bomb(folder: Path) -> Command:
    torch.save({"model": {"a": torch.zeros(4)}}, folder / "sound.pth")
    with (
        zipfile.ZipFile(folder / "sound.pth") as sound,
        zipfile.ZipFile(folder / "weights.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in sound.namelist():
            content = sound.read(name)
            bomb.writestr(name, bytes(300_000_000) if name.endswith("/data/0") else content)
    (folder / "sound.pth").unlink()
    return _weights(folder, folder / "weights.pth")


@case
def checkpoint_zip_of_other_things(folder: Path) -> Command:
    with zipfile.ZipFile(folder / "weights.pth", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    return _weights(folder, folder / "weights.pth")


@case
def checkpoint_safetensors_head_too_long(folder: Path) -> Command:
    content = struct.pack("<Q", 1 << 60) + b"{}"
    return _weights(folder, written(folder / "weights.safetensors", content))


@case
def checkpoint_safetensors_beyond_its_end(folder: Path) -> Command:
    head = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    content = struct.pack("<Q", len(head)) + head.encode()
    return _weights(folder, written(folder / "weights.safetensors", content))


@case
def checkpoint_folder_without_weights(folder: Path) -> Command:
    (folder / "model").mkdir()
    return segment(folder, "--model", folder / "model")


@case
def model_unknown(folder: Path) -> Command:
    return segment(folder, "--model", "swinC")


# ------------------------------------------------------------------------------------ data sets


def _data_set(folder: Path, text: str) -> Command:
    file = written(folder / "data.yaml", text)
    return ["evaluate", "--config-file", ROOT / "configs" / "ovseg_tiny.yaml", "--dataset", file,
            "MODEL.WEIGHTS", WEIGHTS, "OUTPUT_DIR", folder / "out"]  # fmt: skip


def _label_maps(
    folder: Path, labels: np.ndarray, name: str = "photo.png", more: str = ""
) -> Command:
    photo(folder, "images/photo.jpg")
    (folder / "maps").mkdir(exist_ok=True)
    Image.fromarray(labels).save(folder / "maps" / name)
    text = "name: odd\nimages: images\nlabels: maps\nclasses: [grass, water]\n"
    return _data_set(folder, text + more)


@case
def data_missing(folder: Path) -> Command:
    return ["evaluate", "--config-file", ROOT / "configs" / "ovseg_tiny.yaml", "--dataset",
            folder / "data.yaml", "MODEL.WEIGHTS", WEIGHTS]  # fmt: skip


@case
def data_broken_yaml(folder: Path) -> Command:
    return _data_set(folder, "name: [")


@case
def data_python_tag(folder: Path) -> Command:
    return _data_set(folder, f"name: !!python/object/apply:os.mkdir ['{folder / RAN}']\n")


@case
def data_alias_bomb(folder: Path) -> Command:
    return _data_set(folder, aliases() + "name: x\n")


@case
def data_aliases_as_classes(folder: Path) -> Command:
    photo(folder, "images/photo.jpg")
    return _data_set(
        folder, aliases(9).replace("a8: &a8", "classes:") + "name: x\nimages: images\n"
    )


@case
def data_deep(folder: Path) -> Command:
    return _data_set(folder, f"name: {deep('[', ']', 1000)}\n")


@case
def data_unknown_key(folder: Path) -> Command:
    return _data_set(folder, "name: x\nimage: .\n")


@case
def data_folder_missing(folder: Path) -> Command:
    return _data_set(folder, "name: x\nimages: none\nlabels: none\nclasses: [a]\n")


@case
def data_name_with_slash(folder: Path) -> Command:
    return _data_set(folder, "name: ../../x\nimages: .\nlabels: .\nclasses: [a]\n")


@case
def data_labels_of_other_size(folder: Path) -> Command:
    return _label_maps(folder, np.zeros((5, 5), np.uint8))


@case
def data_labels_outside_the_classes(folder: Path) -> Command:
    return _label_maps(folder, np.full((24, 32), 9, np.uint8))


@case
def data_labels_in_colour(folder: Path) -> Command:
    return _label_maps(folder, np.zeros((24, 32, 3), np.uint8))


@case
def data_labels_lossy(folder: Path) -> Command:
    return _label_maps(folder, np.zeros((24, 32), np.uint8), "photo.jpg", "label_ext: jpg\n")


def _coco(folder: Path, content: str) -> Command:
    photo(folder, "images/photo.jpg")
    written(folder / "a.json", content)
    return _data_set(folder, "name: odd\nimages: images\ncoco_json: a.json\n")


def _instances(segmentation: Any, height: int = 24, width: int = 32) -> str:
    image = {"id": 1, "file_name": "photo.jpg", "height": height, "width": width}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    return json.dumps({"images": [image], "annotations": [annotation],
                       "categories": [{"id": 1, "name": "grass"}]})  # fmt: skip


@case
def data_coco_broken(folder: Path) -> Command:
    return _coco(folder, '{"images": [')


@case
def data_coco_deep(folder: Path) -> Command:
    return _coco(folder, deep("[", "]"))


@case
def data_coco_polygon_of_words(folder: Path) -> Command:
    return _coco(folder, _instances([["a", "b", "c", "d", "e", "f"]]))


@case
def data_coco_huge_size(folder: Path) -> Command:
    return _coco(folder, _instances({"size": [10**6, 10**6], "counts": "0"}, 10**6, 10**6))


@case
def data_yolo_of_words(folder: Path) -> Command:
    photo(folder, "images/photo.jpg")
    written(folder / "txt" / "photo.txt", "0 a b c d e f\n")
    return _data_set(folder, "name: odd\nimages: images\nyolo: txt\nclasses: [grass]\n")


# ------------------------------------------------------------------------------------ proposals


def _proposals(
    folder: Path, content: bytes | str = b"", name: str = "photo.npz", **arrays: Any
) -> Command:
    path = folder / "proposals" / name
    written(path, content)
    if arrays:
        np.savez_compressed(path, **arrays)
    return segment(folder, "--load-proposals", path.parent)


@case
def proposals_missing(folder: Path) -> Command:
    (folder / "proposals").mkdir()
    return segment(folder, "--load-proposals", folder / "proposals")


@case
def proposals_npz_of_text(folder: Path) -> Command:
    return _proposals(folder, "no masks")


@case
def proposals_npz_of_objects(folder: Path) -> Command:
    return _proposals(folder, masks=np.array([Code(folder)], object))


@case
def proposals_npz_bomb(folder: Path) -> Command:
    """Announces four terabytes, in a file of some hundred bytes."""
    head = io.BytesIO()
    shape = {"descr": "|b1", "fortran_order": False, "shape": (4, 10**6, 10**6)}
    np.lib.format.write_array_header_1_0(head, shape)
    path = folder / "proposals" / "photo.npz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("masks.npy", head.getvalue() + bytes(1000))
    return segment(folder, "--load-proposals", path.parent)


@case
def proposals_without_masks(folder: Path) -> Command:
    return _proposals(folder, boxes=np.zeros((1, 4)))


@case
def proposals_with_nan(folder: Path) -> Command:
    return _proposals(folder, masks=np.full((1, 24, 32), np.nan, np.float32))


@case
def proposals_of_another_image(folder: Path) -> Command:
    return _proposals(folder, masks=np.ones((1, 300, 32), bool))


@case
def proposals_json_broken(folder: Path) -> Command:
    return _proposals(folder, "[{", "photo.json")


@case
def proposals_json_deep(folder: Path) -> Command:
    return _proposals(folder, deep("[", "]"), "photo.json")


@case
def proposals_json_of_a_huge_mask(folder: Path) -> Command:
    code = [{"size": [10**6, 10**6], "counts": [10**12]}]
    return _proposals(folder, json.dumps(code), "photo.json")


@case
def proposals_json_of_wrong_lengths(folder: Path) -> Command:
    return _proposals(folder, json.dumps([{"size": [24, 32], "counts": [3, 4]}]), "photo.json")


# -------------------------------------------------------------------------------- tables of pairs


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


# ----------------------------------------------------------------------------------------- shards


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
    manifest = {"classes": [["grass"]], "shards": [{"file": "a.tar"}]}
    written(folder / "labelled" / "manifest.json", json.dumps(manifest))
    return _data_set(folder, "name: x\nlabelled: labelled\n")


# ----------------------------------------------------------------------------------------- videos


def _video(folder: Path, path: Any, *more: Any) -> Command:
    return ["video", "--class-names", "grass", "water", "--input", path, "--output",
            folder / "out" / "a.avi", *more]  # fmt: skip


@case
def video_missing(folder: Path) -> Command:
    return _video(folder, folder / "clip.mp4")


@case
def video_of_text(folder: Path) -> Command:
    return _video(folder, written(folder / "clip.mp4", "no video"))


def _clip(folder: Path) -> Path:
    """A sound video of three frames."""
    with VideoFile(folder / "clip.avi", 10) as video:
        for _ in range(3):
            video.write(np.zeros((32, 32, 3), np.uint8))
    return folder / "clip.avi"


@case
def video_without_frames(folder: Path) -> Command:
    path = _clip(folder)
    return _video(folder, written(path, path.read_bytes()[:300]))


@case
def video_camera_missing(folder: Path) -> Command:
    return _video(folder, "93")


@case
def video_of_another_form(folder: Path) -> Command:
    return _video(folder, _clip(folder), "--output", folder / "a.webm")


# ---------------------------------------------------------------------------------------- uploads


def _upload(folder: Path, content: bytes, text: str = "grass\nwater", weight: Any = 0.5) -> Command:
    from ovseg.predictor import Predictor
    from ovseg.web.handlers import Handlers
    from ovseg.web.models import Models
    from ovseg.web.tasks import Tasks

    path = written(folder / "upload-0001", content)
    models = Models({"tiny": lambda: Predictor.from_pretrained("tiny", device="cpu")})
    handlers = Handlers(Tasks(models), folder / "out")
    picture = {"path": str(path), "orig_name": "holiday.jpg"}

    def run() -> None:
        with cli_errors():
            handlers.segment(picture, text, "tiny", weight, 0.5, 0.0, 0.5, "areas")

    return run


def _sound() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@case
def upload_no_image(folder: Path) -> Command:
    return _upload(folder, b"no image")


@case
def upload_bomb(folder: Path) -> Command:
    data = _chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    return _upload(folder, _png(60_000, 60_000, data))


@case
def upload_without_words(folder: Path) -> Command:
    return _upload(folder, _sound(), " \n")


@case
def upload_with_too_many_words(folder: Path) -> Command:
    return _upload(folder, _sound(), "\n".join(f"word {number}" for number in range(2000)))


@case
def upload_with_a_weight_of_text(folder: Path) -> Command:
    return _upload(folder, _sound(), weight="much")


@case
def upload_with_a_weight_that_is_no_number(folder: Path) -> Command:
    return _upload(folder, _sound(), weight=float("nan"))
