"""Methods that classify pixels: hand-made cases, losses computed otherwise, whole configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from tiny_world import CONFIGS
from torch import Tensor, nn
from torch.nn import functional as F

from open_clip_training.common.run_state import half_precision
from ovseg import Predictor, UserError
from ovseg.config import setup_cfg
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.comparison import known_methods
from ovseg.engine.trainer import load_model
from ovseg.methods import PixelSegmenter
from ovseg.methods.pixel_classifiers import FixedList, PixelText, SpatialBlock, WordVectors
from ovseg.methods.pixel_heads import FcnPixelHead
from ovseg.methods.pixel_segmenter import label_maps_of, pixel_loss
from ovseg.modeling.seen_classes import SeenClasses
from ovseg.utils.write_checkpoint import write_checkpoint
from ovseg.vocabulary import Vocabulary

WORDS = ["cat", "dog", "sky"]
PIXEL_METHODS = ["deeplabv3plus", "fcn", "lseg", "lsegplus", "spnet", "zs3net"]
SPECIALISTS = ("fcn", "deeplabv3plus")


class Texts(nn.Module):
    """Stands in for CLIP's text tower: a unit vector a word, known by its place."""

    class _Encoder:
        temperature = 100.0

    encoder = _Encoder()
    ORDER = ("cat", "dog", "sky", "owl")

    def __init__(self) -> None:
        super().__init__()
        self.non_object_embedding = nn.Parameter(torch.zeros(1, 4))
        self.vectors = nn.Parameter(torch.eye(4))

    def text_features(self, words: list[str]) -> Tensor:
        rows = [self.vectors[self.ORDER.index(word)] for word in words]
        return torch.stack([*rows, self.non_object_embedding[0]])


def test_a_fixed_list_finds_its_own_classes_alone():
    classifier = FixedList(4, [("cat", "kitten"), ("dog",)])
    features = torch.randn(2, 4, 3, 5)
    own = classifier(features, ["cat", "dog"])
    torch.testing.assert_close(own, classifier.predictor(features))
    other = classifier(features, ["owl", "dog", "kitten"])
    torch.testing.assert_close(other[:, [2, 1]], own)
    assert (other[:, 0] < own.min()).all()
    assert (classifier(features, ["owl", "dog"]).argmax(dim=1) == 1).all()


def test_a_fixed_list_compares_words_as_data_sets_write_them():
    classifier = FixedList(4, [("wall-other",), ("window-blind",), ("cat, kitten",), ("Wall",)])
    features = torch.randn(1, 4, 2, 2)
    own = classifier.predictor(features)
    found = classifier(features, ["kitten", "wall", "Wall", "window", "WALL, partition"])
    torch.testing.assert_close(found[:, [0, 1, 2, 4]], own[:, [2, 0, 3, 0]])
    assert (found[:, 3] < own.min()).all()


def test_a_single_class_competes_with_all_others_of_the_list():
    classifier = FixedList(4, [("cat",), ("dog",), ("sky",)])
    features = torch.randn(1, 4, 8, 8)
    own = classifier.predictor(features)
    found = classifier(features, Vocabulary.of(["dog"]).words)
    expected = torch.stack([own[:, 1], torch.maximum(own[:, 0], own[:, 2])], dim=1)
    torch.testing.assert_close(found, expected)
    assert len(found.argmax(dim=1).unique()) == 2


