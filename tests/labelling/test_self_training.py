"""What `ovseg label` wrote as the ground truth of a training."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.data import MetadataCatalog
from labelling_world import WORDS
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, write_clip

from ovseg.cli import train
from ovseg.data.datasets import load_dataset
from ovseg.data.label_maps import read_truth
from ovseg.data.label_shards import ENDINGS, shard_writer
from ovseg.data.own.registration import register_custom
from ovseg.errors import UserError
from ovseg.utils.io import write_json

pytestmark = pytest.mark.usefixtures("forget_data_sets")

# 2 x 4 pixels: grass that is sure, walls that are not, one pixel of water, one of no class
LABELS = np.array([[0, 0, 1, 1], [0, 0, 2, 255]], np.uint8)
SCORES = np.array([[0.9, 0.9, 0.2, 0.6], [0.8, 0.3, 0.7, 0.0]])


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_labelled(
    folder: Path, format: str = "parquet", maps: bool = False, images: int = 3, size: int = 1,
    **changes: Any,
) -> Path:  # fmt: skip
    """An output of `ovseg label`, made by hand; returns its yaml file."""
    (folder / "photos").mkdir(parents=True)
    labels, scores = (np.kron(array, np.ones((size, size))) for array in (LABELS, SCORES))
    rows = []
    for number in range(images):
        photo = folder / "photos" / f"{number}.png"
        Image.fromarray(np.full((*labels.shape, 3), 40 * number, np.uint8)).save(photo)
        segments = [
            {
                "label": label, "name": WORDS[label], "area": int((labels == label).sum()),
                "score": float(scores[labels == label].mean()), "rle": "",
            }
            for label in range(3)
        ]  # fmt: skip
        rows.append(
            {
                "key": f"000000-{number:06d}", "source": str(photo), "image": None,
                "width": labels.shape[1], "height": labels.shape[0], "score": 0.5,
                "segments": segments, "error": None, "labels": png(labels),
                "scores": png(scores * 255 // 1) if maps else None,
            }
            | changes
        )  # fmt: skip
    broken = {**rows[0], "key": "000000-999999", "error": "no picture", "labels": None}
    file = f"labels-000000{ENDINGS[format]}"
    with shard_writer(format, folder / file) as writer:
        for row in [*rows[:1], {**broken, "segments": [], "scores": None}, *rows[1:]]:
            writer.write(row)
    classes = [[word] for word in WORDS]
    write_json(
        folder / "manifest.json", {"classes": classes, "names": WORDS, "shards": [{"file": file}]}
    )
    return folder


def register(folder: Path, **keys: Any) -> str:
    file = folder / "dataset.yaml"
    file.write_text(yaml.safe_dump({"name": "again", "labelled": ".", **keys}))
    (name,) = register_custom([file])
    return name


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("maps", [False, True])
def test_labels_are_ground_truth(format: str, maps: bool, tmp_path: Path) -> None:
    examples = load_dataset(register(write_labelled(tmp_path, format, maps)))
    assert [Path(e["file_name"]).name for e in examples] == ["0.png", "1.png", "2.png"]
    assert MetadataCatalog.get("again").stuff_classes == WORDS
    for example in examples:
        np.testing.assert_array_equal(read_truth(example), LABELS)


@pytest.mark.parametrize("format", ENDINGS)
def test_low_scores_are_ignored(format: str, tmp_path: Path) -> None:
    folder = write_labelled(tmp_path, format)
    # means: grass 0.725, walls 0.4, water 0.7
    for least, expected in (
        (0.4, LABELS),
        (0.5, [[0, 0, 255, 255], [0, 0, 2, 255]]),
        (0.71, [[0, 0, 255, 255], [0, 0, 255, 255]]),
    ):
        example = load_dataset(register(folder, min_score=least))[1]
        np.testing.assert_array_equal(read_truth(example), expected)


@pytest.mark.parametrize("format", ENDINGS)
def test_pixels_of_low_scores_are_ignored_where_there_are_maps(format: str, tmp_path: Path) -> None:
    folder = write_labelled(tmp_path, format, maps=True)
    example = load_dataset(register(folder, min_score=0.5))[2]
    np.testing.assert_array_equal(read_truth(example), [[0, 0, 255, 1], [0, 255, 2, 255]])


def test_copies_of_pictures_are_found_after_a_move(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "there", source="s3://far/away.tar::0.png",
                            image="photos/1.png")  # fmt: skip
    shutil.move(folder, tmp_path / "here")
    examples = load_dataset(register(tmp_path / "here"))
    assert {e["file_name"] for e in examples} == {str(tmp_path / "here/photos/1.png")}
    np.testing.assert_array_equal(read_truth(examples[0]), LABELS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": "s3://far/1.png"}, "'s3://far/1.png' is no file of this machine; label again"),
        ({"source": "/a.tar::1.png"}, "'/a.tar::1.png' is no file of this machine; label again"),
        ({"image": "../../secret.png"}, "row 000000-000000: image '../../secret.png' lies outside"),
        ({"source": "/none/1.png"}, "/none/1.png is missing, and all others with it; label again"),
        ({"labels": b"x"}, r"row 000000-000000 of .*parquet cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = write_labelled(tmp_path, **changes)
    with pytest.raises(UserError, match=told):
        read_truth(load_dataset(register(folder))[0])


def test_mistakes_in_the_description(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "data")
    with pytest.raises(UserError, match=r"min_score 2 is no number in 0..1"):
        register(folder, min_score=2)
    with pytest.raises(UserError, match="with labelled there is no images; remove images"):
        register(folder, images="photos")
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"has no manifest.json; give the --output of ovseg label"):
        register(folder)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest.json is no manifest of ovseg label"):
        register(folder)


@pytest.mark.slow
def test_a_training_takes_them(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "data", size=16)
    register(folder, min_score=0.5)
    clip = write_clip(tmp_path / "clip.pt")
    train.main(
        ["--config-file", str(CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"),
         "--dataset", str(folder / "dataset.yaml"),
         *tiny_opts(clip, OUTPUT_DIR=tmp_path / "out")]
    )  # fmt: skip
    assert (tmp_path / "out/model_final.pth").is_file()
