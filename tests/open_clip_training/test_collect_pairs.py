"""Mining of mask-noun pairs: who gets which proposal, what is written, what bad input does."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from open_clip_training import collect_pairs, pairs_sources
from open_clip_training.pairs_input import read_captions
from open_clip_training.pairs_mining import Rules, ground_truth, mine
from open_clip_training.pairs_nouns import frequent, load_tagger, nouns_of_captions
from ovseg.errors import UserError
from ovseg.structures import ClipClasses, Regions

FROZEN = ROOT / "tests" / "data" / "stickerscenes"
ANYTHING = Rules(min_area=0.0, min_score=0.0, min_objectness=0.0)


class Proposer:
    """Stands for a trained OVSeg: masks and CLIP's probabilities are given by hand."""

    mask_threshold, mask_expand_ratio = 0.5, 1.0

    def __init__(self, masks: Any, clip: Any, objectness: Any = None) -> None:
        self.masks = torch.tensor(masks, dtype=torch.float32)
        self.clip = torch.tensor(clip, dtype=torch.float32)
        ones = [1.0] * len(self.masks)
        self.objectness = torch.tensor(ones if objectness is None else objectness)[:, None]

    def propose(self, inputs: list[dict[str, Any]]) -> list[Regions]:
        self.words = inputs[0]["class_names"]
        image, text = inputs[0]["image"], torch.zeros(1, 1)
        return [Regions(image, self.words, text, self.masks, self.objectness)]

    def classify(self, regions: Regions) -> ClipClasses:
        valid = (regions.masks > 0.5).flatten(1).any(dim=1)
        return ClipClasses(self.clip[valid], valid)


