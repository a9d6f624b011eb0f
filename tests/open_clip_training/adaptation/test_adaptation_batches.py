"""Mask-noun pairs on their way to CLIP."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest
import torch
from clip_pairs import FILL, random_pairs, write_pairs

from open_clip_training.adaptation.batches import BatchOrder, PairImages, mirror_and_zoom
from open_clip_training.adaptation.options import check_inputs, parse_arguments
from open_clip_training.adaptation.pairs import read_given_pairs, read_pairs
from open_clip_training.mining.folder import write_shards
from ovseg.errors import UserError
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


def test_several_sources_are_taken_together(folder, tmp_path):
    other = write_pairs(tmp_path / "other", count=5)
    given = ["--clip", "ViT-B/16", "--output", str(tmp_path / "clip.pt"), "--train-data"]
    sources = [str(folder), str(other / "pairs-*.tar")]
    options = parse_arguments([*given, *sources])
    check_inputs(options)
    single = [read_pairs(source, masked=True, with_masks=True) for source in sources]
    assert read_given_pairs(options, with_masks=True) == single[0] + single[1]
    assert len(single[0] + single[1]) == 14 + 5
    with pytest.raises(UserError, match=r"--train-data .*nothing is not there"):
        check_inputs(parse_arguments([*given, str(folder), str(tmp_path / "nothing")]))


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
        monkeypatch.setattr("open_clip_training.adaptation.batches.CACHE_BYTES", 0)
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
    changed, masks = mirror_and_zoom(images, mask, draws)
    torch.testing.assert_close(changed[0], images[0].float(), atol=0.01, rtol=0)
    torch.testing.assert_close(changed[1], images[1].float().flip(-1), atol=0.01, rtol=0)
    assert ((changed[:, :1] > 127) == (masks > 0.5)).float().mean() > 0.995
    # shifted to opposite corners, and both zoomed in
    assert not torch.equal(masks[2], masks[3])
    assert masks.unique().tolist() == [0, 1]
    # without mirroring the second is as the first, and the others stay
    plain, plain_masks = mirror_and_zoom(images, mask, draws, mirror=False)
    torch.testing.assert_close(plain[1], images[1].float(), atol=0.01, rtol=0)
    assert torch.equal(plain[[0, 2, 3]], changed[[0, 2, 3]])
    assert torch.equal(plain_masks[[0, 2, 3]], masks[[0, 2, 3]])
