"""Which pictures are found, and how they are read, wherever they lie."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from labelling_world import write_pictures
from PIL import Image

from ovseg.errors import UserError
from ovseg.labelling.plan import make_plan
from ovseg.labelling.reading import SourcePicture, read_pictures
from ovseg.labelling.sources import find_sources


def read(*inputs: Path | str, size: int = 100, column: str | None = None) -> list[SourcePicture]:
    plan = make_plan(find_sources([str(given) for given in inputs]), size, column)
    return [picture for shard in plan for picture in read_pictures(shard, 3, column)]


def same(pictures: list[SourcePicture], paths: list[Path]) -> bool:
    arrays = [np.asarray(Image.open(path)) for path in paths]
    return len(arrays) == len(pictures) and all(
        picture.image is not None and np.array_equal(picture.image, array)
        for picture, array in zip(pictures, arrays, strict=True)
    )


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_pictures(tmp_path / "photos", 5)


def write_tar(file: Path, paths: list[Path], mode: str = "w", prefix: str = "") -> Path:
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for path in paths:
            tar.add(path, prefix + path.name)
            text = tarfile.TarInfo(f"{prefix}{path.stem}.txt")
            text.size = 3
            tar.addfile(text, io.BytesIO(b"dog"))
    return file


def write_table(file: Path, column: str, cells: list, rows: int = 2) -> Path:
    table = pyarrow.table({"id": list(range(len(cells))), column: cells})
    pyarrow.parquet.write_table(table, file, row_group_size=rows)
    return file


def test_folders_patterns_and_lists(paths: list[Path], tmp_path: Path) -> None:
    folder = paths[0].parent
    assert same(read(folder), paths)
    assert same(read(folder / "*_00[13].png"), [paths[1], paths[3]])
    listed = tmp_path / "list.txt"
    listed.write_text(f"photos/{paths[4].name}\n\n{paths[2]}\nphotos/{paths[4].name}\n")
    assert same(read(listed), [paths[4], paths[2]])
    # each once
    assert same(read(paths[1], folder), [paths[1], paths[0], *paths[2:]])


def test_urls(paths: list[Path]) -> None:
    memory = fsspec.filesystem("memory")
    for path in paths:
        memory.pipe(f"/photos/{path.name}", path.read_bytes())
    memory.pipe("/photos/notes.doc", b"")
    memory.pipe("/photos/more/deep.png", paths[0].read_bytes())
    assert same(read("memory://photos"), paths)
    assert same(read("memory://photos/*_00[13].png"), [paths[1], paths[3]])
    assert same(read(paths[0].parent.as_uri()), paths)
    (missing,) = read("memory://photos/lost.png")
    assert missing.image is None
    assert "input 'memory://photos/lost.png' cannot be read" in missing.error
    with pytest.raises(UserError, match="input 'memory://none': nothing is there"):
        read("memory://none")
    with pytest.raises(UserError, match=r"input 'nonsense://x' cannot be listed .*check the URL"):
        read("nonsense://x")


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")]
)
def test_tar_files(name: str, mode: str, paths: list[Path], tmp_path: Path) -> None:
    pictures = read(write_tar(tmp_path / name, paths, mode))
    assert same(pictures, paths)
    assert pictures[0].source == f"{tmp_path / name}::{paths[0].name}"


def test_names_in_tar_files_are_names_alone(paths: list[Path], tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    before = sorted(tmp_path.rglob("*"))
    file = write_tar(inside / "bad.tar", paths, prefix="../../../")
    with tarfile.open(file, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(paths[0])
        tar.addfile(link)
    assert same(read(file), paths)  # without the link
    assert sorted(tmp_path.rglob("*")) == sorted([*before, file])


def test_a_broken_tar_file_gives_what_is_before_the_break(
    paths: list[Path], tmp_path: Path
) -> None:
    file = write_tar(tmp_path / "cut.tar", paths)
    file.write_bytes(file.read_bytes()[:4200])
    pictures = read(file)
    assert same(pictures[:-1], paths[: len(pictures) - 1])
    assert len(pictures) > 1
    assert f"input '{file}' cannot be read on as a tar file" in pictures[-1].error


def test_parquet_files(paths: list[Path], tmp_path: Path) -> None:
    contents = [path.read_bytes() for path in paths]
    cells = {
        "jpg": contents,
        "image": [{"bytes": content, "path": None} for content in contents],
        "path": [f"photos/{path.name}" for path in paths],
        "url": [path.as_uri() for path in paths],
    }
    for column, values in cells.items():
        file = write_table(tmp_path / f"{column}.parquet", column, values)
        pictures = read(file, size=3)
        assert same(pictures, paths), column
        assert [picture.source for picture in pictures] == [f"{file}::{n}" for n in range(5)]
    named = write_table(tmp_path / "named.parquet", "photo", contents)
    assert same(read(named, column="photo"), paths)
    with pytest.raises(UserError, match=r"has the columns id, photo; name that of the images"):
        read(named)
    holes = write_table(tmp_path / "holes.parquet", "image", [contents[0], None, b"x"])
    good, empty, broken = read(holes)
    assert good.image is not None
    assert "a cell holds NoneType" in empty.error
    assert "cannot be read as an image" in broken.error


def test_shards_follow_the_row_groups(paths: list[Path], tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", "image", [b"x"] * 7, rows=2)
    tar = write_tar(tmp_path / "b.tar", paths)
    plan = make_plan(find_sources([str(file), str(tar), str(paths[0].parent)]), 4)
    assert [(shard.number, shard.kind, shard.groups, shard.images) for shard in plan] == [
        (0, "files", (), 4), (1, "files", (), 1), (2, "tar", (), 5), (3, "parquet", (0, 1), 4),
        (4, "parquet", (2, 3), 3),
    ]  # fmt: skip
    assert [picture.source for picture in read_pictures(plan[4], 2)] == [
        f"{file}::{row}" for row in (4, 5, 6)
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.parquet", b"PAR1", "input '.*a.parquet' cannot be read as a Parquet file"),
        ("a.txt", b"", "list of images '.*a.txt' is empty; write a path or URL a line"),
        ("a.txt", b"\xff\xfe\x00", "list of images '.*a.txt' cannot be read"),
    ],
)
def test_broken_sources(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        read(tmp_path / name)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no images .*for tar or Parquet files give"):
        read(tmp_path)
