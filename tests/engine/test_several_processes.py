"""Several processes: started in each way, and what is said when one fails, vanishes or is asked to
end. The commands are real; their work is that of ``process_script.py``."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT

SCRIPT = [sys.executable, str(ROOT / "tests" / "process_script.py")]
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    SCRIPT[1],
]  # fmt: skip
TWO = ("--num-processes", "2")


def begin(command: list[str], *options: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C of a test goes to all of its processes and no others
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, list[str]]:
    """Exit code, what it printed, and its error lines; it has a minute to end."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, [line for line in err.splitlines() if "error: " in line]


def srun(rank: int, port: int, *options: str) -> subprocess.Popen[str]:
    return begin(
        SCRIPT, *options,
        SLURM_PROCID=str(rank), SLURM_NTASKS="2", SLURM_LOCALID=str(rank),
        SLURM_NODELIST="localhost", MASTER_PORT=str(port),
    )  # fmt: skip


def wait_for(path: Path) -> None:
    until = time.monotonic() + 240
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_machines_at_two_addresses(tmp_path: Path) -> None:
    url = f"tcp://127.0.0.2:{free_port()}"
    running = [
        begin(SCRIPT, "sum", "--output", str(tmp_path), *TWO, "--num-machines", "2",
              "--machine-rank", str(machine), "--dist-url", url)
        for machine in range(2)
    ]  # fmt: skip
    for process in running:
        code, out, errors = end(process)
        lines = [line for line in out.splitlines() if not line.startswith("[Gloo]")]
        assert (code, lines, errors) == (0, ["sum 10.0 of 4"] * 2, [])
    ranks = [(tmp_path / f"here_{rank}").read_text() for rank in range(4)]
    assert ranks == ["0 of 2", "1 of 2", "0 of 2", "1 of 2"]


def test_a_mistake_in_one_process_ends_all(tmp_path: Path) -> None:
    code, _, errors = end(begin(SCRIPT, "raise", "--output", str(tmp_path), *TWO))
    assert code == 2
    assert errors == ["error: process 1 of 2: picture a.png is broken; mend it"]


def test_a_killed_process_of_torchrun_is_named(tmp_path: Path) -> None:
    code, _, errors = end(begin(TORCHRUN, "kill", "--output", str(tmp_path)))
    assert code == 1
    (line,) = [line for line in errors if line.startswith("error: ")]
    assert line.startswith("error: process 1 of 2 was killed or has crashed (process id ")
    assert "--resume" in line


def test_a_killed_process_is_named_while_others_compute(tmp_path: Path) -> None:
    options = ("kill while others compute", "--output", str(tmp_path), *TWO)
    code, _, errors = end(begin(SCRIPT, *options))
    assert code == 1
    assert len(errors) == 1
    # by the command that has started it, or by the other process
    pattern = r"error: process 1 of 2 was killed or has crashed \((SIGKILL, )?process id \d+"
    assert re.match(pattern, errors[0])


def test_processes_that_do_not_mean_the_same(tmp_path: Path) -> None:
    port = free_port()
    outputs = [str(tmp_path / "a"), str(tmp_path / "b")]
    ends = [
        end(process) for process in [srun(i, port, "sum", "--output", outputs[i]) for i in (0, 1)]
    ]
    assert [code for code, _, _ in ends] == [2, 2]
    (line,) = [line for _, _, errors in ends for line in errors]
    assert line == (
        f"error: process 1 of 2 has --output {outputs[1]!r}, process 0 has {outputs[0]!r}; "
        "give all the same command"
    )
    assert not any(Path(output).exists() for output in outputs)


def test_options_that_the_launcher_answers(tmp_path: Path) -> None:
    port = free_port()
    running = [srun(rank, port, "sum", "--output", str(tmp_path), *TWO) for rank in (0, 1)]
    ends = [end(process) for process in running]
    assert [code for code, _, _ in ends] == [2, 2]
    lines = [line for _, _, errors in ends for line in errors]
    assert lines == ["error: --num-processes 2: srun has started 2 processes already; leave it out"]


def test_sigterm_ends_all_after_the_same_step(tmp_path: Path) -> None:
    process = begin(SCRIPT, "steps", "--output", str(tmp_path), *TWO)
    for rank in (0, 1):
        wait_for(tmp_path / f"ready_{rank}")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 143
    steps = [(tmp_path / f"stopped_{rank}").read_text() for rank in (0, 1)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("options", [(), TWO], ids=["one process", "two processes"])
def test_ctrl_c_says_one_line_and_a_second_ends_at_once(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    process = begin(SCRIPT, "deaf", "--output", str(tmp_path), *options)
    try:
        for rank in range(2 if options else 1):
            wait_for(tmp_path / f"ready_{rank}")
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("interrupted: ")
        assert line.endswith("; Ctrl-C again ends at once\n")
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        code, _, _ = end(process)
        assert code == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
