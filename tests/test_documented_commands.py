"""Every command of the documents is one that its script, or ovseg, understands."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from functools import partial

import pytest
from conftest import ROOT

from ovseg.cli import COMMANDS, main

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
                for place, word in enumerate(words):
                    following = words[place + 1 : place + 2]
                    is_command = word.endswith("ovseg") and following and following[0] in COMMANDS
                    if word.endswith(".py") or is_command:
                        script = "ovseg" if is_command else word
                        found.append((script, tuple(words[place + 1 :])))
                        break
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
    start = partial(runpy.run_path, script, run_name="__main__")
    with pytest.raises(Understood):
        main(arguments) if script == "ovseg" else start()


def test_the_scripts_that_people_start_are_documented() -> None:
    documented = {script for script, _ in commands()}
    scripts = [*ROOT.glob("datasets/prepare_*.py"), *ROOT.glob("tools/*.py")]
    for name in ("pretrain", "pretrain_backbone", "collect_pairs", "train", "ablations"):
        scripts.append(ROOT / "open_clip_training" / f"{name}.py")
    names = {script.relative_to(ROOT).as_posix() for script in scripts}
    assert names | {"demo.py", "train_net.py", OVSEG} <= documented
