"""The Python API: pictures and class names in, segmentations out.

    from ovseg import Predictor

    predictor = Predictor.from_pretrained("tiny")
    prediction = predictor("photo.jpg", ["dog", "grass", "blue sky"])
    prediction.overlay().save("overlay.png")

Proposals and CLIP's features of their crops do not depend on the class names, so a picture can be
encoded once and segmented by ever other names, at a small part of the time::

    encoded = predictor.encode("photo.jpg")
    encoded.segment(["dog", "grass"])
    encoded.segment({"animal": ["dog", "cat"], "ground": ["grass", "sand"]})
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image
from torch import Tensor, nn

from ovseg.config import setup_cfg
from ovseg.data.mapper import resize_short_side, test_size
from ovseg.data.vocabulary import ClassNames, read_vocabulary, thing_names
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.test_time import for_inference, plain_model
from ovseg.errors import UserError
from ovseg.prediction import Prediction, ProposalScores
from ovseg.segments import InstancePrediction, PanopticPrediction
from ovseg.structures import GivenProposals, Regions
from ovseg.utils.images import read_image, rgb_array
from ovseg.vocabulary import Vocabulary

#: one picture: a path; a Pillow image; uint8 (H, W, 3), RGB; or a tensor (3, H, W), RGB, uint8 in
#: 0..255 or float in 0..1
Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
_LOADING_THREADS = 2
# of a picture: the features of its crops at so many mask thresholds besides the model's own
_THRESHOLDS_KEPT = 8


class Predictor:
    """A model with its weights, ready for pictures. It may be called from several threads."""

    def __init__(self, cfg: CfgNode, model: nn.Module | None = None) -> None:
        """Build the model of ``cfg`` and load ``cfg.MODEL.WEIGHTS``.

        Args:
            cfg: as from :func:`ovseg.config.setup_cfg`.
            model: a model that is built and loaded already, in place of ``cfg``'s.

        Raises:
            UserError: the weights are missing or do not belong to this model.
        """
        self.cfg = cfg
        if model is None:
            if not cfg.MODEL.WEIGHTS:
                raise UserError("MODEL.WEIGHTS is empty; give the path of a trained checkpoint")
            model = build_model(cfg)
            OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
        self.model: Any = for_inference(cfg, model.eval())

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: str | None = None,
        precision: str | None = None,
        config: str | os.PathLike[str] | None = None,
        opts: Sequence[str] | Mapping[str, object] = (),
    ) -> Predictor:
        """A model with trained weights, fetched if they are not there.

        Args:
            name: see :mod:`ovseg.pretrained`: "tiny" (comes with OVSeg), "swinB-vitL14" and the
                other released ones (in their demo setting), the path of a checkpoint, a folder of
                :meth:`save_pretrained`, or ``hf://owner/name``.
            device: ``MODEL.DEVICE``: "cpu", "cuda" or "cuda:N"; default: a GPU if there is one.
            precision: ``MODEL.PRECISION``.
            config: a yaml file in place of the one that belongs to the name; needed for a path.
            opts: config keys and their values: a mapping, or ``[key, value, ...]``.

        Raises:
            UserError: an unknown name, weights that cannot be had, or a mistake in the config.
        """
        from ovseg.pretrained import resolve

        pretrained = resolve(name, config)
        pairs: list[Any] = list(opts)
        if isinstance(opts, Mapping):
            pairs = [part for pair in opts.items() for part in pair]
        given = {"MODEL.DEVICE": device, "MODEL.PRECISION": precision}
        named = [part for key, value in given.items() if value is not None for part in (key, value)]
        return cls(setup_cfg(pretrained.config, [*pretrained.opts, *named, *pairs]))

    def save_pretrained(self, folder: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write ``config.yaml`` and ``model.safetensors``, which :meth:`from_pretrained` reads.

        With ``half`` the weights are written in half precision.

        Raises:
            UserError: the folder cannot be written.
        """
        from ovseg.pretrained import save_pretrained

        state = plain_model(self.model).state_dict()
        save_pretrained(self.cfg, state, folder, half=half)

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        class_names: ClassNames,
        *,
        bgr: bool = False,
        **wanted: Any,
    ) -> Any:
        """Segment one picture, or several.

        Args:
            images: one picture (see :data:`Picture`), or a list or iterator of pictures.
            class_names: what to look for, see :func:`ovseg.data.vocabulary.read_vocabulary`: a list
                of names, a mapping from names to synonyms, a file, or a built-in list's name.
            bgr: the channels of arrays and tensors are blue, green, red.
            wanted: options of :meth:`EncodedImage.segment`.

        Returns:
            The prediction of one picture; of several a list, in their order.

        Raises:
            UserError: class names that cannot be used, or a file that is no picture.
            ValueError: an array or a tensor of another shape or type.
        """
        if _is_one(images):
            return self.encode(cast(Picture, images), bgr=bgr).segment(class_names, **wanted)
        vocabulary = read_vocabulary(class_names)
        several = cast(Iterable[Picture], images)
        return [encoded.segment(vocabulary, **wanted) for encoded in self._encoded(several, bgr)]

    def encode(
        self, image: Picture, *, bgr: bool = False, proposals: GivenProposals | None = None
    ) -> EncodedImage:
        """Do what does not depend on class names: proposals, crops, CLIP's features.

        Args:
            image, bgr: see :meth:`__call__`.
            proposals: for this picture, in place of MaskFormer's.

        Raises:
            UserError, ValueError: see :meth:`__call__`; or the proposals do not fit the model.
        """
        return self._encode([_rgb(image, bgr)], proposals)[0]

    def stream(
        self,
        images: Iterable[Picture],
        class_names: ClassNames,
        *,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: Callable[[Picture, UserError], None] | None = None,
        **wanted: Any,
    ) -> Iterator[Prediction]:
        """Segment pictures one after the other, reading ahead.

        Args:
            images: as many as there are; no more of them are held than are worked on.
            class_names, bgr, wanted: see :meth:`__call__`.
            batch_size: pictures that go through the model together. They are padded to one size,
                which may change a result in its last digits.
            on_error: called with a picture that cannot be used, and why; it is then passed over.
                Without it the error is raised.

        Yields:
            Predictions in the order of the pictures.
        """
        vocabulary = read_vocabulary(class_names)
        for encoded in self._encoded(images, bgr, batch_size, on_error):
            yield encoded.segment(vocabulary, **wanted)

    def _encoded(
        self,
        images: Iterable[Picture],
        bgr: bool,
        batch_size: int = 1,
        on_error: Callable[[Picture, UserError], None] | None = None,
    ) -> Iterator[EncodedImage]:
        """Pictures encoded in batches; arguments as for :meth:`stream`."""
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size} must be at least 1")
        batch: list[np.ndarray] = []
        for array in _read_ahead(images, bgr, on_error, 2 * batch_size):
            batch.append(array)
            if len(batch) == batch_size:
                yield from self._encode(batch)
                batch = []
        if batch:
            yield from self._encode(batch)

    @torch.inference_mode()
    def _encode(
        self, images: Sequence[np.ndarray], proposals: GivenProposals | None = None
    ) -> list[EncodedImage]:
        batch = [self._model_input(image) for image in images]
        if proposals is not None:
            batch = [{**inputs, "proposals": proposals} for inputs in batch]
        encoded = self.model.encode(batch)
        return [EncodedImage(self, *each) for each in zip(images, batch, encoded, strict=True)]

    def _model_input(self, image: np.ndarray) -> dict[str, Any]:
        resized = resize_short_side(image, *test_size(self.cfg))
        if self.cfg.INPUT.FORMAT == "BGR":  # the order that the model was trained with
            resized = resized[:, :, ::-1]
        return {
            "image": torch.from_numpy(resized.transpose(2, 0, 1).copy()),
            "height": image.shape[0],
            "width": image.shape[1],
            "picture": image,
        }


