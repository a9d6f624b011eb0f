"""Overlays: the right colours at the right places, at any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovseg.colours import as_seen, color_map, palette
from ovseg.errors import UserError
from ovseg.fonts import font_size, text_font
from ovseg.legend import draw_legend
from ovseg.lettering import place_words
from ovseg.visualizer import MIN_OVERLAY_SIDE, draw_overlay, draw_regions


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


def test_a_word_that_does_not_fit_stands_beside_its_region() -> None:
    labels = np.full((800, 800), -1)
    labels[400:410, 400:410] = 0
    (word,) = place_words(labels, ["a rather long word"], 20)
    left, top, right, bottom = word.box
    assert left < 405 < right
    assert 410 < top < 430
    assert bottom < 460
    labels[labels < 0] = 1  # beside it is another class now, which must not be covered
    assert [other.label for other in place_words(labels, ["a rather long word", "b"], 20)] == [1]


def test_a_narrow_region_gets_a_smaller_word() -> None:
    labels = np.full((500, 500), 1)
    labels[200:230] = 0
    words = {word.label: word for word in place_words(labels, ["narrow", "wide"], 20)}
    assert words[1].size == 20
    assert 11 <= words[0].size < 20
    _, top, _, bottom = words[0].box
    assert top >= 200
    assert bottom <= 230


@pytest.mark.parametrize(
    ("shape", "count"), [((300, 400), 1), ((300, 400), 60), ((3000, 4000), 25), ((640, 90), 8)]
)
@pytest.mark.parametrize("seed", range(3))
def test_words_cover_neither_each_other_nor_another_class(
    shape: tuple[int, int], count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.random((2 * count, 2)) * shape
    rows, columns = np.mgrid[: shape[0] : 10, : shape[1] : 10]
    distance = [np.hypot(rows - y, columns - x) for y, x in centres]
    cells = np.argmin(distance, axis=0) % count
    cells[np.min(distance, axis=0) > max(shape) / 8] = -1  # no class
    labels = cells.repeat(10, axis=0).repeat(10, axis=1)[: shape[0], : shape[1]]
    words = place_words(labels, [f"word {i}" for i in range(count)], max(13, max(shape) // 42))
    assert words
    taken = np.zeros(shape, int)
    for word in words:
        left, top, right, bottom = word.box
        assert left >= 0
        assert top >= 0
        assert right <= shape[1]
        assert bottom <= shape[0]
        assert set(np.unique(labels[top:bottom, left:right])) <= {word.label, -1}
        taken[top:bottom, left:right] += 1
    assert taken.max() == 1


def test_many_rows_make_the_legend_smaller_and_its_columns_even() -> None:
    rows = [(f"class {i}", 0.01, (200, 30, 30)) for i in range(18)]
    one, two = draw_legend(rows[:10], 20, 400), draw_legend(rows, 20, 400)
    # 18 rows stand in two columns of 9, and not of 10 and 8
    assert one.height > two.height
    many = draw_legend(rows * 3, 20, 400)
    assert many.width < 3 * two.width


def test_outlines_are_dark_in_light_pictures() -> None:
    labels = np.zeros((900, 900), int)
    labels[:, 450:] = 1
    colours = palette(2)
    for grey, is_dark in ((30, False), (250, True)):
        image = np.full((900, 900, 3), grey, np.uint8)
        drawn = draw_regions(image, labels, colours)
        line, beside = drawn[450, 450].mean(), drawn[450, 470].mean()
        assert (line < beside) == is_dark


def test_colours_for_any_colour_vision() -> None:
    colours = palette(12, "colorblind")
    assert len(np.unique(colours, axis=0)) == 12
    np.testing.assert_array_equal(colours[:5], palette(5, "colorblind"))

    def least(colours: np.ndarray, defect: str | None) -> float:
        lab = cielab(as_seen(colours, defect))
        gaps = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
        return float(gaps[~np.eye(len(lab), dtype=bool)].min())

    for defect in (None, "protanopia", "deuteranopia", "tritanopia"):
        assert least(colours, defect) > 22
    # what the default colours do not promise
    assert min(least(palette(12), defect) for defect in ("protanopia", "deuteranopia")) < 10


def cielab(colours: np.ndarray) -> np.ndarray:
    """CIELAB by its definition, of sRGB and its white point D65."""
    rgb = colours / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    ratio = linear @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_defects_by_hand() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0]], np.uint8)
    for defect in ("protanopia", "deuteranopia", "tritanopia"):
        seen = as_seen(colours, defect).astype(int)
        assert np.abs(seen[:2] - colours[:2]).max() <= 1  # grey stays
    # without red cones pure red is nearly black: luminance 0.152 R, 0.115 G in linear light
    np.testing.assert_allclose(as_seen(colours, "protanopia")[2], [109, 95, 0], atol=1)
    assert as_seen(colours, None) is colours


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


def test_letters_fit_wide_images() -> None:
    sizes = [font_size(np.zeros((*shape, 3))) for shape in ((630, 840), (240, 2400), (3, 9000))]
    assert sizes == [20, 20, 13]


def test_another_font_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = text_font(20)
    text_font.cache_clear()
    try:
        monkeypatch.setenv("OVSEG_FONT", str(usual.path).replace("Sans.", "Serif."))
        assert text_font(20).getname()[0] == "DejaVu Serif"
        text_font.cache_clear()
        (tmp_path / "a.ttf").write_bytes(b"none")
        monkeypatch.setenv("OVSEG_FONT", str(tmp_path / "a.ttf"))
        with pytest.raises(UserError, match=r"OVSEG_FONT '.*a.ttf' cannot be read as a font"):
            text_font(20)
    finally:
        text_font.cache_clear()


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        draw_overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), int), ["cat"])
