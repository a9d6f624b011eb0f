"""Class lists, the table of data sets, and its errors."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ovseg.data import datasets, splits
from ovseg.data.splits import Split
from ovseg.data.datasets import (
    class_groups,
    dataset_classes,
    ignore_label,
    load_dataset,
    register_split,
)
from ovseg.data.label_maps import read_labels
from ovseg.data.class_lists import load_class_list
from ovseg.errors import UserError

SIZES = {
    "coco_stuff_171": 171,
    "ade20k_full_847": 847,
    "pascal_context_59": 59,
    "pascal_context_459": 459,
    "pascal_voc_20": 20,
    "stickerscenes": 186,
}
PUBLISHED = {
    "coco_2017_train_stuff_sem_seg": (171, 255, "person", "wood"),
    "ade20k_sem_seg_val": (150, 255, "wall", "flag"),
    "ade20k_full_sem_seg_val": (847, 65535, "wall", None),
    "pascal_context_59_sem_seg_val": (59, 255, "aeroplane", None),
    "pascal_context_459_sem_seg_val": (459, 65535, "accordion", None),
    "pascalvoc20_sem_seg_val": (20, 255, "aeroplane", "tvmonitor"),
    "coco_2017_val_stuff_sem_seg": (171, 255, "person", "wood"),
    "ade20k_sem_seg_train": (150, 255, "wall", "flag"),
    "ade20k_full_sem_seg_train": (847, 65535, "wall", None),
    "pascal_context_59_sem_seg_train": (59, 255, "aeroplane", None),
    "pascal_context_459_sem_seg_train": (459, 65535, "accordion", None),
    "pascalvoc20_sem_seg_train": (20, 255, "aeroplane", "tvmonitor"),
}


@pytest.fixture
def own_split(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Split]:
    """A registered data set of a name of its own, its folders not made yet."""
    split = Split(f"own_{request.node.name}", "pictures", "maps", "pascal_voc_20", image_ext="png")
    register_split(split, tmp_path)
    yield split
    DatasetCatalog.remove(split.name)
    MetadataCatalog.remove(split.name)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_vocabulary_has_unambiguous_names(name: str, size: int) -> None:
    vocabulary = load_class_list(name)
    assert len(vocabulary) == size
    assert len(set(vocabulary.names)) == size
    assert all(text == text.strip() != "" for text in vocabulary.names)


def test_vocabularies_keep_commas_and_source_ids() -> None:
    ade = load_class_list("ade20k_full_847")
    assert "building, edifice" in ade.names
    assert "edifice" not in ade.names
    assert ade.source_ids[0] == 2978
    coco = load_class_list("coco_stuff_171")
    # category ids run to 182 and leave gaps
    assert (coco.source_ids[0], coco.source_ids[-1]) == (1, 182)


def test_unknown_vocabulary_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'voc'.*pascal_voc_20"):
        load_class_list("voc")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_data_sets_are_registered(name: str) -> None:
    size, ignored, first, last = PUBLISHED[name]
    metadata = MetadataCatalog.get(name)
    assert name in DatasetCatalog.list()
    assert len(metadata.stuff_classes) == size
    assert metadata.ignore_label == ignored
    assert ignore_label(name) == ignored
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.stuff_classes[0] == first
    if last is not None:
        assert metadata.stuff_classes[-1] == last


def test_stickerscenes_groups_cover_the_classes_once() -> None:
    full = class_groups("stickerscenes_test")
    assert {name: len(labels) for name, labels in full.items()} == {
        "seen": 126,
        "stuff": 18,
        "unseen": 42,
    }
    assert sorted(label for labels in full.values() for label in labels) == list(range(186))
    assert "unseen" not in class_groups("stickerscenes_train")
    assert class_groups("pascalvoc20_sem_seg_val") == {}
    train = MetadataCatalog.get("stickerscenes_train")
    assert train.stuff_classes == MetadataCatalog.get("stickerscenes_dev").stuff_classes[:144]


def test_data_sets_of_others_need_not_say_what_is_ignored() -> None:
    MetadataCatalog.get("somebody's").set(stuff_classes=["cat", "dog"])
    try:
        assert ignore_label("somebody's") == 255
        assert ignore_label("somebody's", default=65535) == 65535
        assert class_groups("somebody's") == {}
    finally:
        MetadataCatalog.remove("somebody's")


def write_maps(folder: Path, stems: str) -> None:
    folder.mkdir(parents=True)
    for stem in stems:
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / f"{stem}.png")


def stems_of(name: str, unpaired: bool) -> str:
    examples = load_dataset(name, unpaired)
    for example in examples:
        assert Path(example["file_name"]).stem == Path(example["sem_seg_file_name"]).stem
    return "".join(Path(example["file_name"]).stem for example in examples)


def test_files_are_paired_by_name(
    own_split: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_maps(tmp_path / "pictures", "cab")
    write_maps(tmp_path / "maps", "bdc")
    assert stems_of(own_split.name, unpaired=False) == "bc"
    assert "2 files have no counterpart and are left out, a first" in caplog.text
    # an evaluation meets what is missing
    assert stems_of(own_split.name, unpaired=True) == "abcd"
    shared = datasets._Files(
        dataclasses.replace(own_split, images_shared=True), tmp_path / "pictures", tmp_path / "maps"
    )
    assert [Path(e["file_name"]).stem for e in shared(unpaired=True)] == ["b", "c", "d"]


def test_detectron2s_ade20k_is_paired_by_name(tmp_path: Path) -> None:
    split = splits.ADE20K[1]
    write_maps(tmp_path / "maps", "ac")
    (tmp_path / "images").mkdir()
    for stem in "bc":  # as many as label maps
        (tmp_path / f"images/{stem}.jpg").touch()
    files = datasets._Files(split, tmp_path / "images", tmp_path / "maps")
    assert [Path(e["sem_seg_file_name"]).name for e in files()] == ["c.png"]
    registered = datasets._PAIRED_BY_NAME[DatasetCatalog[split.name]]
    assert isinstance(registered, datasets._Files)
    assert str(registered.images) == str(Path(MetadataCatalog.get(split.name).image_root))
    assert str(registered.labels) == str(Path(MetadataCatalog.get(split.name).sem_seg_root))
    with pytest.raises(UserError, match=r"is missing; .*prepare_ade20k_sem_seg\.py"):
        datasets._Files(split, tmp_path / "nowhere", tmp_path / "maps")()


def test_missing_folder_is_named(own_split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own_.*pictures is missing.*DETECTRON2_DATASETS"):
        load_dataset(own_split.name)
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match=r"no \.png files in .*pictures"):
        load_dataset(own_split.name)


def test_missing_stickerscenes_name_the_script(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images/dev is missing; .*prepare_stickerscenes\.py"):
        datasets._Files(
            splits.find_split("stickerscenes_dev"),
            tmp_path / "stickerscenes/images/dev",
            tmp_path / "stickerscenes/annotations/dev",
        )()


def test_detectron2s_own_data_set_missing(tmp_path: Path) -> None:
    DatasetCatalog.register("gone", lambda: list((tmp_path / "nowhere").iterdir()))
    try:
        with pytest.raises(UserError, match=r"data set gone: .*nowhere is missing"):
            load_dataset("gone")
    finally:
        DatasetCatalog.remove("gone")


def test_unknown_data_set_suggests() -> None:
    with pytest.raises(UserError, match=r"stickerscenes_tst.*stickerscenes_test"):
        load_dataset("stickerscenes_tst")


def test_classes_of_mixed_data_sets_must_agree() -> None:
    same = dataset_classes(["stickerscenes_dev", "stickerscenes_test"])
    assert len(same) == 186
    with pytest.raises(UserError, match="different classes"):
        dataset_classes(["stickerscenes_train", "stickerscenes_test"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_labels_returns_stored_values(tmp_path: Path, dtype: type, suffix: str) -> None:
    values = np.array([[0, 1, 2], [np.iinfo(dtype).max, 7, 200]], dtype=dtype)
    Image.fromarray(values).save(tmp_path / f"map.{suffix}")
    np.testing.assert_array_equal(read_labels(tmp_path / f"map.{suffix}"), values)


def test_read_labels_of_a_palette_image_gives_indices(tmp_path: Path) -> None:
    values = np.array([[0, 1], [1, 255]], dtype=np.uint8)
    picture = Image.fromarray(values).convert("P")
    picture.putpalette([k % 256 for k in range(3 * 256)][::-1])
    picture.putdata(values.ravel().tolist())
    picture.save(tmp_path / "map.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "map.png"), values)


def test_read_labels_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.png is missing"):
        read_labels(tmp_path / "no.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(UserError, match=r"broken\.png cannot be read"):
        read_labels(tmp_path / "broken.png")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(UserError, match=r"rgb\.png has 3 channels"):
        read_labels(tmp_path / "rgb.png")


def test_names_are_known_without_detectron2() -> None:
    # all that a fresh process registers, detectron2's own among them
    code = "from detectron2.data import DatasetCatalog as c, datasets; import ovseg.data.datasets"
    listed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}; print(*c.list(), sep='\\n')"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert {"stickerscenes_train", "ade20k_sem_seg_val", "coco_2017_val"} <= set(listed)
    splits.check_dataset_names(listed)
    for name, close in (
        ("stickerscenes_trian", "stickerscenes_train"),
        ("coco_2017_train_stuf_sem_seg", "coco_2017_train_stuff_sem_seg"),
        ("ade20k_sem_seg_vall", "ade20k_sem_seg_val"),
    ):
        with pytest.raises(UserError, match=rf"'{name}' is not registered; did you mean .*{close}"):
            splits.check_dataset_names([name])
