"""Checkpoints: released ones, backbones, our own; safe to read, written whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler, PathManager
from torch import Tensor, nn

from ovseg.engine.checks import check_weights
from ovseg.errors import UserError
from ovseg.modeling.clip import OVSEG_PREFIX, find_pretrained, load_clip_weights, read_clip_file
from ovseg.released import HUB_SCHEME, OVSEG_SCHEME, WEIGHTS_FILE, fetch, is_released
from ovseg.utils.checkpoint_files import read_checkpoint, without_prefix
from ovseg.utils.finite import check_weights_finite
from ovseg.utils.io import write_text
from ovseg.utils.write_checkpoint import write_checkpoint

logger = logging.getLogger(__name__)

_PROMPTS = OVSEG_PREFIX + "visual.mask_embedding"
_NO_OBJECT = "clip_adapter.non_object_embedding"
# what a checkpoint may lack, or hold in another shape, without being the wrong one
_OPTIONAL = ("criterion.empty_weight", _PROMPTS)


class _NamedWeights(PathHandler):
    """``ovseg://NAME`` and ``hf://owner/name``; what is not there is fetched."""

    def _get_supported_prefixes(self) -> list[str]:
        return [OVSEG_SCHEME, HUB_SCHEME]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return str(fetch(path))

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return path.startswith(HUB_SCHEME) or is_released(path.removeprefix(OVSEG_SCHEME))


PathManager.register_handler(_NamedWeights(), allow_override=True)


