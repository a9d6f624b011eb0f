"""The Python API: words are checked, sizes and channels are right, nothing foreign comes out."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, write_clip
from torch import Tensor, nn

from ovseg.config import setup_cfg
from ovseg.errors import UserError
from ovseg.predictor import Predictor

CONFIG = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"


class Recorder(nn.Module):
    """Stands for a model: keeps its inputs and answers with given labels and scores of 0.5."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels = labels
        self.inputs: list[dict] = []

    def encode(self, inputs: list[dict]) -> list[str]:
        self.inputs += inputs
        return [f"encoded {place}" for place in range(len(inputs))]

    def segment(self, inputs: dict, encoded: str, **settings: None) -> dict:
        assert encoded.startswith("encoded")
        labels = self.labels[: inputs["height"], : inputs["width"]]
        return {"labels": labels, "scores": torch.full(labels.shape, 0.5).where(labels >= 0, 0)}


def recorder_predictor(labels: Tensor, *opts: str) -> tuple[Predictor, Recorder]:
    model = Recorder(labels)
    return Predictor(setup_cfg(CONFIG, ["MODEL.DEVICE", "cpu", *opts]), model), model


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((90, 60)))


def test_size_and_channels_are_those_of_evaluation(picture: np.ndarray) -> None:
    labels = torch.zeros(60, 90, dtype=torch.int64)
    opts = ("INPUT.MIN_SIZE_TEST", "40", "INPUT.MAX_SIZE_TEST", "50")
    predictor, model = recorder_predictor(labels, *opts)
    prediction = predictor(picture, ["cat", "dog"])
    (given,) = model.inputs
    assert (given["height"], given["width"]) == (60, 90)
    assert prediction.class_names == ["cat", "dog"]
    # the short side would be 40 and the long one 60, which may be 50 at most
    expected = np.asarray(Image.fromarray(picture).resize((50, 33), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(given["image"].numpy(), expected.transpose(2, 0, 1))
    assert prediction.labels.shape == prediction.scores.shape == (60, 90)

    predictor, model = recorder_predictor(labels, *opts, "INPUT.FORMAT", "BGR")
    predictor(picture, ["cat", "dog"])
    swapped = expected.transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(model.inputs[0]["image"].numpy(), swapped)


def test_no_resizing_and_narrow_pictures(picture: np.ndarray) -> None:
    labels = torch.zeros(60, 90, dtype=torch.int64)
    predictor, model = recorder_predictor(labels, "INPUT.MIN_SIZE_TEST", "0")
    predictor(picture, ["cat"])
    assert model.inputs[0]["image"].shape == (3, 60, 90)
    narrow = np.zeros((1, 20000, 3), np.uint8)
    predictor, model = recorder_predictor(torch.zeros(1, 20000, dtype=torch.int64))
    predictor(narrow, ["cat"])
    assert model.inputs[0]["image"].shape == (3, 1, 2560)


def test_every_kind_of_picture_is_the_same_picture(picture: np.ndarray, tmp_path: Path) -> None:
    labels = torch.zeros(60, 90, dtype=torch.int64)
    predictor, model = recorder_predictor(labels)
    Image.fromarray(picture).save(tmp_path / "a.png")
    tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    kinds = [
        picture,
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        Image.fromarray(picture),
        tensor,
        tensor.float() / 255,
    ]
    for kind in kinds:
        np.testing.assert_array_equal(predictor(kind, ["cat"]).image, picture)
    swapped = np.ascontiguousarray(picture[:, :, ::-1])
    np.testing.assert_array_equal(predictor(swapped, ["cat"], bgr=True).image, picture)
    assert all(torch.equal(given["image"], model.inputs[0]["image"]) for given in model.inputs)
    assert len(model.inputs) == len(kinds) + 1


def test_several_pictures_are_batched_in_order(picture: np.ndarray, tmp_path: Path) -> None:
    predictor, model = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    pictures = [picture[: 10 * rows] for rows in range(1, 6)]
    mixed = [*pictures[:2], tmp_path / "broken.jpg", *pictures[2:]]
    calls: list[int] = []
    encode = model.encode
    model.encode = lambda inputs: (calls.append(len(inputs)), encode(inputs))[1]  # type: ignore
    failed: list[tuple[object, str]] = []
    found = list(
        predictor.stream(
            iter(mixed), ["cat"], batch_size=2, on_error=lambda p, e: failed.append((p, str(e)))
        )
    )
    assert [prediction.image.shape[0] for prediction in found] == [10, 20, 30, 40, 50]
    assert calls == [2, 2, 1]
    ((path, reason),) = failed
    assert path == tmp_path / "broken.jpg"
    assert "broken.jpg" in reason
    with pytest.raises(UserError, match=r"broken\.jpg"):
        predictor(mixed, ["cat"])
    assert [p.image.shape[0] for p in predictor(pictures, ["cat"])] == [10, 20, 30, 40, 50]
    encoded = predictor.encode_batch([picture[:10], Image.fromarray(picture[:20])])
    assert [one.image.shape[0] for one in encoded] == [10, 20]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "not None; was the file read?"),
        (5, "not int"),
        (b"\xff\xd8", "not bytes"),
        (io.BytesIO(), "not BytesIO"),
    ],
)
def test_what_is_no_image_is_named(image: Any, message: str) -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    with pytest.raises(ValueError, match=f"image must be a path, .*{re.escape(message)}"):
        predictor(image, ["cat"])
    with pytest.raises(ValueError, match=re.escape(message)):
        predictor.encode_batch(image)


