"""A page of images that needs no server and nothing from elsewhere: a folder to open or to send.

A browser does not let a page that is opened from a folder look into the pixels of files, nor fetch
them. So every image has a script, ``NAME.js``, that hands its classes and its label map to the
page as text; the page loads an image and its script when they come into view.
"""

from __future__ import annotations

import base64
import io
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ovseg.prediction import Prediction

#: the longer side of images in the page, at most
LONGEST_SIDE = 1024


def shown_image(prediction: Prediction) -> Image.Image:
    """The image as the page shows it."""
    return Image.fromarray(prediction.image).resize(_size(prediction), Image.Resampling.LANCZOS)


def script(prediction: Prediction, name: str, file: str) -> str:
    """What the page knows of an image, as JavaScript.

    Args:
        prediction: of the image.
        name: of the image in the page.
        file: the image's own file, as it is shown.
    """
    about = prediction.describe()
    highest = max(1.0, float(prediction.scores.max(initial=0.0)))
    code = base64.b64encode(_label_map(prediction, highest)).decode()
    content = {
        "file": file,
        "width": about["width"],
        "height": about["height"],
        "classes": about["classes"],
        "no_class": about["no_class"],
        "highest": highest,
        "map": f"data:image/png;base64,{code}",
    }
    # the file is ASCII, so that no browser can guess its encoding wrong
    return f"ovsegImage({json.dumps(name)}, {json.dumps(content)});\n"


def page(names: Sequence[str], title: str = "OVSeg") -> str:
    """The page of these images, whose files lie beside it."""
    template = (files("ovseg.results") / "page.html").read_text("utf-8")
    entries = [{"name": name, "url": quote(name)} for name in names]
    # "</script>" in a name must not end the script
    listed = json.dumps(entries).replace("<", "\\u003c")
    return template.replace("{{title}}", title).replace("/*images*/[]", listed)


def _size(prediction: Prediction) -> tuple[int, int]:
    height, width = prediction.labels.shape
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _label_map(prediction: Prediction, highest: float) -> bytes:
    """A PNG (h, w, 3): low and high byte of label + 1, and the score, 255 for ``highest``."""
    width, height = _size(prediction)
    rows = ((np.arange(height) + 0.5) * prediction.labels.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * prediction.labels.shape[1] / width).astype(int)
    values = prediction.labels[np.ix_(rows, columns)] + 1
    scores = np.rint(prediction.scores[np.ix_(rows, columns)] * (255 / highest))
    channels: list[Any] = [values & 255, values >> 8, scores]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