class EncodedImage:
    """A picture after all that does not depend on class names; made by :meth:`Predictor.encode`.

    Attributes:
        image: uint8 (H, W, 3), RGB, 0..255; the picture.
    """

    def __init__(
        self, predictor: Predictor, image: np.ndarray, inputs: Mapping[str, Any], encoded: Any
    ) -> None:
        """
        Args:
            predictor: whose model encoded the picture.
            image: the picture.
            inputs: what the model was given.
            encoded: what the model made of it.
        """
        self.image = image
        self._predictor = predictor
        self._inputs = inputs
        self._encoded = encoded
        model = predictor.model
        self._recropped = functools.lru_cache(_THRESHOLDS_KEPT)(
            lambda mask_threshold: model.recrop(encoded, mask_threshold)
        )

    @property
    def regions(self) -> Regions:
        """The proposals.

        Raises:
            UserError: the picture has several views, each with proposals of its own.
        """
        return _single_view(self._encoded)

    @torch.inference_mode()
    def segment(
        self,
        class_names: ClassNames,
        *,
        class_probs: bool = False,
        proposals: bool = False,
        ensemble_weight: float | None = None,
        mask_threshold: float | None = None,
    ) -> Prediction:
        """Segment the picture by any class names.

        Args:
            class_names: see :meth:`Predictor.__call__`.
            class_probs: give the probabilities of all classes at all pixels too.
            proposals: give the proposals with both branches' probabilities too.
            ensemble_weight: in place of the model's ``CLIP_ENSEMBLE_WEIGHT``, 0..1: the weight of
                CLIP's classes against MaskFormer's; 0 has the published meaning, CLIP alone.
            mask_threshold: in place of the model's ``MASK_THR``, 0..1: a pixel belongs to a
                proposal where its mask exceeds this. The crops are cut anew and go through CLIP
                again, which is kept for thresholds that come back; a model that segments by its
                best proposals alone (``OVSegDEMO``) shows its masks cut at this threshold too.

        Returns:
            Labels and scores at the picture's own size.

        Raises:
            UserError: class names that cannot be used, a weight or threshold outside 0..1, or a
                weight for a model without CLIP ensemble.
        """
        vocabulary = read_vocabulary(class_names)
        self._check_settings(ensemble_weight, mask_threshold)
        model = self._predictor.model
        encoded: Any = self._encoded
        if mask_threshold is not None:
            encoded = self._recropped(mask_threshold)
        settings: dict[str, float | None] = {
            "ensemble_weight": ensemble_weight,
            "mask_threshold": mask_threshold,
        }
        inputs = {**self._inputs, "class_names": vocabulary}
        result = model.segment({**inputs, "output": "labels"}, encoded, **settings)
        probs = None
        if class_probs:
            scores = model.segment({**inputs, "output": "scores"}, encoded, **settings)["sem_seg"]
            total = scores.sum(dim=0)
            probs = (scores / total.where(total > 0, 1))[: len(vocabulary)].cpu().numpy()
        return Prediction(
            labels=result["labels"].to("cpu", torch.int32).numpy(),
            scores=result["scores"].to("cpu", torch.float32).numpy(),
            class_names=list(vocabulary.names),
            image=self.image,
            class_probs=probs,
            proposals=self._proposal_scores(encoded, vocabulary) if proposals else None,
        )

    def _check_settings(self, ensemble_weight: float | None, mask_threshold: float | None) -> None:
        for name, value in (
            ("ensemble_weight", ensemble_weight), ("mask_threshold", mask_threshold)
        ):  # fmt: skip
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} {value} must be in 0..1")
        if ensemble_weight is not None and not self._predictor.cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE:
            raise UserError(
                f"ensemble_weight {ensemble_weight}: the model's CLIP_ENSEMBLE is False; "
                "set MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE True or leave the weight out"
            )

    @torch.inference_mode()
    def panoptic(
        self,
        class_names: ClassNames,
        thing_classes: Sequence[str] | None = None,
        *,
        object_mask_threshold: float | None = None,
        overlap_threshold: float | None = None,
    ) -> PanopticPrediction:
        """Cut the picture into segments: one for every thing and one for every kind of stuff.

        Args:
            class_names: see :meth:`Predictor.__call__`.
            thing_classes: the names of those that are things; None: all, or what a built-in list
                says.
            object_mask_threshold, overlap_threshold: 0..1, see
                :func:`ovseg.modeling.panoptic.panoptic_segments`; None: the config's.

        Raises:
            UserError: class names or thresholds that cannot be used, or see :attr:`regions`.
        """
        vocabulary, found = self._find(
            class_names, thing_classes, panoptic=True, instances=False,
            object_mask_threshold=object_mask_threshold, overlap_threshold=overlap_threshold,
        )  # fmt: skip
        ids, segments = found["panoptic_seg"]
        return PanopticPrediction.of(ids, segments, vocabulary, self.image)

    @torch.inference_mode()
    def instances(
        self,
        class_names: ClassNames,
        thing_classes: Sequence[str] | None = None,
        *,
        max_instances: int | None = None,
    ) -> InstancePrediction:
        """Find things, each with a mask and a score of its own.

        Args:
            class_names, thing_classes: see :meth:`panoptic`. Stuff competes, but is not found.
            max_instances: at least 1; None: the config's ``TEST.DETECTIONS_PER_IMAGE``.

        Raises:
            UserError: class names or a number that cannot be used, or see :attr:`regions`.
        """
        vocabulary, found = self._find(
            class_names, thing_classes, panoptic=False, instances=True, max_instances=max_instances
        )
        return InstancePrediction.of(found["instances"], vocabulary, self.image)

    def _find(
        self, class_names: ClassNames, thing_classes: Sequence[str] | None, **settings: Any
    ) -> tuple[Vocabulary, dict[str, Any]]:
        """The vocabulary and what the model's :class:`SegmentFinder` finds by it; ``settings`` that
        are not None stand in place of its own."""
        model, vocabulary = plain_model(self._predictor.model), read_vocabulary(class_names)
        given = {name: value for name, value in settings.items() if value is not None}
        finder = replace(model.segment_finder, **given)
        things = thing_names(class_names) if thing_classes is None else thing_classes
        inputs = {**self._inputs, "class_names": vocabulary, "thing_classes": things}
        classified = model.classify(self.regions, model.text(vocabulary))
        return vocabulary, model.find_segments(inputs, self.regions, classified, finder)

    def _proposal_scores(self, encoded: Any, vocabulary: Vocabulary) -> ProposalScores:
        regions, model = _single_view(encoded), plain_model(self._predictor.model)
        text = model.text(vocabulary)
        probs = model.classify_queries(regions, text)
        of_queries = None if probs is None else vocabulary.best_of_words(probs, dim=1)
        of_crops = None
        if regions.crops is not None:
            clip = model.classify_crops(regions.crops, text)
            of_crops = clip.class_probs.new_full((len(regions.masks), len(vocabulary)), torch.nan)
            of_crops[clip.valid] = vocabulary.best_of_words(clip.class_probs, dim=1)
        return ProposalScores(
            masks=regions.masks.float().cpu().numpy(),
            maskformer_probs=None if of_queries is None else of_queries.float().cpu().numpy(),
            clip_probs=None if of_crops is None else of_crops.float().cpu().numpy(),
        )


