"""What scripts say of mistakes that are the user's to mend."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run_process

from ovseg.errors import Parser, UserError, cli_errors, line_of_one_image


def said(capsys: pytest.CaptureFixture[str], error: BaseException) -> str:
    with pytest.raises(SystemExit) as ended, cli_errors():
        raise error
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_users_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, UserError("--input 'x':\n  not there")) == "error: --input 'x': not there\n"


def test_files_and_a_full_disk_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit), cli_errors():
        (tmp_path / "file" / "folder").mkdir()
    line = capsys.readouterr().err
    assert line == f"error: {str(tmp_path / 'file' / 'folder')!r}: Not a directory\n"
    full = OSError(errno.ENOSPC, "No space left on device")
    way_out = "make room there, or write elsewhere"
    assert said(capsys, full) == f"error: No space left on device; {way_out}\n"
    named = OSError(errno.EDQUOT, "Disk quota exceeded", "out/model.pth")
    assert said(capsys, named) == f"error: 'out/model.pth': Disk quota exceeded; {way_out}\n"


def test_faults_of_the_program_keep_their_traceback() -> None:
    for fault in (OSError("odd"), RuntimeError("odd")):
        with pytest.raises(type(fault), match="odd"), cli_errors():
            raise fault


def test_nobody_reads_what_is_printed() -> None:
    script = "from ovseg.errors import cli_errors\nwith cli_errors():\n    print('x' * %d)"
    for length in (1, 1_000_000):  # told when the block ends, and while it prints
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-c", script % length], check=False, stdout=writer,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, "")


def test_what_one_image_fails_with() -> None:
    class OutOfMemoryError(RuntimeError):
        """PyTorch's has this name."""

    assert line_of_one_image(UserError("a.png is broken")) == "a.png is broken"
    assert line_of_one_image(MemoryError()) == "out of memory"
    assert line_of_one_image(OutOfMemoryError("tried to\nallocate")) == "tried to allocate"
    assert line_of_one_image(RuntimeError("odd")) is None
    full = UserError("out cannot be written")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert line_of_one_image(full) is None


def test_debug_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*argv: str) -> None:
        with cli_errors():
            Parser("Does nothing.").parse_args(argv)
            raise UserError("odd")

    def command(*argv: str) -> str:
        with pytest.raises(SystemExit):
            fail(*argv)
        return capsys.readouterr().err

    lines = command("--debug").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert any('raise UserError("odd")' in line for line in lines)
    assert lines[-1] == "error: odd"
    assert command() == "error: odd\n"  # it was for that command alone


# a log whose last lines do not fit, and a thread that writes as TensorBoard's does
_FULL = """
import errno, logging, resource, sys, threading
from ovseg.errors import cli_errors
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = logging.StreamHandler(open(sys.argv[1], "a"))
logging.getLogger("test").addHandler(log)
log.stream.write("x" * 2000)
def write():
    raise OSError(errno.ENOSPC, "No space left on device")
with cli_errors():
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    raise OSError(errno.ENOSPC, "No space left on device", "model.pth")
"""


def test_a_full_disk_is_said_once(tmp_path: Path) -> None:
    done = run_process(sys.executable, "-c", _FULL, str(tmp_path / "log.txt"))
    assert done.returncode == 2
    assert done.stderr == (
        "error: 'model.pth': No space left on device; make room there, or write elsewhere\n"
    )
