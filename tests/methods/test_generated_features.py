"""ZS3Net: the generator's loss, who learns from what, and unseen classes that are found."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ovseg.methods import generated_features
from ovseg.methods.generated_features import GeneratedFeatures, mean_discrepancy

SEEN, UNSEEN = [("cat", "kitten"), ("dog",)], [("owl",), ("yeti",)]


class Texts:
    """Stands in for CLIP's text tower: a unit vector a word."""

    non_object_embedding = torch.zeros(1, 4)

    def text_features(self, words: list[str]) -> Tensor:
        order = ["cat", "dog", "owl", "yeti"]
        return torch.cat([torch.eye(4)[[order.index(word) for word in words]], torch.zeros(1, 4)])


@pytest.fixture
def classifier() -> GeneratedFeatures:
    torch.manual_seed(0)
    return GeneratedFeatures(4, SEEN, UNSEEN, Texts(), hidden=8).train()  # type: ignore[arg-type]


def test_discrepancy_is_the_sum_over_all_pairs():
    first, second = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0]])

    def kernel(x: float, y: float) -> float:
        return sum(math.exp(-((x - y) ** 2) / (2 * w * w)) for w in (2, 5, 10, 20, 40, 60))

    within = (kernel(0, 0) + kernel(0, 3) + kernel(3, 0) + kernel(3, 3)) / 4 + kernel(1, 1)
    expected = within - 2 * (kernel(0, 1) + kernel(3, 1)) / 2
    assert mean_discrepancy(first, second).item() == pytest.approx(expected, rel=1e-5)
    assert mean_discrepancy(first, first).item() == pytest.approx(0, abs=1e-6)


def test_who_learns_from_what(classifier):
    features = torch.rand(1, 4, 3, 3).requires_grad_()
    labels = torch.tensor([[[0, 1, -1], [1, 1, 0], [-1, 0, 0]]])
    losses = classifier.losses(features, labels)
    generator = list(classifier.generator.parameters())
    losses["loss_generator"].backward(retain_graph=True)
    assert all(parameter.grad.abs().sum() > 0 for parameter in generator)
    assert classifier.predictor.weight.grad is None
    classifier.zero_grad()
    losses["loss_unseen"].backward()
    assert classifier.predictor.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in generator)
    assert features.grad is None


def test_unseen_classes_weigh_what_the_median_seen_class_does(classifier, monkeypatch):
    # of each class, by hand: 6, 1, and with the second image 7, 4 pixels; medians 1 and 4
    first = torch.tensor([[[0, 0, -1], [0, 0, 0], [-1, 0, 1]]])
    second = torch.tensor([[[1, 1, 1], [0, -1, -1], [-1, -1, -1]]])
    nothing = torch.full((1, 3, 3), -1)
    features = torch.rand(1, 4, 3, 3)
    monkeypatch.setattr(nn.functional, "cross_entropy", lambda scores, wanted: torch.tensor(10.0))
    found = [classifier.losses(features, labels)["loss_unseen"].item()
             for labels in (nothing, first, second, nothing)]  # fmt: skip
    assert found == pytest.approx([0, 10 * 2 * 1 / 7, 10 * 2 * 4 / 11, 10 * 2 * 4 / 11])
    copy = GeneratedFeatures(4, SEEN, UNSEEN, Texts(), hidden=8)  # type: ignore[arg-type]
    copy.load_state_dict(classifier.state_dict())  # a run that goes on
    assert copy.pixel_counts.tolist() == [7, 4]


def test_an_image_without_labels_and_a_list_without_unseen_classes(classifier):
    nothing = torch.full((1, 3, 3), -1)
    assert classifier.losses(torch.rand(1, 4, 3, 3), nothing)["loss_generator"] == 0
    alone = GeneratedFeatures(4, SEEN, [], Texts(), hidden=8)  # type: ignore[arg-type]
    assert set(alone.losses(torch.rand(1, 4, 3, 3), nothing)) == {"loss_generator"}


@pytest.fixture
def steps() -> Iterator[EventStorage]:
    """Knows the step of a training."""
    with EventStorage(0) as storage:
        yield storage


def test_features_are_learned_with_seen_classes_before_anything_is_generated(
    monkeypatch: pytest.MonkeyPatch, steps: EventStorage
):
    torch.manual_seed(0)
    staged = GeneratedFeatures(4, SEEN, UNSEEN, Texts(), hidden=8, generated_from=2).train()  # type: ignore[arg-type]
    pixels, labels = torch.rand(1, 4, 3, 3), torch.randint(2, (1, 3, 3))
    for step in range(4):
        steps.iter = step
        features = pixels.clone().requires_grad_()
        logits = staged(features, ["cat", "dog"])
        losses = staged.losses(features, labels)
        logits.sum().backward()
        if step < 2:
            assert logits.shape[1] == 2
            assert set(losses) == {"loss_generator"}
            assert features.grad is not None
            assert features.grad.abs().sum() > 0
        else:
            assert logits.shape[1] == 4
            assert set(losses) == {"loss_generator", "loss_unseen"}
            assert features.grad is None  # so no optimizer changes what they come from
        torch.testing.assert_close(logits[:, :2], staged.predictor(pixels)[:, :2])
    monkeypatch.setattr(generated_features.comm, "get_world_size", lambda: 2)
    features = pixels.clone().requires_grad_()
    staged(features, ["cat", "dog"]).sum().backward()
    assert features.grad is not None
    assert (features.grad == 0).all()  # processes wait for one
    again = GeneratedFeatures(4, SEEN, UNSEEN, Texts(), hidden=8, generated_from=2)  # type: ignore[arg-type]
    again.load_state_dict(staged.state_dict())
    assert again.train()(pixels, ["cat", "dog"]).shape[1] == 4  # a run that goes on
    steps.iter = 0  # a new one that starts from these weights
    assert again(pixels, ["cat", "dog"]).shape[1] == 2


def test_unseen_classes_are_found_by_what_was_generated(classifier):
    class Known(nn.Module):
        """Makes of a word's vector the feature that such a pixel has."""

        def forward(self, vectors: Tensor) -> Tensor:
            return vectors.flip(1) + 0.1 * torch.rand_like(vectors)

    classifier.generator = Known()
    optimizer = torch.optim.Adam(classifier.predictor.parameters(), lr=0.1)
    seen = 2 * torch.eye(4).flip(1)[:2, :, None].expand(2, 4, 9).reshape(2, 4, 3, 3)
    labels = torch.tensor([0, 1])[:, None, None].expand(2, 3, 3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = classifier.losses(seen, labels)["loss_unseen"]
        logits = classifier(seen, ["cat", "dog"])
        assert logits.shape[1] == 4  # all compete in training
        (loss + nn.functional.cross_entropy(logits, labels)).backward()
        optimizer.step()
    classifier.eval()
    pixels = 2 * torch.eye(4).flip(1)[:, :, None, None]  # of cat, dog, owl and yeti
    found = classifier(pixels, ["yeti", "kitten", "a lamp", "owl", "dog"]).argmax(dim=1).flatten()
    assert found.tolist() == [1, 4, 3, 0]
