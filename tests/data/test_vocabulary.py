"""Class names in every form that a user may give them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog

from ovseg.data.class_lists import load_class_list
from ovseg.data.vocabulary import BUILT_IN_NAMES, read_vocabulary
from ovseg.errors import UserError
from ovseg.vocabulary import Vocabulary


def test_words_are_stripped_and_keep_their_commas() -> None:
    given = [" cat ", "door,  double door", "Blue\tsky"]
    vocabulary = read_vocabulary(given)
    assert vocabulary.names == vocabulary.words == ("cat", "door, double door", "Blue sky")
    assert given == [" cat ", "door,  double door", "Blue\tsky"]
    assert read_vocabulary(vocabulary) is vocabulary


SOFA = Vocabulary(("sofa", "cat"), (("sofa", "couch"), ("cat",)))


@pytest.mark.parametrize(
    "given",
    [
        ["sofa | couch", "cat"],
        [["sofa", " couch"], "cat"],
        {"sofa": ["sofa", "couch"], "cat": "cat"},
        {"sofa": "sofa|couch", "cat": ["cat"]},
    ],
)
def test_synonyms_in_every_form(given: object, tmp_path: Path) -> None:
    assert read_vocabulary(given) == SOFA  # type: ignore[arg-type]
    file = tmp_path / "words.json"
    file.write_text(json.dumps(given), encoding="utf-8")
    assert read_vocabulary(str(file)) == SOFA


@pytest.mark.parametrize(
    ("given", "message"),
    [({"cat", "dog"}, "a set, which has no order"), (None, "None are no list"), (5, "5 are no")],
)
def test_what_has_no_order_is_no_list(given: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_vocabulary(given)  # type: ignore[arg-type]
    assert read_vocabulary({"cat": 1, "dog": 2}.keys()).names == ("cat", "dog")  # type: ignore[arg-type]


def test_a_long_text_is_no_file():
    with pytest.raises(UserError, match="Several class names are given as a list"):
        read_vocabulary(", ".join(["dog", "cat"] * 60))


def test_things_are_read_as_class_names_are() -> None:
    assert SOFA.things(["  cat "]) == {1}
    for wrong in ("cat", [0], 5):
        with pytest.raises(UserError, match="give a list of class names"):
            SOFA.things(wrong)  # type: ignore[arg-type]


def test_control_characters_are_refused() -> None:
    with pytest.raises(UserError, match="has a control character"):
        read_vocabulary(["cat", "a\x01b"])


def test_a_text_file_has_a_class_a_line(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeffsofa | couch\n\n cat \n", encoding="utf-8")
    assert read_vocabulary(file) == SOFA


def test_a_class_may_have_a_name_that_is_no_word_of_it() -> None:
    vocabulary = read_vocabulary({"vehicle": ["car", "bus"], "animal": ["dog"]})
    assert vocabulary.names == ("vehicle", "animal")
    assert vocabulary.words == ("car", "bus", "dog")
    assert vocabulary.class_of_word == (0, 0, 1)


@pytest.mark.parametrize("name", BUILT_IN_NAMES)
def test_built_in_lists(name: str) -> None:
    vocabulary = read_vocabulary(name)
    digits = "".join(c for c in name.rsplit("-", 1)[-1] if c.isdigit())
    assert len(vocabulary) == int(digits or 186)
    if name == "ade20k-150":
        registered = MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes
        assert list(vocabulary.names) == [name.strip() for name in registered]
    if name == "ade20k-847":
        assert vocabulary.names == load_class_list("ade20k_full_847").names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no class names"),
        ({}, "no class names"),
        (["cat", "  "], "class name 2 of 2 is empty"),
        (["cat|", "dog"], "class name 1 of 2 is empty"),
        ({"cat": []}, "class name 1 of 1 is empty"),
        (["cat", "dog", "Cat "], r"'Cat' is given twice \(positions 1 and 3\)"),
        (["cat|kitten|cat", "dog"], r"'cat' is given twice \(positions 1 and 1\)"),
        (["grass|Grass", "dog"], r"'grass' is given twice \(positions 1 and 1\)"),
        ([["sofa", "couch"], "Couch"], r"'Couch' is given twice \(positions 1 and 2\)"),
        ({"a": ["cat"], "A": ["dog"]}, "two classes have the same name"),
        ([1, 2], "class name 1 is no text"),
        ("cat", "'cat' is neither a file nor a built-in list; .*, stickerscenes. Several class"),
        ("ade20k-15", "did you mean ade20k-150"),
    ],
)
def test_what_cannot_be_is_named(given: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_vocabulary(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.json", b"{", "cannot be read"),
        ("w.json", b"3", "neither a list nor a mapping"),
        ("w.txt", b"\xff\xfe\x00", "cannot be read"),
        ("w.txt", b"\n \n", r"w\.txt.*no class names"),
        ("w.txt", b"cat\ncat\n", r"w\.txt.*'cat' is given twice"),
    ],
)
def test_files_that_cannot_be_used(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_vocabulary(tmp_path / name)
