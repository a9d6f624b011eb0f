"""Every command of the documents is one that its script understands."""

from __future__ import annotations

import argparse
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Sequence

import pytest
from conftest import ROOT

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "GETTING_STARTED.md",
    ROOT / "datasets" / "README.md",
    ROOT / "open_clip_training" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
#: the console command, as a script of this name
OVSEG = "ovseg"


class Understood(Exception):
    """The script has read its command line."""


def commands() -> list[tuple[str, tuple[str, ...]]]:
    """Script and arguments of each command in a block of shell commands, each once."""
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                scripts = [word for word in words if word.endswith(".py")]
                if words[:1] == [OVSEG]:
                    found.append((OVSEG, tuple(words[1:])))
                elif scripts:
                    found.append((scripts[0], tuple(words[words.index(scripts[0]) + 1 :])))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(
    ("script", "arguments"), commands(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_script_understands_it(
    script: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def stop_after(
        parser: argparse.ArgumentParser, args: Sequence[str] | None = None, namespace: object = None
    ) -> None:
        parse(parser, args, namespace)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop_after)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(ROOT)
    with pytest.raises(Understood):
        run(script)


def run(script: str) -> None:
    """Start a script, or the console command, with the arguments in ``sys.argv``."""
    if script == OVSEG:
        importlib.import_module("ovseg.cli").main()
    else:
        runpy.run_path(script, run_name="__main__")


def test_the_scripts_that_people_start_are_documented() -> None:
    documented = {script for script, _ in commands()}
    scripts = [*ROOT.glob("datasets/prepare_*.py"), *ROOT.glob("tools/*.py")]
    for name in ("pretrain", "collect_pairs", "train", "ablations"):
        scripts.append(ROOT / "open_clip_training" / f"{name}.py")
    names = {script.relative_to(ROOT).as_posix() for script in scripts}
    assert names | {"demo.py", "train_net.py", OVSEG} <= documented
