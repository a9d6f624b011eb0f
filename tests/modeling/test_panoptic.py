"""Panoptic segments and instances: cases by hand, and a slow reference by plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ovseg.modeling import panoptic
from ovseg.modeling.panoptic import SegmentFinder, instances, panoptic_segments
from ovseg.structures import Classified
from ovseg.vocabulary import Vocabulary

PETS = Vocabulary.of(["cat", "dog", "grass"])
CAT, DOG, GRASS = range(3)
THINGS = frozenset({CAT, DOG})


def masks_of(*drawings: str, inside: float = 1.0) -> Tensor:
    """Masks from drawings of 4 x 4 pixels, rows apart by blanks; # is inside."""
    return torch.tensor(
        [
            [[inside if pixel == "#" else 0.0 for pixel in row] for row in drawing.split()]
            for drawing in drawings
        ]
    ).reshape(-1, 4, 4)


def classified(*rows: list[float]) -> Classified:
    return Classified(torch.tensor(rows).reshape(len(rows), -1), torch.arange(len(rows)))


def segments(
    classes: Classified,
    masks: Tensor,
    vocabulary: Vocabulary = PETS,
    things: frozenset[int] = THINGS,
    object_mask_threshold: float = 0.0,
    overlap_threshold: float = 0.0,
) -> tuple[list[str], list[tuple[int, int, bool, float]]]:
    """The map as rows of digits, and of each segment id, class, thing or not, and score."""
    ids, info = panoptic_segments(
        classes, masks, vocabulary, things, (4, 4), object_mask_threshold, overlap_threshold
    )
    assert ids.dtype == torch.int32
    rows = ["".join(str(pixel) for pixel in row) for row in ids.tolist()]
    found = [(s["id"], s["category_id"], s["isthing"], round(s["score"], 4)) for s in info]
    return rows, found


LEFT, RIGHT = "##.. ##.. ##.. ##..", "..## ..## ..## ..##"
TOP, ALL = "#### #### .... ....", "#### #### #### ####"
NOTHING = ".... .... .... ...."


