"""The Python API: images and class names in, segmentations out.

    from ovseg import Predictor

    predictor = Predictor.from_pretrained("tiny")
    prediction = predictor("photo.jpg", ["dog", "grass", "blue sky"])
    prediction.overlay().save("overlay.png")

Proposals and CLIP's features of their crops do not depend on the class names, so an image can be
encoded once and segmented by ever other names, at a small part of the time::

    encoded = predictor.encode("photo.jpg")
    encoded.segment(["dog", "grass"])
    encoded.segment({"animal": ["dog", "cat"], "ground": ["grass", "sand"]})
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ovseg.config import setup_cfg
from ovseg.config.checks import ONE_WEIGHT
from ovseg.config.speed import speed_opts
from ovseg.data.mapper import resize_short_side, test_size
from ovseg.data.own.registration import register_custom
from ovseg.data.vocabulary import ClassNames, read_vocabulary
from ovseg.encoded_image import EncodedImage, SegmentOptions
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.test_time import as_ovseg, for_inference, plain_model
from ovseg.errors import UserError
from ovseg.image_input import ImageSource, batches, check_several, image_array, is_one_image
from ovseg.methods import PixelSegmenter
from ovseg.prediction import Prediction
from ovseg.structures import GivenProposals
from ovseg.utils.images import allow_megapixels

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Predictor:
    """A model with its weights, ready for images. It may be called from several threads."""

    def __init__(
        self, cfg: CfgNode, model: nn.Module | None = None, *, speed: str | None = None
    ) -> None:
        """Build the model of ``cfg`` and load ``cfg.MODEL.WEIGHTS``.

        Args:
            cfg: as from :func:`ovseg.config.setup_cfg`.
            model: a model that is built and loaded already, in place of ``cfg``'s.
            speed: "exact", "fast" or "fastest" (``docs/speed.md``), in place of what ``cfg`` says.

        Raises:
            UserError: the weights are missing or do not belong to this model, or an unknown speed.
        """
        if speed is not None:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.merge_from_list(speed_opts(speed))
            cfg.freeze()
        self.cfg = cfg
        allow_megapixels(cfg.INPUT.MAX_MEGAPIXELS)
        if model is None:
            if not cfg.MODEL.WEIGHTS:
                raise UserError("MODEL.WEIGHTS is empty; give the path of a trained checkpoint")
            if _knows_its_classes(cfg):
                register_custom(cfg.DATASETS.CUSTOM)
            model = build_model(cfg)
            model = model if isinstance(model, PixelSegmenter) else as_ovseg(model)
            OVSegCheckpointer(model, cfg=cfg, trained=True).load(cfg.MODEL.WEIGHTS)
        self.model: Any = for_inference(cfg, model.eval())

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: str | None = None,
        precision: str | None = None,
        speed: str | None = None,
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
            speed: "exact", "fast" or "fastest", see ``docs/speed.md``; default: what the config
                says, which is exact.
            config: a yaml file in place of the one that belongs to the name; needed for the path of
                a checkpoint, unless it is a released file or ``config.yaml`` lies beside it.
            opts: config keys and their values: a mapping, or ``[key, value, ...]``.

        Raises:
            UserError: an unknown name or speed, weights that cannot be had, or a mistake in the
                config.
        """
        from ovseg.pretrained import resolve

        pretrained = resolve(name, config)
        pairs: list[Any] = list(opts)
        if isinstance(opts, Mapping):
            pairs = [part for pair in opts.items() for part in pair]
        given = {"MODEL.DEVICE": device, "MODEL.PRECISION": precision}
        named = [part for key, value in given.items() if value is not None for part in (key, value)]
        return cls(
            setup_cfg(pretrained.config, [*pretrained.opts, *speed_opts(speed), *named, *pairs])
        )

    def save_pretrained(self, folder: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write ``config.yaml`` and ``model.safetensors``, which :meth:`from_pretrained` reads.

        With ``half`` the weights are written in half precision.

        Raises:
            UserError: the folder cannot be written.
        """
        from ovseg.pretrained import save_pretrained

        state = plain_model(self.model).state_dict()
        save_pretrained(self.cfg, state, folder, half=half)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a path and an array are iterable, too
        self,
        images: ImageSource,
        class_names: ClassNames,
        *,
        bgr: bool = ...,
        **wanted: Unpack[SegmentOptions],
    ) -> Prediction: ...

    @overload
    def __call__(
        self,
        images: Iterable[ImageSource],
        class_names: ClassNames,
        *,
        bgr: bool = ...,
        **wanted: Unpack[SegmentOptions],
    ) -> list[Prediction]: ...

    def __call__(
        self,
        images: ImageSource | Iterable[ImageSource],
        class_names: ClassNames,
        *,
        bgr: bool = False,
        **wanted: Unpack[SegmentOptions],
    ) -> Prediction | list[Prediction]:
        """Segment one image, or several.

        Args:
            images: one image (see :data:`ImageSource`), or a list or iterator of images.
            class_names: what to look for, see :func:`ovseg.data.vocabulary.read_vocabulary`: a list
                of names, a mapping from names to synonyms, a file, or a built-in list's name.
            bgr: the channels of arrays and tensors are blue, green, red.
            wanted: options of :meth:`EncodedImage.segment`.

        Returns:
            The prediction of one image; of several a list, in their order.

        Raises:
            UserError: class names that cannot be used, or a file that is no image.
            ValueError: an array or a tensor of another shape or type.
        """
        vocabulary = read_vocabulary(class_names)  # before the image, which takes long
        if is_one_image(images):
            return self.encode(cast(ImageSource, images), bgr=bgr).segment(vocabulary, **wanted)
        several = cast(Iterable[ImageSource], images)
        return [encoded.segment(vocabulary, **wanted) for encoded in self._encoded(several, bgr)]

    def encode(
        self, image: ImageSource, *, bgr: bool = False, proposals: GivenProposals | None = None
    ) -> EncodedImage:
        """Do what does not depend on class names: proposals, crops, CLIP's features.

        Args:
            image, bgr: see :meth:`__call__`.
            proposals: for this image, in place of MaskFormer's.

        Raises:
            UserError, ValueError: see :meth:`__call__`; or the proposals do not fit the model.
        """
        return self.encode_batch([image], [proposals], bgr=bgr)[0]

    def encode_batch(
        self,
        images: Sequence[ImageSource],
        proposals: Sequence[GivenProposals | None] | None = None,
        *,
        bgr: bool = False,
    ) -> list[EncodedImage]:
        """Encode images that go through the model together.

        Results are those of each picture by itself, but for rounding.

        Args:
            images, bgr: see :meth:`__call__`.
            proposals: for each image, in place of MaskFormer's; None for MaskFormer's.

        Raises:
            UserError, ValueError: see :meth:`encode`.
        """
        check_several(images)
        return self._encode([image_array(image, bgr) for image in images], proposals)

    @torch.inference_mode()
    def _encode(
        self,
        images: Sequence[np.ndarray],
        proposals: Sequence[GivenProposals | None] | None = None,
    ) -> list[EncodedImage]:
        """Encode arrays that nobody writes to any more."""
        batch = [self._model_input(image) for image in images]
        for inputs, given in zip(batch, proposals or (), strict=proposals is not None):
            if given is not None:
                inputs["proposals"] = given
        encoded = self.model.encode(batch)
        return [
            EncodedImage(self.model, *each) for each in zip(images, batch, encoded, strict=True)
        ]

    def stream(
        self,
        images: Iterable[ImageSource],
        class_names: ClassNames,
        *,
        batch_size: int = 1,
        bgr: bool = False,
        on_error: Callable[[ImageSource, Exception], None] | None = None,
        **wanted: Unpack[SegmentOptions],
    ) -> Iterator[Prediction]:
        """Segment images one after the other, reading ahead.

        Args:
            images: as many as there are; no more of them are held than are worked on.
            class_names, bgr, wanted: see :meth:`__call__`.
            batch_size: images that go through the model together. Results are those of each
                image by itself, but for rounding.
            on_error: called with an image that cannot be used, and the error; it is then passed
                over. Without it the error is raised.

        Yields:
            Predictions in the order of the images.
        """
        vocabulary = read_vocabulary(class_names)
        for encoded in self._encoded(images, bgr, batch_size, on_error):
            yield encoded.segment(vocabulary, **wanted)

    def _encoded(
        self,
        images: Iterable[ImageSource],
        bgr: bool,
        batch_size: int = 1,
        on_error: Callable[[ImageSource, Exception], None] | None = None,
    ) -> Iterator[EncodedImage]:
        """Images encoded in batches; arguments as for :meth:`stream`."""
        for batch in batches(images, bgr, batch_size, on_error):
            yield from self._encode(batch)

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


def _knows_its_classes(cfg: CfgNode) -> bool:
    """Whether a model is built with the classes of its training, which data sets describe."""
    unseen = cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN
    return cfg.MODEL.META_ARCHITECTURE == "PixelSegmenter" or unseen != ONE_WEIGHT
