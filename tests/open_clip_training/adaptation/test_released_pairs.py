"""The released mask-category pairs, in their real form: a table, filled crops, no mask files."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from adaptation_world import command, history, weights
from clip_pairs import write_clip

from open_clip_training.adaptation.batches import PairImages
from open_clip_training.adaptation.pairs import StoredPair, read_pairs
from open_clip_training.adaptation.released import FILL, FilledBackground, title_pattern
from open_clip_training.train import main
from ovseg.errors import UserError

COLOURS = {"red ball": (200, 30, 30), "grass": (30, 180, 40), "sea": (20, 60, 220)}
SIZE = (16, 16)


def filled_crop(noun: str, height: int, width: int) -> np.ndarray:
    """RGB, the left half of the noun's colour, the right half background."""
    crop = np.full((height, width, 3), FILL, np.uint8)
    crop[:, : width // 2] = COLOURS[noun]
    return crop


def write_released(
    folder: Path, *, absolute: bool = False, ending: str = "png", titles: str = "a photo of a {}."
) -> Path:
    """``coco_proposal_1cap.csv`` and its crops, 12 of 3 nouns; paths begin with their folder."""
    crops = folder / "coco_proposal_1cap"
    crops.mkdir(parents=True)
    table = folder / "coco_proposal_1cap.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["filepath", "title"])
        for index in range(12):
            noun = list(COLOURS)[index % 3]
            path = crops / f"{index:012}_{index}.{ending}"
            cv2.imwrite(str(path), filled_crop(noun, 20 + index, 32)[..., ::-1])
            place = path if absolute else path.relative_to(folder)
            writer.writerow([place, titles.replace("{}", noun)])
    return table


def read(table: Path, **options: object) -> list[StoredPair]:
    return read_pairs(str(table), masked=True, with_masks=True, **options)


@pytest.mark.parametrize("absolute", [True, False])
def test_nouns_and_masks_of_released_pairs(tmp_path, absolute, monkeypatch):
    table = write_released(tmp_path, absolute=absolute)
    pairs = read(table)
    if absolute:  # the table's own path may be relative
        monkeypatch.chdir(tmp_path.parent)
        assert len(read(Path(tmp_path.name, table.name))) == len(pairs)
    assert [pair.noun for pair in pairs] == list(COLOURS) * 4
    batch = PairImages(pairs, SIZE, with_masks=True)[[0, 4]]
    assert batch.valid.all()
    # 32 columns become 16: bicubic mixes the two colours in one column at the border
    by_hand = torch.zeros(1, 16, 16, dtype=torch.uint8)
    by_hand[:, :, :9] = 1
    assert torch.equal(batch.masks[0], by_hand)
    assert torch.equal(batch.masks[1], by_hand)
    assert batch.images[0, :, 3, 2].tolist() == list(COLOURS["red ball"])
    assert batch.images[0, :, 3, 12].tolist() == list(FILL)
    # for fine-tuning masks do not matter
    assert (PairImages(pairs, SIZE, with_masks=False)[[0]].masks == 1).all()


def test_background_is_exactly_the_fill_or_near_it():
    image = torch.tensor(FILL, dtype=torch.uint8).view(3, 1, 1).repeat(1, 1, 5)
    image[0, 0, 1] += 1  # 125, 116, 103
    image[2, 0, 2] -= 3
    image[:, 0, 3] = 0
    image[:, 0, 4] = 255
    exact, near = FilledBackground().region(image), FilledBackground(tolerance=2).region(image)
    assert exact.tolist() == [[[False, True, True, True, True]]]
    assert near.tolist() == [[[False, False, True, True, True]]]


def test_jpeg_needs_the_tolerance(tmp_path):
    table = write_released(tmp_path, ending="jpg")
    exact = PairImages(read(table), SIZE, True)[[0]].masks[0, 0]
    near = PairImages(read(table, fill_tolerance=12), SIZE, True)[[0]].masks[0, 0]
    assert exact[:, 10:].any() or exact[:, :8].all()
    assert near[:, :8].all()
    assert not near[:, 11:].any()
    assert near.sum() <= exact.sum()


def test_titles_as_they_stand_and_of_other_templates(tmp_path, caplog):
    table = write_released(tmp_path)
    assert read(table, captions="as-is")[1].noun == "a photo of a grass."
    with table.open("a", encoding="utf-8") as file:
        file.write("coco_proposal_1cap/000000000000_0.png\tA photo of an old  zebra\n")
        file.write("coco_proposal_1cap/000000000000_0.png\tzebras at night\n")
        file.write("\ta photo of a nothing.\n")
    assert [pair.noun for pair in read(table)][12:] == ["old zebra", "zebras at night"]
    assert "1 titles are not like" in caplog.text
    assert "left out 1 rows with an empty cell" in caplog.text
    other = write_released(tmp_path / "other", titles="There is {} in the scene")
    assert read(other, captions="There is {} in the scene")[0].noun == "red ball"
    with pytest.raises(UserError, match=r"no title of .* is like that; the first is 'There is red"):
        read(other)


@pytest.mark.parametrize(
    ("title", "noun"),
    [
        ("a photo of a cat.", "cat"),
        ("a photo of an umbrella.", "umbrella"),
        ("A photo of a t.v. set", "t.v. set"),
        ("photo of a cat.", None),
        ("a photo of a .", None),
    ],
)
def test_the_usual_template(title, noun):
    found = title_pattern("a photo of a {}.").fullmatch(title)
    assert (found["noun"] if found else None) == noun


def test_data_root(tmp_path):
    table = write_released(tmp_path / "here")
    moved = tmp_path / "tables" / table.name
    moved.parent.mkdir()
    table.rename(moved)
    with pytest.raises(UserError, match=r"000000000000_0.png is not there.*give --data-root"):
        read(moved)
    assert PairImages(read(moved, data_root=tmp_path / "here"), SIZE, True)[[5]].valid.all()


def test_a_crop_of_background_alone_is_left_out(tmp_path, caplog):
    pairs = read(write_released(tmp_path))
    nothing = np.full((9, 9, 3), FILL, np.uint8)
    cv2.imwrite(pairs[2].image.path, nothing[..., ::-1])
    for with_masks in (True, False):
        assert PairImages(pairs, SIZE, with_masks)[[1, 2]].valid.tolist() == [True, False]
    assert "is all of its background's colour" in caplog.text


@pytest.mark.parametrize("train", ["visual", "mask-prompts"])
def test_released_pairs_train(tmp_path, train):
    table = write_released(tmp_path)
    clip = write_clip(tmp_path / "clip.pt")
    # at first the rows of new prompts are means, of which rounding alone would change the first
    main(command(tmp_path, tmp_path / "new.pt", "--train-data", table, "--train", train,
                 "--steps", 4, "--lr", 1e-2))  # fmt: skip
    before, after = weights(clip), weights(tmp_path / "new.pt")
    changed = {name for name in before if not torch.equal(before[name].half(), after[name])}
    if train == "visual":
        assert {name.split(".")[0] for name in changed} == {"visual"}
    else:
        assert not changed
        assert after["visual.mask_embedding"].any()
    assert history(tmp_path / "new.pt")["nouns"] == 3
    assert history(tmp_path / "new.pt")["pairs_left_out"] == 0


def test_titles_as_they_stand_are_the_texts(tmp_path):
    table = write_released(tmp_path)
    write_clip(tmp_path / "clip.pt")
    main(command(tmp_path, tmp_path / "as_is.pt", "--train-data", table, "--captions", "as-is"))
    main(command(tmp_path, tmp_path / "fixed.pt", "--train-data", table, "--templates",
                 "a photo of a {}."))  # fmt: skip
    as_is, fixed = history(tmp_path / "as_is.pt"), history(tmp_path / "fixed.pt")
    assert as_is["settings"]["templates"] == ["{}"]
    assert as_is["losses"] == pytest.approx(fixed["losses"], abs=1e-6)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--captions", "a photo"), r"--captions 'a photo': give as-is, or a template with {}"),
        (("--captions", "as-is", "--templates", "vild"), r"--templates 'vild': with --captions as"),
        (("--crops", "unmasked"), r"--crops unmasked: .* filled background alone"),
        (("--fill-tolerance", -1), r"--fill-tolerance -1: give 0 to 255"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, extra, message):
    table = write_released(tmp_path)
    write_clip(tmp_path / "clip.pt")
    with pytest.raises(UserError, match=message):
        main(command(tmp_path, tmp_path / "new.pt", "--train-data", table, *extra))
