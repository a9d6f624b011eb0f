"""The meta-architecture where the published code failed, and where its branches part."""

from __future__ import annotations

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from ovseg import OVSeg, UserError
from ovseg.modeling.criterion import SetCriterion
from ovseg.modeling.ensemble import ensemble
from ovseg.modeling.matcher import HungarianMatcher
from ovseg.vocabulary import Vocabulary

DEMO = "ovseg_swinB_vitL_demo.yaml"
WORDS = ["wall", "sky", "traffic light"]
WEIGHT = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT"
THRESHOLD = "MODEL.CLIP_ADAPTER.MASK_THR"


@pytest.fixture(scope="module")
def model(small_model) -> OVSeg:
    return small_model()


def run(model: OVSeg, inputs: dict) -> dict:
    with torch.inference_mode():
        return model([inputs])[0]


@pytest.fixture
def image(seeded) -> torch.Tensor:
    return seeded.image(64, 96, 1)


def test_both_published_names_are_one_class(small_config):
    cfg = small_config()
    eval_model = META_ARCH_REGISTRY.get("OVSeg")(cfg)
    demo_model = META_ARCH_REGISTRY.get("OVSegDEMO")(cfg)
    assert type(eval_model) is type(demo_model) is OVSeg
    assert demo_model.best_proposals_only
    assert not eval_model.best_proposals_only


@pytest.mark.parametrize("base", ["ovseg_swinB_vitL_bs32_120k.yaml", DEMO])
@pytest.mark.parametrize("weight", ["0.0", "0.7", "1.0"])
def test_no_valid_mask(small_model, image, base, weight):
    model = small_model(WEIGHT, weight, THRESHOLD, "1.0", base=base)  # nothing exceeds 1
    scores = run(model, {"image": image, "class_names": WORDS})["sem_seg"]
    assert scores.shape == (3, 64, 96)
    assert torch.isfinite(scores).all()
    if base == DEMO or weight == "0.0":  # without a mask there is nothing to show
        assert scores.abs().max() == 0
        labels = run(model, {"image": image, "class_names": WORDS, "output": "labels"})["labels"]
        assert (labels == -1).all()
    else:
        assert scores.min() > 0


