"""Installing detectron2 from a fabricated source archive; no network, nothing installed."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ovseg.cli import detectron2_wheel, install_detectron2
from ovseg.errors import UserError

SCRIPT = Path(__file__).parents[2] / "tools" / "install_detectron2.py"


def _source_files() -> dict[str, str]:
    """Files that hold every text the edits look for, as often as they want it."""
    files = {"LICENSE": "the licence\n", "detectron2/__init__.py": '# first\n__version__ = "0.6"\n'}
    for project in detectron2_wheel.PROJECTS:
        files[f"{project}/__init__.py"] = f"# {project}\n"
    for edit in detectron2_wheel.EDITS:
        text = files.get(edit.path, "# first\n")
        files[edit.path] = text + f"x({edit.old}\n" * edit.times
    return files


def _archive(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "source.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def sdist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source archive whose hash the script takes for the pinned one."""
    path = _archive(tmp_path, {f"top-0.6/{k}": v for k, v in _source_files().items()})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(detectron2_wheel.check_hash, "__defaults__", (digest,))
    return path


def _wheel(sdist: Path, folder: Path) -> Path:
    install_detectron2.main(["--sdist", str(sdist), "--wheel-dir", str(folder)])
    (wheel,) = folder.iterdir()
    return wheel


def test_every_edit_is_made_once_and_noted() -> None:
    before = {path: text.encode() for path, text in _source_files().items()}
    after = detectron2_wheel.apply_edits(before)
    for path in {edit.path for edit in detectron2_wheel.EDITS}:
        first, note, *rest = after[path].decode().splitlines(keepends=True)
        assert first == "# first\n"
        assert note == detectron2_wheel.EDIT_NOTE
        text = "".join(rest)
        for gone in ("np.int)", "np.bool", "np.float", "np.str", "Image.LINEAR", "pkg_resources"):
            assert gone not in text
        assert "from detectron2 import _C" not in text
    assert after["detectron2/__init__.py"] == before["detectron2/__init__.py"]


@pytest.mark.parametrize("change", ["gone", "twice", "no file"])
def test_a_source_that_differs_is_refused(change: str) -> None:
    files = {path: text.encode() for path, text in _source_files().items()}
    edit = detectron2_wheel.EDITS[0]
    if change == "no file":
        del files[edit.path]
    else:
        new = b"" if change == "gone" else edit.old.encode() * 2
        files[edit.path] = files[edit.path].replace(edit.old.encode(), new)
    with pytest.raises(UserError, match="differs"):
        detectron2_wheel.apply_edits(files)


def test_a_wrong_hash_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _archive(tmp_path, {"top-0.6/LICENSE": "the licence\n"})
    out = tmp_path / "wheels"
    with pytest.raises(SystemExit) as caught:
        install_detectron2.main(["--sdist", str(path), "--wheel-dir", str(out)])
    assert caught.value.code == 2
    assert "is not the pinned source" in capsys.readouterr().err
    assert not out.exists()


def test_a_missing_archive_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "absent.tar.gz"
    with pytest.raises(SystemExit) as caught:
        install_detectron2.main(["--sdist", str(path), "--wheel-dir", str(tmp_path)])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: --sdist {path}: no such file\n"


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip looks at, whatever this machine's settings."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_download_follows_pips_settings(offline: Path, tmp_path: Path) -> None:
    (offline / detectron2_wheel.SDIST).write_bytes(b"an archive")
    install_detectron2.download(tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"an archive"


def test_a_download_is_tried_again_and_its_failure_explained(
    offline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), pytest.raises(UserError) as caught:
        install_detectron2.download(tmp_path / "got", pauses=[0.0])
    assert caplog.text.count("downloading") == 2
    assert f"pip finds no {detectron2_wheel.SDIST}" in str(caught.value)
    assert "--sdist FILE" in str(caught.value)


def test_an_index_that_does_not_answer_is_named(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # the discard port
    with pytest.raises(UserError, match=r"Could not fetch .*127\.0\.0\.1.*--sdist"):
        install_detectron2.download(tmp_path / "got", pauses=[])


@pytest.mark.parametrize("has_filter", [True, False])
def test_unpacking_stays_inside_its_folder(
    has_filter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_filter:  # as in the first releases of Python 3.10 and 3.11
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python's tarfile has no filters")
    archive = _archive(tmp_path, {"../escaped": "x"})
    (tmp_path / "in").mkdir()
    with pytest.raises((UserError, tarfile.TarError)):
        detectron2_wheel.unpack(archive, tmp_path / "in")
    assert not (tmp_path / "escaped").exists()


def test_the_wheel_installs_and_says_what_it_lacks(sdist: Path, tmp_path: Path) -> None:
    wheel = _wheel(sdist, tmp_path / "wheels")
    assert wheel.name == f"detectron2-{detectron2_wheel.VERSION}-py3-none-any.whl"
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    assert (target / "detectron2/projects/deeplab/__init__.py").is_file()
    code = (
        "from detectron2._no_extension import _C\n"
        "print(hasattr(_C, '__wrapped__'))\n"
        "try: _C.nms_rotated()\n"
        "except RuntimeError as error: print(error)\n"
        "try: from detectron2 import _C\n"
        "except ImportError: print('absent')\n"
    )
    run = [sys.executable, "-c", code]
    lines = subprocess.run(run, cwd=target, check=True, capture_output=True, text=True).stdout
    dunder, op, extension = lines.splitlines()
    assert dunder == "False"
    assert op.startswith("'nms_rotated' needs detectron2's compiled extension")
    assert extension == "absent"


def test_the_wheel_is_complete_and_reproducible(sdist: Path, tmp_path: Path) -> None:
    first, second = (_wheel(sdist, tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        (record,) = (n for n in archive.namelist() if n.endswith("/RECORD"))
        rows = {row[0]: row for row in csv.reader(archive.read(record).decode().splitlines())}
        assert set(rows) == set(archive.namelist())
        for name in set(rows) - {record}:
            assert rows[name][1] == detectron2_wheel._record_hash(archive.read(name))
            assert int(rows[name][2]) == len(archive.read(name))
        metadata = archive.read(record.replace("RECORD", "METADATA")).decode()
    assert "Name: detectron2\n" in metadata
    assert all(f"Requires-Dist: {name}\n" in metadata for name in detectron2_wheel.REQUIRES)


@pytest.mark.parametrize(
    ("found", "arguments", "installs"),
    [
        ("0.6+cu121", [], False),
        (detectron2_wheel.VERSION, [], False),
        ("0.6+ovseg.0", [], True),  # this script's own build, with older edits
        ("0.6", ["--force"], True),
        (None, [], True),
    ],
)
def test_installs_only_when_needed(
    found: str | None, arguments: list[str], installs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    answers = iter([(found, "ImportError: why"), (detectron2_wheel.VERSION, "")])
    monkeypatch.setattr(install_detectron2, "working_version", lambda: next(answers))
    monkeypatch.setattr(install_detectron2, "install", lambda *given: calls.append(given))
    install_detectron2.main(arguments)
    assert len(calls) == installs


def test_an_installation_that_does_not_import_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install_detectron2, "working_version", lambda: (None, "ImportError: why"))
    monkeypatch.setattr(install_detectron2, "install", lambda *given: None)
    with pytest.raises(SystemExit) as caught:
        install_detectron2.main([])
    assert caught.value.code == 2
    assert "does not import: ImportError: why" in capsys.readouterr().err


def test_does_nothing_where_detectron2_works() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT)], check=True, capture_output=True, text=True
    )
    assert "works: nothing to do" in result.stderr
    assert "installing" not in result.stderr
