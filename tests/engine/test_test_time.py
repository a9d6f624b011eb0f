"""Several looks at an image against the average of full score maps, look by look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, tiny_world
from torch import Tensor

from ovseg import OVSeg, UserError
from ovseg.config import setup_cfg
from ovseg.data.datasets import dataset_classes, load_dataset
from ovseg.data.label_maps import read_labels
from ovseg.data.mapper import EvaluationMapper
from ovseg.engine.test_time import MultiViewSegmenter, for_inference, tile_starts
from ovseg.engine.trainer import Trainer
from ovseg.predictor import Predictor
from ovseg.utils.images import read_image

SWIN = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"
WORDS = ["wall", "sky", "traffic light"]
DEMO = "ovseg_swinB_vitL_demo.yaml"
SIZES = [(48, 64), (72, 96), (90, 120)]  # of an image of 60 x 80, shorter sides 48, 72 and 90
Inputs = dict[str, Any]


@pytest.fixture(scope="module")
def model(small_model: Callable[..., OVSeg]) -> OVSeg:
    return small_model()


@pytest.fixture(scope="module")
def inputs(seeded: ModuleType) -> Inputs:
    image = seeded.image(60, 80, 1).to(torch.uint8)
    return {"image": image, "class_names": WORDS, "height": 131, "width": 77}


def scores_of(model: OVSeg, image: Tensor, size: tuple[int, int]) -> Tensor:
    """The model's own score maps of a single look [C, height, width]."""
    look = {"image": image, "class_names": WORDS, "height": size[0], "width": size[1]}
    return model([look])[0]["sem_seg"]


