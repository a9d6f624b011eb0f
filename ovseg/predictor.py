"""The Python API: a picture and words in, a segmentation out.

    from ovseg.predictor import Predictor

    predictor = Predictor.from_embedded()
    prediction = predictor.predict(image, ["dog", "grass", "blue sky"])

``image`` is uint8 (H, W, 3) RGB, as :func:`ovseg.utils.images.read_image` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ovseg.config import setup_cfg
from ovseg.data.mapper import resize_short_side, test_size
from ovseg.data.vocabulary import clean_class_names
from ovseg.engine.checkpoint import OVSegCheckpointer
from ovseg.engine.test_time import for_inference
from ovseg.errors import UserError
from ovseg.modeling import OVSeg
from ovseg.structures import GivenProposals, Prediction, Regions
from ovseg.utils.package_files import config_path


class Predictor:
    """A model with its weights, ready for pictures."""

    def __init__(self, cfg: CfgNode, model: nn.Module | None = None) -> None:
        """Build the model of ``cfg`` and load ``cfg.MODEL.WEIGHTS``.

        Args:
            cfg: as from :func:`ovseg.config.files.setup_cfg`.
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
        self.model = for_inference(cfg, model.eval())

    @classmethod
    def from_embedded(cls, opts: Sequence[str] = ()) -> Predictor:
        """The small model that comes with the repository, in its demo setting.

        Args:
            opts: pairs of config key and value that override its config, for instance
                ``["MODEL.DEVICE", "cpu"]``.
        """
        return cls(setup_cfg(config_path("ovseg_tiny_demo.yaml"), list(opts)))

    @torch.inference_mode()
    def predict(
        self,
        image: np.ndarray,
        class_names: Sequence[str],
        proposals: GivenProposals | None = None,
    ) -> Prediction:
        """Segment one picture by any words.

        Args:
            image: uint8 (H, W, 3), RGB, 0..255.
            class_names: the words; each is one class, commas and blanks included.
            proposals: for this picture, in place of MaskFormer's.

        Returns:
            labels and scores at the picture's own size, on the CPU. Where nothing has a score, or
            the internal word "others" wins (it joins a word that stands alone), the label is -1 and
            the score 0.

        Raises:
            UserError: see :func:`clean_class_names`; or the proposals do not fit the model.
            ValueError: the image has another shape or type.
        """
        inputs = self._model_input(image, clean_class_names(class_names))
        if proposals is not None:
            inputs["proposals"] = proposals
        words = inputs["class_names"]
        result = self.model([inputs])[0]
        labels = result["labels"].to("cpu", torch.int64)
        scores = result["scores"].to("cpu", torch.float32)
        nothing = (labels < 0) | (labels >= len(words))
        return Prediction(
            labels=labels.masked_fill(nothing, -1),
            scores=scores.masked_fill(nothing, 0.0),
            class_names=words,
        )

    @torch.inference_mode()
    def propose(self, image: np.ndarray, class_names: Sequence[str]) -> Regions:
        """MaskFormer's proposals for one picture; arguments and errors as for :meth:`predict`."""
        assert isinstance(self.model, OVSeg), "several looks have no proposals of their own"
        return self.model.propose([self._model_input(image, clean_class_names(class_names))])[0]

    def _model_input(self, image: np.ndarray, words: list[str]) -> dict[str, Any]:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
        resized = resize_short_side(image, *test_size(self.cfg))
        if self.cfg.INPUT.FORMAT == "BGR":  # the order that the model was trained with
            resized = resized[:, :, ::-1]
        return {
            "image": torch.from_numpy(resized.transpose(2, 0, 1).copy()),
            "height": image.shape[0],
            "width": image.shape[1],
            "class_names": list(words),
            "output": "labels",
        }
