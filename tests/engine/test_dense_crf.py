"""The dense CRF: what the package is asked for, and what it makes of a noisy segmentation."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ovseg.engine.dense_crf import DenseCrfSegmenter, dense_crf
from ovseg.engine.test_time import MultiViewSegmenter, for_inference, plain_model
from ovseg.modeling import OVSeg
from ovseg.predictor import Predictor

PICTURE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """What a stand-in for pydensecrf is called with; its answer is the classes in reverse."""
    made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    class Crf:
        def __init__(self, *size: int) -> None:
            made.append(("size", size, {}))

        def setUnaryEnergy(self, unary: np.ndarray) -> None:
            made.append(("unary", (unary,), {}))
            self.unary = unary

        def addPairwiseGaussian(self, **options: Any) -> None:
            made.append(("gaussian", (), options))

        def addPairwiseBilateral(self, **options: Any) -> None:
            made.append(("bilateral", (), options))

        def inference(self, steps: int) -> list[list[float]]:
            made.append(("inference", (steps,), {}))
            return np.exp(-self.unary)[::-1].tolist()

    def unary_from_softmax(probs: np.ndarray) -> np.ndarray:
        return -np.log(probs).reshape(len(probs), -1)

    package = ModuleType("pydensecrf")
    densecrf = SimpleNamespace(DenseCRF2D=Crf, DIAG_KERNEL="diagonal", NORMALIZE_SYMMETRIC="both")
    package.densecrf = densecrf  # type: ignore[attr-defined]
    package.utils = SimpleNamespace(unary_from_softmax=unary_from_softmax)  # type: ignore
    monkeypatch.setitem(sys.modules, "pydensecrf", package)
    return made


def test_the_published_parameters_are_asked_for(calls: list[Any]) -> None:
    scores = torch.rand(3, 5, 7)
    refined = dense_crf(scores, PICTURE[:, ::-1])
    probs = scores.softmax(dim=0)
    kind = {"kernel": "diagonal", "normalization": "both"}
    (size, unary, gaussian, bilateral, inference) = calls
    assert size == ("size", (7, 5, 3), {})
    np.testing.assert_allclose(unary[1][0], -np.log(probs.numpy()).reshape(3, 35), rtol=1e-5)
    assert unary[1][0].flags.c_contiguous
    assert gaussian == ("gaussian", (), {"sxy": (3, 3), "compat": 3, **kind})
    picture = bilateral[2].pop("rgbim")
    np.testing.assert_array_equal(picture, PICTURE[:, ::-1])
    assert picture.flags.c_contiguous
    expected = {"sxy": (80, 80), "srgb": (13, 13, 13), "compat": 10, **kind}
    assert bilateral == ("bilateral", (), expected)
    assert inference == ("inference", (5,), {})
    assert refined.dtype == torch.float32
    torch.testing.assert_close(refined, probs.flip(0))


class Fixed(nn.Module):
    """Gives the same scores for every image, and what else it is told to."""

    def __init__(self, scores: Tensor, **more: object) -> None:
        super().__init__()
        self.scores, self.more = scores, more
        self.eval()

    def encode(self, batched_inputs: list[dict[str, Any]]) -> list[str]:
        return ["encoded" for _ in batched_inputs]

    def segment(self, inputs: dict[str, Any], encoded: str) -> dict[str, Any]:
        assert encoded == "encoded"
        assert inputs["output"] == "scores"
        return {"sem_seg": self.scores, **self.more}


def test_labels_are_those_of_the_refined_scores(calls: list[Any]) -> None:
    scores = torch.rand(3, 5, 7)
    model = DenseCrfSegmenter(Fixed(scores, panoptic_seg="kept")).eval()
    inputs = {"class_names": ["cat", "dog", "sky"], "picture": PICTURE}
    (refined,) = model([inputs])
    expected = scores.softmax(dim=0).flip(0)
    torch.testing.assert_close(refined["sem_seg"], expected)
    (result,) = model([{**inputs, "output": "labels"}])
    assert set(result) == {"labels", "scores", "panoptic_seg"}
    assert torch.equal(result["labels"], expected.argmax(dim=0))
    torch.testing.assert_close(result["scores"], expected.amax(dim=0))


def test_others_are_no_class(calls: list[Any], tmp_path: Path) -> None:
    scores = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]])
    # the picture of an evaluation is read from its file
    Image.fromarray(PICTURE[:1, :2]).save(tmp_path / "a.png")
    inputs = {"class_names": ["cat"], "file_name": str(tmp_path / "a.png"), "output": "labels"}
    (result,) = DenseCrfSegmenter(Fixed(scores)).eval()([inputs])
    # the stand-in turns the classes round
    assert result["labels"].tolist() == [[-1, 0]]
    assert result["scores"][0, 0] == 0
    assert result["scores"][0, 1] > 0.5
    np.testing.assert_array_equal(calls[3][2]["rgbim"], PICTURE[:1, :2])


def test_it_wraps_what_is_used_in_evaluation(small_config, small_model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", ModuleType("pydensecrf"))
    model = small_model()
    assert for_inference(small_config(), model) is model
    refined = for_inference(small_config("TEST.DENSE_CRF", "True"), model)
    assert isinstance(refined, DenseCrfSegmenter)
    assert not refined.training
    opts = ("TEST.DENSE_CRF", "True", "TEST.SLIDING_WINDOW", "True")
    both = for_inference(small_config(*opts), model)
    assert isinstance(both, DenseCrfSegmenter)
    assert isinstance(both.model, MultiViewSegmenter)
    assert plain_model(both) is plain_model(refined) is plain_model(model) is model
    assert isinstance(model, OVSeg)


def test_the_package_cleans_up_along_edges() -> None:
    pytest.importorskip("pydensecrf")
    labels = np.zeros((40, 60), int)
    labels[:, 30:] = 1
    picture = np.where(labels[..., None] == 1, (200, 40, 30), (20, 60, 220)).astype(np.uint8)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(labels.shape) < 0.25, 1 - labels, labels)
    scores = torch.from_numpy(np.eye(2, dtype=np.float32)[noisy]).permute(2, 0, 1)
    assert (scores.argmax(dim=0).numpy() != labels).mean() > 0.2
    refined = dense_crf(scores, picture)
    assert refined.shape == (2, 40, 60)
    torch.testing.assert_close(refined.sum(dim=0), torch.ones(40, 60))
    np.testing.assert_array_equal(refined.argmax(dim=0).numpy(), labels)


def test_a_picture_is_segmented_with_it(small_config, small_model) -> None:
    pytest.importorskip("pydensecrf")
    opts = ("INPUT.MIN_SIZE_TEST", "60", "TEST.DENSE_CRF", "True")
    predictor = Predictor(small_config(*opts), small_model(*opts))
    picture = np.asarray(Image.fromarray(PICTURE).resize((90, 66)))
    encoded = predictor.encode(picture)
    prediction = encoded.segment(["cat", "dog", "sky"], class_probs=True, proposals=True)
    plain = Predictor(small_config(*opts[:2]), predictor.model.model).encode(picture)
    scores = plain.segment(["cat", "dog", "sky"], class_probs=True)
    assert prediction.labels.shape == (66, 90)
    assert prediction.proposals is not None
    assert np.isfinite(prediction.scores).all()
    # probabilities, where the plain model's scores are sums over proposals
    np.testing.assert_allclose(prediction.class_probs.sum(axis=0), 1, atol=1e-5)
    assert (prediction.labels == prediction.class_probs.argmax(axis=0)).mean() > 0.999
    # settings of one call reach the model inside
    other = encoded.segment(["cat", "dog", "sky"], ensemble_weight=0.1, mask_threshold=0.6)
    assert not np.allclose(other.scores, prediction.scores)
    assert not np.allclose(scores.class_probs, prediction.class_probs, atol=1e-3)
