"""Whatever a file or a list holds is read, or refused by one line: images, words, data sets,
proposals, configs, checkpoints, shards. Nothing else is raised."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzzing import accepted, cases, damaged, scalars, text, values
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import save as safetensors

from ovseg.config import setup_cfg
from ovseg.config.files import default_cfg
from ovseg.config.reading import flatten
from ovseg.data.coco_masks import decode_polygons, decode_rle
from ovseg.data.label_shards import shard_writer, told_rows
from ovseg.data.own.description import _KEYS, read_description
from ovseg.data.proposal_files import read_proposals
from ovseg.data.vocabulary import SEPARATOR, read_vocabulary
from ovseg.utils.checkpoint_files import read_checkpoint
from ovseg.utils.images import image_size, read_image
from ovseg.utils.package_files import config_path
from ovseg.utils.yaml_text import check_yaml
from ovseg.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# ---------------------------------------------------------------------------------------- images


def image_bytes(form: str, mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(0)
    shape = (9, 7, len(mode)) if mode in {"RGB", "RGBA"} else (9, 7)
    pixels = rng.integers(0, 256, shape, np.uint8)
    image = Image.fromarray(pixels.astype(np.uint16) * 257 if mode == "I;16" else pixels)
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


SOUND = [image_bytes(form) for form in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")]
SOUND += [image_bytes("PNG", "RGBA"), image_bytes("PNG", "L"), image_bytes("PNG", "I;16")]
SOUND += [image_bytes("TIFF", "I;16"), image_bytes("JPEG2000")]


@cases
@given(content=st.sampled_from(SOUND).flatmap(damaged) | st.binary(max_size=300))
def test_images(folder: Path, content: bytes) -> None:
    path = folder / "image"
    path.write_bytes(content)
    image = accepted(lambda: read_image(path))
    size = accepted(lambda: image_size(path))
    if image is not None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert min(image.shape) > 0
        assert size is None or image.shape[:2] == size


@cases
@given(pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
       form=st.sampled_from(["PNG", "TIFF", "BMP", "PPM"]))  # fmt: skip
def test_lossless_images_come_back(folder: Path, pixels: np.ndarray, form: str) -> None:
    Image.fromarray(pixels).save(folder / "sound", form)
    np.testing.assert_array_equal(read_image(folder / "sound"), pixels)


# ----------------------------------------------------------------------------------------- words

names = st.one_of(text, st.lists(text, max_size=3), scalars)


def check_vocabulary(found: Vocabulary) -> None:
    words = [word for of_class in found.words_of_class for word in of_class]
    assert len(found.names) == len(found.words_of_class) >= 1
    assert all(words)
    assert all(word == " ".join(word.split()) for word in words)
    assert len({word.casefold() for word in words}) == len(words)
    assert len({name.casefold() for name in found.names}) == len(found.names)
    for word in words:
        word.encode()


@cases
@given(entries=st.lists(names, max_size=5) | st.dictionaries(text, names, max_size=5))
def test_words(entries: Any) -> None:
    found = accepted(lambda: read_vocabulary(entries))
    if found is not None:
        check_vocabulary(found)
    # slowly: what has to be accepted
    plain = isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)
    if plain:
        words = [" ".join(w.split()) for entry in entries for w in entry.split(SEPARATOR)]
        sound = all(words) and len({word.casefold() for word in words}) == len(words)
        assert (found is not None) == (sound and len(words) > 0)


@cases
@given(content=values.map(json.dumps) | text | st.binary(max_size=40), json_file=st.booleans())
def test_files_of_words(folder: Path, content: str | bytes, json_file: bool) -> None:
    path = folder / ("words.json" if json_file else "words.txt")
    path.write_bytes(content.encode("utf-8", "replace") if isinstance(content, str) else content)
    found = accepted(lambda: read_vocabulary(path))
    if found is not None:
        check_vocabulary(found)


# --------------------------------------------------------------------------- data sets, and yaml

keys = st.sampled_from([*_KEYS, "unknown"])
entries = st.one_of(values, st.sampled_from(["images", "maps", "a.json", ".", "png"]),
                    st.lists(text, max_size=3))  # fmt: skip


@cases
@given(content=st.dictionaries(keys, entries, max_size=6), whole=st.booleans())
def test_data_sets(folder: Path, content: dict[str, Any], whole: bool) -> None:
    for name in ("images", "maps"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "a.json").write_text("{}")
    if whole:
        content = {"name": "a", "images": "images", "labels": "maps", "classes": ["a"]} | content
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    found = accepted(lambda: read_description(path))
    if found is not None:
        assert len(found.words) >= 1
        assert 0 <= found.ignore_label <= 65535
        assert all(label < len(found.words) or label == found.ignore_label
                   for label in found.label_of.values())  # fmt: skip


@cases
@given(content=st.text(st.sampled_from("a:-[]{}&*!#|>'\" \n0,?%@"), max_size=40))
def test_yaml_texts(folder: Path, content: str) -> None:
    path = folder / "text.yaml"
    path.write_text(content, "utf-8")
    accepted(lambda: read_description(path))
    accepted(lambda: setup_cfg(path))


@cases
@given(widths=st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_aliases_are_counted(widths: list[int]) -> None:
    """Against the values that come of them, counted one by one."""

    def count(value: Any) -> int:
        if isinstance(value, list):
            return 1 + sum(map(count, value))
        return 1 + sum(1 + count(v) for v in value.values()) if isinstance(value, dict) else 1

    lines = ["a0: &a0 [x]"]
    for n, width in enumerate(widths, 1):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]")
    written = "\n".join(lines)
    expected = count(yaml.safe_load(written))
    from ovseg.utils import yaml_text

    node = check_yaml(written)
    assert node is not None
    assert yaml_text._count(node, {}) == expected


# ------------------------------------------------------------------------------- proposals, masks

shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)
some_arrays = st.sampled_from([np.bool_, np.uint8, np.float32, np.float64, np.int64]).flatmap(
    lambda dtype: arrays.arrays(dtype, shapes)
)


@cases
@given(masks=some_arrays, embeddings=st.none() | some_arrays, size=st.none() | st.just((6, 6)))
def test_arrays_of_proposals(
    folder: Path, masks: np.ndarray, embeddings: np.ndarray | None, size: tuple[int, int] | None
) -> None:
    given_arrays = {"masks": masks} | ({} if embeddings is None else {"embeddings": embeddings})
    np.savez(folder / "p.npz", **given_arrays)
    found = accepted(lambda: read_proposals(folder / "p.npz", size, 4))
    if found is not None:
        assert found.masks.ndim == 3
        assert found.masks.isfinite().all()
        assert not len(found.masks.flatten()) or 0 <= found.masks.min() <= found.masks.max() <= 1
        if found.embeddings is not None:
            assert found.embeddings.shape == (len(found.masks), 4)
            assert found.embeddings.isfinite().all()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, masks=np.ones((2, 4, 4), bool), embeddings=np.ones((2, 4)))
    return stream.getvalue()


@cases
@given(content=damaged(_npz()))
def test_damaged_proposals(folder: Path, content: bytes) -> None:
    (folder / "d.npz").write_bytes(content)
    accepted(lambda: read_proposals(folder / "d.npz"))


codes = st.fixed_dictionaries(
    {"size": st.lists(st.integers(-1, 5), min_size=1, max_size=3) | values,
     "counts": st.lists(st.integers(-1, 30), max_size=5) | text | values}
)  # fmt: skip


@cases
@given(content=st.lists(codes | values, max_size=3) | values)
def test_json_of_proposals(folder: Path, content: Any) -> None:
    (folder / "p.json").write_text(json.dumps(content))
    found = accepted(lambda: read_proposals(folder / "p.json"))
    if found is not None:
        assert found.masks.ndim == 3
        assert set(found.masks.unique().tolist()) <= {0.0, 1.0}


@cases
@given(mask=arrays.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    flat, runs, value, length = mask.T.flatten(), [], False, 0
    for pixel in flat:
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    runs.append(length)
    for counts in (runs, coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()):
        found = decode_rle({"counts": counts}, *mask.shape)
        np.testing.assert_array_equal(found, mask)


@cases
@given(counts=st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=12),
       size=st.tuples(st.integers(1, 9), st.integers(1, 9)))  # fmt: skip
def test_compressed_run_lengths(counts: str, size: tuple[int, int]) -> None:
    """Any text is a mask whose code it is, or refused."""
    try:
        found = decode_rle({"counts": counts}, *size)
    except ValueError:
        return
    assert found.shape == size
    assert set(np.unique(found)) <= {0, 1}
    assert coco_mask.encode(np.asfortranarray(found))["counts"].decode() == counts


@cases
@given(polygon=st.lists(st.floats(-60, 60) | st.floats(), max_size=10),
       size=st.tuples(st.integers(1, 9), st.integers(1, 9)))  # fmt: skip
def test_polygons(polygon: list[float], size: tuple[int, int]) -> None:
    try:
        found = decode_polygons([polygon], *size)
    except ValueError:
        return
    assert found.shape == size
    assert set(np.unique(found)) <= {0, 1}


# ---------------------------------------------------------------------------------------- configs

KNOWN = dict(flatten(default_cfg()))
some_keys = st.sampled_from([*KNOWN, "NONE", "MODEL.NONE"])


@cases
@given(pairs=st.lists(st.tuples(some_keys, scalars.map(str) | text), max_size=3), odd=st.booleans())
def test_overrides(pairs: list[tuple[str, str]], odd: bool) -> None:
    opts = [part for pair in pairs for part in pair]
    cfg = accepted(lambda: setup_cfg(config_path("ovseg_tiny.yaml"), opts[: len(opts) - odd]))
    if cfg is not None:
        for key, value in flatten(cfg):
            before = KNOWN[key]
            kinds = (type(before), tuple, list, str)
            assert before is None or isinstance(value, kinds), key


@cases
@given(pairs=st.lists(st.tuples(some_keys, values), max_size=3))
def test_configs(folder: Path, pairs: list[tuple[str, Any]]) -> None:
    content: dict[str, Any] = {}
    for key, value in pairs:
        place = content
        *groups, last = key.split(".")
        for group in groups:
            inner = place.setdefault(group, {})
            place = inner if isinstance(inner, dict) else place
        place[last] = value
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    accepted(lambda: setup_cfg(path))


# --------------------------------------------------------------------------- checkpoints, shards


def _saved(save: Callable[[Any, Any], None]) -> bytes:
    stream = io.BytesIO()
    save({"model": {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}}, stream)
    return stream.getvalue()


CHECKPOINTS = [
    _saved(torch.save),
    _saved(lambda content, file: torch.save(content, file, _use_new_zipfile_serialization=False)),
    safetensors({"a.weight": torch.arange(6.0)}),
]


@cases
@given(content=st.sampled_from(CHECKPOINTS).flatmap(damaged))
def test_checkpoints(folder: Path, content: bytes) -> None:
    path = folder / "weights.pth"
    path.write_bytes(content)
    found = accepted(lambda: read_checkpoint(path))
    if found is not None:
        assert all(isinstance(value, torch.Tensor) for value in found.weights.values())


def _shard(name: str) -> bytes:
    row = {
        "key": "0", "source": "a.png", "image": None, "width": 2, "height": 2, "score": 0.5,
        "segments": [{"label": 0, "name": "a", "area": 4, "score": 0.5, "rle": "04"}],
        "error": None, "labels": b"png", "scores": None,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, name)
        with shard_writer("parquet" if name.endswith("parquet") else "webdataset", path) as writer:
            writer.write(row)
        return path.read_bytes()


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_shards(folder: Path, name: str) -> None:
    @cases
    @given(content=damaged(_shard(name)))
    def check(content: bytes) -> None:
        (folder / name).write_bytes(content)
        accepted(lambda: list(told_rows(folder / name)))

    check()
