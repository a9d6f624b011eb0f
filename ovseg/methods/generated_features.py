"""ZS3Net ("Zero-Shot Semantic Segmentation", NeurIPS 2019): features of unseen classes are made up.

Kept: features are learned with a classifier of the seen classes alone; a generator turns word
vectors and noise into pixel features, and learns from real features of seen classes, by maximum
mean discrepancy as GMMN does; in the end features stay as they are, and the classifier learns from
real features of seen classes and generated ones of unseen classes. Simplified: it is one training
in place of three, in which the generator learns beside the features from the start; in the end
batch normalisation still counts its running means, and in several processes weight decay still
shrinks the features' weights a little; the word vectors are CLIP's text features in place of
word2vec; and a crop's layout of classes (its graph context) is not looked at. As in the paper the
names of the unseen classes must be known when it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ovseg.modeling.clip import ClipAdapter

from .pixel_classifiers import FixedList

# real pixels of a batch, and generated ones of each step
_PIXELS = 512
# widths of the Gaussian kernels
_WIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
#: the label of pixels that have none
IGNORED = -1


def mean_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of two sets of features, (N, D) and (M, D)."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        # |x - y|^2 without an array of all differences
        squared = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T
        squared = squared.clamp(min=0)
        values = [(-squared / (2 * width**2)).exp() for width in _WIDTHS]
        return torch.stack(values).sum(dim=0).mean()

    return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)


class Generator(nn.Module):
    """Word vectors and noise -> pixel features, which are not negative."""

    def __init__(self, width: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * width, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, channels), nn.ReLU()
        )

    def forward(self, vectors: Tensor) -> Tensor:
        """``vectors``: (N, width); features (N, channels), others at every call."""
        features: Tensor = self.layers(torch.cat([vectors, torch.randn_like(vectors)], dim=1))
        return features


class GeneratedFeatures(FixedList):
    """A fixed list of classes, some of which are known by name alone."""

    def __init__(
        self,
        channels: int,
        seen: Sequence[tuple[str, ...]],
        unseen: Sequence[tuple[str, ...]],
        clip_adapter: ClipAdapter,
        hidden: int,
        generated_from: int = 0,
    ) -> None:
        """
        Args:
            channels: of the features.
            seen: the classes of the training, in label order.
            unseen: classes that are known by their names.
            clip_adapter: its text tower makes the word vectors.
            hidden: width of the generator.
            generated_from: the step that the last stage begins with, in which features stay as they
                are and the classifier learns of generated ones too. detectron2's ``EventStorage``
                knows the step.
        """
        super().__init__(channels, [*seen, *unseen])
        width = clip_adapter.non_object_embedding.shape[1]
        self.generator = Generator(width, hidden, channels)
        self._names = [words[0] for words in (*seen, *unseen)]
        self._seen = len(seen)
        self._generated_from = generated_from
        self.pixel_counts: Tensor
        self.register_buffer("pixel_counts", torch.zeros(len(seen), dtype=torch.int64))
        self._text = [clip_adapter]  # in a list: the model holds it already

    def forward(self, features: Tensor, words: Sequence[str]) -> Tensor:
        if not self.training:
            return super().forward(features, words)
        if not self._generates:
            return self.predictor(features)[:, : self._seen]
        kept = features.detach()
        if comm.get_world_size() > 1:  # they wait for a gradient of every parameter
            kept = kept + 0 * features
        # all classes compete, those that the labels cannot name too
        return self.predictor(kept)

    @property
    def _generates(self) -> bool:
        # of the training, which may start from the weights of another
        return not self._generated_from or get_event_storage().iter >= self._generated_from

    def losses(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What the generator and, by its features, the classifier learn; once a step.

        Args:
            features: of pixels, (B, channels, h, w); no gradient goes there.
            labels: int64 (B, h, w), of seen classes, -1 where there is none.
        """
        (clip,) = self._text
        width = clip.non_object_embedding.shape[1]
        vectors = clip.text_features(self._names)[:-1] * width**0.5  # as large as the noise
        real = features.detach().permute(0, 2, 3, 1).flatten(0, 2)
        known = (labels.flatten() != IGNORED).nonzero()[:, 0]
        known = known[torch.randperm(len(known), device=known.device)[:_PIXELS]]
        classes = labels.flatten()[known]
        made = self.generator(vectors[classes])
        present = classes.unique()
        discrepancies = [mean_discrepancy(real[known][classes == c], made[classes == c])
                         for c in present]  # fmt: skip
        generator = torch.stack(discrepancies).mean() if len(present) else made.sum()
        unseen = torch.arange(self._seen, len(self._names), device=labels.device)
        share = self._share_of_unseen(labels)
        if not len(unseen) or not self._generates:
            return {"loss_generator": generator}
        wanted = unseen[torch.arange(_PIXELS, device=labels.device) % len(unseen)]
        with torch.no_grad():
            unreal = self.generator(vectors[wanted])
        scores = self.predictor(unreal[:, :, None, None])[:, :, 0, 0]
        return {"loss_generator": generator, "loss_unseen": share * F.cross_entropy(scores, wanted)}

    def _share_of_unseen(self, labels: Tensor) -> Tensor:
        """Of a real pixel: what unseen classes have, each as frequent as the median seen one."""
        known = labels[labels != IGNORED]
        found = known.bincount(minlength=self._seen)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(found)
        self.pixel_counts += found
        counts = self.pixel_counts[self.pixel_counts > 0].float()
        if not len(counts):
            return counts.sum()
        return (len(self._names) - self._seen) * counts.median() / counts.sum()