# a 4 x 6 picture: a cat on the left, a dog on the right, their floor below; one empty proposal
LEFT = [[0, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6, [0] * 6]
RIGHT = [[0] * 6, [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0] * 6]
BELOW = [[0] * 6, [0] * 6, [0] * 6, [1] * 6]
EMPTY = [[0] * 6] * 4
WORDS = ["cat", "dog", "floor", "tree"]
PICTURE = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def test_every_noun_takes_the_proposal_that_fits_it_best() -> None:
    clip = [[0.1, 0.2, 0.6, 0.1], [0.9, 0.9, 0.9, 0.9], [0.2, 0.7, 0.1, 0], [0.8, 0.1, 0.1, 0]]
    model = Proposer([BELOW, EMPTY, RIGHT, LEFT], clip)
    pairs = mine(model, PICTURE, ["dog", "cat", "floor"], WORDS, ANYTHING, Counter())
    assert [(p.noun, round(p.score, 2), p.box) for p in pairs] == [
        ("dog", 0.7, (4, 1, 6, 3)),
        ("cat", 0.8, (0, 0, 2, 2)),
        ("floor", 0.6, (0, 3, 6, 4)),
    ]
    assert model.words == WORDS
    cat = pairs[1]
    np.testing.assert_array_equal(cat.mask, [[False, True], [True, True]])
    np.testing.assert_array_equal(cat.raw, PICTURE[:2, :2])
    expected = PICTURE[:2, :2].copy()
    expected[0, 0] = (1, 2, 3)
    np.testing.assert_array_equal(cat.filled((1, 2, 3)), expected)


def test_a_proposal_serves_one_noun_and_rules_leave_out() -> None:
    # no proposal shows the tree: its best one is the cat's
    clip = [[0.7, 0.1, 0.0, 0.2], [0.1, 0.8, 0.1, 0.0]]
    nouns = ["tree", "cat", "dog"]

    def mined(rules: Rules, objectness: list[float]) -> tuple[list[str], Counter[str]]:
        counts: Counter[str] = Counter()
        pairs = mine(
            Proposer([LEFT, RIGHT], clip, objectness), PICTURE, nouns, WORDS, rules, counts
        )
        return [pair.noun for pair in pairs], counts

    kept, counts = mined(ANYTHING, [1.0, 1.0])
    assert kept == ["cat", "dog"]
    assert counts == {"nouns whose region fits another noun better": 1}
    kept, counts = mined(Rules(0, 0.75, 0), [1.0, 1.0])
    assert kept == ["dog"]
    assert counts["nouns below the minimum score"] == 1
    # without the dog's proposal the cat's is everybody's best
    assert mined(Rules(0, 0, 0.5), [0.9, 0.1])[0] == ["cat"]
    # each covers 3 of 24 pixels
    assert mined(Rules(3 / 24 + 0.01, 0, 0), [1.0, 1.0]) == (
        [],
        {"nouns of images without a usable proposal": 3},
    )


def test_ground_truth_makes_one_pair_a_class() -> None:
    labels = np.array([[0, 0, 255, 7], [1, 0, 255, 255], [1, 1, 1, 255]])
    image = np.random.default_rng(0).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    counts: Counter[str] = Counter()
    pairs = ground_truth(image, labels, ["door, double door", "wall"], 255, ANYTHING, counts, 1.0)
    assert [(p.noun, p.score, p.box) for p in pairs] == [
        ("door, double door", 1.0, (0, 0, 2, 2)),
        ("wall", 1.0, (0, 1, 3, 3)),
    ]
    np.testing.assert_array_equal(pairs[0].mask, [[True, True], [False, True]])
    np.testing.assert_array_equal(pairs[1].raw, image[1:3, :3])
    assert counts == {"unknown labels": 1}
    large = ground_truth(image, labels, ["a", "b"], 255, Rules(0.3, 0, 0), counts, 1.0)
    assert [p.noun for p in large] == ["b"]


def test_captions_of_coco_and_of_a_table(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "x.png"}, {"id": 9, "file_name": "y.png"}]
    texts = [(7, "a"), (7, " "), (7, "b"), (7, "c"), (9, ""), (4, "nobody's")]
    annotations = [{"image_id": i, "caption": text} for i, text in texts]
    (tmp_path / "x.png").touch()
    coco = tmp_path / "c.json"
    coco.write_text(json.dumps({"images": images, "annotations": annotations}))
    table = tmp_path / "c.csv"
    rows = [("x.png", text) for i, text in texts if i == 7] + [("y.png", ""), ("", "nobody's")]
    # with the mark that spreadsheets put before UTF-8
    text = "image,caption\n" + "\n".join(",".join(row) for row in rows) + "\n"
    table.write_text(text, encoding="utf-8-sig")
    upper = tmp_path / "C.JSON"
    upper.write_text(coco.read_text(), encoding="utf-8-sig")
    for source in (coco, upper, table):
        counts: Counter[str] = Counter()
        read = read_captions(source, None, 5, 0, None, counts)
        assert [(item.path.name, item.captions) for item in read] == [
            ("x.png", ("a", "b", "c")),
            ("y.png", ()),
        ]
        wanted = {"images": 2, "empty captions": 2, "captions": 3, "captions without an image": 1}
        assert counts == wanted
    chosen = {read_captions(coco, None, 1, seed, 1, Counter())[0].captions for seed in range(20)}
    assert chosen == {("a",), ("b",), ("c",)}
    assert len({read_captions(coco, None, 2, 3, 1, Counter())[0].captions for _ in "123"}) == 1


def test_captions_that_cannot_be_used(tmp_path: Path) -> None:
    def error(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError) as raised:
            read_captions(tmp_path / name, None, 1, 0, None, Counter())
        return str(raised.value)

    tabs = error("a.csv", "image\tcaption\nx\ty\n")
    assert "lacks the column 'image'; it has 'image\\tcaption' (columns are separated" in tabs
    assert "annotations" in error("a.json", '{"images": []}')
    assert "not what COCO's captions are" in error("b.json", "{")
    number = '{"images": [{"id": 1, "file_name": 1}], "annotations": []}'
    assert "file_name 1 is no text" in error("c.json", number)
    assert "names no image" in error("b.csv", "image,caption\n")
    assert "none of the first 2 images is there" in error("c.csv", "image,caption\nx,a\ny,b\n")
    with pytest.raises(UserError, match="no such file"):
        read_captions(tmp_path / "nowhere.json", None, 1, 0, None, Counter())


