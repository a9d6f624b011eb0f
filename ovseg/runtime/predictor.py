"""Images and class names in, segmentations out, over onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np

from ovseg.background_words import background_words
from ovseg.data.vocabulary import ClassNames, read_vocabulary
from ovseg.errors import UserError
from ovseg.image_input import ImageSource, batches, check_several, image_array, is_one_image
from ovseg.prediction import ImageOptions, Prediction
from ovseg.runtime.classify import Regions, Text
from ovseg.runtime.crops import cut_crops
from ovseg.runtime.encoded_image import EncodedImage
from ovseg.runtime.folder import GRAPHS, ExportFolder
from ovseg.runtime.resize import resize_short_side
from ovseg.runtime.segmentation import image_masks
from ovseg.runtime.shared_pass import shared_inputs
from ovseg.runtime.text import TextEncoder
from ovseg.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

# crops that go through CLIP together
_CROPS = 32


class Predictor:
    """An exported model, ready for images; its methods are those of :class:`ovseg.Predictor`.

    Attributes:
        folder: the export and what its manifest says.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
        check: bool = True,
    ) -> None:
        """Read a folder of ``ovseg export``.

        Args:
            folder: its path.
            providers: onnxruntime's execution providers, the preferred ones first; those that it
                lacks are passed over.
            threads: of each operation on the CPU; 0: as many as onnxruntime likes.
            check: compare all files with the SHA-256 of the manifest.

        Raises:
            UserError: onnxruntime is not installed or has none of the providers, or see
                :meth:`ExportFolder.read`.
        """
        self.folder = ExportFolder.read(folder, check)
        self._providers = _usable_providers(providers)
        self._threads = threads
        self._text = TextEncoder(
            self.folder, lambda tokens: self._text_graph({"tokens": tokens})[0]
        )

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **options: Any) -> Predictor:
        """The same by the name that :class:`ovseg.Predictor` has for it; ``name`` is the folder."""
        return cls(name, **options)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a path and an array are iterable, too
        self,
        images: ImageSource,
        class_names: ClassNames | None = ...,
        *,
        bgr: bool = ...,
        **wanted: Unpack[ImageOptions],
    ) -> Prediction: ...

    @overload
    def __call__(
        self,
        images: Iterable[ImageSource],
        class_names: ClassNames | None = ...,
        *,
        bgr: bool = ...,
        **wanted: Unpack[ImageOptions],
    ) -> list[Prediction]: ...

    def __call__(
        self,
        images: ImageSource | Iterable[ImageSource],
        class_names: ClassNames | None = None,
        *,
        bgr: bool = False,
        **wanted: Unpack[ImageOptions],
    ) -> Prediction | list[Prediction]:
        """Segment one image, or several.

        Args:
            images: one image: a path, a Pillow image, or an array uint8 (H, W, 3), RGB; or a list
                or iterator of images.
            class_names: what to look for, see :func:`ovseg.data.vocabulary.read_vocabulary`; None:
                the class names of the export.
            bgr: the channels of arrays are blue, green, red.
            wanted: options of :meth:`EncodedImage.segment`.

        Returns:
            The prediction of one image; of several a list, in their order.

        Raises:
            UserError: class names that cannot be used, or a file that is no image.
            ValueError: an array of another shape or type.
        """
        vocabulary = self.vocabulary(class_names)
        if is_one_image(images):
            return self.encode(cast(ImageSource, images), bgr=bgr).segment(vocabulary, **wanted)
        return list(self.stream(cast(Iterable[ImageSource], images), vocabulary, bgr=bgr, **wanted))

    def vocabulary(self, class_names: ClassNames | None = None) -> Vocabulary:
        """The vocabulary of class names; of the export's own without them.

        Raises:
            UserError: class names that cannot be used, or none.
        """
        settings = self.folder.settings
        own: ClassNames = settings.class_names
        if settings.shown_names:
            own = {
                name: list(words)
                for name, words in zip(settings.shown_names, settings.class_names, strict=True)
            }
        return read_vocabulary(own if class_names is None else class_names)

    def encode(self, image: ImageSource, *, bgr: bool = False) -> EncodedImage:
        """Do what does not depend on class names: proposals, crops, CLIP's features.

        Raises:
            UserError, ValueError: see :meth:`__call__`.
        """
        return self.encode_batch([image], bgr=bgr)[0]

    def encode_batch(
        self, images: Sequence[ImageSource], *, bgr: bool = False
    ) -> list[EncodedImage]:
        """Encode images that go through the model together.

        Raises:
            UserError, ValueError: see :meth:`__call__`.
        """
        check_several(images)
        return self._encode([image_array(image, bgr) for image in images])

    def _encode(self, images: Sequence[np.ndarray]) -> list[EncodedImage]:
        """Encode arrays that nobody writes to any more."""
        proposed = self._propose([self._model_input(image) for image in images])
        return [
            EncodedImage(self, image, self.encode_crops(regions))
            for image, regions in zip(images, proposed, strict=True)
        ]

    def stream(
        self,
        images: Iterable[ImageSource],
        class_names: ClassNames | None = None,
        *,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: Callable[[ImageSource, Exception], None] | None = None,
        **wanted: Unpack[ImageOptions],
    ) -> Iterator[Prediction]:
        """Segment one image after the other; see :meth:`ovseg.Predictor.stream`."""
        vocabulary = self.vocabulary(class_names)
        for batch in batches(images, bgr, batch_size, on_error):
            for encoded in self._encode(batch):
                yield encoded.segment(vocabulary, **wanted)

    def text(self, vocabulary: Vocabulary) -> Text:
        """The text embeddings of a vocabulary; known words are not encoded again.

        Raises:
            UserError: see :meth:`TextEncoder.features`.
        """
        no_object = np.array([self.folder.settings.no_object], np.float32)
        features = np.concatenate([self._text.features(vocabulary.words), no_object])
        if not vocabulary.reject:
            return Text(features)
        return Text(features, self._text.features(background_words(vocabulary.words)))

    def encode_crops(self, regions: Regions, mask_threshold: float | None = None) -> Regions:
        """Regions with CLIP's features, of their crops or of a shared pass, where the model has a
        CLIP ensemble.

        Args:
            regions: of one image.
            mask_threshold: in place of the model's own.
        """
        settings = self.folder.settings
        threshold = settings.mask_threshold if mask_threshold is None else mask_threshold
        if not settings.clip_ensemble:
            return regions
        if settings.shared is not None:
            return self._encode_together(regions, threshold, *settings.shared)
        crops = cut_crops(
            regions.image,
            regions.masks,
            size=settings.crop_size,
            threshold=threshold,
            fill=settings.fill,
            expand_ratio=settings.expand_ratio,
            matting=settings.matting,
        )
        features = np.zeros((len(crops.images), len(settings.no_object)), np.float32)
        for first in range(0, len(features), _CROPS):
            part = slice(first, first + _CROPS)
            inputs = {"crops": crops.images[part]}
            if settings.mask_prompts:
                inputs["masks"] = crops.masks[part]
            features[part] = self._region_graph(inputs)[0]
        return replace(regions, features=features, valid=crops.valid)

    def _encode_together(
        self, regions: Regions, threshold: float, short_side: int, patch: int
    ) -> Regions:
        image, covered, valid = shared_inputs(
            regions.image, regions.masks > np.float32(threshold), short_side, patch
        )
        features = np.zeros((len(covered), len(self.folder.settings.no_object)), np.float32)
        if len(features):
            graph = self._shared_graph
            features = graph({"images": image[None], "covered": covered[None]})[0][0]
        return replace(regions, features=features, valid=valid)

    def _model_input(self, image: np.ndarray) -> np.ndarray:
        """uint8 (3, H, W) as the model takes it."""
        settings = self.folder.settings
        resized = resize_short_side(image, settings.short_side, settings.longest_side)
        if settings.channels == "BGR":
            resized = resized[:, :, ::-1]
        return resized.transpose(2, 0, 1)

    def _propose(self, images: Sequence[np.ndarray]) -> list[Regions]:
        """Proposals of images (3, H, W). Those padded to the same size go through together; others
        by themselves, since the network sees padding and would propose something else."""
        step = max(self.folder.settings.size_divisibility, 1)
        groups: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            height, width = (-(-side // step) * step for side in image.shape[1:])
            groups.setdefault((height, width), []).append(place)
        found = {
            place: regions
            for size, places in groups.items()
            for place, regions in zip(
                places, self._propose_together([images[place] for place in places], size),
                strict=True,
            )
        }  # fmt: skip
        return [found[place] for place in range(len(images))]

    def _propose_together(
        self, images: Sequence[np.ndarray], size: tuple[int, int]
    ) -> list[Regions]:
        settings, (height, width) = self.folder.settings, size
        # the mean is 0 once it is normalised, as padding has to be
        batch = np.empty((len(images), 3, height, width), np.float32)
        batch[:] = np.array(settings.image_mean, np.float32).reshape(1, 3, 1, 1)
        for place, image in enumerate(images):
            batch[place, :, : image.shape[1], : image.shape[2]] = image
        logits, embeddings = self._proposal_graph({"images": batch})
        return [
            Regions(image, image_masks(each, image.shape[1:], (height, width)), of_queries)
            for image, each, of_queries in zip(images, logits, embeddings, strict=True)
        ]

    @cached_property
    def _proposal_graph(self) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        return self._graph("proposals")

    @cached_property
    def _region_graph(self) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        return self._graph("regions")

    @cached_property
    def _shared_graph(self) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        return self._graph("shared")

    @cached_property
    def _text_graph(self) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        return self._graph("text")

    def _graph(self, name: str) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
        """What runs a graph; it is loaded here, when it is first needed."""
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors; they are raised too
        path = str(self.folder.path / GRAPHS[name])
        session = onnxruntime.InferenceSession(path, options, providers=self._providers)
        return lambda inputs: session.run(None, dict(inputs))


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "exported models need onnxruntime; install it with: pip install 'ovseg[runtime]'"
        ) from error
    return onnxruntime


def _usable_providers(wanted: Sequence[Any]) -> list[Any]:
    """Those that this onnxruntime has, in their order; onnxruntime would name the others at length.

    Raises:
        UserError: one is none of onnxruntime's, or it has none of them.
    """
    known, there = _onnxruntime().get_all_providers(), _onnxruntime().get_available_providers()
    names = [provider if isinstance(provider, str) else provider[0] for provider in wanted]
    for name in names:
        if name not in known:
            raise UserError(f"providers: {name!r} is none of onnxruntime's: {', '.join(known)}")
    found = [each for each, name in zip(wanted, names, strict=True) if name in there]
    if not found:
        raise UserError(
            f"providers: this onnxruntime has none of {', '.join(names)}; choose from "
            f"{', '.join(there)}"
        )
    return found
