"""Fetching, by the real client from a server on this machine: a test can reach no other."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from local_server import LocalServer, serving

from ovseg.errors import UserError
from ovseg.utils.downloads import DriveFile, fetch_from_drive

gdown = pytest.importorskip("gdown")
DOWNLOAD = gdown.download

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SOURCE = DriveFile("some-id", hashlib.md5(CONTENT).hexdigest()[:6])


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """gdown's own download, from the local server in place of Google Drive."""
    with serving(**{"some-id": CONTENT}) as server:

        def from_here(id: str, **options: object) -> object:  # gdown's name of it
            return DOWNLOAD(url=f"{server.address}/{id}", **options)

        monkeypatch.setattr(gdown, "download", from_here)
        yield server


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_it_is_fetched_once_and_kept_whole(drive: LocalServer, tmp_path: Path) -> None:
    target = tmp_path / "weights" / "model.pth"
    for _ in range(2):
        assert fetch_from_drive(SOURCE, target) == target
        assert target.read_bytes() == CONTENT
    assert len(drive.gets("/some-id")) == 1
    assert names(target.parent) == {"model.pth"}


def test_a_broken_download_goes_on_where_it_was(drive: LocalServer, tmp_path: Path) -> None:
    target = tmp_path / "model.pth"
    drive.breaks_after = 1_000_000
    with pytest.raises(
        UserError, match=r"model\.pth could not be fetched .*run it again"
    ) as raised:
        fetch_from_drive(SOURCE, target)
    assert SOURCE.link in str(raised.value)
    assert str(target) in str(raised.value)
    assert not target.exists()
    fetch_from_drive(SOURCE, target)
    assert target.read_bytes() == CONTENT
    ranges = [asked for asked in drive.gets("/some-id") if asked]
    assert len(ranges) == 1
    # gdown may drop the last piece that had come
    assert 0 < int(ranges[0].removeprefix("bytes=").rstrip("-")) <= 1_000_000
    assert names(tmp_path) == {"model.pth"}


def test_another_file_than_the_published_one_is_not_kept(
    drive: LocalServer, tmp_path: Path
) -> None:
    drive.files["/some-id"] = b"<html>Quota exceeded</html>"
    with pytest.raises(UserError, match="md5 does not begin with"):
        fetch_from_drive(SOURCE, tmp_path / "model.pth")
    assert names(tmp_path) == set()
    drive.files["/some-id"] = CONTENT
    fetch_from_drive(SOURCE, tmp_path / "model.pth")


def test_a_file_put_there_by_hand_is_checked_and_used(
    drive: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.pth"
    target.write_bytes(CONTENT)
    fetch_from_drive(SOURCE, target)
    assert not drive.asked
    # it is read once, until it changes
    monkeypatch.setattr("ovseg.utils.downloads._md5", lambda _: pytest.fail("read again"))
    fetch_from_drive(SOURCE, target)
    monkeypatch.undo()
    target.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(
        UserError, match=rf"'{target}' is damaged .*published one with {SOURCE.md5}"
    ):
        fetch_from_drive(SOURCE, target)
    assert target.exists()


def test_without_a_server_one_line_says_what_to_do(drive: LocalServer, tmp_path: Path) -> None:
    drive.refuses = 503
    with pytest.raises(UserError) as raised:
        fetch_from_drive(SOURCE, tmp_path / "model.pth")
    message = str(raised.value)
    assert f"download {SOURCE.link} and put it at '{tmp_path / 'model.pth'}'" in message
    assert "\n" not in message


def test_without_gdown_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"pip install 'ovseg\[download\]'; or download https://"):
        fetch_from_drive(SOURCE, tmp_path / "model.pth")


def test_a_full_disk_is_no_failure_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.pth")

    monkeypatch.setattr(gdown, "download", full)
    with pytest.raises(OSError, match="No space left"):
        fetch_from_drive(SOURCE, tmp_path / "model.pth")


ONE_OF_SEVERAL = """
import sys, gdown
from pathlib import Path
from ovseg.utils.downloads import DriveFile, fetch_from_drive
download, (address, md5, target) = gdown.download, sys.argv[1:]
gdown.download = lambda id, **options: download(url=f"{address}/{id}", speed=2**20, **options)
fetch_from_drive(DriveFile("some-id", md5), Path(target))
"""


def test_one_of_several_processes_fetches(drive: LocalServer, tmp_path: Path) -> None:
    target = tmp_path / "model.pth"
    command = [sys.executable, "-c", ONE_OF_SEVERAL, drive.address, SOURCE.md5, str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert target.read_bytes() == CONTENT
    assert len(drive.gets("/some-id")) == 1
