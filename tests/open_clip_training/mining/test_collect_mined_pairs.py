"""From captions or label maps to a folder of pairs: what is written, what bad input does."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from open_clip_training import collect_pairs
from open_clip_training.common.processes import Processes
from open_clip_training.mining import collect, sources
from open_clip_training.mining.options import parse_arguments
from ovseg.errors import UserError

FROZEN = ROOT / "tests" / "data" / "stickerscenes"


@pytest.fixture
def no_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions that list their nouns, so that a test needs no spaCy."""
    monkeypatch.setattr(sources, "load_tagger", lambda _: None)
    monkeypatch.setattr(
        sources,
        "nouns_of_captions",
        lambda captions, *_: [caption.split(", ") for caption in captions],
    )


def frozen_scenes(folder: Path, count: int) -> Path:
    """A CSV over frozen scenes, each captioned by its objects; one image broken, one missing."""
    vocabulary = json.loads(
        (ROOT / "ovseg/data/vocabularies/stickerscenes.json").read_text(encoding="utf-8")
    )
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    rows = [("broken.jpg", "cat"), ("missing.jpg", "dog"), ("images/00004.jpg", "")]
    for index in range(count):
        labels = np.array(Image.open(FROZEN / f"annotations/{index:05d}.png"))
        names = [vocabulary[label]["name"] for label in np.unique(labels) if label < 255]
        rows.append((str(FROZEN / f"images/{index:05d}.jpg"), ", ".join(names)))
    table = folder / "captions.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return table


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "pairs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_embedded_model_finds_what_captions_name(
    tmp_path: Path, no_tagger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "IMAGES_A_PART", 3)
    table = frozen_scenes(tmp_path, 8)
    out = tmp_path / "out"
    opts = ["--opts", "MODEL.WEIGHTS", "ovseg://ovseg_tiny.pth", "MODEL.DEVICE", "cpu"]
    command = ["--config-file", "configs/ovseg_tiny.yaml", "--captions", str(table), "--images"]
    command += [str(tmp_path), "--output", str(out), *opts]
    summary = collect_pairs.main(command)
    assert summary is not None
    assert summary["counts"]["unreadable images"] == 2
    assert summary["counts"]["empty captions"] == 1
    assert summary["counts"]["images without nouns"] == 1
    rows = read_table(out)
    assert summary["pairs"] == len(rows) >= 15

    vocabulary = json.loads(Path("ovseg/data/vocabularies/stickerscenes.json").read_text())
    places = {entry["name"]: index for index, entry in enumerate(vocabulary)}
    right = []
    for row in rows:
        labels = np.array(Image.open(FROZEN / "annotations" / f"{Path(row['image_id']).stem}.png"))
        labels = cv2.resize(labels, (160, 160), interpolation=cv2.INTER_NEAREST)
        left, top, right_edge, bottom = map(int, row["box"].split())
        mask, raw, image = (cv2.imread(str(out / row[k])) for k in ("mask", "raw", "image"))
        region = mask[..., 0] > 0
        assert region.any()
        np.testing.assert_array_equal(image[region], raw[region])
        assert (image[~region] == (104, 117, 123)).all()  # BGR of CLIP's mean colour
        truth = labels[top:bottom, left:right_edge] == places[row["noun"]]
        right.append((truth & region).sum() > 0.5 * region.sum())
    assert np.mean(right) > 0.6

    before = {file: file.stat().st_mtime_ns for file in (out / "crops").rglob("*.png")}
    # what gave pairs is not done again; the images that could not be read are tried again
    assert collect_pairs.main(command) == summary
    assert before == {file: file.stat().st_mtime_ns for file in (out / "crops").rglob("*.png")}
    (tmp_path / "broken.jpg").write_bytes((FROZEN / "images/00000.jpg").read_bytes())
    mended = collect_pairs.main(command)
    assert mended is not None
    assert mended["counts"]["unreadable images"] == 1
    assert mended["counts"]["images"] == summary["counts"]["images"]
    with pytest.raises(UserError, match="--min-area"):
        collect_pairs.main([*command[:6], "--min-area", "0.1", *command[6:]])
    (out / "nouns.json").write_text("[[")
    part = out / "parts/00000.json"
    part.rename(tmp_path / part.name)
    with pytest.raises(UserError, match=r"nouns.json cannot be read .*delete it"):
        collect_pairs.main(command)
    table.write_text(table.read_text() + "more.jpg,cat\n")
    with pytest.raises(UserError, match=r"other settings .--captions"):
        collect_pairs.main(command)


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path: Path, no_tagger: None) -> None:
    table = frozen_scenes(tmp_path, 1)
    out = tmp_path / "out"
    command = ["--config-file", "configs/ovseg_tiny.yaml", "--captions", str(table), "--images"]
    command += [str(tmp_path), "--output", str(out)]
    for weights, message in (("", "MODEL.WEIGHTS is empty"), ("gone.pth", "no such file")):
        with pytest.raises(UserError, match=message):
            collect_pairs.main([*command, "--opts", "MODEL.WEIGHTS", weights])
    with pytest.raises(UserError, match="no such file"):
        collect_pairs.main([*command, "--captions", "nowhere.csv"])
    assert not out.exists()  # so the corrected command is not refused


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line for ground truth of the frozen scenes, in parts of three images."""
    monkeypatch.setattr(collect, "IMAGES_A_PART", 3)
    return [
        "--config-file", "configs/ovseg_tiny.yaml", "--ground-truth", "stickerscenes_frozen",
        "--limit", "8", "--format", "webdataset",
    ]  # fmt: skip


def test_processes_and_interruptions_change_nothing(
    labelled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    summary = collect_pairs.main([*labelled, "--output", str(one)])
    options = parse_arguments([*labelled, "--output", str(two)])
    for rank, finished in ((1, False), (0, True)):
        processes = Processes(torch.device("cpu"), rank, 2)
        assert (collect.collect_pairs(options, processes) == summary) == finished
    assert (one / "pairs.csv").read_bytes() == (two / "pairs.csv").read_bytes()
    sheet = "contact_sheet.png"
    assert (one / sheet).read_bytes() == (two / sheet).read_bytes()

    table = (two / "pairs.csv").read_bytes()
    (two / "parts" / "00001.json").unlink()
    (two / "pairs.csv").unlink()
    done: list[int] = []
    collect_part = collect.collect_part
    monkeypatch.setattr(collect, "collect_part", lambda *a: (done.append(a[1]), collect_part(*a)))
    assert collect_pairs.main([*labelled, "--output", str(two)]) == summary
    assert done == [1]
    assert (two / "pairs.csv").read_bytes() == table

    for name, content in (("parts/00001.json", "{}"), ("settings.json", '{"limit"')):
        (two / name).write_text(content)
        with pytest.raises(UserError, match=f"{name} .*delete it"):
            collect_pairs.main([*labelled, "--output", str(two)])


def test_panoptic_labels_of_a_yaml_data_set(tmp_path: Path) -> None:
    """Segments are colours, labels are places in the json's categories; images without one go."""
    for name in ("images", "panoptic"):
        (tmp_path / name).mkdir()
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[:, 15:] = (0, 1, 0)  # red + 256 green + 65536 blue: segment 256
    images, annotations = [], []
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"images/{index}.jpg"), np.full((20, 30, 3), 90, np.uint8))
        if index == 0:
            Image.fromarray(colours).save(tmp_path / "panoptic/0.png")
        images.append({"id": index, "file_name": f"{index}.jpg"})
        segments = [{"id": 256, "category_id": 7}]
        annotations.append(
            {"image_id": index, "file_name": f"{index}.png", "segments_info": segments}
        )
    categories = [{"id": 3, "name": "sky"}, {"id": 7, "name": "boat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    file = tmp_path / "harbour.yaml"
    file.write_text(
        "name: pairs_harbour\nimages: images\nlabels: panoptic\npanoptic_json: panoptic.json\n"
    )
    summary = collect_pairs.main([
        "--config-file", "configs/ovseg_tiny.yaml", "--ground-truth", "pairs_harbour",
        "--output", str(tmp_path / "out"), "--opts", "DATASETS.CUSTOM", str(file),
        "INPUT.MIN_SIZE_TEST", "40",
    ])  # fmt: skip
    assert summary is not None
    assert summary["counts"] == {"images": 2, "unreadable images": 1}
    rows = read_table(tmp_path / "out")
    assert [(row["noun"], row["box"]) for row in rows] == [("boat", "30 0 60 40")]


def test_open_clip_reads_the_pairs(
    labelled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pytest.importorskip("open_clip_train.data")
    summary = collect_pairs.main([*labelled, "--output", str(tmp_path)])
    assert summary is not None
    rows = read_table(tmp_path)
    monkeypatch.chdir(tmp_path)  # its CSV reader takes paths as they stand
    pairs = data.CsvDataset(
        "pairs.csv", np.asarray, "image", "caption", sep=",", tokenizer=lambda texts: texts
    )
    assert len(pairs) == len(rows) == summary["pairs"]
    picture, caption = pairs[5]
    assert caption == rows[5]["caption"] == f"a photo of a {rows[5]['noun']}."
    np.testing.assert_array_equal(picture, cv2.imread(rows[5]["image"])[..., ::-1])

    options = SimpleNamespace(
        val_data="pairs-000000.tar", train_data=None, val_num_samples=len(rows), seed=0,
        batch_size=1, workers=0, world_size=1, train_num_samples=0, dataset_resampled=False,
    )  # fmt: skip
    shards = data.get_wds_dataset(options, np.array, False, tokenizer=lambda text: [text])
    read = [(image[0], text[0]) for image, text in shards.dataloader]
    assert [text for _, text in read] == [row["caption"] for row in rows]
    np.testing.assert_array_equal(read[5][0], picture)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --captions or --ground-truth"),
        (["--ground-truth", "stickerscenes_frozen", "--limit", "0"], "--limit 0"),
        (["--ground-truth", "stickerscenes_frozen", "--min-score", "nan"], "--min-score nan"),
        (["--ground-truth", "nowhere"], "'nowhere' is not registered"),
        (["--captions", "nowhere.json"], "no such file"),
        (
            ["--ground-truth", "stickerscenes_frozen", "--output", f"{__file__}/pairs"],
            r"--output '.*pairs' cannot be written, since '.*\.py' is no folder",
        ),
        (
            ["--ground-truth", "stickerscenes_frozen", "--limit", "2", "--min-area", "0.99"],
            "no pair",
        ),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, tmp_path: Path) -> None:
    common = ["--config-file", "configs/ovseg_tiny.yaml", "--output", str(tmp_path / "out")]
    with pytest.raises(UserError, match=message):
        collect_pairs.main([*common, *arguments])


def test_who_does_the_work_is_no_setting(tmp_path: Path) -> None:
    command = ["--config-file", "configs/ovseg_tiny.yaml", "--ground-truth", "stickerscenes_frozen"]
    found = []
    for processes in (["--num-processes", "1"], ["--num-machines", "2", "--machine-rank", "1"]):
        options = parse_arguments([*command, "--output", str(tmp_path), *processes])
        found.append(collect.settings_of(options, collect.mining_cfg(options)))
    assert found[0] == found[1]