def test_paths_that_are_none() -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    with pytest.raises(UserError, match="input '' is empty"):
        predictor("", ["cat"])
    with pytest.raises(UserError, match=r"input 'https://x/y.jpg' is a URL, and files are read"):
        predictor("https://x/y.jpg", ["cat"])
    with pytest.raises(UserError, match="images is a single image"):
        predictor.encode_batch("photo.jpg")
    with pytest.raises(UserError, match="model '' is empty"):
        Predictor.from_pretrained("")


@pytest.mark.parametrize("value", ["0.1", True, [0.5]])
def test_a_share_is_a_number(value: Any, picture: np.ndarray) -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    with pytest.raises(UserError, match=r"reject .* is no number; give one in 0..1"):
        predictor.encode(picture).segment(["cat"], reject=value)
    with pytest.raises(ValueError, match=r"batch_size .* must be a whole number"):
        list(predictor.stream([picture], ["cat"], batch_size="2"))  # type: ignore[arg-type]


def test_whatever_cannot_be_used_is_passed_over(picture: np.ndarray, tmp_path: Path) -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-400])
    broken = [
        picture.astype(np.float32),
        torch.full((3, 4, 4), 2.0),
        Image.open(tmp_path / "half.jpg"),
        Image.new("RGB", (0, 4)),
    ]
    failed: list[Exception] = []
    found = predictor.stream([*broken, picture], ["cat"], on_error=lambda _, e: failed.append(e))
    assert [prediction.image.shape for prediction in found] == [picture.shape]
    assert [type(error) for error in failed] == [ValueError, ValueError, UserError, ValueError]
    assert "truncated" in str(failed[2])
    assert "0 x 4 pixels" in str(failed[3])


def test_an_array_that_is_written_into_again_is_several_pictures(picture: np.ndarray) -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    buffer = np.zeros_like(picture)

    def frames():
        for value in (0, 80, 160, 255):
            buffer[:] = value
            yield buffer

    for bgr in (False, True):
        found = list(predictor.stream(frames(), ["cat"], bgr=bgr))
        assert [int(prediction.image.mean()) for prediction in found] == [0, 80, 160, 255]
    (one,) = predictor([buffer], ["cat"])
    buffer[:] = 7
    assert one.image.mean() == 255


def test_wrong_class_names_are_told_before_the_image_is_encoded(picture: np.ndarray) -> None:
    predictor, model = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    with pytest.raises(UserError, match="'cat' is given twice"):
        predictor(picture, ["cat", "cat"])
    assert not model.inputs
    first, second = (predictor(picture, ["cat"]) for _ in range(2))
    assert first != second
    assert first in [second, first]


def test_a_stream_of_a_single_image_is_refused(picture: np.ndarray, tmp_path: Path) -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    for image in ("photo.jpg", tmp_path / "photo.jpg", picture, Image.fromarray(picture)):
        with pytest.raises(UserError, match=r"images is a single image; give a list: \[image\]"):
            list(predictor.stream(image, ["cat"]))


def test_a_stream_reads_no_further_than_it_must(picture: np.ndarray) -> None:
    predictor, _ = recorder_predictor(torch.zeros(60, 90, dtype=torch.int64))
    taken: list[int] = []

    def endless():
        while True:
            taken.append(1)
            yield picture

    stream = predictor.stream(endless(), ["cat"])
    next(stream)
    next(stream)
    assert len(taken) <= 4
    stream.close()


