"""Kill runs by SIGKILL at random moments, let them go on, and look at what they leave.

    python tools/kill_runs.py --kills 50 --report output/kills.json

Each kind of run (training, search, mining, CLIP training, preparation, segmentation, labelling) is
done once undisturbed. Then it is started, killed and started again, until its share of the kills is
spent; then it may end. Every other kill waits for the moment when a file is being written. After
each kill all files are read: none may be truncated or broken. In the end the results have to be
those of the undisturbed run, bit for bit. Exit code 1 where something is lost.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from ovseg.errors import Parser, UserError, cli_errors, say_error
from ovseg.utils.io import write_json

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tools.kills.kinds import KINDS, ROOT, Kind, write_data

#: what is only ever added to; a killed run may leave a last line that is not whole
LOGS = ("log.txt", "metrics.json", "events.out.tfevents")


@dataclass
class Tally:
    """What happened to one kind of run.

    Attributes:
        kills: how many there were.
        while_writing: of them, while a file was being written.
        starts: how often the run was started.
        files_read: files that were looked at, over all kills.
        broken: files that were not whole.
        different: parts of the final result that are not those of the undisturbed run.
        problems: starts that failed, with their last line.
    """

    kills: int = 0
    while_writing: int = 0
    starts: int = 0
    files_read: int = 0
    broken: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def is_fine(self) -> bool:
        """Nothing was lost."""
        return not (self.broken or self.different or self.problems)


def build_parser() -> Parser:
    """The options."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=50, metavar="N", help="over all kinds; default: 50")
    add("--kinds", nargs="+", default=list(KINDS), metavar="KIND", help=f"of {', '.join(KINDS)}")
    add("--seed", type=int, default=0, help="of the moments")
    add("--report", type=Path, metavar="FILE", help="write the counts as JSON, too")
    return parser


def start(kind: Kind, data: Path, output: Path) -> subprocess.Popen[str]:
    """Start a run of a kind, with a process group of its own."""
    code = f"import sys; {kind.code}; main(sys.argv[1:])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with (output.parent / f"{output.name}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, *kind.arguments(data, output)], cwd=ROOT,
            env=environment, stdout=subprocess.DEVNULL, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip


def being_written(output: Path) -> set[Path]:
    """The files that are being written, or were when a run was killed: they have hidden names."""
    return set(output.rglob(".*-*"))


def kill_once(process: subprocess.Popen[str], output: Path, wait: float, writing: bool) -> bool:
    """Kill a run ``wait`` seconds from now, or when it then writes next; False if it ended before.

    Its loading processes are killed with it.
    """
    until, before = time.monotonic() + wait, being_written(output)
    while process.poll() is None:
        if time.monotonic() > until and (not writing or being_written(output) - before):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.002)
    return False


