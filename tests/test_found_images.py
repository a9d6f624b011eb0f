"""Inputs of every kind become a list of images."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovseg.errors import UserError
from ovseg.found_images import find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.PNG", "a.jpg", "c[1].png", "notes.txt", ".hidden.png", "sub/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(patterns: list[str]) -> list[str]:
    found = find_images(patterns)
    assert found.errors == []
    return [path.name for path in found.images]


def test_files_folders_and_patterns(folder: Path) -> None:
    assert names([str(folder)]) == ["a.jpg", "b.PNG", "c[1].png"]
    assert names([f"{folder}/*.txt", f"{folder}/a.jpg"]) == ["notes.txt", "a.jpg"]
    assert names([f"{folder}/**/*.png"]) == ["c[1].png", "d.png"]
    assert names([f"{folder}/c[1].png"]) == ["c[1].png"]  # no pattern: there is such a file
    assert names([f"{folder}/a.jpg", str(folder), f"{folder}/sub/../a.jpg"])[:2] == [
        "a.jpg",
        "b.PNG",
    ]


def test_earlier_results_are_no_inputs(folder: Path) -> None:
    for name in ("a_overlay.jpg", "a_labels.png", "a_panoptic.png", "a.json", "z_labels.png"):
        (folder / name).touch()
    assert names([str(folder)]) == ["a.jpg", "b.PNG", "c[1].png", "z_labels.png"]


def test_folders_of_earlier_results_are_no_inputs(folder: Path) -> None:
    # of --save masks,html into the folder itself, and of --save yolo into one inside
    for name in ("b.json", "masks/b/000_dog.png", "html/b.js", "html/b.jpg", "pred/a.json",
                 "pred/yolo/labels/a.txt", "pred/yolo/images/a.jpg"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = find_images([str(folder)], recursive=True).images
    assert [path.name for path in found] == ["a.jpg", "b.PNG", "c[1].png", "d.png"]
    # folders of such names without results beside them are as any others
    (folder / "sub" / "masks").mkdir()
    (folder / "sub" / "masks" / "e.png").touch()
    assert "e.png" in [path.name for path in find_images([str(folder)], recursive=True).images]


def test_labels_of_ovseg_label_are_no_inputs(folder: Path) -> None:
    for name in ("plan.jsonl", "settings.json", "images/000/000000-000000.png"):
        (folder / "sub" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "sub" / name).touch()
    found = find_images([str(folder)], recursive=True).images
    assert [path.name for path in found] == ["a.jpg", "b.PNG", "c[1].png"]
    # unless they are asked for
    assert names([f"{folder}/sub/images/000"]) == ["000000-000000.png"]


def test_an_empty_text_is_not_the_present_folder() -> None:
    with pytest.raises(UserError, match="input '' is empty; give images"):
        find_images([""])


def test_a_name_may_begin_like_a_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for file in (Path("~ball.jpg"), Path("home/tea.jpg")):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert names(["~ball.jpg", "~/tea.jpg"]) == ["~ball.jpg", "tea.jpg"]


def test_what_is_not_found_is_told(folder: Path) -> None:
    (folder / "empty").mkdir()
    found = find_images([f"{folder}/no*.png", f"{folder}/a.jpg", f"{folder}/empty"])
    assert [path.name for path in found.images] == ["a.jpg"]
    errors = found.errors
    assert len(errors) == 2
    assert "no*.png" in errors[0]
    assert "holds no images" in errors[1]
    with pytest.raises(UserError, match="no input"):
        find_images([])


def test_folders_of_a_folder(folder: Path) -> None:
    (folder / "sub" / "deeper").mkdir()
    (folder / "sub" / "deeper" / "a.heic").touch()
    (folder / "sub" / "deeper" / "x.avif").touch()
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "t.png").touch()
    found = find_images([str(folder)], recursive=True)
    relative = [str(path.relative_to(folder)) for path in found.images]
    assert relative == [
        *("a.jpg", "b.PNG", "c[1].png", "sub/d.png", "sub/deeper/a.heic", "sub/deeper/x.avif")
    ]
    (folder / "sub" / "d.png").unlink()
    (error,) = find_images([str(folder / "sub")]).errors
    assert error.endswith("; --recursive looks into its folders")


def test_files_that_are_no_pictures_are_counted(folder: Path) -> None:
    for name in ("README", "b.txt", "c.XMP", "sub/e.txt", "a_overlay.jpg", "a_labels.png"):
        (folder / name).touch()
    (folder / "a.json").touch()  # a result, as the two before it
    assert find_images([str(folder / "a.jpg")]).passed_over() == ""
    found = find_images([str(folder)])
    assert [path.name for path in found.images] == ["a.jpg", "b.PNG", "c[1].png"]
    assert found.passed_over() == "4 other files (txt, without suffix, xmp)"
    assert find_images([str(folder)], recursive=True).others.total() == 5
    (folder / "sub" / "b").mkdir()
    assert find_images([str(folder / "sub")]).passed_over() == "1 other file (txt)"