@pytest.fixture(scope="module")
def real(small_config, small_model) -> Predictor:
    opts = ("INPUT.MIN_SIZE_TEST", "60")
    return Predictor(small_config(*opts), small_model(*opts))


def test_probabilities_and_proposals_on_request(real: Predictor, picture: np.ndarray) -> None:
    encoded = real.encode(picture)
    names = {"animal": ["cat", "dog"], "grass": "grass"}
    plain = encoded.segment(names)
    assert plain.class_probs is None
    assert plain.proposals is None
    assert plain.class_names == ["animal", "grass"]
    full = encoded.segment(names, class_probs=True, proposals=True)
    assert full.class_probs is not None
    assert full.class_probs.shape == (2, 60, 90)
    assert (full.class_probs.argmax(axis=0) == plain.labels).mean() > 0.999
    assert full.class_probs.sum(axis=0).max() <= 1 + 1e-5
    proposals = full.proposals
    assert proposals is not None
    queries = len(proposals.masks)
    assert proposals.masks.shape == (queries, 60, 90)
    # of the published words' probabilities each class has its best word's
    words = encoded.segment(["cat", "dog", "grass"], proposals=True).proposals
    for ours, theirs in (
        (proposals.maskformer_probs, words.maskformer_probs),
        (proposals.clip_probs, words.clip_probs),
    ):
        expected = np.stack([theirs[:, :2].max(axis=1), theirs[:, 2]], axis=1)
        np.testing.assert_allclose(ours, expected)
    valid = (proposals.masks > real.model.mask_threshold).any(axis=(1, 2))
    np.testing.assert_array_equal(np.isnan(proposals.clip_probs[:, 0]), ~valid)


def test_a_single_class_leaves_room_for_others(real: Predictor, picture: np.ndarray) -> None:
    prediction = real.encode(picture).segment(["cat"], class_probs=True)
    probs = prediction.class_probs
    assert probs.shape == (1, 60, 90)
    assert ((probs[0] > 0.5) == (prediction.labels == 0))[abs(probs[0] - 0.5) > 1e-4].all()
    assert (prediction.scores[prediction.labels < 0] == 0).all()


DEMO = "ovseg_swinB_vitL_demo.yaml"
VIEWS = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "48")


@pytest.mark.parametrize(
    ("base", "more"), [(CONFIG.name, ()), (DEMO, ()), (CONFIG.name, VIEWS)],
    ids=["soft", "best", "tiles"],
)  # fmt: skip
def test_weight_and_threshold_are_those_of_a_config(
    small_config, small_model, picture: np.ndarray, base: str, more: tuple[str, ...]
) -> None:
    adapter = "MODEL.CLIP_ADAPTER."

    def predictor(weight: float, threshold: float) -> Predictor:
        opts = (
            "INPUT.MIN_SIZE_TEST", "60", f"{adapter}CLIP_ENSEMBLE_WEIGHT", str(weight),
            f"{adapter}MASK_THR", str(threshold), *more,
        )  # fmt: skip
        return Predictor(small_config(*opts, base=base), small_model(*opts, base=base))

    names = ["cat", "dog", "grass", "sky"]
    encoded = predictor(0.7, 0.4).encode(picture)
    plain = encoded.segment(names)
    changed = []
    for weight, threshold in ((0.7, 0.4), (0.2, 0.4), (0.0, 0.4), (0.7, 0.52), (0.3, 0.52)):
        expected = predictor(weight, threshold)(picture, names)
        for _ in range(2):  # the second time its crops' features are there
            found = encoded.segment(names, ensemble_weight=weight, mask_threshold=threshold)
            np.testing.assert_array_equal(found.labels, expected.labels)
            np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
        changed.append(not np.allclose(found.scores, plain.scores, rtol=1e-4))
    assert changed == [False, True, True, True, True]
    np.testing.assert_array_equal(encoded.segment(names).scores, plain.scores)


def test_proposals_of_another_threshold(real: Predictor, picture: np.ndarray) -> None:
    encoded = real.encode(picture)
    # between the peaks of the masks, so that some of them are valid
    peaks = sorted(encoded.regions.masks.amax(dim=(1, 2)).tolist())
    middle = (peaks[2] + peaks[3]) / 2
    proposals = encoded.segment(["cat", "dog"], proposals=True, mask_threshold=middle).proposals
    assert proposals is not None
    assert proposals.clip_probs is not None
    valid = (proposals.masks > middle).any(axis=(1, 2))
    assert 0 < valid.sum() < len(valid)
    np.testing.assert_array_equal(np.isnan(proposals.clip_probs[:, 0]), ~valid)