def test_scores_of_maps_side_by_side_are_the_sum_that_fcn_takes(tmp_path):
    cfg = method_cfg("fcn", tmp_path)
    shapes = {f"res{i}": ShapeSpec(channels=4 * i, stride=2**i) for i in (2, 3, 4, 5)}
    head = FcnPixelHead(cfg, shapes).eval()
    maps = {
        name: torch.randn(1, s.channels or 0, 64 // (s.stride or 1), 64 // (s.stride or 1))
        for name, s in shapes.items()
    }
    classifier = FixedList(head.channels, [(str(i),) for i in range(7)])
    with torch.no_grad():
        found = classifier(head(maps), [str(i) for i in range(7)])
        coarse = head.convs(maps["res5"])
        weight, bias = classifier.predictor.weight, classifier.predictor.bias
        parts = weight.split([12, 16, head.channels - 28], dim=1)
        scores = [F.conv2d(x, w) for x, w in zip((maps["res3"], maps["res4"], coarse), parts,
                                                 strict=True)]  # fmt: skip
        large = [F.interpolate(x, (8, 8), mode="bilinear") for x in scores]
        assert bias is not None
        expected = sum(large) + bias[:, None, None]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_word_vectors_are_projected_on(one_word_features):
    clip = Texts()
    classifier = WordVectors(4, clip, SeenClasses(["cat", "dog"]), 3.0).train()  # type: ignore[arg-type]
    features = torch.randn(1, 4, 2, 2)
    logits = classifier(features, WORDS)
    weight, bias = classifier.projection.weight[:, :, 0, 0], classifier.projection.bias
    for row in range(2):
        for column in range(2):
            projected = weight @ features[0, :, row, column] + bias
            expected = [10 * (projected @ clip.vectors[place]) for place in range(3)]
            torch.testing.assert_close(logits[0, :, row, column], torch.stack(expected))
    vocabulary = Vocabulary.of(WORDS)
    calibrated = classifier.eval().calibrated(classifier(features, WORDS), vocabulary)
    penalty = torch.tensor([3.0, 3.0, 0.0])
    torch.testing.assert_close(calibrated, logits - penalty[:, None, None])
    # a class is seen by any of its synonyms; a single one competes with "others", which counts so
    for words, seen in (([["puppy", "dog"], "owl"], [1, 1, 0]), (["owl"], [0, 1])):
        found = classifier.calibrated(torch.zeros(1, len(seen), 1, 1), Vocabulary.of(words))
        assert found.flatten().tolist() == [-3.0 * each for each in seen]
    # an unseen word that is as near as a seen one wins
    features, labels = one_word_features(classifier.projection, clip, "owl")
    assert (classifier(features, [*WORDS, "owl"]).argmax(dim=1) == labels).all()


def test_pixels_are_compared_with_texts(one_word_features):
    clip = Texts()
    classifier = PixelText(4, clip, blocks=2)  # type: ignore[arg-type]
    features = torch.randn(1, 4, 3, 3)
    pixels = classifier.projection(features)[0].flatten(1).T
    cosines = F.cosine_similarity(pixels[:, None], clip.vectors[None, :3], dim=-1)
    expected = cosines.clamp(min=0.01 * cosines) / 0.07  # its blocks begin as their activation
    found = classifier(features, WORDS)[0].flatten(1).T
    torch.testing.assert_close(found, expected)
    features, labels = one_word_features(classifier.projection, clip, "owl")
    assert (classifier(features, [*WORDS, "owl"]).argmax(dim=1) == labels).all()


@pytest.fixture
def one_word_features():
    """Features whose projection is a word's vector, and the label 3 for each pixel."""

    def make(projection: nn.Conv2d, clip: Texts, word: str) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            weight, bias = projection.weight[:, :, 0, 0], projection.bias
            wanted = clip.vectors[clip.ORDER.index(word)] - bias
            features = torch.linalg.solve(weight, wanted)
        return features[None, :, None, None].expand(1, 4, 2, 2), torch.full((1, 2, 2), 3)

    return make


def test_spatial_blocks_know_neither_order_nor_names():
    block = SpatialBlock()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    logits, order = torch.randn(2, 5, 6, 6), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(block(logits[:, order]), block(logits)[:, order])
    assert block.largest is not None
    largest = block.largest(logits.amax(dim=1, keepdim=True))
    alone = [each[:, None] + block.own(each[:, None]) + largest for each in logits.unbind(1)]
    expected = torch.cat(alone, dim=1)
    torch.testing.assert_close(block(logits), torch.where(expected < 0, 0.01 * expected, expected))


def test_all_of_a_spatial_block_decides_classes():
    classifier = PixelText(4, Texts(), blocks=2)  # type: ignore[arg-type]
    features, labels = torch.randn(2, 4, 6, 6), torch.randint(0, 3, (2, 6, 6))

    def probs() -> Tensor:
        return classifier(features, WORDS).softmax(dim=1)

    # a constant for all classes makes no difference after the softmax: the last bias
    *others, last_bias = classifier.blocks.named_parameters()
    pixel_loss(classifier(features, WORDS), labels).backward()
    for name, parameter in others:
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 1e-4, name
    assert last_bias[0] == "1.own.bias"
    before = probs()
    for _, parameter in others:
        nn.init.normal_(parameter)
    after = probs()
    nn.init.normal_(classifier.blocks[0].largest.weight)
    assert not torch.allclose(before, after, atol=1e-2)
    assert not torch.allclose(probs(), after, atol=1e-2)


def test_masks_of_classes_become_label_maps():
    truth = Instances((2, 3))
    truth.gt_classes = torch.tensor([0, 4])
    truth.gt_masks = torch.tensor([[[1, 0, 0], [1, 0, 0]], [[0, 1, 0], [0, 1, 1]]]).bool()
    expected = [[0, 4, -1, -1], [0, 4, 4, -1], [-1] * 4]
    assert label_maps_of([truth], (3, 4))[0].tolist() == expected


def test_the_loss_is_the_mean_over_labelled_pixels():
    logits, labels = torch.randn(1, 3, 2, 2), torch.tensor([[[0, -1], [2, 2]]])
    values = logits.double().numpy()[0]
    terms = [
        np.log(np.exp(values[:, row, column]).sum()) - values[label, row, column]
        for row, column, label in ((0, 0, 0), (1, 0, 2), (1, 1, 2))
    ]
    assert pixel_loss(logits, labels).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert pixel_loss(logits, torch.full((1, 2, 2), -1)) == 0


def method_cfg(name: str, folder: Path, *opts: str) -> Any:
    return setup_cfg(
        CONFIGS / "methods" / f"{name}.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.CLIP_ADAPTER.TEXT_CACHE", "False",
         "OUTPUT_DIR", str(folder), *opts],
    )  # fmt: skip