def _single_view(encoded: Any) -> Regions:
    if not isinstance(encoded, Regions):
        raise UserError(
            "there are proposals of one view of a picture alone: "
            "set TEST.AUG.ENABLED and TEST.SLIDING_WINDOW to False"
        )
    return encoded


def _is_one(images: Any) -> bool:
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim <= 3
    return isinstance(images, str | os.PathLike | Image.Image)


def _rgb(image: Picture, bgr: bool) -> np.ndarray:
    """A picture as uint8 (H, W, 3), RGB."""
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        return rgb_array(image)
    if isinstance(image, Tensor):
        image = _tensor_array(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(
            "image must be a path, a Pillow image, an array or a tensor, "
            f"not a {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    return np.ascontiguousarray(image[:, :, ::-1]) if bgr else image


def _tensor_array(image: Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a tensor must be (3, H, W), not {tuple(image.shape)}")
    image = image.detach().cpu()
    if image.is_floating_point():
        if not (image.numel() and float(image.min()) >= 0 and float(image.max()) <= 1):
            raise ValueError("a tensor of floats must have values in 0..1; or give uint8 in 0..255")
        image = (255 * image).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _read_ahead(
    images: Iterable[Picture],
    bgr: bool,
    on_error: Callable[[Picture, UserError], None] | None,
    ahead: int,
) -> Iterator[np.ndarray]:
    """Pictures as arrays, up to ``ahead`` of them read before they are asked for."""
    source = iter(images)
    with ThreadPoolExecutor(_LOADING_THREADS) as threads:
        waiting: deque[tuple[Picture, Future[np.ndarray]]] = deque()
        try:
            while True:
                for image in islice(source, ahead - len(waiting)):
                    waiting.append((image, threads.submit(_rgb, image, bgr)))
                if not waiting:
                    return
                image, reading = waiting.popleft()
                try:
                    array = reading.result()
                except UserError as error:
                    if on_error is None:
                        raise
                    on_error(image, error)
                else:
                    yield array
        finally:
            for _, reading in waiting:
                reading.cancel()
