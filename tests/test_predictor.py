"""The Python API: words are checked, sizes and channels are right, nothing foreign comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_world import CONFIGS, tiny_opts, write_clip
from torch import Tensor, nn

from ovseg.config import setup_cfg
from ovseg.data.vocabulary import clean_class_names
from ovseg.errors import UserError
from ovseg.predictor import Predictor

CONFIG = CONFIGS / "ovseg_swinB_vitL_bs32_120k.yaml"


class Recorder(nn.Module):
    """Stands for a model: keeps its input and answers with given labels and scores of 0.5."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels = labels
        self.inputs: list[dict] = []

    def forward(self, inputs: list[dict]) -> list[dict]:
        self.inputs += inputs
        return [{"labels": self.labels, "scores": torch.full(self.labels.shape, 0.5)}]


def recorder_predictor(labels: Tensor, *opts: str) -> tuple[Predictor, Recorder]:
    model = Recorder(labels)
    return Predictor(setup_cfg(CONFIG, ["MODEL.DEVICE", "cpu", *opts]), model), model


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((90, 60)))


def test_words_are_stripped_and_keep_their_commas() -> None:
    given = [" cat ", "door,  double door", "Blue\tsky"]
    assert clean_class_names(given) == ["cat", "door, double door", "Blue sky"]
    assert given == [" cat ", "door,  double door", "Blue\tsky"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no class names"),
        (["cat", "  "], "class name 2 of 2 is empty"),
        (["cat", "dog", "Cat "], r"'Cat' is given twice \(positions 1 and 3\)"),
        ("cat", "list of words"),
    ],
)
def test_words_that_cannot_be(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clean_class_names(words)


def test_size_and_channels_are_those_of_evaluation(picture: np.ndarray) -> None:
    labels = torch.zeros(60, 90, dtype=torch.int64)
    opts = ("INPUT.MIN_SIZE_TEST", "40", "INPUT.MAX_SIZE_TEST", "50")
    predictor, model = recorder_predictor(labels, *opts)
    prediction = predictor.predict(picture, ["cat", "dog"])
    (given,) = model.inputs
    assert (given["height"], given["width"], given["class_names"]) == (60, 90, ["cat", "dog"])
    # the short side would be 40 and the long one 60, which may be 50 at most
    expected = np.asarray(Image.fromarray(picture).resize((50, 33), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(given["image"].numpy(), expected.transpose(2, 0, 1))
    assert prediction.labels.shape == prediction.scores.shape == (60, 90)

    predictor, model = recorder_predictor(labels, *opts, "INPUT.FORMAT", "BGR")
    predictor.predict(picture, ["cat", "dog"])
    swapped = expected.transpose(2, 0, 1)[::-1]
    np.testing.assert_array_equal(model.inputs[0]["image"].numpy(), swapped)


def test_no_resizing_and_narrow_pictures(picture: np.ndarray) -> None:
    labels = torch.zeros(60, 90, dtype=torch.int64)
    predictor, model = recorder_predictor(labels, "INPUT.MIN_SIZE_TEST", "0")
    predictor.predict(picture, ["cat"])
    assert model.inputs[0]["image"].shape == (3, 60, 90)
    narrow = np.zeros((1, 20000, 3), np.uint8)
    predictor, model = recorder_predictor(torch.zeros(1, 20000, dtype=torch.int64))
    predictor.predict(narrow, ["cat"])
    assert model.inputs[0]["image"].shape == (3, 1, 2560)


def test_the_internal_word_is_no_class(picture: np.ndarray) -> None:
    labels = torch.zeros(60, 90, dtype=torch.int64)
    labels[:10], labels[10:20] = 1, -1  # 1 is the word that joined "cat"
    words = ["cat"]
    prediction = recorder_predictor(labels)[0].predict(picture, words)
    assert words == prediction.class_names == ["cat"]
    assert prediction.areas() == [40 * 90]
    assert (prediction.labels[:20] == -1).all()
    assert (prediction.scores[:20] == 0).all()
    assert (prediction.scores[20:] == 0.5).all()


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
    ids=["grey", "float", "empty"],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    predictor, _ = recorder_predictor(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="uint8"):
        predictor.predict(image, ["cat"])


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
