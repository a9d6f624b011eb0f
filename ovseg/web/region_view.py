"""The image with regions that light up: Gradio's part for it, with smaller files, sooner."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr
import numpy as np
from gradio.component_meta import ComponentMeta
from gradio.components.annotated_image import AnnotatedImageData, Annotation
from gradio.data_classes import FileData
from gradio.processing_utils import save_pil_to_cache
from PIL import Image, ImageColor

from ovseg.web.views import ColouredRegions


class _WithoutStubs(ComponentMeta):
    """Makes parts as Gradio does, which besides writes a stub file beside each part's module."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        return ABCMeta.__new__(cls, name, bases, attributes)


class RegionView(gr.AnnotatedImage, metaclass=_WithoutStubs):
    """Shows :class:`ColouredRegions`.

    Gradio makes every mask an image of four channels, which takes ten times as long as the PNG of
    one channel and a palette that a mask is here.
    """

    is_template = True  # shown by the browser's code of its parent

    def postprocess(self, value: Any) -> AnnotatedImageData | None:
        """The files of :class:`ColouredRegions`; None shows nothing."""
        if value is None:
            return None
        assert isinstance(value, ColouredRegions)
        image = self._file(Image.fromarray(value.image), self.format)
        return AnnotatedImageData(
            image=image,
            annotations=[
                Annotation(
                    image=self._file(mask_image(mask, value.colours[name]), "png"), label=name
                )
                for mask, name in value.masks
            ],
        )

    def _file(self, image: Image.Image, format: str) -> FileData:
        return FileData(path=save_pil_to_cache(image, cache_dir=self.GRADIO_CACHE, format=format))


def mask_image(mask: np.ndarray, colour: str) -> Image.Image:
    """A mask as an image of one colour, whose opacity is that of the mask.

    Args:
        mask: (H, W), 0..1.
        colour: ``#rrggbb``.
    """
    image = Image.fromarray(np.rint(255 * mask).astype(np.uint8), "P")
    image.putpalette(bytes(ImageColor.getrgb(colour)) * 256)
    image.info["transparency"] = bytes(range(256))
    return image
