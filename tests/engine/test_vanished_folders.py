"""The folder of results vanishes, or can no longer be written, in the middle of a run: one line,
and what was written before is whole. By default most commands are tried in one way; `make
test-slow` tries all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tools import kill_runs
from tools.kills.kinds import KINDS, write_data

#: the first file after which it happens
AFTER = {
    "training": "last_checkpoint", "search": "unfinished/*.npz", "mining": "parts/*.json",
    "clip training": "clip_resume.pt", "labelling": "labels-*",
}  # fmt: skip
WAYS = ("gone", "a file in its place", "read-only")
SAMPLE = [
    ("training", "gone"), ("search", "a file in its place"), ("mining", "gone"),
    ("labelling", "read-only"),
]  # fmt: skip
CASES = (
    [(kind, way) for kind in AFTER for way in WAYS] if "OVSEG_ALL_WAYS" in os.environ else SAMPLE
)
# Done by the run itself, at the same place each time. The tests may run as root, whom permissions
# do not bind, so that it cannot be written is said in the system's place.
DISTURB = """pass
import errno, os
from pathlib import Path
output, after, way = {arguments!r}
happened = []
replace, touch = Path.replace, Path.touch
def then_disturb(self, target):
    result = replace(self, target)
    if not happened and Path(target).match(after):
        happened.append(way)
        if way != "read-only":
            os.rename(output, output + "_away")
        if way == "a file in its place":
            Path(output).write_text("no folder")
    return result
def refuse(self, *args, **kwargs):
    if "read-only" in happened:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
    return touch(self, *args, **kwargs)
Path.replace, Path.touch = then_disturb, refuse
from ovseg.errors import cli_errors
{code}
main = cli_errors()(main)
pass"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "data"
    write_data(folder, with_pairs="clip training" in dict(CASES))
    return folder


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_one_line_and_what_was_written_is_whole(
    kind: str, way: str, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    output.mkdir()
    arguments = (str(output), AFTER[kind], way)
    code = DISTURB.format(arguments=arguments, code=KINDS[kind].code)
    process = kill_runs.start(replace(KINDS[kind], code=code), data, output)
    code_of_exit = process.wait()
    said = (tmp_path / "results.log").read_text()
    assert code_of_exit == 2, said
    assert "Traceback" not in said
    (line,) = [line for line in said.replace("\r", "\n").splitlines() if "error: " in line]
    assert line.startswith("error: ")
    assert str(output) in line
    kept = output if way == "read-only" else tmp_path / "results_away"
    assert any(kept.glob(AFTER[kind]))
    assert [problem for problem in kill_runs.broken_files(kept) if problem] == []
    if way == "gone":
        assert not output.exists()