def test_no_mask_and_one_mask() -> None:
    nothing = Classified(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert segments(nothing, torch.zeros(0, 4, 4)) == (["0000"] * 4, [])
    one = segments(classified([0.1, 0.6, 0.2]), masks_of(TOP))
    assert one == (["1111", "1111", "0000", "0000"], [(1, DOG, True, 0.6)])


def test_the_larger_score_times_mask_wins() -> None:
    # 0.9 x 0.6 beats 0.5 x 1.0 where both are
    masks = torch.cat([masks_of(LEFT, inside=0.6), masks_of(TOP)])
    rows, found = segments(classified([0.9, 0, 0], [0, 0.5, 0]), masks)
    assert rows == ["1122", "1122", "1100", "1100"]
    assert found == [(1, CAT, True, 0.9), (2, DOG, True, 0.5)]
    # and 0.8 x 0.6 does not
    rows, found = segments(classified([0.8, 0, 0], [0, 0.5, 0]), masks)
    assert rows == ["2222", "2222", "1100", "1100"]


def test_two_of_a_kind_are_two_things_but_one_stuff() -> None:
    masks = masks_of("#... #... .... ....", "...# ...# .... ....", ".... .... #### ####")
    rows, found = segments(classified([0.7, 0, 0], [0.6, 0, 0], [0, 0, 0.5]), masks)
    assert rows == ["1002", "1002", "3333", "3333"]
    assert found == [(1, CAT, True, 0.7), (2, CAT, True, 0.6), (3, GRASS, False, 0.5)]
    rows, found = segments(
        classified([0, 0, 0.6], [0.6, 0, 0], [0, 0, 0.7]), masks, things=frozenset({CAT})
    )
    assert rows == ["1002", "1002", "1111", "1111"]
    assert found == [(1, GRASS, False, 0.7), (2, CAT, True, 0.6)]  # the better score of its parts


def test_a_score_at_the_threshold_is_no_segment() -> None:
    scores = classified([0.5, 0.2, 0.1], [0, 0.6, 0])
    masks = masks_of(LEFT, RIGHT)
    assert segments(scores, masks, object_mask_threshold=0.5) == (
        ["0011"] * 4,
        [(1, DOG, True, pytest.approx(0.6))],
    )
    assert len(segments(scores, masks, object_mask_threshold=0.49)[1]) == 2


def test_a_mask_that_is_mostly_covered_is_dropped() -> None:
    # the dog has 8 pixels, of which the cat takes 4
    scores, masks = classified([0.9, 0, 0], [0, 0.5, 0]), masks_of(LEFT, TOP)
    assert segments(scores, masks, overlap_threshold=0.5)[0] == ["1122", "1122", "1100", "1100"]
    rows, found = segments(scores, masks, overlap_threshold=0.51)
    assert rows == ["1100"] * 4  # nobody gets what it had
    assert found == [(1, CAT, True, 0.9)]
    # covered whole: dropped whatever the threshold
    assert segments(scores, masks_of(ALL, TOP))[0] == ["1111"] * 4


def test_pixels_outside_of_every_mask_go_to_the_likeliest() -> None:
    # MaskFormer fills the image: a pixel below one half of all masks has the best of them
    masks = torch.cat([masks_of(LEFT) + 0.2 * masks_of(RIGHT), 0.1 * masks_of(ALL)])
    masks[1, :, 3] = 1.0
    assert segments(classified([0.5, 0, 0], [0, 0.5, 0]), masks)[0] == ["1112"] * 4


def test_a_mask_without_a_pixel_inside_takes_no_part() -> None:
    # it cannot become a segment, so it should not take pixels from others either
    masks = torch.cat([masks_of(ALL, inside=0.5), masks_of(LEFT, inside=0.6)])
    rows, found = segments(classified([1, 0, 0], [0, 0.1, 0]), masks)
    assert rows == ["1100"] * 4
    assert found == [(1, DOG, True, 0.1)]


def test_a_segment_of_others_is_dropped_after_it_has_won() -> None:
    alone = Vocabulary.of(["cat"])
    rows, found = segments(
        classified([0.6, 0.1], [0.2, 0.9]), masks_of(ALL, TOP), alone, frozenset({CAT})
    )
    assert rows == ["0000", "0000", "1111", "1111"]
    assert found == [(1, CAT, True, 0.6)]


def test_a_synonym_stands_for_its_class() -> None:
    words = Vocabulary.of([["cat", "kitten"], "dog"])
    rows, found = segments(
        classified([0.1, 0.8, 0.3], [0.2, 0.1, 0.5]), masks_of(LEFT, RIGHT), words
    )
    assert rows == ["1122"] * 4
    assert found == [(1, 0, True, 0.8), (2, 1, True, 0.5)]


def test_rows_belong_to_the_queries_that_they_name() -> None:
    classes = Classified(torch.tensor([[0.6, 0.0, 0.0]]), torch.tensor([1]))
    assert segments(classes, masks_of(LEFT, RIGHT))[0] == ["0011"] * 4


def found_instances(
    classes: Classified,
    masks: Tensor,
    vocabulary: Vocabulary = PETS,
    things: frozenset[int] = THINGS,
    most: int = 100,
) -> list[tuple[int, float, int]]:
    """Of each instance class, score, and pixels."""
    found = instances(classes, masks, vocabulary, things, (4, 4), most)
    assert found.image_size == (4, 4)
    assert found.pred_masks.dtype == torch.bool
    assert len(found.pred_boxes) == len(found)
    pixels = found.pred_masks.flatten(1).sum(1).tolist()
    scores = [round(score, 4) for score in found.scores.tolist()]
    return list(zip(found.pred_classes.tolist(), scores, pixels, strict=True))


def test_instances_are_scored_by_class_and_mask() -> None:
    masks = torch.cat([masks_of(LEFT, inside=0.8), masks_of(TOP), masks_of(ALL, inside=0.5)])
    found = found_instances(classified([0.5, 0.3, 0.9], [0.0, 0.45, 0.1], [1, 0, 0]), masks)
    # one proposal may be two things, stuff is none, and a mask without a pixel inside neither
    assert found == [(DOG, 0.45, 8), (CAT, 0.4, 8), (DOG, 0.24, 8), (CAT, 0.0, 8)]
    assert found_instances(classified([0.5, 0.3, 0.9]), masks[:1], most=1) == [(CAT, 0.4, 8)]
    boxes = instances(classified([0.5, 0, 0]), masks[:1], PETS, THINGS, (4, 4), 1).pred_boxes
    assert boxes.tensor.tolist() == [[0, 0, 2, 4]]


def test_instances_of_nothing() -> None:
    nothing = Classified(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert found_instances(nothing, torch.zeros(0, 4, 4)) == []
    assert found_instances(classified([0.5, 0.3, 0.9]), masks_of(ALL), things=frozenset()) == []
    assert found_instances(classified([0.5, 0.3, 0.9]), masks_of(NOTHING)) == []


def test_instances_are_no_others_and_have_their_best_synonym() -> None:
    alone = Vocabulary.of(["cat"])
    assert found_instances(classified([0.2, 0.9]), masks_of(TOP), alone, frozenset({0})) == [
        (0, 0.2, 8)
    ]
    words = Vocabulary.of([["cat", "kitten"], "dog"])
    found = found_instances(classified([0.1, 0.8, 0.3]), masks_of(TOP), words, frozenset({0, 1}))
    assert found == [(0, 0.8, 8), (1, 0.3, 8)]


def slow_panoptic(
    probs: np.ndarray,
    masks: np.ndarray,
    classes: list[int],
    things: frozenset[int],
    threshold: float,
    overlap: float,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """MaskFormer's inference pixel by pixel, masks at the size of the output."""
    queries, height, width = masks.shape
    kept = []
    for query in range(queries):
        best = max(range(len(classes)), key=lambda word: probs[query, word])
        if probs[query, best] > threshold and (masks[query] > 0.5).any():
            kept.append((query, classes[best], probs[query, best]))
    winner = np.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            most = np.float32(0)
            for query, _, score in kept:
                if score * masks[query, y, x] > most:
                    most, winner[y, x] = score * masks[query, y, x], query
    ids, found = np.zeros((height, width), int), []
    for query, label, score in kept:
        won = int((winner == query).sum())
        own = int((masks[query] > 0.5).sum())
        if won == 0 or own == 0 or won / own < overlap or label < 0:
            continue
        same = [s for s in found if s["category_id"] == label and label not in things]
        if same:
            ids[winner == query] = same[0]["id"]
            same[0]["score"] = max(same[0]["score"], float(score))
            continue
        found.append(
            dict(id=len(found) + 1, category_id=label, isthing=label in things, score=float(score))
        )
        ids[winner == query] = found[-1]["id"]
    return ids, found


VOCABULARIES = [
    Vocabulary.of(["a", "b", "c", "d"]),
    Vocabulary.of([["a", "a1", "a2"], "b", ["c", "c1"]]),
    Vocabulary.of(["a"]),
]


@pytest.mark.parametrize("tile", [2**24, 3 * 13 * 9, 1])
@pytest.mark.parametrize("seed", range(6))
def test_equals_plain_loops(seed: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panoptic, "_TILE", tile)
    rng = np.random.default_rng(seed)
    words = VOCABULARIES[seed % 3]
    things = frozenset(range(0, len(words), 2) if seed % 2 else range(1, len(words)))
    queries = int(rng.integers(1, 12))
    probs = rng.random((queries, len(words.words)), dtype=np.float32) ** 2
    # smooth blobs, so that some cover others and some are covered
    masks = rng.random((queries, 7, 5), dtype=np.float32)
    size = (13, 9)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(masks)[None], size=size, mode="bilinear"
    )[0]
    threshold, overlap = float(rng.random() / 3), float(rng.random() / 2)
    expected = slow_panoptic(
        probs, resized.numpy(), list(words.class_of_word), things, threshold, overlap
    )
    classes = Classified(torch.from_numpy(probs), torch.arange(queries))
    ids, found = panoptic_segments(
        classes, torch.from_numpy(masks), words, things, size, threshold, overlap
    )
    np.testing.assert_array_equal(ids.numpy(), expected[0])
    assert found == expected[1]
    assert found or words is VOCABULARIES[2]

    most = int(rng.integers(1, 8))
    ours = instances(classes, torch.from_numpy(masks), words, things, size, most)
    pairs = []
    for query in range(queries):
        for label in sorted(things):
            places = [p for p, of in enumerate(words.class_of_word) if of == label]
            pairs.append((max(probs[query, place] for place in places), query, label))
    pairs = sorted(pairs, key=lambda pair: -pair[0])[:most]
    slow = []
    for prob, query, label in pairs:
        inside = resized[query].numpy() > 0.5
        if inside.any():
            slow.append((float(prob * resized[query].numpy()[inside].mean()), label, inside.sum()))
    slow.sort(key=lambda found: -found[0])
    np.testing.assert_allclose(ours.scores, [score for score, _, _ in slow], rtol=1e-5)
    assert ours.pred_classes.tolist() == [label for _, label, _ in slow]
    assert ours.pred_masks.flatten(1).sum(1).tolist() == [pixels for _, _, pixels in slow]


def test_the_model_gives_what_is_asked_for(small_model, seeded) -> None:
    torch.manual_seed(0)
    image = {"image": torch.randint(0, 256, (3, 64, 96)), "height": 50, "width": 70}
    names = {"class_names": [["cat", "kitten"], "grass", "sky"], "thing_classes": ["cat"]}
    plain = small_model()
    with torch.no_grad():
        (semantic,) = plain([{**image, **names}])
    assert set(semantic) == {"sem_seg"}
    opts = (
        "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "True", "MODEL.MASK_FORMER.TEST.INSTANCE_ON", "True",
        "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", "0.1", "TEST.DETECTIONS_PER_IMAGE", "4",
    )  # fmt: skip
    model = small_model(*opts)
    assert model.segment_finder == SegmentFinder(True, True, 0.0, 0.1, 4)
    with torch.no_grad():
        (result,) = model([{**image, **names}])
        (regions,) = model.encode([image])
        text = model.text(Vocabulary.of(names["class_names"]))
        classes = model.classify(regions, text)
    assert torch.equal(result["sem_seg"], semantic["sem_seg"])
    ids, found = result["panoptic_seg"]
    assert ids.shape == (50, 70)
    expected = panoptic_segments(
        classes, regions.masks, text.vocabulary, frozenset({0}), (50, 70), 0.0, 0.1
    )
    assert torch.equal(ids, expected[0])
    assert found == expected[1]
    assert [entry["isthing"] for entry in found] == [entry["category_id"] == 0 for entry in found]
    assert set(ids.unique().tolist()) - {0} == {entry["id"] for entry in found}
    assert result["instances"].pred_masks.shape[1:] == (50, 70)
    assert len(result["instances"]) <= 4
    assert set(result["instances"].pred_classes.tolist()) <= {0}