def test_nouns_of_captions() -> None:
    pytest.importorskip("spacy", reason="captions are read with the extra 'mining'")
    tagger = load_tagger()
    captions = [
        "A polar bear and a birthday cake on the tiled floor in front of a brick wall.",
        "crocodile",
        "There is a large t-shirt in the scene.",
        "",
        "on the",
        "Two dogs running after a dog, two dogs",
    ]
    nouns = nouns_of_captions(captions, tagger)
    assert nouns[0] == ["bear", "birthday cake", "floor", "brick wall"]
    assert nouns[1:5] == [["crocodile"], ["t-shirt"], [], []]
    assert nouns[5] == ["dogs", "dog"]
    for caption, wanted in {
        "A black and white cat sitting on a chair.": ["cat", "chair"],
        "An old, rusty truck and a large, red bus": ["truck", "bus"],
        "a black, white and brown dog": ["dog"],
        "a close up view of a cat": ["cat"],
        "two photos of a parking lot with lots of cars": ["parking lot", "cars"],
        "a street scene": [],
        "photo": [],
        "the background": [],
        # the tagger takes "hedgehog" for an adjective
        "a hedgehog, garlic and french fries": ["hedgehog", "garlic", "fries"],
    }.items():
        assert nouns_of_captions([caption], tagger) == [wanted]
    with_adjectives = nouns_of_captions(captions[:3], tagger, adjectives=True)
    assert with_adjectives[0] == ["polar bear", "birthday cake", "tiled floor", "brick wall"]
    assert with_adjectives[2] == ["t-shirt"]
    assert frequent(nouns, 1)[:2] == ["bear", "birthday cake"]
    assert frequent([["a", "b"], ["b"]], 2) == ["b"]
    with pytest.raises(UserError, match="xx_none"):
        load_tagger("xx_none")


@pytest.fixture
def no_tagger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions that list their nouns, so that a test needs no spaCy."""
    monkeypatch.setattr(pairs_sources, "load_tagger", lambda _: None)
    monkeypatch.setattr(
        pairs_sources,
        "nouns_of_captions",
        lambda captions, *_: [caption.split(", ") for caption in captions],
    )


def frozen_scenes(folder: Path, count: int) -> Path:
    """A CSV over frozen scenes, each captioned by its objects; one image broken, one missing."""
    vocabulary = json.loads(
        (Path(collect_pairs.__file__).parents[1] / "ovseg/data/vocabularies/stickerscenes.json")
        .read_text(encoding="utf-8")
    )  # fmt: skip
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
    monkeypatch.setattr(collect_pairs, "IMAGES_A_PART", 3)
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
    monkeypatch.setattr(collect_pairs, "IMAGES_A_PART", 3)
    return [
        "--config-file", "configs/ovseg_tiny.yaml", "--ground-truth", "stickerscenes_frozen",
        "--limit", "8", "--format", "webdataset",
    ]  # fmt: skip


def test_processes_and_interruptions_change_nothing(
    labelled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    summary = collect_pairs.main([*labelled, "--output", str(one)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, finished in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        result = collect_pairs.main([*labelled, "--output", str(two)])
        assert (result == summary) == finished
    assert (one / "pairs.csv").read_bytes() == (two / "pairs.csv").read_bytes()
    sheet = "contact_sheet.png"
    assert (one / sheet).read_bytes() == (two / sheet).read_bytes()

    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    table = (two / "pairs.csv").read_bytes()
    (two / "parts" / "00001.json").unlink()
    (two / "pairs.csv").unlink()
    done: list[int] = []
    collect = collect_pairs.collect_part
    monkeypatch.setattr(collect_pairs, "collect_part", lambda *a: (done.append(a[1]), collect(*a)))
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