def both_ways(model: OVSeg, image: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Score maps of an image and of its mirror image, turned back.

    One batch, like the code under test: rounding depends on the batch, and a pixel whose rounding
    takes it over the mask threshold is another crop.
    """
    look = {"image": image, "class_names": WORDS, "height": size[0], "width": size[1]}
    plain, mirrored = model([look, {**look, "image": image.flip(-1)}])
    return [plain["sem_seg"], mirrored["sem_seg"].flip(-1)]


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def slid(
    model: OVSeg, image: Tensor, tops: list[int], lefts: list[int], tile: int, flip: bool = False
) -> Tensor:
    """Score maps of an image, averaged where its tiles overlap, and over mirror images."""
    total, count = torch.zeros(len(WORDS), *image.shape[-2:]), torch.zeros(image.shape[-2:])
    for top in tops:
        for left in lefts:
            view = image[:, top : top + tile, left : left + tile]
            size = (view.shape[1], view.shape[2])
            maps = both_ways(model, view, size) if flip else [scores_of(model, view, size)]
            total[:, top : top + tile, left : left + tile] += sum(maps)
            count[top : top + tile, left : left + tile] += len(maps)
    return total / count


def check(looks: MultiViewSegmenter, inputs: Inputs, expected: Tensor) -> None:
    """Scores and labels are those of the score maps ``expected``."""
    with torch.inference_mode():
        scores = looks([inputs])[0]["sem_seg"]
        found = looks([{**inputs, "output": "labels"}])[0]
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["scores"], expected.amax(dim=0), rtol=1e-4, atol=1e-6)
    labels = torch.where(expected.amax(dim=0) > 0, expected.argmax(dim=0), -1)
    assert (found["labels"] == labels).float().mean() > 0.999


@pytest.mark.parametrize("base", ["ovseg_swinB_vitL_bs32_120k.yaml", DEMO])
@pytest.mark.parametrize("flip", [True, False])
def test_sizes_and_mirror_images_are_averaged(
    small_model: Callable[..., OVSeg], inputs: Inputs, base: str, flip: bool
) -> None:
    model = small_model(base=base)
    maps = []
    with torch.inference_mode():
        for size in SIZES:
            image = resized(inputs["image"], size)
            if flip:
                maps += both_ways(model, image, (131, 77))
            else:
                maps.append(scores_of(model, image, (131, 77)))
    looks = MultiViewSegmenter(model, sizes=[48, 72, 200], max_size=120, flip=flip)
    check(looks, inputs, torch.stack(maps).mean(dim=0))
    # the looks are not alike, or an average would show nothing
    assert (maps[0] - maps[-1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("tile", "overlap", "tops", "lefts"),
    [
        (40, 0.5, [0, 20], [0, 20, 40]),
        (48, 2 / 3, [0, 12], [0, 16, 32]),  # the last row of tiles is moved inwards
        (64, 0.0, [0], [0, 16]),  # the image is lower than a tile
        (80, 0.9, [0], [0]),
    ],
)
def test_tiles_are_averaged_where_they_overlap(
    model: OVSeg, inputs: Inputs, tile: int, overlap: float, tops: list[int], lefts: list[int]
) -> None:
    with torch.inference_mode():
        whole = slid(model, inputs["image"], tops, lefts, tile)
    expected = F.interpolate(whole[None], size=(131, 77), mode="bilinear")[0]
    check(MultiViewSegmenter(model, tile=tile, overlap=overlap), inputs, expected)
    own = {name: inputs[name] for name in ("image", "class_names")}
    check(MultiViewSegmenter(model, tile=tile, overlap=overlap), own, whole)


def test_tiles_of_several_sizes_and_their_mirror_images(model: OVSeg, inputs: Inputs) -> None:
    maps = []
    with torch.inference_mode():
        for size, tops, lefts in [((48, 64), [0], [0, 16]), ((72, 96), [0, 24], [0, 24, 48])]:
            image = resized(inputs["image"], size)
            whole = slid(model, image, tops, lefts, 48, flip=True)
            maps.append(F.interpolate(whole[None], size=(131, 77), mode="bilinear")[0])
    looks = MultiViewSegmenter(model, sizes=[48, 72], max_size=200, flip=True, tile=48, overlap=0.5)
    check(looks, inputs, torch.stack(maps).mean(dim=0))


def test_one_word_and_no_valid_mask(small_model: Callable[..., OVSeg], inputs: Inputs) -> None:
    settings = {"sizes": [36, 48], "max_size": 100, "flip": True, "tile": 48, "overlap": 0.0}
    looks = MultiViewSegmenter(small_model(), **settings)  # type: ignore[arg-type]
    one = {**inputs, "class_names": ["dog"]}
    with torch.inference_mode():
        scores = looks([one])[0]["sem_seg"]
        labels = looks([{**one, "output": "labels"}])[0]["labels"]
    assert scores.shape == (2, 131, 77)
    assert torch.equal(labels == 0, scores.argmax(dim=0) == 0)
    clip_alone = ["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", "0.0"]
    nothing = small_model(*clip_alone, "MODEL.CLIP_ADAPTER.MASK_THR", "1.0")
    with torch.inference_mode():
        found = MultiViewSegmenter(nothing, **settings)([{**inputs, "output": "labels"}])[0]  # type: ignore[arg-type]
    assert (found["labels"] == -1).all()
    assert (found["scores"] == 0).all()


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "expected"),
    [
        (640, 224, 2 / 3, [0, 75, 150, 225, 300, 375, 416]),
        (224, 224, 2 / 3, [0]),
        (100, 224, 2 / 3, [0]),
        (225, 224, 2 / 3, [0, 1]),
        (30, 10, 0.0, [0, 10, 20]),
        (31, 10, 0.0, [0, 10, 20, 21]),
        (16, 10, 0.7, [0, 3, 6]),
        (12, 10, 0.99, [0, 1, 2]),
    ],
)
def test_where_tiles_begin(length: int, tile: int, overlap: float, expected: list[int]) -> None:
    assert tile_starts(length, tile, overlap) == expected


def test_given_proposals_are_refused(model: OVSeg, inputs: Inputs) -> None:
    with pytest.raises(UserError, match=r"TEST\.AUG\.ENABLED and TEST\.SLIDING_WINDOW"):
        MultiViewSegmenter(model, flip=True)([{**inputs, "proposals": None}])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tiny_world(tmp_path_factory.mktemp("world"), prefix="looks") as path:
        yield path


def test_everything_that_runs_a_model_follows_the_config(clip: Path, tmp_path: Path) -> None:
    """Evaluation and Predictor agree, and see what the looks of the config see."""
    opts = tiny_opts(
        clip,
        DATASETS__TEST="looks_dev",
        OUTPUT_DIR=tmp_path,
        TEST__AUG__ENABLED=True,
        TEST__AUG__MIN_SIZES=[32, 56],
        TEST__AUG__MAX_SIZE=60,
        TEST__SLIDING_WINDOW=True,
        TEST__SLIDING_TILE_SIZE=40,
        TEST__SLIDING_OVERLAP=0.2,
    )
    cfg = setup_cfg(SWIN, opts)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    words = dataset_classes(["looks_dev"])
    predictor = Predictor(cfg, model)
    right = labelled = 0
    for example in load_dataset("looks_dev"):
        assert EvaluationMapper(cfg, "looks_dev")(example)["image"].shape == (3, 48, 56)
        picture = read_image(example["file_name"])
        labels = predictor(picture, words).labels
        truth = read_labels(example["sem_seg_file_name"])
        right += ((labels == truth) & (truth != 255)).sum()
        labelled += (truth != 255).sum()
    assert Trainer.test(cfg, model)["sem_seg"]["pACC"] == pytest.approx(100 * right / labelled)
    assert not model.training

    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    plain = {"image": image, "class_names": words, "output": "labels"}
    looks = MultiViewSegmenter(model, sizes=[32, 56], max_size=60, flip=True, tile=40, overlap=0.2)
    with torch.inference_mode():
        found = looks([plain])[0]
    np.testing.assert_array_equal(found["labels"].numpy(), labels)
    off = setup_cfg(SWIN, [*opts, "TEST.AUG.ENABLED", "False", "TEST.SLIDING_WINDOW", "False"])
    assert for_inference(off, model) is model
