"""Regions as the files that the page shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.web.views import ColouredRegions

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'ovseg[web]'")
from ovseg.web.region_view import RegionView


def test_files_show_the_regions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 14, 3), dtype=np.uint8)
    masks = [(rng.choice([0, 0.25, 1], (9, 14)), name) for name in ("a", "b")]
    colours = {"a": "#ff8001", "b": "#000000"}
    view = RegionView(format="png", render=False)
    view.GRADIO_CACHE = str(tmp_path)
    assert view.postprocess(None) is None
    shown = view.postprocess(ColouredRegions(image, masks, colours))
    assert shown is not None
    np.testing.assert_array_equal(np.asarray(Image.open(shown.image.path)), image)
    assert [entry.label for entry in shown.annotations] == ["a", "b"]
    for entry, (mask, _), colour in zip(
        shown.annotations, masks, ((255, 128, 1), (0, 0, 0)), strict=True
    ):
        pixels = np.asarray(Image.open(entry.image.path).convert("RGBA"))
        assert (pixels[..., :3] == colour).all()
        np.testing.assert_array_equal(pixels[..., 3], np.rint(255 * mask))