class OVSegCheckpointer(DetectionCheckpointer):
    """detectron2's checkpointer that reads safely, refuses misfits and completes CLIP.

    After a load, CLIP's own pretrained weights are fetched when the file did not carry them.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        cfg: CfgNode,
        trained: bool = False,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            cfg: names CLIP and its pretrained weights.
            trained: refuse a file that holds no more than a backbone.
        """
        super().__init__(model, save_dir, **checkpointables)
        self.cfg = cfg
        self.trained = trained
        self._missing: Iterable[str] = ()

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load as detectron2 does.

        Raises:
            UserError: for a file that is missing, cannot be read or is not of this model, and when
                CLIP's weights are needed but cannot be had.
        """
        self._missing = self.model.state_dict().keys()
        rest = super().load(self._local(path) if path else path, checkpointables)
        self._complete_clip()
        self._look_for_prompts()
        return rest

    def _local(self, path: str) -> str:
        try:
            local = PathManager.get_local_path(path)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"MODEL.WEIGHTS {path!r} could not be fetched ({type(error).__name__}): download "
                "the file and give its path"
            ) from error
        check_weights(local)
        return os.path.join(local, WEIGHTS_FILE) if os.path.isdir(local) else local

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_checkpoint(filename, "MODEL.WEIGHTS")
        weights = checkpoint.weights
        if not checkpoint.entries.get("matching_heuristics"):
            weights = without_prefix(weights, self.model.state_dict().keys())
        return {**checkpoint.entries, "model": weights}

    def _load_model(self, checkpoint: Any) -> Any:
        if checkpoint.pop("matching_heuristics", False):
            checkpoint["model"] = self._match_backbone(checkpoint)
        held = set(checkpoint["model"])
        self._warn_of_two_clips(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        wanted = self.model.state_dict().keys()
        self._missing = [
            *incompatible.missing_keys,
            *(key for key, *_ in incompatible.incorrect_shapes),
        ]
        if any(key.startswith("sem_seg_head.") for key in held):
            carries_clip = any(key.startswith(OVSEG_PREFIX) for key in held)
            self._refuse_misfit(incompatible, carries_clip)
            if carries_clip and _PROMPTS in self._missing and _PROMPTS in wanted:
                # those of CLIP_MODEL_NAME were trained with another CLIP
                self.model.state_dict()[_PROMPTS].zero_()
        elif self.trained:
            raise UserError(
                "MODEL.WEIGHTS holds no trained OVSeg, only a backbone at most: give a released "
                "checkpoint or one that train_net.py wrote"
            )
        elif not held & set(wanted):
            raise UserError("MODEL.WEIGHTS holds no weight of this model: give another file")
        return incompatible

    def _warn_of_two_clips(self, weights: dict[str, Any]) -> None:
        """Say so when CLIP_MODEL_NAME is a file and the checkpoint brings a CLIP of its own."""
        name = self.cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME
        if not os.path.isfile(name):
            return
        from_name = self.model.state_dict()
        for key, value in weights.items():
            if not key.startswith(OVSEG_PREFIX) or key not in from_name:
                continue
            other = from_name[key].cpu()
            # half precision is no difference
            if value.shape != other.shape or not torch.equal(value.half(), other.half()):
                logger.warning(
                    "MODEL.WEIGHTS carries another CLIP than CLIP_MODEL_NAME %s, and is what "
                    "counts; tools/swap_clip_weights.py puts one in its place", name,
                )  # fmt: skip
                return

    def _match_backbone(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Give a backbone's weights the names they have here.

        detectron2 matches names by their ends over the whole model, where ``norm1.weight`` of a
        backbone also fits layers of the decoder; only the backbone is meant.
        """
        backbone = {
            key: value
            for key, value in self.model.state_dict().items()
            if key.startswith("backbone.")
        }
        from_caffe2 = checkpoint.get("__author__") == "Caffe2"
        matched = align_and_update_state_dicts(backbone, checkpoint["model"], from_caffe2)
        return {key: value for key, value in matched.items() if key in backbone}

    def _refuse_misfit(self, incompatible: Any, carries_clip: bool) -> None:
        widths = [shapes for key, *shapes in incompatible.incorrect_shapes if key == _NO_OBJECT]
        if widths:
            held, wanted = (shape[-1] for shape in widths[0])
            raise UserError(
                f"the head of MODEL.WEIGHTS is for a CLIP with text features of width {held}, and "
                f"those of {self.cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME} have {wanted}: give the "
                "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME that it was trained with (and its "
                "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM), or train a head for this one"
            )
        problems = [
            *(
                f"{key} is {of_file}, wanted {of_model}"
                for key, of_file, of_model in incompatible.incorrect_shapes
                if key not in _OPTIONAL
            ),
            *(
                f"{key} is missing"
                for key in incompatible.missing_keys
                if (carries_clip or not key.startswith(OVSEG_PREFIX)) and key not in _OPTIONAL
            ),
            *(
                f"{key} is left over"
                for key in incompatible.unexpected_keys
                if key not in _OPTIONAL
            ),
        ]
        if problems:
            raise UserError(
                f"MODEL.WEIGHTS does not fit this config: {problems[0]}"
                + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
                + "; give the checkpoint's own --config-file"
            )

    def _look_for_prompts(self) -> None:
        """Mask prompts that nobody trained must not decide a class."""
        adapter = self.cfg.MODEL.CLIP_ADAPTER
        prompts = self.model.state_dict().get(_PROMPTS)
        if not adapter.MASK_PROMPT_FWD or prompts is None or prompts.any():
            return
        if not self.trained:
            logger.warning(
                "CLIP has no trained mask prompts: set MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD False"
            )
            return
        raise UserError(
            f"MODEL.WEIGHTS holds no trained mask prompts of depth {adapter.MASK_PROMPT_DEPTH}: "
            "set MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD False, or MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH "
            "to the depth that it was trained with"
        )

    def _complete_clip(self) -> None:
        adapter = self.cfg.MODEL.CLIP_ADAPTER
        missing = [k for k in self._missing if k.startswith(OVSEG_PREFIX) and k not in _OPTIONAL]
        if not missing or os.path.isfile(adapter.CLIP_MODEL_NAME):
            return  # carried by MODEL.WEIGHTS, or read when the model was built
        if not adapter.CLIP_PRETRAINED:
            logger.warning("CLIP keeps its random weights: CLIP_PRETRAINED is empty")
            return
        if comm.is_main_process():
            find_pretrained(adapter.CLIP_MODEL_NAME, adapter.CLIP_PRETRAINED)
        comm.synchronize()
        path = find_pretrained(adapter.CLIP_MODEL_NAME, adapter.CLIP_PRETRAINED)
        weights, _ = read_clip_file(path)
        load_clip_weights(self.model.clip_adapter.clip_model, weights, str(path))
        logger.info("CLIP's weights come from %s", path)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` whole or not at all; arguments as in detectron2.

        Raises:
            UserError: a trained weight is not finite; the last good checkpoint stays.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        path = os.path.join(self.save_dir, f"{name}.pth")
        trained = ((n, value) for n, value in self.model.named_parameters() if value.requires_grad)
        check_weights_finite(
            trained, Path(path), "give a smaller SOLVER.BASE_LR or a longer SOLVER.WARMUP_ITERS"
        )
        logger.info("saving checkpoint to %s", path)
        write_checkpoint({**data, **kwargs}, path)
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Record which checkpoint a run goes on from, whole or not at all."""
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)
