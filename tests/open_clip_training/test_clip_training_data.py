"""Mask-noun pairs on their way to CLIP, and the accuracy on ground-truth regions."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import open_clip
import pytest
import torch
from clip_pairs import FILL, random_pairs, write_clip, write_pairs
from detectron2.data import DatasetCatalog, MetadataCatalog

from open_clip_training import train_eval
from open_clip_training.pairs_output import write_shards
from open_clip_training.train_data import BatchOrder, PairImages, augment
from open_clip_training.train_eval import RegionCheck
from open_clip_training.train_pairs import read_pairs
from open_clip_training.train_processes import Processes
from ovseg.modeling.clip import build_clip
from ovseg.modeling.crops import cut_crops

SIZE = (16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


def test_crops_are_those_of_the_segmentation_network(folder):
    pairs = read_pairs(str(folder), masked=True, with_masks=True)
    batch = PairImages(pairs, SIZE, True)[[3, 0]]
    assert batch.valid.tolist() == [True, True]
    for row, index in enumerate((3, 0)):
        pair = random_pairs(4)[index]
        # the mask's box is the whole crop
        crops = cut_crops(
            torch.from_numpy(pair.raw).permute(2, 0, 1), torch.from_numpy(pair.mask)[None].float(),
            size=SIZE, threshold=0.5, fill=FILL,
        )  # fmt: skip
        torch.testing.assert_close(batch.masks[row].float(), crops.masks[0])
        difference = batch.images[row].float() - crops.images[0].clamp(0, 255)
        assert difference.abs().max() <= 0.5
        assert pairs[index].noun == pair.noun


def test_unmasked_crops_keep_their_background(folder):
    def read(masked, with_masks):
        pairs = read_pairs(str(folder), masked=masked, with_masks=with_masks)
        return PairImages(pairs, SIZE, with_masks)[list(range(14))]

    masked, raw, masks = read(True, False), read(False, False), read(True, True)
    outside = (masks.masks == 0).expand(-1, 3, -1, -1)
    assert raw.images[outside].float().mean() > 230  # white
    assert masked.images[outside].float().mean() < 150  # filled
    assert (masked.masks == 1).all()


def test_a_table_with_the_mark_of_a_spreadsheet(folder):
    plain = read_pairs(str(folder), masked=True, with_masks=True)
    table = folder / "marked.csv"
    table.write_text((folder / "pairs.csv").read_text(), encoding="utf-8-sig")
    assert read_pairs(str(table), masked=True, with_masks=True) == plain


def test_a_crop_that_is_all_background_is_left_out_without_masks_too(tmp_path):
    write_pairs(tmp_path)
    for index, name in ((2, "0_2.png"), (3, "0_3.png")):
        picture = cv2.imread(str(tmp_path / "crops" / name))
        picture[:] = FILL[::-1]
        cv2.imwrite(str(tmp_path / "crops" / name), picture)
        if index == 2:  # of crop 3 the mask says that it is a region of the fill's colour
            cv2.imwrite(str(tmp_path / "crops/0_2_mask.png"), np.zeros(picture.shape[:2], np.uint8))
    with (tmp_path / "pairs.csv").open(newline="") as file:
        write_shards(tmp_path, list(csv.DictReader(file)), size=8)
    for source in (tmp_path, tmp_path / "*.tar"):
        images = PairImages(read_pairs(str(source), masked=True, with_masks=False), SIZE, False)
        assert images[[1, 2, 3]].valid.tolist() == [True, False, True]
        raw = PairImages(read_pairs(str(source), masked=False, with_masks=False), SIZE, False)
        assert raw[[1, 2, 3]].valid.all()


@pytest.mark.parametrize("in_memory", [True, False])
def test_shards_hold_the_same_pairs_as_the_table(folder, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr("open_clip_training.train_data.CACHE_BYTES", 0)
    sources = (str(folder / "pairs.csv"), str(folder / "pairs-*.tar"))
    for masked in (True, False):
        table, shards = (read_pairs(s, masked=masked, with_masks=True) for s in sources)
        assert [pair.noun for pair in table] == [pair.noun for pair in shards]
        one, other = PairImages(table, SIZE, True), PairImages(shards, SIZE, True)
        assert one.cached == in_memory
        for _ in range(2):  # the second time from memory
            left, right = one[[5, 1, 13]], other[[5, 1, 13]]
            assert torch.equal(left.images, right.images)
            assert torch.equal(left.masks, right.masks)


def test_open_clips_own_reader_takes_the_table(folder, monkeypatch):
    data = pytest.importorskip("open_clip_train.data", reason="needs pandas and webdataset")
    monkeypatch.chdir(folder)  # paths in the table are relative to it
    transform = open_clip.image_transform(16, is_train=False)
    dataset = data.CsvDataset(
        "pairs.csv", transform, "image", "caption", ",", open_clip.SimpleTokenizer()
    )
    assert len(dataset) == 14
    image, tokens = dataset[1]
    assert image.shape == (3, 16, 16)
    assert torch.equal(tokens, open_clip.tokenize(["a photo of a grass."])[0])


def test_open_clips_own_reader_takes_the_shards(folder):
    data = pytest.importorskip("open_clip_train.data", reason="needs pandas and webdataset")
    from open_clip_train.params import parse_args

    shards = str(folder / "pairs-{000000..000001}.tar")
    args = parse_args(["--train-data", shards, "--train-num-samples", "14", "--batch-size", "2",
                       "--workers", "0", "--dataset-type", "webdataset"])  # fmt: skip
    args.world_size = 1
    transform = open_clip.image_transform(16, is_train=False)
    loader = data.get_wds_dataset(
        args, transform, is_train=True, tokenizer=open_clip.SimpleTokenizer()
    ).dataloader
    batches = list(loader)
    assert len(batches) == 7
    tokens = torch.cat([texts for _, texts in batches])
    known = {noun: open_clip.tokenize([f"a photo of a {noun}."])[0] for noun in ("sea", "red ball")}
    # 14 pairs, the nouns in turn: five red balls, four seas
    found = {noun: int((tokens == row).all(dim=1).sum()) for noun, row in known.items()}
    assert found == {"sea": 4, "red ball": 5}


def test_processes_share_every_batch_and_resuming_keeps_its_order():
    whole = list(BatchOrder(11, 4, 6, seed=3))
    parts = [list(BatchOrder(11, 4, 6, seed=3, rank=rank, world=2)) for rank in range(2)]
    assert [left + right for left, right in zip(*parts, strict=True)] == whole
    assert list(BatchOrder(11, 4, 6, seed=3, first_step=4)) == whole[4:]
    for epoch in range(3):
        assert len({*whole[2 * epoch], *whole[2 * epoch + 1]}) == 8
    assert whole[:2] != whole[2:4]


def test_picture_and_mask_are_changed_alike():
    y, x = np.mgrid[:32, :32]
    mask = torch.from_numpy(((x > 18) | (y < 9)).astype(np.uint8))[None, None].expand(4, 1, -1, -1)
    images = (255 * mask).expand(-1, 3, -1, -1)
    draws = torch.tensor([[1, 0.9, 0.5, 0.5], [1, 0.1, 0.5, 0.5], [0, 0.9, 0, 1], [0, 0.9, 1, 0]])
    changed, masks = augment(images, mask, draws)
    torch.testing.assert_close(changed[0], images[0].float(), atol=0.01, rtol=0)
    torch.testing.assert_close(changed[1], images[1].float().flip(-1), atol=0.01, rtol=0)
    assert ((changed[:, :1] > 127) == (masks > 0.5)).float().mean() > 0.995
    # shifted to opposite corners, and both zoomed in
    assert not torch.equal(masks[2], masks[3])
    assert masks.unique().tolist() == [0, 1]


@pytest.fixture
def patches(tmp_path):
    """A registered data set of two pictures: red over green, and blue with a red speck."""
    red, green, blue = (220, 0, 0), (0, 220, 0), (0, 0, 220)
    pictures = [np.zeros((40, 30, 3), np.uint8) for _ in range(2)]
    labels = [np.full((40, 30), 255, np.uint8) for _ in range(2)]
    pictures[0][:20], labels[0][:20] = red, 0
    pictures[0][20:], labels[0][20:] = green, 1
    pictures[1][:], labels[1][:] = blue, 2
    pictures[1][:4, :4], labels[1][:4, :4] = red, 0  # 16 pixels: too small to count
    pictures[1][30:], labels[1][30:] = red, 1  # red, called green
    records = []
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture[..., ::-1])
        cv2.imwrite(str(tmp_path / f"{index}_labels.png"), label)
        records.append({"file_name": str(tmp_path / f"{index}.png"),
                        "sem_seg_file_name": str(tmp_path / f"{index}_labels.png")})  # fmt: skip
    DatasetCatalog.register("patches", lambda: records)
    MetadataCatalog.get("patches").set(
        stuff_classes=["red", "green", "blue"],
        ignore_label=255,
        class_groups={"seen": [0, 1], "unseen": [2]},
    )
    yield records
    DatasetCatalog.remove("patches")
    MetadataCatalog.remove("patches")


class MeanColour(torch.nn.Module):
    """A vision tower whose features are the crop's mean colour on the region."""

    image_size = SIZE
    mask_prompt_depth = 1

    def forward(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return (images * masks).flatten(2).sum(-1) / masks.flatten(2).sum(-1)


def test_accuracy_counts_regions_by_hand(patches, monkeypatch, caplog):
    monkeypatch.setattr(train_eval, "word_features", lambda *_: torch.eye(3))
    model = torch.nn.Module()
    model.visual = MeanColour()
    here = Processes(torch.device("cpu"))
    # regions: red and green of the first, blue and "green" (which is red) of the second
    assert RegionCheck("patches")(model, here) == {
        "accuracy": 75.0,
        "accuracy_class_mean": 83.33,
        "accuracy_seen": 66.67,
        "accuracy_unseen": 100.0,
        "regions": 4,
        "left_out": 0,
    }
    assert RegionCheck("patches", limit=1)(model, here)["regions"] == 2
    patches[0]["file_name"] += ".gone"
    result = RegionCheck("patches")(model, here)
    assert (result["accuracy"], result["left_out"]) == (50.0, 1)
    assert ".gone" in caplog.text


def test_accuracy_on_a_data_set_of_ones_own(patches, tmp_path, monkeypatch):
    monkeypatch.setattr(train_eval, "word_features", lambda *_: torch.eye(3))
    model = torch.nn.Module()
    model.visual = MeanColour()
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for index in range(2):
        (tmp_path / f"{index}.png").rename(tmp_path / f"images/{index}.png")
        (tmp_path / f"{index}_labels.png").rename(tmp_path / f"labels/{index}.png")
    file = tmp_path / "own.yaml"
    file.write_text("name: own_patches\nimages: images\nlabels: labels\nimage_ext: png\n"
                    "classes: [red, green, blue]\n")  # fmt: skip
    result = RegionCheck(str(file))(model, Processes(torch.device("cpu")))
    assert (result["accuracy"], result["regions"]) == (75.0, 4)


def test_accuracy_is_the_same_as_open_clips_encoders_give(patches, tmp_path):
    clip = build_clip(str(write_clip(tmp_path / "clip.pt")), "", 0).eval()
    result = RegionCheck("patches")(clip, Processes(torch.device("cpu")))
    hits = 0
    for record, label, rows in ((0, 0, slice(0, 20)), (0, 1, slice(20, 40)), (1, 1, slice(30, 40))):
        picture = cv2.imread(patches[record]["file_name"])[rows, :, ::-1]
        crop = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
        crop = torch.nn.functional.interpolate(crop, size=SIZE, mode="bicubic")
        mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
        std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
        with torch.no_grad():
            image = clip.encode_image((crop / 255 - mean) / std)
            text = train_eval.word_features(
                clip, ["red", "green", "blue"], train_eval.text_templates("vild", [])
            )
        hits += int((image @ text.T).argmax()) == label
    seen = result["accuracy_seen"]
    assert seen == pytest.approx(100 * hits / 3, abs=0.01)
