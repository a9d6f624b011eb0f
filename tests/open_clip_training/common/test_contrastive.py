"""CLIP's loss when pictures of a batch share a text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn.functional import normalize

from open_clip_training.common.contrastive import contrastive_loss, plain_contrastive_loss


def test_loss_counts_one_noun_once_and_the_published_one_does_not():
    torch.manual_seed(0)
    images, texts = torch.randn(4, 5), torch.randn(3, 5)
    owners, scale = torch.tensor([2, 0, 2, 1]), torch.tensor(7.0)
    similarity = (7 * normalize(images) @ normalize(texts).T).exp()
    wanted = 0.0
    for picture, text in enumerate(owners.tolist()):
        own = similarity[picture, text]
        wanted -= (own / similarity[picture].sum()).log() + (own / similarity[:, text].sum()).log()
    assert float(contrastive_loss(images, texts, owners, scale)) == pytest.approx(float(wanted) / 8)
    published = ClipLoss()(normalize(images), normalize(texts[owners]), scale)
    ours = plain_contrastive_loss(images, texts, owners, scale)
    torch.testing.assert_close(ours, published)
    assert ours > contrastive_loss(images, texts, owners, scale)


def test_equal_captions_are_no_negatives_of_each_other():
    features = torch.eye(3)
    owners = torch.tensor([0, 0, 1])
    images = features[owners]
    good = contrastive_loss(images, features[:2], owners, torch.tensor(100.0))
    # with two pictures of one caption, the best is half a chance for each of them
    assert float(good) == pytest.approx(np.log(2) * 2 / 3 / 2, abs=1e-4)
    assert contrastive_loss(images, features[1:], owners, torch.tensor(100.0)) > good + 1
