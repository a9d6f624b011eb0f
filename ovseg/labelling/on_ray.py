"""Shards shared out by Ray Data: a model an actor, on one machine or many."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ovseg.errors import UserError
from ovseg.labelling.plan import Shard
from ovseg.labelling.work import LabelJob, Labeller


@dataclass(frozen=True)
class RayWorkers:
    """The models at work; called, they label shards.

    Attributes:
        count: how many; None: one for each GPU of the cluster, without GPUs one for each machine.
        cpus: cores of each; None: those of its machine, shared by the models there, without GPUs;
            with GPUs one.
        address: of a running cluster; None: ``$RAY_ADDRESS``, or else one is started here.
        on_gpus: whether they may use GPUs.
    """

    count: int | None = None
    cpus: int | None = None
    address: str | None = None
    on_gpus: bool = True

    def __call__(
        self,
        job: LabelJob,
        shards: Sequence[Shard],
        finished: Callable[[Shard, dict[str, Any]], None],
    ) -> None:
        """Label shards by several models.

        A shard whose worker or machine is lost goes to another worker. It is written under its name
        whole or not at all, so that it is there once, whoever wrote it.

        Args:
            job: what to do.
            shards: what to label.
            finished: called with each shard that is done, in any order.

        Raises:
            UserError: there is no such cluster, or it has too little for the workers; or what
                :class:`Labeller` raises.
        """
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        started = _connect(self.address)
        try:
            count, cpus, gpus = _resources(ray.nodes(), self)
            context = DataContext.get_current()
            context.enable_progress_bars = False
            context.print_on_execution_start = False
            by_number = {shard.number: shard for shard in shards}
            rows = ray.data.from_items(
                [{"shard": shard.to_json()} for shard in shards], override_num_blocks=len(shards)
            ).map(
                _Worker,  # type: ignore[arg-type]  # a class is an actor's
                fn_constructor_kwargs={"job": job, "cpus": cpus},
                compute=ActorPoolStrategy(
                    size=min(count, len(shards)), max_tasks_in_flight_per_actor=1
                ),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            for row in rows.iter_rows():
                finished(by_number[row["number"]], {**row["record"]})
        except Exception as error:
            raise _cause(error) from error
        finally:
            if started:
                ray.shutdown()


def is_installed() -> bool:
    """Whether Ray Data is."""
    try:
        import ray.data  # noqa: F401
    except ImportError:
        return False
    return True


class _Worker:
    """An actor with a model of its own."""

    def __init__(self, job: LabelJob, cpus: int) -> None:
        import ray
        import torch

        torch.set_num_threads(cpus)
        cfg = job.cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cuda" if ray.get_gpu_ids() else "cpu"
        cfg.freeze()
        self._labeller = Labeller(replace(job, cfg=cfg))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard.of_json(row["shard"])
        return {"number": shard.number, "record": self._labeller.label(shard)}


def _connect(address: str | None) -> bool:
    """Connect to a cluster or start one; whether this was done here."""
    # OVSeg sends nothing, and neither shall what it starts
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # it warns of each actor that Ray Data starts
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        return False
    # without an address Ray would join whatever cluster runs on this machine
    place = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False} if place == "local" else {}
    try:
        ray.init(address=place, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray has many
        reason = " ".join(str(error).split())
        if place == "local":
            raise UserError(
                f"--workers: Ray cannot be started here ({reason}); try again, or give --workers 0"
            ) from error
        raise UserError(
            f"--ray-address {place!r}: there is no such cluster ({reason}); start one with: "
            "ray start --head"
        ) from error
    return True


def _resources(nodes: Sequence[dict[str, Any]], workers: RayWorkers) -> tuple[int, int, int]:
    """Number of workers, and cores and GPUs of each."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in alive)) if workers.on_gpus else 0
    cores = [int(node.get("CPU", 0)) for node in alive if node.get("CPU", 0) >= 1]
    count = workers.count or gpus or len(cores) or 1
    cpus = workers.cpus or (1 if gpus else _cores_of_each(cores, count))
    fitting = sum(number // cpus for number in cores)
    if count > min(fitting, gpus or fitting):
        there = f"{sum(cores)} cores" + (f" and {gpus} GPUs" if gpus else "")
        raise UserError(
            f"--workers {count} with {cpus} cores each do not fit the cluster, which has {there}; "
            "give fewer workers, or fewer --cpus-per-worker"
        )
    return count, cpus, 1 if gpus else 0


def _cores_of_each(cores: Sequence[int], count: int) -> int:
    """The most cores for each of so many workers on machines with so many cores."""
    most = max(cores, default=1)
    fitting = (n for n in range(most, 1, -1) if sum(number // n for number in cores) >= count)
    return next(fitting, 1)


def _cause(error: BaseException) -> BaseException:
    """What a worker raised, inside of what Ray makes of it."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None)
        if isinstance(inner, UserError | OSError):
            return inner
        if isinstance(seen, UserError):
            return seen
        seen = inner if isinstance(inner, BaseException) else seen.__cause__
    return error
