"""Crops, ensemble and label map against slow references: loops over pixels, in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from fuzzing import cases
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ovseg.modeling.crops import cut_crops, expand_boxes, mask_boxes
from ovseg.modeling.ensemble import clip_alone, ensemble
from ovseg.modeling.segmentation import label_map, label_maps
from ovseg.structures import Classified, PartialScores

# few values, so that ties are common
shares = st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0])
odd = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan, math.inf, -math.inf])


def tables(rows: int, columns: int, elements: st.SearchStrategy[float] = shares):
    return arrays.arrays(np.float32, (rows, columns), elements=elements)


# ------------------------------------------------------------------------------------------ crops


@cases
@given(masks=arrays.arrays(np.bool_, st.tuples(st.integers(0, 3), st.integers(1, 6),
                                               st.integers(1, 6))),
       ratio=st.sampled_from([1.0, 1.1, 1.5, 3.0]))  # fmt: skip
def test_boxes(masks: np.ndarray, ratio: float) -> None:
    boxes = mask_boxes(torch.from_numpy(masks))
    height, width = masks.shape[1:]
    grown = expand_boxes(boxes, ratio, height, width)
    assert boxes.shape == grown.shape == (len(masks), 4)
    for mask, box, larger in zip(masks, boxes.tolist(), grown.tolist(), strict=True):
        places = [(x, y) for y in range(height) for x in range(width) if mask[y, x]]
        if not places:
            assert box == [0, 0, 0, 0]
            continue
        (left, top), (right, bottom) = np.min(places, 0), np.max(places, 0) + 1
        assert box == [left, top, right, bottom]
        expected = []
        for low, high, limit in ((left, right, width), (top, bottom, height)):
            centre, half = (low + high) / 2, (high - low) * ratio / 2
            first = max(math.trunc(centre - half), 0)
            expected.append((first, max(min(math.trunc(centre + half), limit), first + 1)))
        (x0, x1), (y0, y1) = expected
        assert larger == [x0, y0, x1, y1]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height


@cases
@given(masks=arrays.arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(1, 6),
                                                 st.integers(1, 6)), elements=odd),
       threshold=st.sampled_from([0.0, 0.4, 0.5, 1.0]))  # fmt: skip
def test_crops(masks: np.ndarray, threshold: float) -> None:
    """Of the size of their boxes, so that nothing is resized: pixel by pixel."""
    height, width = masks.shape[1:]
    image = np.arange(3 * height * width, dtype=np.float32).reshape(3, height, width)
    fill = (7.0, 8.0, 9.0)
    for mask in masks:
        inside = [(y, x) for y in range(height) for x in range(width) if mask[y, x] > threshold]
        if not inside:
            crops = cut_crops(torch.from_numpy(image), torch.from_numpy(mask[None]), size=(4, 4),
                              threshold=threshold, fill=fill)  # fmt: skip
            assert crops.valid.tolist() == [False]
            assert len(crops.images) == 0
            continue
        (top, left), (bottom, right) = np.min(inside, 0), np.max(inside, 0) + 1
        crops = cut_crops(
            torch.from_numpy(image), torch.from_numpy(mask[None]),
            size=(int(bottom - top), int(right - left)), threshold=threshold, fill=fill,
        )  # fmt: skip
        assert crops.valid.tolist() == [True]
        for y, x in itertools.product(range(top, bottom), range(left, right)):
            kept = mask[y, x] > threshold
            pixel = crops.images[0, :, y - top, x - left].tolist()
            expected = image[:, y, x].tolist() if kept else list(fill)
            assert pixel == pytest.approx(expected, abs=1e-3)
            assert crops.masks[0, 0, y - top, x - left] == float(kept)


# --------------------------------------------------------------------------------------- ensemble


@st.composite
def classifications(draw: st.DrawFn):
    queries, classes = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    valid = draw(arrays.arrays(np.bool_, queries))
    return (draw(tables(queries, classes, odd | shares)), valid,
            draw(tables(int(valid.sum()), classes, odd | shares)))  # fmt: skip


@cases
@given(classified=classifications(), weight=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_ensemble(classified, weight: float) -> None:
    probs, valid, clip = classified
    found = ensemble(*map(torch.from_numpy, (probs, clip, valid)), weight)
    places = np.flatnonzero(valid)
    if weight == 0:
        assert found.queries.tolist() == places.tolist()
        np.testing.assert_array_equal(found.class_probs, clip)
        np.testing.assert_array_equal(
            clip_alone(torch.from_numpy(clip), torch.from_numpy(valid)).class_probs, clip
        )
        return
    assert found.queries.tolist() == list(range(len(probs)))
    of_all = np.ones(probs.shape)
    of_all[places] = clip
    with np.errstate(all="ignore"):
        expected = probs.astype(np.float64) ** (1 - weight) * of_all**weight
    np.testing.assert_allclose(found.class_probs, expected, rtol=1e-5, atol=1e-7)


# --------------------------------------------------------------------------------------- label map


@st.composite
def scenes(draw: st.DrawFn, elements: st.SearchStrategy[float] = shares):
    queries, classes = draw(st.integers(0, 3)), draw(st.integers(1, 20))
    shape = (queries, draw(st.integers(1, 19)), draw(st.integers(1, 19)))
    return (draw(tables(queries, classes, elements)),
            draw(arrays.arrays(np.float32, shape, elements=elements)))  # fmt: skip


def slow_labels(probs: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is no finite number counts 0; of equals the first; no class without a score."""
    probs, masks = (np.where(np.isfinite(a), a, 0).astype(np.float64) for a in (probs, masks))
    _, height, width = masks.shape
    labels, best = np.full((height, width), -1), np.zeros((height, width))
    for y, x in itertools.product(range(height), range(width)):
        for label in range(probs.shape[1]):
            score = sum(probs[q, label] * masks[q, y, x] for q in range(len(probs)))
            if score > best[y, x]:
                labels[y, x], best[y, x] = label, score
    return labels, best


def check_labels(probs: np.ndarray, masks: np.ndarray) -> None:
    expected, best = slow_labels(probs, masks)
    size = masks.shape[1:]
    given_probs, given_masks = torch.from_numpy(probs), torch.from_numpy(masks)
    part = PartialScores(given_probs, given_masks)
    # sums of these values are exact in float32
    one = label_map([part], size)
    several = label_map([part, PartialScores(given_probs[:0], given_masks[:0])], size)
    for labels, scores in (one, several):
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(scores, best, rtol=1e-5)
    alternatives = [Classified(given_probs, torch.arange(len(probs)))] * 2
    for labels in label_maps(alternatives, given_masks, size):
        np.testing.assert_array_equal(labels, expected)


@cases
@given(scene=scenes())
def test_label_map(scene: tuple[np.ndarray, np.ndarray]) -> None:
    check_labels(*scene)


@cases
@given(scene=scenes(odd))
def test_label_map_of_odd_numbers(scene: tuple[np.ndarray, np.ndarray]) -> None:
    check_labels(*scene)
