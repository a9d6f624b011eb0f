"""Overlays: the right colours at the right places, at any size."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg.visualizer import MIN_OVERLAY_SIDE, color_map, draw_overlay, draw_regions, palette


def has_colour(picture: np.ndarray, colour: np.ndarray) -> bool:
    return bool((picture == colour).all(axis=-1).any())


def test_palette_is_distinct_and_stable() -> None:
    colours = palette(200)
    assert len(np.unique(colours, axis=0)) == 200
    np.testing.assert_array_equal(colours[:30], palette(30))
    assert palette(0).shape == (0, 3)
    gaps = np.linalg.norm(colours[:20, None].astype(float) - colours[None, :20], axis=-1)
    assert gaps[~np.eye(20, dtype=bool)].min() > 50


def test_color_map_by_hand() -> None:
    colours = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    labels = np.array([[0, 1], [-1, 0]])
    expected = [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [1, 2, 3]]]
    np.testing.assert_array_equal(color_map(labels, colours), expected)


def test_regions_are_tinted_and_the_rest_is_left() -> None:
    image = np.full((900, 900, 3), 100, np.uint8)
    labels = np.full((900, 900), -1)
    labels[:400] = 1
    colours = np.array([[0, 0, 0], [200, 0, 50]], np.uint8)
    drawn = draw_regions(image, labels, colours)
    np.testing.assert_array_equal(drawn[:395], np.broadcast_to([150, 50, 75], (395, 900, 3)))
    np.testing.assert_array_equal(drawn[405:], image[405:])
    assert (drawn[399] > 160).any()  # the outline
    assert (image == 100).all()


@pytest.mark.parametrize("opacity", [0.0, 0.25, 1.0])
def test_opacity_mixes_picture_and_colour(opacity: float) -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    labels = np.zeros((40, 40), int)
    labels[:, 20:] = -1
    colours = np.array([[200, 40, 100]], np.uint8)
    drawn = draw_regions(image, labels, colours, opacity)
    expected = (1 - opacity) * np.array([100, 100, 100]) + opacity * colours[0]
    np.testing.assert_allclose(drawn[20, 10], expected, atol=0.5)
    np.testing.assert_array_equal(drawn[20, 30], [100, 100, 100])


@pytest.mark.parametrize("opacity", [-0.1, 1.01, float("nan")])
def test_opacity_has_a_range(opacity: float) -> None:
    with pytest.raises(ValueError, match="opacity"):
        draw_overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), int), ["a"], opacity)


def test_overlay_has_legend_and_full_size() -> None:
    labels = np.zeros((700, 1000), int)
    labels[:300, :600] = 2
    image = np.full((700, 1000, 3), 90, np.uint8)
    overlay = draw_overlay(image, labels, ["grass", "not there", "sky"])
    assert overlay.dtype == np.uint8
    assert overlay.shape[0] == 700
    legend = overlay[:, 1000:]
    assert has_colour(legend, palette(3)[0])
    assert has_colour(legend, palette(3)[2])
    assert not has_colour(legend, palette(3)[1])
    # the words stand in their regions: white on a dark ground
    assert has_colour(overlay[20:280, 20:580], np.array([255, 255, 255]))
    assert has_colour(overlay[320:680, 20:980], np.array([255, 255, 255]))


def test_a_word_that_does_not_fit_is_left_out() -> None:
    labels = np.full((800, 800), -1)
    labels[400:410, 400:410] = 0
    image = np.full((800, 800, 3), 90, np.uint8)
    overlay = draw_overlay(image, labels, ["a rather long word"])
    changed = (overlay[:, :800] != 90).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 390
    assert rows.max() < 420
    assert columns.min() > 390
    assert columns.max() < 420


def test_small_pictures_are_enlarged_with_their_regions() -> None:
    labels = np.zeros((64, 128), int)
    labels[:, 64:] = 1
    image = np.zeros((64, 128, 3), np.uint8)
    overlay = draw_overlay(image, labels, ["a", "b"])
    assert overlay.shape[0] >= MIN_OVERLAY_SIDE // 2
    height = overlay.shape[0]
    top = (height - MIN_OVERLAY_SIDE // 2) // 2 + 10
    left, right = overlay[top, 100], overlay[top, MIN_OVERLAY_SIDE - 100]
    np.testing.assert_array_equal(left, np.rint(palette(2)[0] / 2))
    np.testing.assert_array_equal(right, np.rint(palette(2)[1] / 2))


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (900, 2), (50, 1500)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    names = [f"class {i}" for i in range(40)]
    labels = np.arange(shape[0] * shape[1]).reshape(shape) % 41 - 1
    overlay = draw_overlay(np.zeros((*shape, 3), np.uint8), labels, names)
    assert overlay.ndim == 3
    assert overlay.shape[1] > max(shape[1], 1)


def test_nothing_found_and_long_words() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    nothing = draw_overlay(image, np.full((100, 100), -1), ["cat"])
    assert nothing.shape[1] > MIN_OVERLAY_SIDE
    full = draw_overlay(image, np.zeros((100, 100), int), ["word " * 200])
    assert full.shape[1] < 2 * MIN_OVERLAY_SIDE


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        draw_overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), int), ["cat"])
