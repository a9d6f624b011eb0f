"""From files to what the model takes, checked on hand-made images."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image
from tiny_world import CONFIGS

from ovseg.data.loader import SeededStream, TrainLoader, build_test_loader
from ovseg.data.mapper import EvaluationMapper, TrainingMapper, build_train_augmentation
from ovseg.config import setup_cfg
from ovseg.errors import UserError

SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"
WORDS = ["left", "right", "third"]


def write_pair(folder: Path, image: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / "image.png")
    Image.fromarray(labels).save(folder / "labels.png")
    return {
        "file_name": str(folder / "image.png"),
        "sem_seg_file_name": str(folder / "labels.png"),
    }


def mapper(
    *augmentations: T.Augmentation, divisibility: int = 0, fmt: str = "RGB"
) -> TrainingMapper:
    return TrainingMapper(
        augmentations=augmentations,
        image_format=fmt,
        ignore_label=255,
        size_divisibility=divisibility,
        class_names=WORDS,
    )


def test_words_of_captions_come_with_their_image(tmp_path: Path) -> None:
    labels = np.zeros((2, 3), dtype=np.uint8)
    pair = write_pair(tmp_path, np.zeros((2, 3, 3), np.uint8), labels)
    words = {"image.png": ["polar bear", "snow"], "other.png": ["owl"], "third.png": []}
    assert "caption_words" not in mapper()(pair)
    told = functools.partial(
        TrainingMapper, augmentations=[], image_format="RGB", ignore_label=255,
        size_divisibility=0, class_names=WORDS, other_captions=40,
    )  # fmt: skip
    example = told(caption_words=words)(pair)
    assert example["caption_words"] == ["polar bear", "snow"]
    # of 40 draws those of the image itself are left out
    assert 1 < len(example["other_captions"]) < 40
    assert {tuple(other) for other in example["other_captions"]} == {("owl",), ()}
    example = told(caption_words={})(pair)
    assert example["caption_words"] == example["other_captions"] == []
    cfg = setup_cfg(SWIN, ["INPUT.CAPTION_WORDS", str(tmp_path / "none.json")])
    with pytest.raises(UserError, match=r"none.json cannot be read .*caption_words.py"):
        TrainingMapper(cfg, ["stickerscenes_train"])


def test_masks_of_a_map_that_the_eye_can_check(tmp_path: Path) -> None:
    labels = np.array([[0, 0, 2], [0, 255, 2]], dtype=np.uint8)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    example = mapper(divisibility=4)(write_pair(tmp_path, image, labels))

    assert example["image"].dtype == torch.uint8
    assert example["image"].shape == (3, 4, 4)
    np.testing.assert_array_equal(example["image"][:, :2, :3], image.transpose(2, 0, 1))
    assert (example["image"][:, 2:] == 128).all()
    assert (example["image"][:, :, 3:] == 128).all()
    assert (example["height"], example["width"]) == (2, 3)
    assert example["class_names"] == WORDS
    assert example["instances"].image_size == (4, 4)
    assert example["instances"].gt_classes.tolist() == [0, 2]
    assert example["instances"].gt_classes.dtype == torch.int64
    assert example["instances"].gt_masks.dtype == torch.bool
    assert example["instances"].gt_masks.int().tolist() == [
        [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
        [[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]


def test_padding_goes_to_the_next_multiple(tmp_path: Path) -> None:
    files = write_pair(tmp_path, np.zeros((5, 9, 3), np.uint8), np.zeros((5, 9), np.uint8))
    assert mapper(divisibility=4)(files)["image"].shape == (3, 8, 12)
    assert mapper(divisibility=-1)(files)["image"].shape == (3, 5, 9)


def test_map_without_labelled_pixels_gives_no_instance(tmp_path: Path) -> None:
    files = write_pair(tmp_path, np.zeros((3, 4, 3), np.uint8), np.full((3, 4), 255, np.uint8))
    instances = mapper(divisibility=4)(files)["instances"]
    assert len(instances) == 0
    assert instances.gt_masks.shape == (0, 4, 4)


def test_bgr_swaps_the_channels(tmp_path: Path) -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 200
    files = write_pair(tmp_path, image, np.zeros((2, 2), np.uint8))
    assert mapper(fmt="BGR")(files)["image"][:, 0, 0].tolist() == [0, 0, 200]


def test_image_and_masks_move_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (40, 60)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    image = np.stack([labels * 50] * 3, axis=-1)
    cut = mapper(T.RandomCrop("absolute", (64, 64)), T.RandomFlip(prob=1.0))
    example = cut(write_pair(tmp_path, image, labels))
    masks = example["instances"].gt_masks
    assert masks.shape[1:] == (64, 64)
    assert (masks.sum(0) == 1).all()
    for label, mask in zip(example["instances"].gt_classes.tolist(), masks, strict=True):
        assert (example["image"][0][mask] == 50 * label).all()
    # flipped: some window of the mirrored map is exactly this one
    window = example["image"][0].numpy() // 50
    mirrored = labels[:, ::-1]
    views = np.lib.stride_tricks.sliding_window_view(mirrored, (64, 64))
    assert (views == window).all(axis=(2, 3)).any()


def test_sixteen_bit_maps_are_exact(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [65535, 2]], dtype=np.uint16).repeat(8, 0).repeat(8, 1)
    sixteen = TrainingMapper(
        augmentations=[T.Resize((32, 32))],
        image_format="RGB",
        ignore_label=65535,
        size_divisibility=0,
        class_names=WORDS,
    )
    instances = sixteen(write_pair(tmp_path, np.zeros((16, 16, 3), np.uint8), labels))["instances"]
    assert instances.gt_classes.tolist() == [0, 1, 2]
    assert instances.gt_masks.sum(dim=(1, 2)).tolist() == [256, 256, 256]


def test_the_dataset_dict_stays_as_it_is(tmp_path: Path) -> None:
    files = write_pair(tmp_path, np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.uint8))
    before = dict(files)
    mapper()(files)
    assert files == before


def test_errors_name_the_file(tmp_path: Path) -> None:
    wrong_size = write_pair(
        tmp_path / "a", np.zeros((3, 4, 3), np.uint8), np.zeros((3, 5), np.uint8)
    )
    with pytest.raises(UserError, match=r"labels\.png is 5 x 3 pixels, its image 4 x 3"):
        mapper()(wrong_size)
    outside = write_pair(
        tmp_path / "b", np.zeros((3, 4, 3), np.uint8), np.full((3, 4), 3, np.uint8)
    )
    with pytest.raises(UserError, match=r"labels\.png: label 3 is outside the 3 classes"):
        mapper()(outside)
    Path(outside["file_name"]).write_bytes(Path(outside["file_name"]).read_bytes()[:45])
    with pytest.raises(UserError, match=r"image\.png"):
        mapper()(outside)


def test_augmentation_of_the_published_config() -> None:
    cfg = setup_cfg(SWIN)
    kinds = [type(augmentation).__name__ for augmentation in build_train_augmentation(cfg)]
    assert kinds == [
        "ResizeShortestEdge",
        "RandomCrop_CategoryAreaConstraint",
        "_ColorAugSSD",
        "RandomFlip",
    ]
    train = TrainingMapper(cfg, ["stickerscenes_train"])
    assert len(train.class_names) == 144
    assert train.size_divisibility == 640


def test_category_constraint_avoids_crops_of_one_class(tmp_path: Path) -> None:
    # a thin second class in one corner: free crops mostly miss it
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[:, 40:] = 1
    files = write_pair(tmp_path, np.zeros((64, 64, 3), np.uint8), labels)
    constrained = mapper(T.RandomCrop_CategoryAreaConstraint("absolute", (16, 16), 0.9, 255))
    free = mapper(T.RandomCrop_CategoryAreaConstraint("absolute", (16, 16), 1.0, 255))
    np.random.seed(0)
    both = [len(constrained(files)["instances"]) == 2 for _ in range(40)]
    any_ = [len(free(files)["instances"]) == 2 for _ in range(40)]
    assert sum(both) > sum(any_) + 5


def test_unknown_mapper_is_refused() -> None:
    cfg = setup_cfg(SWIN, ["INPUT.DATASET_MAPPER_NAME", "other"])
    with pytest.raises(UserError, match=r"DATASET_MAPPER_NAME.*'other'.*mask_former_semantic"):
        TrainingMapper(cfg, ["stickerscenes_train"])


def test_evaluation_mapper_resizes_and_asks_for_labels(tmp_path: Path) -> None:
    cfg = setup_cfg(SWIN, ["INPUT.MIN_SIZE_TEST", "32", "INPUT.MAX_SIZE_TEST", "50"])
    files = write_pair(tmp_path, np.zeros((20, 40, 3), np.uint8), np.zeros((20, 40), np.uint8))
    example = EvaluationMapper(cfg, "stickerscenes_test")(files)
    # 32 x 64 would exceed the longest side
    assert example["image"].shape == (3, 25, 50)
    assert (example["height"], example["width"]) == (20, 40)
    assert example["output"] == "labels"
    assert example["meta"] == {"dataset_name": "stickerscenes_test"}
    assert len(example["class_names"]) == 186
    assert example["sem_seg_file_name"] == files["sem_seg_file_name"]


@pytest.fixture
def stream(tmp_path: Path) -> SeededStream:
    rng = np.random.default_rng(1)
    files = [
        write_pair(
            tmp_path / str(index),
            rng.integers(0, 256, (40, 40, 3)).astype(np.uint8),
            rng.integers(0, 3, (40, 40)).astype(np.uint8),
        )
        for index in range(5)
    ]
    cfg = setup_cfg(SWIN, ["INPUT.MIN_SIZE_TRAIN", "(32,36)", "INPUT.CROP.SIZE", "(24,24)"])
    return SeededStream(files, mapper(*build_train_augmentation(cfg), divisibility=24), seed=7)


def batches(stream: SeededStream, start: int, count: int, workers: int = 0) -> list[torch.Tensor]:
    loader = TrainLoader(stream, batch_size=2, num_workers=workers)
    loader.start_iter = start
    iterator = iter(loader)
    return [torch.stack([e["image"] for e in next(iterator)]) for _ in range(count)]


def test_stream_shows_every_image_once_a_pass(stream: SeededStream) -> None:
    first, second = ([stream[5 * k + i]["file_name"] for i in range(5)] for k in (0, 1))
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 5
    assert first != second


def test_batches_depend_on_seed_and_position_alone(stream: SeededStream) -> None:
    straight = batches(stream, 0, 6)
    np.random.seed(123)
    assert all(map(torch.equal, straight, batches(stream, 0, 6)))
    assert all(map(torch.equal, straight[4:], batches(stream, 4, 2)))
    assert all(map(torch.equal, straight, batches(stream, 0, 6, workers=2)))
    # the same image comes back augmented in another way
    assert len({image.numpy().tobytes() for batch in straight for image in batch}) == 12


def test_stream_leaves_global_generators_alone(stream: SeededStream) -> None:
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    stream[0]
    assert np.random.rand() == expected


def test_test_loader_keeps_order_and_batches(stream: SeededStream) -> None:
    examples = [{"n": n} for n in range(5)]
    seen = list(build_test_loader(examples, lambda e: {"n": e["n"] * 10}, batch_size=2))
    assert seen == [[{"n": 0}, {"n": 10}], [{"n": 20}, {"n": 30}], [{"n": 40}]]


def test_batch_size_that_is_no_multiple_is_refused(stream: SeededStream) -> None:
    with pytest.raises(UserError, match=r"IMS_PER_BATCH: 0"):
        TrainLoader(stream, batch_size=0)
