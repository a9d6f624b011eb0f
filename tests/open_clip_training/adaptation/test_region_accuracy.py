"""The accuracy on ground-truth regions."""

from __future__ import annotations

import cv2
import numpy as np
import open_clip
import pytest
import torch
from clip_pairs import write_clip
from detectron2.data import DatasetCatalog, MetadataCatalog

from open_clip_training.adaptation import zero_shot
from open_clip_training.adaptation.region_accuracy import RegionCheck
from open_clip_training.common.processes import Processes
from ovseg.modeling.clip import build_clip

SIZE = (16, 16)


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
    monkeypatch.setattr(zero_shot, "word_features", lambda *_: torch.eye(3))
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
    monkeypatch.setattr(zero_shot, "word_features", lambda *_: torch.eye(3))
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
            text = zero_shot.word_features(
                clip, ["red", "green", "blue"], zero_shot.text_templates("vild", [])
            )
        hits += int((image @ text.T).argmax()) == label
    seen = result["accuracy_seen"]
    assert seen == pytest.approx(100 * hits / 3, abs=0.01)