def example(classes: list[str]) -> dict[str, Any]:
    truth = Instances((64, 64))
    truth.gt_classes = torch.tensor([0, 2])
    truth.gt_masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    truth.gt_masks[0, :32], truth.gt_masks[1, 40:] = True, True
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": truth, "class_names": classes}


@pytest.mark.parametrize("name", PIXEL_METHODS)
def test_every_config_trains_and_segments(name, tmp_path):
    torch.manual_seed(0)
    model = build_model(method_cfg(name, tmp_path))
    assert isinstance(model, PixelSegmenter)
    classes = [f"class {i}" for i in range(144)]
    if name in (*SPECIALISTS, "zs3net"):
        classes = list(model.classifier._label_of)[:144]
    model.train()
    batch = [example(classes), example(classes)]
    with EventStorage(0):
        sum(model(batch).values()).backward()
    # all that trains is reached, and CLIP stays as it is
    for parameter, value in model.named_parameters():
        assert value.requires_grad != parameter.startswith("clip_adapter."), parameter
        assert (value.grad is not None) == value.requires_grad, parameter

    model.eval()
    inputs = {**batch[0], "height": 50, "width": 70, "class_names": [*classes[:3], "a yeti"]}
    with torch.inference_mode():
        scores = model([inputs])[0]["sem_seg"]
        found = model([{**inputs, "output": "labels"}])[0]
    assert scores.shape == (4, 50, 70)
    torch.testing.assert_close(scores.sum(dim=0), torch.ones(50, 70))
    assert torch.equal(found["labels"], scores.argmax(dim=0).int())
    torch.testing.assert_close(found["scores"], scores.amax(dim=0))
    if name in (*SPECIALISTS, "zs3net"):
        assert scores[3].max() == 0


def test_pixels_have_no_class_where_no_word_can_be_found(tmp_path):
    model = build_model(method_cfg("fcn", tmp_path)).eval()
    known = next(iter(model.classifier._label_of))
    both = [known, "a yeti"]
    for words, classes in ((["a yeti"], {-1}), (["a yeti", "a wraith"], {-1}), (both, {0})):
        inputs = {**example(words), "height": 50, "width": 70, "output": "labels"}
        with torch.inference_mode():
            (found,) = model([inputs])
        assert set(found["labels"].unique().tolist()) == classes
        assert (found["scores"] > 0).all() == (classes == {0})
    inputs = {**inputs, "output": "scores", "class_names": ["a yeti", "a wraith"]}
    with torch.inference_mode():
        assert model([inputs])[0]["sem_seg"].abs().max() == 0


