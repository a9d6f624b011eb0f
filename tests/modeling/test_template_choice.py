"""The best templates of each word, chosen by entropy, in place of the mean of all."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg import UserError
from ovseg.engine.template_choice import best_templates, crop_entropies
from ovseg.modeling.clip import TemplateChoice, TemplateMap, encode_texts
from ovseg.vocabulary import Vocabulary

BEST = "MODEL.CLIP_ADAPTER.BEST_TEMPLATES"
MAP = "MODEL.CLIP_ADAPTER.TEMPLATE_MAP"
WORDS = ["dog", "cat", "sky"]
TEMPLATES = ["a photo of a {}.", "a drawing of {}", "{} in the scene"]
OPTS = ["MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined",
        "MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES", str(TEMPLATES)]  # fmt: skip


def test_entropy_of_the_crops_that_a_template_gives_a_word_to():
    third = math.log(1 / 4), math.log(1 / 4), math.log(1 / 2)
    logits = torch.tensor([[[0.0, 0, 0], third], [[50.0, 0, 0], [0, 0, 50.0]]])
    words, entropy = crop_entropies(logits)
    assert words[0, 1] == 2
    assert words[1].tolist() == [0, 2]
    expected = [[math.log(3), 1.5 * math.log(2)], [0, 0]]
    torch.testing.assert_close(entropy, torch.tensor(expected), atol=1e-6, rtol=1e-6)


def test_the_lowest_mean_entropy_wins():
    # templates x words; the third word is given to no crop, and to the second by one template
    crops = np.array([[2, 0, 0], [1, 4, 0], [4, 0, 0]])
    entropy = np.array([[3.0, 0, 0], [1.0, 8.0, 0], [4.1, 0, 0]])
    assert best_templates(entropy, crops, 2) == [[1, 2], [1], []]
    assert best_templates(entropy, crops, 1) == [[1], [1], []]


def test_words_have_the_mean_of_their_templates(small_model, seeded, tmp_path):
    file = tmp_path / "best.json"
    content = {"templates": TEMPLATES, "best": {"dog": [2], "sky": [1, 0]}}
    file.write_text(json.dumps(content))
    plain, best = small_model(*OPTS), small_model(*OPTS, BEST, str(file))
    texts = [t.replace("{}", w) for w in WORDS for t in TEMPLATES]
    each = F.normalize(encode_texts(plain.clip_adapter.clip_model, texts), dim=-1).view(3, 3, -1)
    expected = torch.stack([each[0, 2], each[1].mean(0), each[2, :2].mean(0)])
    with torch.no_grad():
        found = best.text(Vocabulary.of(WORDS))
        torch.testing.assert_close(found.of_crops, F.normalize(expected, dim=-1))
        # MaskFormer was trained with the mean of all
        torch.testing.assert_close(found.features, plain.text(Vocabulary.of(WORDS)).features)
        assert plain.text(Vocabulary.of(WORDS)).of_crops is None
        regions = best.encode([{"image": seeded.image(64, 96, 1)}])[0]
        clip = best.classify_crops(regions.crops, found)
        unit = F.normalize(regions.crops.features, dim=-1)
        probs = (100 * unit @ F.normalize(expected, dim=-1).T).softmax(-1)
        torch.testing.assert_close(clip.class_probs, probs)


def test_features_on_disk_are_told_apart(small_model, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_HOME", str(tmp_path / "home"))
    found = []
    for place in (0, 1, 0):
        file = tmp_path / f"{place}.json"
        file.write_text(json.dumps({"templates": TEMPLATES, "best": {"dog": [place]}}))
        model = small_model(*OPTS, BEST, str(file))
        found.append(model.clip_adapter.crop_text_features(["dog"]))
    torch.testing.assert_close(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_a_map_weighs_the_cosines_with_each_template(small_model, seeded, tmp_path):
    file = tmp_path / "map.pt"
    weights = torch.tensor([0.5, -0.25, 1.0])
    torch.save({"template_weights": weights, "templates": TEMPLATES}, file)
    model = small_model(*OPTS, MAP, str(file))
    texts = [[t.replace("{}", w) for t in TEMPLATES] for w in WORDS]
    with torch.no_grad():
        text = model.text(Vocabulary.of(WORDS))
        regions = model.encode([{"image": seeded.image(64, 96, 1)}])[0]
        found = model.classify_crops(regions.crops, text).class_probs
        each = [encode_texts(model.clip_adapter.clip_model, of_word) for of_word in texts]
        for row, crop in zip(found, regions.crops.features, strict=True):
            scores = [(weights * F.cosine_similarity(crop, of_word)).sum() for of_word in each]
            torch.testing.assert_close(row, (100 * torch.stack(scores)).softmax(dim=0))
    assert len(found) > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; open_clip_training/train.py --train template-map writes one"),
        (b"{", "cannot be read"),
        ({"a": 1}, "holds no map of templates"),
        ({"template_weights": torch.ones(2), "templates": ["{}", "a {}"]}, "is of other templates"),
        ({"template_weights": torch.ones(2), "templates": TEMPLATES}, "is of other templates"),
    ],
)
def test_maps_that_are_none(tmp_path, content, message):
    file = tmp_path / "map.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(UserError, match=message):
        TemplateMap.read(file, TEMPLATES)


def test_one_of_the_two(small_model):
    with pytest.raises(UserError, match="are both set; give one of them"):
        small_model(*OPTS, MAP, "a.pt", BEST, "b.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; ovseg templates writes one"),
        ("{", "cannot be read"),
        ("[]", "is broken; make it anew"),
        ('{"best": {"dog": []}}', "is no file of ovseg templates"),
        (json.dumps({"best": {"dog": [3]}, "templates": TEMPLATES}), "is no file of ovseg temp"),
        (json.dumps({"best": {"dog": [0]}, "templates": ["{}"]}), "is of other templates than"),
    ],
)
def test_mistakes(tmp_path, content, message):
    file = tmp_path / "best.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        TemplateChoice.read(file, TEMPLATES)
