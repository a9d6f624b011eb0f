"""The same on a Ray cluster of several machines, here processes of one: workers, machines and the
command itself are killed, and every row is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from labelling_world import arguments, manifest_of, rows_of, write_pictures

from ovseg.errors import UserError
from ovseg.labelling.on_ray import RayWorkers, _resources

pytest.importorskip("ray.data", reason="RAY IS NOT INSTALLED: labelling on a cluster is not tested")

PICTURES = 24
SHARDS = ("--shard-size", "3")
_PATIENCE = 600.0  # seconds


def patiently(make: Callable[[], Any]) -> Any:
    """Ray gives a process 30 seconds to start, which a loaded machine may exceed."""
    for _ in range(3):
        try:
            return make()
        except Exception as error:
            if "timed out" not in str(error):
                raise
    return make()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 1, "include_dashboard": False}
    started = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    patiently(lambda: started.add_node(num_cpus=1))
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, PICTURES - 1)
    (folder / "picture_005b.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("alone")
    assert start(output, photos, "--workers", "0").wait(_PATIENCE) == 1
    return output


def start(output: Path, photos: Path, *options: str) -> subprocess.Popen[bytes]:
    """`ovseg label` in a process of its own, each model on one core."""
    command = [sys.executable, "-m", "ovseg", "label"]
    return subprocess.Popen(
        [*command, *arguments(output, photos, options=(*SHARDS, *options))],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def on(cluster: Any, workers: int = 2) -> tuple[str, ...]:
    return ("--workers", str(workers), "--cpus-per-worker", "1", "--ray-address", cluster.address)


def writer_of_a_shard(output: Path, done: int) -> int:
    """Wait until some shards are done and one is being written; the process that writes it."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if len(list(output.glob("labels-*"))) >= done:
            for path in output.glob(".labels-*"):
                process = int(path.name.split("-")[3])
                if Path(f"/proc/{process}").exists():  # not what a killed one has left
                    return process
        time.sleep(0.002)
    raise TimeoutError("no shard is being written")


def assert_nothing_lost_nothing_twice(output: Path, alone: Path) -> None:
    rows = rows_of(output)
    assert len({row["source"] for row in rows}) == len(rows) == PICTURES
    assert rows == rows_of(alone)
    assert manifest_of(output) == manifest_of(alone)  # with the digests of all files
    assert {path.name for path in output.iterdir()} == {path.name for path in alone.iterdir()}


def test_workers_are_killed_and_a_machine_is_lost(
    cluster: Any, photos: Path, alone: Path, tmp_path: Path
) -> None:
    extra = patiently(lambda: cluster.add_node(num_cpus=1))
    run = start(tmp_path, photos, *on(cluster, workers=3))
    os.kill(writer_of_a_shard(tmp_path, done=0), signal.SIGKILL)
    os.kill(writer_of_a_shard(tmp_path, done=2), signal.SIGKILL)
    writer_of_a_shard(tmp_path, done=3)
    cluster.remove_node(extra, allow_graceful=False)
    # two machines are left for three workers: the third waits, the others do its work
    assert run.wait(_PATIENCE) == 1  # one image is broken
    assert_nothing_lost_nothing_twice(tmp_path, alone)


def test_the_command_is_killed_and_started_again(
    cluster: Any, photos: Path, alone: Path, tmp_path: Path
) -> None:
    run = start(tmp_path, photos, *on(cluster))
    writer_of_a_shard(tmp_path, done=2)
    run.kill()
    run.wait()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "done").glob("[!.]*")}
    assert 0 < len(done) < PICTURES // 3
    assert not (tmp_path / "manifest.json").exists()
    assert start(tmp_path, photos, *on(cluster)).wait(_PATIENCE) == 1
    # what was done was not done again
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert_nothing_lost_nothing_twice(tmp_path, alone)


NODES = [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {"CPU": 8.0}},
         {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]  # fmt: skip
WITH_GPUS = [*NODES, {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}}]


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        (NODES, RayWorkers(), (2, 4, 0)),  # one a machine, which the smaller can hold
        (NODES, RayWorkers(count=3), (3, 4, 0)),
        (NODES, RayWorkers(count=6, cpus=2), (6, 2, 0)),
        (WITH_GPUS, RayWorkers(), (2, 1, 1)),
        (WITH_GPUS, RayWorkers(on_gpus=False), (3, 8, 0)),  # two on the largest
    ],
)
def test_workers_by_what_a_cluster_has(
    nodes: list[dict[str, Any]], workers: RayWorkers, expected: tuple[int, int, int]
) -> None:
    assert _resources(nodes, workers) == expected


def test_too_many_workers() -> None:
    with pytest.raises(UserError, match=r"--workers 7 with 2 cores each do not fit .* 12 cores;"):
        _resources(NODES, RayWorkers(count=7, cpus=2))
    with pytest.raises(UserError, match=r"--workers 3 .* 28 cores and 2 GPUs; give fewer workers"):
        _resources(WITH_GPUS, RayWorkers(count=3))