@pytest.mark.parametrize("name", ["ensemble_weight", "mask_threshold", "reject"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_weight_threshold_and_reject_have_a_range(
    real: Predictor, picture: np.ndarray, name: str, value: float
) -> None:
    with pytest.raises(UserError, match=rf"{name} .* must be in 0..1"):
        real.encode(picture).segment(["cat"], **{name: value})


def test_a_weight_needs_the_ensemble(small_config, small_model, picture: np.ndarray) -> None:
    opts = ("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "False", "INPUT.MIN_SIZE_TEST", "60")
    encoded = Predictor(small_config(*opts), small_model(*opts)).encode(picture)
    encoded.segment(["cat"], mask_threshold=0.3)
    with pytest.raises(UserError, match="CLIP_ENSEMBLE True"):
        encoded.segment(["cat"], ensemble_weight=0.3)


def test_reject_leaves_pixels_without_a_class(real: Predictor, picture: np.ndarray) -> None:
    encoded = real.encode(picture)
    words = ["cat", "dog", "grass"]
    plain = encoded.segment(words)
    np.testing.assert_array_equal(encoded.segment(words, reject=0).labels, plain.labels)
    # strong enough for a good half of the pixels, by the share that none of these has
    probs = encoded.segment(words, reject=0.5, class_probs=True).class_probs
    assert probs is not None
    none = 1 - probs.sum(axis=0)
    strength = 1 - float(np.quantile(none / (none + probs.max(axis=0)), 0.4))
    some = encoded.segment(words, reject=strength, class_probs=True)
    assert 0.4 < (some.labels == -1).mean() < 0.8
    assert (some.scores[some.labels == -1] == 0).all()
    assert (some.scores[some.labels >= 0] > 0).all()
    assert (some.labels == -1).sum() == some.describe()["no_class"]["pixels"]
    assert some.class_probs is not None
    rest = 1 - some.class_probs.sum(axis=0)
    clear = abs(rest - some.class_probs.max(axis=0)) > 1e-4
    expected = rest > some.class_probs.max(axis=0)
    np.testing.assert_array_equal((some.labels == -1)[clear], expected[clear])
    np.testing.assert_array_equal(real(picture, words, reject=strength).labels, some.labels)
    (listed,) = real([picture], words, reject=strength)
    np.testing.assert_array_equal(listed.labels, some.labels)
    assert (encoded.segment(["cat"], reject=1).labels == -1).all()


def test_threads_get_the_same_answers(real: Predictor, picture: np.ndarray) -> None:
    words = [["cat", "dog"], ["grass"], [["sea", "lake"], "sky"], ["cat", "sky", "tree"]] * 4
    # images of several sizes, and one that several threads segment at once
    images = [picture[place % 3 :, place % 5 :].copy() for place in range(len(words))]
    encoded = real.encode(picture)
    alone = [real(*pair).labels for pair in zip(images, words, strict=True)]
    alone += [encoded.segment(of_one).labels for of_one in words]
    real.model.clip_adapter.text_cache.clear()
    with ThreadPoolExecutor(8) as threads:
        together = [prediction.labels for prediction in threads.map(real, images, words)]
        together += [prediction.labels for prediction in threads.map(encoded.segment, words)]
    for expected, labels in zip(alone, together, strict=True):
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    predictor, _ = recorder_predictor(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="uint8"):
        predictor(image, ["cat"])


def test_weights_are_needed_and_must_be_trained(tmp_path: Path) -> None:
    opts = tiny_opts(write_clip(tmp_path / "clip.pt"))
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS is empty"):
        Predictor(setup_cfg(CONFIG, opts))
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        Predictor(setup_cfg(CONFIG, [*opts, "MODEL.WEIGHTS", "nowhere.pth"]))
    backbone = tmp_path / "backbone.pth"
    torch.save({"model": {"patch_embed.proj.bias": torch.zeros(8)}}, backbone)
    with pytest.raises(UserError, match="no trained OVSeg"):
        Predictor(setup_cfg(CONFIG, [*opts, "MODEL.WEIGHTS", str(backbone)]))
