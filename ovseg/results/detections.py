"""Masks with classes and scores as ``supervision.Detections``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovseg.errors import UserError

if TYPE_CHECKING:
    import supervision


def detections(
    masks: np.ndarray, labels: Sequence[int], scores: Sequence[float], class_names: Sequence[str]
) -> supervision.Detections:
    """Masks as ``supervision.Detections``.

    Args:
        masks: bool (N, H, W), none of them empty.
        labels, scores: of each mask.
        class_names: of the labels.

    Raises:
        UserError: the package supervision is not installed.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise UserError(
            "to_supervision() needs the package supervision: pip install supervision"
        ) from error
    boxes = [
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for rows, columns in (np.nonzero(mask) for mask in masks)
    ]
    return Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        mask=masks,
        confidence=np.array(scores, np.float32),
        class_id=np.array(labels, int),
        data={"class_name": np.array([class_names[label] for label in labels], str)},
    )
