"""The accuracy on crops in class folders, as those of the released ``ade_gt_150cls_val``."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from adaptation_world import command, history
from clip_pairs import write_clip, write_pairs
from torchvision.datasets import ImageFolder

from open_clip_training.adaptation import zero_shot
from open_clip_training.adaptation.class_folders import ClassFolderCheck, find_crops
from open_clip_training.adaptation.released import FILL
from open_clip_training.common.processes import Processes
from open_clip_training.train import main
from ovseg.data.vocabulary import read_vocabulary
from ovseg.errors import UserError

HERE = Processes(torch.device("cpu"))


def write_folder(root: Path, folders: list[str], crops: int = 1) -> Path:
    """Crops whose upper half is of the grey value of their folder's place, the rest background."""
    for place, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        for index in range(crops):
            crop = np.full((12, 10, 3), FILL[::-1], np.uint8)
            crop[:6] = place
            cv2.imwrite(str(root / name / f"ADE_val_{index:08}.png"), crop)
    return root


class GreyOfRegion(torch.nn.Module):
    """A vision tower that sees the grey value on the region: features are one-hot."""

    image_size = (16, 16)
    mask_prompt_depth = 1

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        # the border's mixed colours are of the region too: the median
        greys = [
            image[0][mask[0] > 0].median().round().long()
            for image, mask in zip(images, masks, strict=True)
        ]
        return torch.nn.functional.one_hot(torch.stack(greys), self.classes).float()


@pytest.fixture
def seen(monkeypatch):
    """The check with a CLIP whose features are the grey values."""

    def run(check: ClassFolderCheck) -> dict[str, float]:
        classes = len(check.names)
        monkeypatch.setattr(zero_shot, "word_features", lambda *_: torch.eye(classes))
        monkeypatch.setattr(zero_shot, "normalise", lambda images, *_: images.float())
        model = torch.nn.Module()
        model.visual = GreyOfRegion(classes)
        return check(model, HERE)

    return run


def test_the_released_folder_has_the_labels_of_its_names(tmp_path, seen):
    folder = write_folder(tmp_path / "ade_gt_150cls_val", [str(label) for label in range(150)])
    # torchvision's order, in which the place of folder 10 is 2
    theirs = ImageFolder(folder)
    assert theirs.classes[:4] == ["0", "1", "10", "100"]
    names = read_vocabulary("ade20k-150").names
    ours = find_crops(folder, names)
    assert [str(path) for path, _ in ours] == [path for path, _ in theirs.samples]
    assert [label for _, label in ours] == [int(theirs.classes[t]) for t in theirs.targets]
    check = ClassFolderCheck(folder, None)
    assert check.names[10] == "cabinet"
    result = seen(check)
    assert (result["accuracy"], result["regions"], result["left_out"]) == (100.0, 150, 0)
    assert result["accuracy_class_mean"] == 100.0
    assert seen(ClassFolderCheck(folder, None, limit=30))["regions"] == 30


def test_other_folders_by_number_by_name_and_by_order(tmp_path, caplog):
    classes = tmp_path / "classes.txt"
    classes.write_text("zebra\nsea\nBlue car\n")
    names = read_vocabulary(str(classes)).names
    numbered = find_crops(write_folder(tmp_path / "a", ["000", "002"]), names)
    assert [label for _, label in numbered] == [0, 2]
    named = find_crops(write_folder(tmp_path / "b", ["blue car", "zebra"]), names)
    assert [(path.parent.name, label) for path, label in named] == [("blue car", 2), ("zebra", 0)]
    assert not caplog.records
    others = find_crops(write_folder(tmp_path / "c", ["n01", "n2", "n11"]), names)
    assert [(path.parent.name, label) for path, label in others] == [
        ("n01", 0), ("n11", 1), ("n2", 2),
    ]  # fmt: skip
    assert "in the order of their names" in caplog.text


@pytest.mark.parametrize(
    ("folders", "classes", "message"),
    [
        (["0", "1", "3"], "classes.txt", r"folder '3' is of no class .* are 0 to 2"),
        (["sea", "zebra", "sky"], "classes.txt", r"folder 'sky' is of no class"),
        (["1", "01"], "classes.txt", r"two of its folders are of one class"),
        ([], "classes.txt", r"has no class folders with images"),
        (["0"], None, r"give its class names by --eval-classes"),
        (["0"], "stickerscene", r"'stickerscene' is neither a file nor a built-in list"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, folders, classes, message):
    (tmp_path / "classes.txt").write_text("zebra\nsea\nblue car\n")
    root = tmp_path / "crops"
    root.mkdir()
    write_folder(root, folders)
    given = str(tmp_path / classes) if classes == "classes.txt" else classes
    with pytest.raises(UserError, match=message):
        ClassFolderCheck(root, given)


def test_crops_that_cannot_be_used_are_counted(tmp_path, seen, caplog):
    folder = write_folder(tmp_path / "ade_gt_150cls_val", ["0", "1", "2"], crops=2)
    (folder / "1/ADE_val_00000000.png").write_bytes(b"noise")
    background = np.full((9, 9, 3), FILL[::-1], np.uint8)
    cv2.imwrite(str(folder / "2/ADE_val_00000001.png"), background)
    result = seen(ClassFolderCheck(folder, None))
    assert (result["accuracy"], result["regions"], result["left_out"]) == (100.0, 4, 2)
    assert "1/ADE_val_00000000.png" in caplog.text


def test_training_is_checked_on_class_folders(tmp_path):
    write_clip(tmp_path / "clip.pt")
    write_pairs(tmp_path / "pairs")
    folder = write_folder(tmp_path / "crops", ["grass", "sea"], crops=3)
    (tmp_path / "classes.txt").write_text("grass\nsea\nred ball\n")
    main(command(tmp_path, tmp_path / "new.pt", "--eval-data", folder, "--eval-classes",
                 tmp_path / "classes.txt", "--train", "both"))  # fmt: skip
    checks = history(tmp_path / "new.pt")["checks"]
    assert [check["step"] for check in checks] == [0, 2, 3]
    assert all(check["regions"] == 6 for check in checks)
    for extra in (("--eval-classes", "x"), ("--eval-data", "dev", "--eval-classes", "x")):
        with pytest.raises(UserError, match="--eval-classes is for"):
            main(command(tmp_path, tmp_path / "other.pt", *extra))
