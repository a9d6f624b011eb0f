"""Class names that cannot be used."""

from __future__ import annotations

from pathlib import Path

from bad_cases import (
    WEIGHTS,
    Command,
    case,
    deep,
    photo,
    segment,
    written,
)


@case
def words_none(folder: Path) -> Command:
    return ["segment", "--input", photo(folder), "--output", folder / "out", "--class-names"]


@case
def words_empty(folder: Path) -> Command:
    return segment(folder, words=["grass", " "])


@case
def words_twice(folder: Path) -> Command:
    return segment(folder, words=["grass", "Grass"])


@case
def words_not_unicode(folder: Path) -> Command:
    return segment(folder, words=["grass", "caf\udce9"])


def _vocabulary(folder: Path, name: str, content: bytes | str) -> Command:
    return ["segment", "--input", photo(folder), "--output", folder / "out",
            "--vocabulary", written(folder / name, content)]  # fmt: skip


@case
def words_of_unknown_list(folder: Path) -> Command:
    return ["segment", "--input", photo(folder), "--vocabulary", "ade20k-151"]


@case
def words_and_list(folder: Path) -> Command:
    return segment(folder, "--vocabulary", "ade20k-150")


@case
def words_file_not_utf8(folder: Path) -> Command:
    return _vocabulary(folder, "words.txt", "café\n".encode("latin-1"))


@case
def words_file_binary(folder: Path) -> Command:
    return _vocabulary(folder, "words.txt", WEIGHTS.read_bytes()[:4000])


@case
def words_file_empty(folder: Path) -> Command:
    return _vocabulary(folder, "words.txt", "\n\n")


@case
def words_json_broken(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", '["grass", ')


@case
def words_json_number(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", "3")


@case
def words_json_of_numbers(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", '["grass", 3]')


@case
def words_json_deep(folder: Path) -> Command:
    return _vocabulary(folder, "words.json", deep("[", "]"))


@case
def words_things_not_among_them(folder: Path) -> Command:
    return segment(folder, "--thing-classes", "cat")