def broken_files(folder: Path) -> Iterator[str | None]:
    """Of every file with a final name None, or the file and what is wrong with it."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not path.is_file() or hidden or path.name.startswith(LOGS):
            continue
        try:
            read_whole(path)
            yield None
        except Exception as error:  # whatever a library says of a broken file
            yield f"{path.relative_to(folder)}: {type(error).__name__}: {error}"


def read_whole(path: Path) -> None:
    """Read a file to its end; raises what its library does when it is not whole."""
    if path.suffix in {".pth", ".pt"}:
        torch.load(path, weights_only=True)
    elif path.suffix in {".png", ".jpg"}:
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                arrays[name]
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text(encoding="utf-8"))
    elif path.suffix == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                content.read()
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert all(len(row) == len(header) for row in rows)
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.read_table(path)
    elif path.name == "last_checkpoint":
        assert (path.parent / path.read_text(encoding="utf-8")).is_file()
    elif not path.stat().st_size:
        raise ValueError("empty")


def undisturbed(kind: Kind, data: Path, output: Path) -> tuple[dict[str, str], float]:
    """The result of a run that nothing disturbs, and its seconds."""
    began = time.monotonic()
    process = start(kind, data, output)
    if process.wait():
        log = (output.parent / f"{output.name}.log").read_text(encoding="utf-8")
        raise UserError(f"the undisturbed run failed: {log[-500:]}")
    seconds = time.monotonic() - began
    result = kind.result(output)
    shutil.rmtree(output)  # a training's checkpoints fill half a gigabyte
    return result, seconds


def disturb(kind: Kind, data: Path, folder: Path, kills: int, draw: random.Random) -> Tally:
    """Kill a kind of run so many times, and let it end."""
    tally = Tally()
    expected, seconds = undisturbed(kind, data, folder / "undisturbed")
    output = folder / "killed"
    while tally.kills < kills:
        output.mkdir(exist_ok=True)
        fresh, began = not any(output.iterdir()), time.monotonic()
        process = start(kind, data, output)
        tally.starts += 1
        writing = tally.kills % 2 == 1
        # it takes a while to start; what is left of a run gets shorter
        wait = draw.uniform(0.3, 0.9) * seconds
        before = being_written(output)
        if kill_once(process, output, wait, writing):
            tally.kills += 1
            tally.while_writing += bool(being_written(output) - before)
        elif process.returncode:
            _note(tally, output)
            break
        else:  # it was done before: again from nothing
            if fresh:  # the machine may have had more to do when the undisturbed run was timed
                seconds = min(seconds, time.monotonic() - began)
            _compare(tally, kind, expected, output)
            _look(tally, output)
            shutil.rmtree(output)
            continue
        _look(tally, output)
    output.mkdir(exist_ok=True)
    process = start(kind, data, output)
    tally.starts += 1
    if process.wait():
        _note(tally, output)
    else:
        _compare(tally, kind, expected, output)
    _look(tally, output)
    return tally


def _look(tally: Tally, output: Path) -> None:
    for problem in broken_files(output):
        tally.files_read += 1
        if problem is not None:
            tally.broken.append(problem)


def _compare(tally: Tally, kind: Kind, expected: dict[str, str], output: Path) -> None:
    found = kind.result(output)
    names = sorted(expected.keys() | found.keys())
    tally.different += [name for name in names if expected.get(name) != found.get(name)]


def _note(tally: Tally, output: Path) -> None:
    lines = (output.parent / f"{output.name}.log").read_text(encoding="utf-8").splitlines()
    tally.problems.append((lines or ["no word"])[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Kill, and print the counts."""
    with cli_errors():
        args = build_parser().parse_args(argv)
        unknown = [name for name in args.kinds if name not in KINDS]
        if unknown:
            raise UserError(f"--kinds {unknown[0]!r} is not known; choose of {', '.join(KINDS)}")
        tallies: dict[str, Tally] = {}
        with tempfile.TemporaryDirectory() as place:
            data = Path(place, "data")
            write_data(data, with_pairs="clip training" in args.kinds)
            for number, name in enumerate(args.kinds):
                share = (args.kills * (number + 1)) // len(args.kinds)
                share -= (args.kills * number) // len(args.kinds)
                folder = Path(place, name.replace(" ", "_"))
                folder.mkdir()
                draw = random.Random(f"{args.seed} {name}")
                tallies[name] = disturb(KINDS[name], data, folder, share, draw)
                _print(name, tallies[name])
        if args.report:
            write_json(args.report, {name: asdict(tally) for name, tally in tallies.items()})
        total = sum(tally.kills for tally in tallies.values())
        print(f"{total} kills, {sum(t.while_writing for t in tallies.values())} while writing")
        if not all(tally.is_fine() for tally in tallies.values()):
            raise SystemExit(1)


def _print(name: str, tally: Tally) -> None:
    print(
        f"{name:>14}: {tally.kills} kills, {tally.while_writing} while writing, "
        f"{tally.starts} starts, {tally.files_read} files read, {len(tally.broken)} broken, "
        f"{len(tally.different)} parts of the result different",
        flush=True,
    )
    for line in (*tally.broken, *tally.different[:5], *tally.problems):
        say_error(f"{name}: {line}")


if __name__ == "__main__":
    main()
