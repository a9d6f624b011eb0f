"""What gives the pixels of a feature map logits of words.

A classifier is called with features (B, channels, h, w) and a vocabulary's words, and returns
logits (B, W, h, w). In training the words are the classes of the data set.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.modeling.clip import ClipAdapter
from ovseg.modeling.seen_classes import SeenClasses, compared_words
from ovseg.vocabulary import OTHERS, Vocabulary

#: logit of a word that the classifier cannot find
NEVER = -1e4


class FixedList(nn.Module):
    """One 1 x 1 convolution over a fixed list of classes: FCN and DeepLab, the specialists.

    A word is one of theirs, or else compared as :class:`SeenClasses` does, so that "wall" of one
    data set is "wall-other" of another. Words of other classes are never found. "others", which a
    single class competes with, are all further classes of the list.
    """

    def __init__(self, channels: int, classes: Sequence[tuple[str, ...]]) -> None:
        """
        Args:
            channels: of the features.
            classes: each its name and synonyms, in label order.
        """
        super().__init__()
        self.predictor = nn.Conv2d(channels, len(classes), kernel_size=1)
        self._label_of = {word: label for label, words in enumerate(classes) for word in words}
        self._label_of_compared: dict[str, int] = {}
        for word, label in self._label_of.items():
            for compared in compared_words(word):
                self._label_of_compared.setdefault(compared, label)

    def forward(self, features: Tensor, words: Sequence[str]) -> Tensor:
        scores = self.predictor(features)
        labels = [self._label(word) for word in words]
        count = scores.shape[1]
        if labels == list(range(count)):
            return scores
        batch, _, height, width = scores.shape
        never = others = scores.new_full((batch, 1, height, width), NEVER)
        further = [label for label in range(count) if label not in labels]
        if OTHERS in words and further:
            others = scores[:, further].amax(dim=1, keepdim=True)
        places = [
            (count + (word == OTHERS) if label is None else label)
            for word, label in zip(words, labels, strict=True)
        ]
        return torch.cat([scores, never, others], dim=1)[:, places]

    def _label(self, word: str) -> int | None:
        if word in self._label_of:
            return self._label_of[word]
        found = {self._label_of_compared.get(compared) for compared in compared_words(word)}
        return min((label for label in found if label is not None), default=None)


class WordVectors(nn.Module):
    """SPNet ("Semantic Projection Network for Zero- and Few-Label Semantic
    Segmentation", CVPR 2019).

    Kept: features are projected into the space of fixed word vectors, and the logit of a word is
    the dot product with its vector; in training cross entropy over the seen classes; in inference
    calibrated stacking, which takes a constant from the seen classes' logits. Simplified: the word
    vectors are CLIP's text features, times the square root of CLIP's temperature, in place of
    word2vec and fastText side by side.
    """

    def __init__(
        self, channels: int, clip_adapter: ClipAdapter, seen: SeenClasses, seen_penalty: float
    ) -> None:
        """
        Args:
            channels: of the features.
            clip_adapter: its text tower makes the word vectors.
            seen: classes of the training.
            seen_penalty: taken from their logits in inference.
        """
        super().__init__()
        width = clip_adapter.non_object_embedding.shape[1]
        self.projection = nn.Conv2d(channels, width, kernel_size=1)
        self._text = [clip_adapter]  # in a list: the model holds it already
        self._seen, self._penalty = seen, seen_penalty

    def forward(self, features: Tensor, words: Sequence[str]) -> Tensor:
        (clip,) = self._text
        vectors = clip.text_features(words)[:-1] * float(clip.encoder.temperature) ** 0.5
        return torch.einsum("bdhw,cd->bchw", self.projection(features), vectors)

    def calibrated(self, logits: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits (B, W, h, w) of its words, less the penalty for seen classes."""
        if not self._penalty:
            return logits
        seen = logits.new_tensor(self._seen.of_words(vocabulary))
        return logits - self._penalty * seen[:, None, None]


class PixelText(nn.Module):
    """LSeg ("Language-driven Semantic Segmentation", ICLR 2022).

    Kept: pixel features and CLIP's text features at unit length, their cosine times a learned
    temperature, cross entropy per pixel, and blocks of spatial regularisation over the maps of
    scores, which treat all classes alike so that their number and order do not matter. Simplified:
    backbone and decoder are those of the comparison in place of DPT; a word has CLIP's templates.
    """

    def __init__(self, channels: int, clip_adapter: ClipAdapter, blocks: int) -> None:
        """
        Args:
            channels: of the features.
            clip_adapter: its text tower stays as it is.
            blocks: of spatial regularisation.
        """
        super().__init__()
        width = clip_adapter.non_object_embedding.shape[1]
        self.projection = nn.Conv2d(channels, width, kernel_size=1)
        self.log_temperature = nn.Parameter(torch.tensor(1 / 0.07).log())
        # as in LSeg's code the last block has no activation, and the largest map, which would be
        # the same for all classes there, decides nothing
        self.blocks = nn.ModuleList(SpatialBlock(last=i == blocks - 1) for i in range(blocks))
        self._text = [clip_adapter]

    def forward(self, features: Tensor, words: Sequence[str]) -> Tensor:
        (clip,) = self._text
        pixels = F.normalize(self.projection(features), dim=1)
        vectors = clip.text_features(words)[:-1]
        logits = self.log_temperature.exp() * torch.einsum("bdhw,cd->bchw", pixels, vectors)
        for block in self.blocks:
            logits = block(logits)
        return logits


class SpatialBlock(nn.Module):
    """LSeg's bottleneck block: every class's map is seen with the largest of all classes.

    Its convolutions start at zero, so that at first there is the activation alone.
    """

    def __init__(self, last: bool = False) -> None:
        """``last``: of several; neither the largest map nor an activation."""
        super().__init__()
        self.own = nn.Conv2d(1, 1, kernel_size=3, padding=1)
        self.largest = None if last else nn.Conv2d(1, 1, kernel_size=3, padding=1)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, logits: Tensor) -> Tensor:
        """``logits``: (B, W, h, w); the same."""
        words = logits.shape[1]
        # each word's map by itself, as a batch of them would be: this is faster on CPUs
        weight, bias = self.own.weight.expand(words, -1, -1, -1), self.own.bias
        assert bias is not None
        own = logits + F.conv2d(logits, weight, bias.expand(words), padding=1, groups=words)
        if self.largest is None:
            return own
        return F.leaky_relu(own + self.largest(logits.amax(dim=1, keepdim=True)))