@pytest.mark.parametrize("base", ["ovseg_swinB_vitL_bs32_120k.yaml", DEMO])
@pytest.mark.parametrize("weight", ["0.0", "0.7"])
def test_exactly_one_valid_mask(small_model, image, base, weight):
    model = small_model(WEIGHT, weight, "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "2", base=base)
    with torch.no_grad():  # the threshold between the two masks' highest probabilities
        regions = model.propose([{"image": image}])[0]
        peaks = regions.masks.amax(dim=(1, 2))
    model.mask_threshold = peaks.mean().item()
    assert (peaks > model.mask_threshold).sum() == 1
    scores = run(model, {"image": image, "class_names": WORDS})["sem_seg"]
    assert scores.shape == (3, 64, 96)
    assert torch.isfinite(scores).all()
    assert scores.max() > 0


@pytest.mark.parametrize("base", ["ovseg_swinB_vitL_bs32_120k.yaml", DEMO])
def test_one_word_has_company_and_the_callers_list_stays(small_model, image, base):
    model = small_model(base=base)
    words = ["dog"]
    scores = run(model, {"image": image, "class_names": words})["sem_seg"]
    assert words == ["dog"]
    if base != DEMO:  # there a class called "others" has a best proposal, the internal word none
        beside_others = run(model, {"image": image, "class_names": ["dog", "others"]})["sem_seg"]
        torch.testing.assert_close(scores, beside_others)
    labels = run(model, {"image": image, "class_names": words, "output": "labels"})["labels"]
    assert set(labels.unique().tolist()) <= {-1, 0}
    assert torch.equal(labels == 0, (scores.argmax(dim=0) == 0) & (scores.amax(dim=0) > 0))


@pytest.mark.parametrize("ensemble_on", ["True", "False"])
@pytest.mark.parametrize("weight", ["0.0", "0.5", "1.0"])
def test_demo_takes_the_best_proposal_of_each_word(small_model, image, ensemble_on, weight):
    on = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE"
    model = small_model(on, ensemble_on, WEIGHT, weight, THRESHOLD, "0.5", base=DEMO)
    scores = run(model, {"image": image, "class_names": WORDS})["sem_seg"]

    with torch.no_grad():  # the published arithmetic, spelled out
        regions = model.encode([{"image": image}])[0]
        assert (regions.crops is None) == (ensemble_on == "False")
        classified = model.classify(regions, model.text(Vocabulary.of(WORDS)))
        masks = regions.masks
    expected = torch.zeros_like(scores)
    best = {int(classified.class_probs[:, c].argmax()) for c in range(len(WORDS))}
    for k in best:
        binary = (masks[classified.queries[k]] > 0.5).float()
        assert binary.any()  # else the next best would stand here
        expected += classified.class_probs[k][:, None, None] * binary
    torch.testing.assert_close(scores, expected)


def test_a_users_own_others_is_a_class(model, image):
    found = set()
    for word in ("dog", "sky", "ocean"):
        inputs = {"image": image, "output": "labels"}
        labels = run(model, {**inputs, "class_names": [word, "others"]})["labels"]
        alone = run(model, {**inputs, "class_names": [word]})["labels"]
        assert torch.equal(labels.where(labels == 0, -1), alone)
        found |= set(labels.unique().tolist())
    assert found == {0, 1}


@pytest.mark.parametrize("base", ["ovseg_swinB_vitL_bs32_120k.yaml", DEMO])
def test_a_class_is_its_best_word(small_model, image, base):
    model = small_model(base=base)
    together = {"image": image, "class_names": [["wall", "rock"], "sky", ["sea", "water", "lake"]]}
    scores, labels = run(model, together)["sem_seg"], run(model, {**together, "output": "labels"})
    apart = {"image": image, "class_names": ["wall", "rock", "sky", "sea", "water", "lake"]}
    of_words = run(model, apart)["sem_seg"]
    assert scores.shape[0] == 3
    if base != DEMO:  # there each class has one best proposal, of whichever of its words
        expected = [of_words[:2].amax(0), of_words[2], of_words[3:].amax(0)]
        torch.testing.assert_close(scores, torch.stack(expected))
    torch.testing.assert_close(labels["scores"], scores.amax(dim=0))
    assert (labels["labels"] == scores.argmax(dim=0))[scores.amax(dim=0) > 0].float().mean() > 0.999


def test_an_encoded_image_is_segmented_by_any_names(model, image):
    with torch.inference_mode():
        encoded = model.encode([{"image": image}])[0]
        for names in (WORDS, ["dog"], [["cat", "kitten"], "grass"]):
            inputs = {"image": image, "class_names": names, "output": "labels"}
            whole = model([inputs])[0]
            step = model.segment(inputs, encoded)
            assert torch.equal(step["labels"], whole["labels"])
            assert torch.equal(step["scores"], whole["scores"])


def test_a_training_batch_has_one_list_of_class_names(small_config, seeded):
    from detectron2.modeling import build_model

    model = build_model(small_config())
    batch = [
        {"image": seeded.image(64, 64, place), "class_names": names, "instances": None}
        for place, names in enumerate((WORDS, WORDS[::-1]))
    ]
    with pytest.raises(UserError, match="different class names"):
        model(batch)


def test_weight_zero_is_clip_alone_and_ensemble_off_is_maskformer_alone():
    probs = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    clip = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    valid = torch.tensor([True, False, True])
    alone = ensemble(probs, clip, valid, 0.0)
    assert alone.queries.tolist() == [0, 2]
    torch.testing.assert_close(alone.class_probs, clip)
    both = ensemble(probs, clip, valid, 0.25)
    assert both.queries.tolist() == [0, 1, 2]
    expected = [
        [0.2**0.75 * 0.6**0.25, 0.8**0.75 * 0.4**0.25],
        [0.5**0.75, 0.5**0.75],  # an invalid mask counts 1 for every class
        [0.9**0.75 * 0.1**0.25, 0.1**0.75 * 0.9**0.25],
    ]
    torch.testing.assert_close(both.class_probs, torch.tensor(expected))


def test_batch_of_several_sizes_equals_one_by_one(model, seeded, monkeypatch):
    # images of 45 x 60 and 40 x 64 are padded to the same size
    sizes = ((45, 60), (96, 64), (40, 64), (45, 60))
    batch = [
        {"image": seeded.image(*size, seed), "class_names": WORDS}
        for seed, size in enumerate(sizes)
    ]
    alone = [run(model, inputs)["sem_seg"] for inputs in batch]
    seen, whole = [], model.clip_adapter.encode_crops

    def counted(count, cut):
        seen.append(count)
        return whole(count, cut)

    monkeypatch.setattr(model.clip_adapter, "encode_crops", counted)
    with torch.no_grad():
        together = model(batch)
    assert len(seen) == 1  # the crops of all images went through CLIP at once
    assert seen[0] > 6
    for found, expected, size in zip(together, alone, sizes, strict=True):
        assert found["sem_seg"].shape[1:] == size
        torch.testing.assert_close(found["sem_seg"], expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert model([]) == []


def test_labels_are_the_argmax_of_the_scores(model, image):
    inputs = {"image": image, "class_names": WORDS, "height": 131, "width": 77}
    scores = run(model, inputs)["sem_seg"]
    labelled = run(model, {**inputs, "output": "labels"})
    assert labelled["labels"].shape == (131, 77)
    torch.testing.assert_close(labelled["scores"], scores.amax(dim=0))
    assert (labelled["labels"] == scores.argmax(dim=0)).float().mean() > 0.999


def test_words_come_from_the_input_or_from_its_dataset(model, image):
    MetadataCatalog.get("three_words").stuff_classes = [f" {word} " for word in WORDS]
    own = run(model, {"image": image, "class_names": WORDS})["sem_seg"]
    datasets = run(model, {"image": image, "meta": {"dataset_name": "three_words"}})["sem_seg"]
    torch.testing.assert_close(own, datasets)
    with pytest.raises(UserError, match="class_names"):
        run(model, {"image": image, "class_names": []})


def test_lower_precision_agrees_on_labels(small_model, model, image):
    inputs = {"image": image, "class_names": WORDS, "output": "labels"}
    full = run(model, inputs)
    text = model.text(model.vocabulary(inputs)).features
    for key in ("MODEL.PRECISION", "MODEL.PRECISION_BACKBONE"):
        half = small_model(key, "bf16")
        found = run(half, inputs)
        assert (found["labels"] == full["labels"]).float().mean() > 0.95
        assert not torch.equal(found["scores"], full["scores"])
        torch.testing.assert_close(half.text(half.vocabulary(inputs)).features, text)


def test_training_computes_in_float32_whatever_the_backbone_has_in_inference(small_model, seeded):
    half = small_model("MODEL.PRECISION_BACKBONE", "bf16")
    images = half._normalised([{"image": seeded.image(64, 64, 0)}])
    with torch.no_grad():
        low = half._proposals(images).embeddings
        half.backbone_precision = "fp32"
        full = half._proposals(images).embeddings
        half.train()
        half.sem_seg_head.eval()  # dropout
        half.backbone.eval()
        half.backbone_precision = "bf16"
        trained = half._proposals(images).embeddings
    assert not torch.equal(low, full)
    torch.testing.assert_close(trained, full, atol=1e-5, rtol=1e-5)


def test_the_weight_of_no_object_is_the_configs_and_not_the_checkpoints():
    torch.manual_seed(0)
    matcher = HungarianMatcher(cost_class=1.0, cost_mask=1.0, cost_dice=1.0)
    parts: dict = {"mask_weight": 1.0, "dice_weight": 1.0}
    published = SetCriterion(3, matcher, no_object_weight=0.1, **parts)
    own = SetCriterion(3, matcher, no_object_weight=0.5, **parts)
    own.load_state_dict(published.state_dict())
    logits, masks = torch.randn(1, 4, 4), torch.randn(1, 4, 8, 8)
    targets = [{"labels": torch.tensor([2]), "masks": torch.rand(1, 8, 8) > 0.5}]
    ((queries, _),) = matcher(logits, masks, targets)
    terms = [-logits[0, q].log_softmax(0)[2 if q == queries[0] else 3] for q in range(4)]
    weights = [1.0 if q == queries[0] else 0.5 for q in range(4)]
    expected = sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)
    torch.testing.assert_close(own([(logits, masks)], targets)["loss_ce"], expected)


@pytest.mark.parametrize(("given", "padded"), [("-1", (64, 96)), ("0", (64, 96)), ("16", (64, 80))])
def test_sides_are_made_divisible_by_the_backbones_number_or_the_keys(small_model, given, padded):
    found = small_model("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", given)
    images = found._normalised([{"image": torch.zeros(3, 50, 70)}])
    assert tuple(images.tensor.shape[-2:]) == padded


def test_training_reaches_everything_but_clip(small_config, seeded):
    from detectron2.modeling import build_model
    from detectron2.structures import Instances

    model = build_model(small_config())
    masks = seeded.masks(2, 64, 64, 5) > 0.5
    full = Instances((64, 64), gt_classes=torch.tensor([0, 2]), gt_masks=masks)
    empty = Instances((64, 64), gt_classes=torch.tensor([], dtype=torch.int64), gt_masks=masks[:0])
    batch = [{"image": seeded.image(64, 64, i), "class_names": WORDS} for i in range(2)]
    sum(
        model([{**batch[0], "instances": full}, {**batch[1], "instances": empty}]).values()
    ).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("clip_adapter.clip_model.")
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name
    # images without any mask alone are a normal case too
    losses = model([{**inputs, "instances": empty} for inputs in batch])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TEST.SLIDING_OVERLAP", "1.0"),
        ("MODEL.PRECISION", "int3"),
        (WEIGHT, "1.5"),
        ("MODEL.CLIP_ADAPTER.MASK_FILL", "pink"),
        ("MODEL.SEM_SEG_HEAD.EMBEDDING_DIM", "17"),
    ],
)
def test_settings_that_cannot_be_are_named(small_model, key, value):
    with pytest.raises(UserError, match=key.rsplit(".", 1)[1]) as error:
        small_model(key, value)
    assert value in str(error.value)


def test_crops_of_a_model_that_takes_bgr_are_refused(small_model) -> None:
    with pytest.raises(UserError, match=r"INPUT\.FORMAT BGR: CLIP sees crops of the image, in RGB"):
        small_model("INPUT.FORMAT", "BGR")
    small_model("INPUT.FORMAT", "BGR", "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "False")
