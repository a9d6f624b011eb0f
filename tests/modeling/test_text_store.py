"""Text features on disk: found by what they depend on, shared among processes, never in the way."""

from __future__ import annotations

import copy
import logging
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import open_clip
import pytest
import torch
from tiny_world import CLIP_ARCHITECTURE

from ovseg.modeling.clip import ClipAdapter, build_untrained_clip, text_store
from ovseg.modeling.clip import adapter as adapter_module
from ovseg.modeling.clip.text_store import TextStore, text_encoder_digest


def feature(word: str) -> torch.Tensor:
    return torch.tensor([len(word), ord(word[0]), 0.1])


def test_features_come_back_by_encoder_and_word(tmp_path) -> None:
    store = TextStore(tmp_path / "new" / "features.sqlite3")
    assert store.read("one", ["cat"]) == {}
    assert not store.path.exists()
    store.write("one", {word: feature(word) for word in ("cat", "Ärmel", "\udc80")})
    store.write("two", {"cat": -feature("cat")})
    found = TextStore(store.path).read("one", ["owl", "cat", "Ärmel", "\udc80"])
    assert list(found) == ["cat", "Ärmel", "\udc80"]
    for word, kept in found.items():
        torch.testing.assert_close(kept, feature(word), rtol=0, atol=0)
    torch.testing.assert_close(store.read("two", ["cat"])["cat"], -feature("cat"))


def test_a_file_without_its_table_is_filled(tmp_path, caplog) -> None:
    store = TextStore(tmp_path / "features.sqlite3")
    store.path.touch()
    assert store.read("one", ["cat"]) == {}
    store.write("one", {"cat": feature("cat")})
    assert list(TextStore(store.path).read("one", ["cat"])) == ["cat"]
    assert not caplog.text


def test_the_words_that_were_written_first_go(tmp_path) -> None:
    store = TextStore(tmp_path / "features.sqlite3", max_words=4)
    for words in ("abc", "def", "b"):
        store.write("one", {word: feature(word) for word in words})
    assert list(store.read("one", list("abcdef"))) == ["b", "d", "e", "f"]


def _write_many(path: Path, start: int) -> None:
    store = TextStore(path)
    for number in range(start, start + 10):
        store.write("one", {f"{number} words": feature(f"{number} words")})


def test_processes_write_at_once(tmp_path) -> None:
    path = tmp_path / "features.sqlite3"
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(pool.map(_write_many, [path] * 8, range(0, 40, 5)))
    words = [f"{number} words" for number in range(45)]
    found = TextStore(path).read("one", words)
    assert list(found) == words
    assert all(torch.equal(found[word], feature(word)) for word in words)


@pytest.mark.parametrize("damage", ["no database", "cut", "another table"])
def test_a_broken_file_is_left_alone_with_one_warning(tmp_path, caplog, damage) -> None:
    path = tmp_path / "features.sqlite3"
    TextStore(path).write("one", {f"{n}": feature("cat") for n in range(500)})
    if damage == "no database":
        path.write_bytes(b"not a database, but longer than the head of one would be" * 50)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE features (other TEXT)")
    content = path.read_bytes()
    store = TextStore(path)
    with caplog.at_level(logging.WARNING):
        assert store.read("one", ["cat"]) == {}
        store.write("one", {"cat": feature("cat")})
        assert store.read("one", ["cat"]) == {}
    assert path.read_bytes() == content
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "--no-cache" in record.getMessage()


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_no_obstacle(tmp_path, caplog, folder) -> None:
    (tmp_path / "file").touch()
    store = TextStore(tmp_path / folder / "features.sqlite3")
    store.write("one", {"cat": feature("cat")})
    assert store.read("one", ["cat"]) == {}
    assert "cannot be used" in caplog.text
    assert len(caplog.records) == 1


def test_a_busy_file_is_used_again_later(tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(text_store, "_WAIT", 0.05)
    store = TextStore(tmp_path / "features.sqlite3")
    store.write("one", {"cat": feature("cat")})
    with closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.write("one", {"owl": feature("owl")})
        assert store.read("one", ["cat"]) == {}
        other.rollback()
    store.write("one", {"dog": feature("dog")})
    assert list(store.read("one", ["cat", "owl", "dog"])) == ["cat", "dog"]
    assert "cannot be used" not in caplog.text


def test_a_damaged_feature_is_as_good_as_none(tmp_path) -> None:
    store = TextStore(tmp_path / "features.sqlite3")
    store.write("one", {"cat": feature("cat"), "owl": feature("owl")})
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE features SET feature = zeroblob(12) WHERE word = ?", (b"cat",))
    assert list(store.read("one", ["cat", "owl"])) == ["owl"]


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    torch.manual_seed(0)
    return build_untrained_clip(CLIP_ARCHITECTURE, 0).eval()


def test_an_encoder_is_told_by_all_that_makes_its_features(clip) -> None:
    digests = {text_encoder_digest(clip, ["{}"]), text_encoder_digest(clip, ["a {}"])}
    for change in ("weight", "activation", "tokenizer"):
        other = copy.deepcopy(clip)
        if change == "weight":
            other.positional_embedding.data[3, 2] += 1e-6
        elif change == "activation":
            other.transformer.resblocks[0].mlp.gelu = torch.nn.GELU()
        else:
            other.tokenizer.context_length = 20
        digests.add(text_encoder_digest(other, ["{}"]))
    assert len(digests) == 5
    images = copy.deepcopy(clip)
    images.visual.proj.data += 1
    assert text_encoder_digest(images, ["{}"]) in digests  # of texts nothing has changed


def test_another_process_encodes_only_new_words(clip, tmp_path, monkeypatch, caplog) -> None:
    store = TextStore(tmp_path / "features.sqlite3")
    asked = []
    real = adapter_module.word_features

    def counted(model, words, templates):
        asked.append(list(words))
        return real(model, words, templates)

    monkeypatch.setattr(adapter_module, "word_features", counted)
    long = "cat " * 90
    plain = ClipAdapter(clip, ["a {}", "{}"], mask_prompts=False)
    first = ClipAdapter(clip, ["a {}", "{}"], mask_prompts=False, text_store=store)
    expected = first.text_features(["dog", long])
    torch.testing.assert_close(expected[:2], plain.text_features(["dog", long])[:2])
    asked.clear()
    caplog.clear()
    later = ClipAdapter(clip, ["a {}", "{}"], mask_prompts=False, text_store=store)
    with torch.autocast("cpu", torch.bfloat16):
        found = later.text_features([long, "owl", "dog"])
    assert asked == [["owl"]]
    assert "is longer than CLIP reads" in caplog.text  # known words are warned of, too
    torch.testing.assert_close(found[[2, 0]], expected[:2], rtol=0, atol=0)
    torch.testing.assert_close(found[1:2], plain.text_features(["owl"])[:1])
