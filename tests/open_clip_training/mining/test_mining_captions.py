"""Captions of COCO and of tables, and the nouns in them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from open_clip_training import caption_words
from open_clip_training.mining.captions import read_captions
from open_clip_training.mining.nouns import frequent, load_tagger, nouns_of_captions
from ovseg.errors import UserError


def test_captions_of_coco_and_of_a_table(tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "x.png"}, {"id": 9, "file_name": "y.png"}]
    texts = [(7, "a"), (7, " "), (7, "b"), (7, "c"), (9, ""), (4, "nobody's")]
    annotations = [{"image_id": i, "caption": text} for i, text in texts]
    (tmp_path / "x.png").touch()
    coco = tmp_path / "c.json"
    coco.write_text(json.dumps({"images": images, "annotations": annotations}))
    table = tmp_path / "c.csv"
    rows = [("x.png", text) for i, text in texts if i == 7] + [("y.png", ""), ("", "nobody's")]
    # with the mark that spreadsheets put before UTF-8
    text = "image,caption\n" + "\n".join(",".join(row) for row in rows) + "\n"
    table.write_text(text, encoding="utf-8-sig")
    upper = tmp_path / "C.JSON"
    upper.write_text(coco.read_text(), encoding="utf-8-sig")
    for source in (coco, upper, table):
        counts: Counter[str] = Counter()
        read = read_captions(source, None, 5, 0, None, counts)
        assert [(item.path.name, item.captions) for item in read] == [
            ("x.png", ("a", "b", "c")),
            ("y.png", ()),
        ]
        wanted = {"images": 2, "empty captions": 2, "captions": 3, "captions without an image": 1}
        assert counts == wanted
    chosen = {read_captions(coco, None, 1, seed, 1, Counter())[0].captions for seed in range(20)}
    assert chosen == {("a",), ("b",), ("c",)}
    assert len({read_captions(coco, None, 2, 3, 1, Counter())[0].captions for _ in "123"}) == 1


def test_words_of_captions_are_written_by_image(tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    rows = ["x.png,a polar bear and a dog on the tiled floor", "x.png,a dog", "y.png,"]
    captions.write_text("\n".join(["image,caption", *rows]) + "\n")
    (tmp_path / "x.png").touch()
    output = tmp_path / "new" / "words.json"
    command = ["--captions", str(captions), "--output", str(output), "--captions-per-image", "2"]
    caption_words.main([*command, "--adjectives"])
    expected = {"x.png": ["polar bear", "dog", "tiled floor"], "y.png": []}
    assert json.loads(output.read_text()) == expected
    with pytest.raises(UserError, match="--captions-per-image 0: give 1 or more"):
        caption_words.main([*command[:-1], "0"])


def test_captions_that_cannot_be_used(tmp_path: Path) -> None:
    def error(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError) as raised:
            read_captions(tmp_path / name, None, 1, 0, None, Counter())
        return str(raised.value)

    semicolons = error("a.csv", "image;caption\nx;y\n")
    assert "lacks the column 'image'; it has 'image;caption' (columns are separated" in semicolons
    # tabs separate columns too
    assert "none of the first 1 images is there" in error("a.csv", "image\tcaption\nx\ty\n")
    assert "annotations" in error("a.json", '{"images": []}')
    assert "not what COCO's captions are" in error("b.json", "{")
    number = '{"images": [{"id": 1, "file_name": 1}], "annotations": []}'
    assert "file_name 1 is no text" in error("c.json", number)
    assert "names no image" in error("b.csv", "image,caption\n")
    assert "none of the first 2 images is there" in error("c.csv", "image,caption\nx,a\ny,b\n")
    with pytest.raises(UserError, match="no such file"):
        read_captions(tmp_path / "nowhere.json", None, 1, 0, None, Counter())


def test_nouns_of_captions() -> None:
    pytest.importorskip("spacy", reason="captions are read with the extra 'mining'")
    tagger = load_tagger()
    captions = [
        "A polar bear and a birthday cake on the tiled floor in front of a brick wall.",
        "crocodile",
        "There is a large t-shirt in the scene.",
        "",
        "on the",
        "Two dogs running after a dog, two dogs",
    ]
    nouns = nouns_of_captions(captions, tagger)
    assert nouns[0] == ["bear", "birthday cake", "floor", "brick wall"]
    assert nouns[1:5] == [["crocodile"], ["t-shirt"], [], []]
    assert nouns[5] == ["dogs", "dog"]
    for caption, wanted in {
        "A black and white cat sitting on a chair.": ["cat", "chair"],
        "An old, rusty truck and a large, red bus": ["truck", "bus"],
        "a black, white and brown dog": ["dog"],
        "a close up view of a cat": ["cat"],
        "two photos of a parking lot with lots of cars": ["parking lot", "cars"],
        "a street scene": [],
        "photo": [],
        "the background": [],
        # the tagger takes "hedgehog" for an adjective
        "a hedgehog, garlic and french fries": ["hedgehog", "garlic", "fries"],
    }.items():
        assert nouns_of_captions([caption], tagger) == [wanted]
    with_adjectives = nouns_of_captions(captions[:3], tagger, adjectives=True)
    assert with_adjectives[0] == ["polar bear", "birthday cake", "tiled floor", "brick wall"]
    assert with_adjectives[2] == ["t-shirt"]
    assert frequent(nouns, 1)[:2] == ["bear", "birthday cake"]
    assert frequent([["a", "b"], ["b"]], 2) == ["b"]
    with pytest.raises(UserError, match="xx_none"):
        load_tagger("xx_none")