def test_words_are_looked_at_in_parts(tmp_path, monkeypatch):
    model = build_model(method_cfg("lseg", tmp_path)).eval()
    inputs = {**example([["cat", "kitten"], "dog", "sky", "owl"]), "height": 41, "width": 90}
    found = []
    for tile in (2**24, 1):
        monkeypatch.setattr("ovseg.methods.pixel_segmenter._TILE", tile)
        with torch.inference_mode():
            found.append(model([{**inputs, "output": "labels"}])[0])
    assert torch.equal(found[0]["labels"], found[1]["labels"])
    torch.testing.assert_close(found[0]["scores"], found[1]["scores"])
    assert found[0]["labels"].max() <= 3


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.SLIDING_WINDOW", "True"], "a PixelSegmenter has no proposals"),
        (["TEST.MIN_CLASS_AREA", "0.1"], r"TEST.MIN_CLASS_AREA 0\.1: a PixelSegmenter has no"),
        (["TEST.REJECT", "0.1"], r"TEST.REJECT 0\.1: a PixelSegmenter has no proposals"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"], "has 144 classes; give MODEL.SEM_SEG_HEAD.NUM"),
        (["MODEL.METHOD.CLASSIFIER", "best"], "MODEL.METHOD.CLASSIFIER 'best' is unknown"),
        (["MODEL.METHOD.SPATIAL_BLOCKS", "-1"], "SPATIAL_BLOCKS -1 must be at least 0"),
        (["DATASETS.TRAIN", "nothing"], "the classes of 'nothing' are not known"),
    ],
)
def test_mistakes(tmp_path, opts, message):
    with pytest.raises(UserError, match=message):
        build_model(method_cfg("lseg", tmp_path, *opts))


def test_a_batch_of_another_vocabulary_is_refused(tmp_path):
    model = build_model(method_cfg("spnet", tmp_path)).train()
    with pytest.raises(UserError, match=r"the training has 3 classes, and MODEL\.SEM_SEG_HEAD"):
        model([example(WORDS)])


@pytest.fixture(scope="module")
def lseg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The config of a model with random weights."""
    folder = tmp_path_factory.mktemp("lseg")
    weights = folder / "lseg.pth"
    cfg = method_cfg("lseg", folder, "MODEL.WEIGHTS", str(weights), "INPUT.MIN_SIZE_TEST", "48")
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    return cfg


def test_the_python_api_segments(lseg):
    predictor = Predictor(lseg)
    image = np.random.default_rng(0).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    encoded = predictor.encode(image)
    found = encoded.segment(["cat", "owl", "brick wall"], class_probs=True)
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.inference_mode():
        (expected,) = predictor.model([{"image": tensor, "class_names": found.class_names}])
    np.testing.assert_allclose(found.class_probs, expected["sem_seg"].numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.labels, found.class_probs.argmax(axis=0))
    for use in (
        lambda: encoded.panoptic(["cat", "owl"]),
        lambda: encoded.regions,
        lambda: encoded.segment(["cat"], proposals=True),
        lambda: encoded.segment(["cat"], mask_threshold=0.4),
        lambda: encoded.segment(["cat"], reject=0.1),
        lambda: encoded.segment(["cat"], ensemble_weight=0.0),
    ):
        with pytest.raises(UserError, match="PixelSegmenter has no proposals, which are needed"):
            use()


def test_what_needs_proposals_says_so(lseg):
    with pytest.raises(UserError, match="PixelSegmenter has no proposals, which are needed"):
        load_model(lseg)


@pytest.mark.parametrize("name", [name for name in known_methods() if name != "ovseg_swin"])
def test_every_method_starts_from_the_same_pretrained_backbone(name, tmp_path, pretrained):
    cfg = method_cfg(
        name, tmp_path, "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "vild", "DATASETS.CUSTOM", "()",
        "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT", "",
        "DATASETS.TRAIN", "stickerscenes_train" + "_all" * name.endswith("_all"),
        "MODEL.CLIP_ADAPTER.CLIP_PRETRAINED", "",
    )  # fmt: skip
    model = build_model(cfg)
    OVSegCheckpointer(model, cfg=cfg).load(str(pretrained))
    weights = torch.load(pretrained, weights_only=True)["model"]
    own = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
    assert set(weights) == set(own)
    for key, value in weights.items():
        assert torch.equal(own[key], value.to(own[key].dtype)), key


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone as pretrain_backbone.py saves it."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(7)
    backbone = build_model(method_cfg("fcn", folder)).backbone
    weights = {f"backbone.{key}": value for key, value in half_precision(backbone).items()}
    write_checkpoint({"model": weights}, folder / "backbone.pth")
    return folder / "backbone.pth"
