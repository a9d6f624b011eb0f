"""Label Studio: one pre-annotation an image, whose masks are its brush's run-length code.

The brush stores the colours of a canvas (H, W, 4), of which only the opacity matters, flattened and
packed bit by bit: 32 bits with the number of values, 5 with the bits of a value less one, 4 x 4
with the widths of the lengths less one; then for each run a 1, the index of the width in 2 bits,
the length less one in this width, and the value. (A 0 would begin a list of single values.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np

if TYPE_CHECKING:
    from ovseg.prediction import Prediction

_CHANNELS = 4
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _LENGTH_BITS[-1]
#: names of the tags in :func:`labeling_config`
BRUSH, IMAGE = "brush", "image"


def brush_rle(mask: np.ndarray) -> list[int]:
    """The brush's code of a mask, bool (H, W): the bytes of its bits."""
    values = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    lengths = _CHANNELS * np.diff([*starts.tolist(), len(values)])
    head = f"{_CHANNELS * len(values):032b}{8 - 1:05b}"
    bits = [head, *(f"{width - 1:04b}" for width in _LENGTH_BITS)]
    for length, inside in zip(lengths.tolist(), values[starts].tolist(), strict=True):
        value = "11111111" if inside else "00000000"
        for start in range(0, length, _LONGEST_RUN):
            less_one = min(_LONGEST_RUN, length - start) - 1
            index = next(i for i, width in enumerate(_LENGTH_BITS) if less_one < 1 << width)
            bits.append(f"1{index:02b}{less_one:0{_LENGTH_BITS[index]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0")).tolist()


def task(prediction: Prediction, image: str = "", model: str = "ovseg") -> dict[str, Any]:
    """A task of Label Studio with the image's classes as a prediction.

    Args:
        prediction: of the image.
        image: where Label Studio finds the image.
        model: Label Studio's ``model_version``.
    """
    height, width = prediction.labels.shape
    results = []
    for label in np.unique(prediction.labels[prediction.labels >= 0]).tolist():
        mask = prediction.labels == label
        code = {
            "format": "rle",
            "rle": brush_rle(mask),
            "brushlabels": [prediction.class_names[label]],
        }
        results.append(
            {
                "id": f"class-{label}",
                "type": "brushlabels",
                "from_name": BRUSH,
                "to_name": IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": round(float(prediction.scores[mask].mean()), 6),
                "value": code,
            }
        )
    return {
        "data": {IMAGE: image},
        "predictions": [{"model_version": model, "result": results}],
    }


def labeling_config(class_names: list[str], colours: list[str]) -> str:
    """The labelling interface, XML, of a project that imports such tasks.

    Args:
        class_names: all of them.
        colours: of the classes, ``#rrggbb``.
    """
    labels = [
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>"
        for name, colour in zip(class_names, colours, strict=True)
    ]
    lines = [
        "<View>",
        f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true"/>',
        f'  <BrushLabels name="{BRUSH}" toName="{IMAGE}">',
        *labels,
        "  </BrushLabels>",
        "</View>",
    ]
    return "\n".join(lines) + "\n"
