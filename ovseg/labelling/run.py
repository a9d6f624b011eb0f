"""A whole collection: its plan, what is done of it already, and who does the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from ovseg.errors import UserError
from ovseg.labelling.output import MANIFEST, Output
from ovseg.labelling.plan import Shard
from ovseg.labelling.progress import LabelProgress
from ovseg.labelling.work import LabelJob, Labeller
from ovseg.results.files import LABEL_PLAN, LABEL_SETTINGS
from ovseg.utils.settings import check_settings

DESCRIPTION = "dataset.yaml"
#: labels shards, and calls back with each that is done
Distribute = Callable[[LabelJob, Sequence[Shard], Callable[[Shard, dict[str, Any]], None]], None]


def planned_shards(
    output: Output, settings: Mapping[str, Any], make: Callable[[], list[Shard]]
) -> list[Shard]:
    """The shards of an output folder: those of its plan, or of a new one, which is written.

    Args:
        output: the folder.
        settings: everything that the rows depend on, and ``input``.
        make: makes the plan.

    Raises:
        UserError: the folder holds labels of other settings, or there are no images.
    """
    output.refuse_file()
    recorded = output.read_json(LABEL_SETTINGS)
    if recorded is not None:
        check_settings(
            recorded, settings, what=f"--output {output.place!r}",
            way_out="give another folder, or delete this one",
            names={
                "words": "the class names", "names": "what the classes are called",
                "weights": "MODEL.WEIGHTS", "config": "the config",
            },
        )  # fmt: skip
        plan = output.read_text(LABEL_PLAN)
        if plan is not None:
            return [Shard.of_json(line) for line in plan.rstrip("\n").split("\n")]
    shards = make()
    output.check()
    output.write_json(LABEL_SETTINGS, dict(settings))
    output.write_text(LABEL_PLAN, "".join(f"{shard.to_json()}\n" for shard in shards))
    return shards


def label_collection(
    job: LabelJob, shards: list[Shard], distribute: Distribute | None = None
) -> dict[str, Any]:
    """Label all shards that are not done yet, and write the manifest.

    Args:
        job: what to do.
        shards: of the whole collection.
        distribute: shares them out; None: this process labels them.

    Returns:
        The manifest.

    Raises:
        UserError: ``dataset.yaml`` is there with another ``min_score`` than the job's; or see
            :class:`ovseg.labelling.work.Labeller`.
    """
    _check_min_score(job)
    records = job.output.records(shards)
    left = [shard for shard in shards if shard.number not in records]
    progress = LabelProgress(shards, {number: record["rows"] for number, record in records.items()})

    def finished(shard: Shard, record: dict[str, Any]) -> None:
        records[shard.number] = record
        progress.finished(shard, record["rows"])

    try:
        if left and distribute is None:
            labeller = Labeller(job)
            for shard in left:
                finished(shard, labeller.label(shard, progress.seen))
        elif left and distribute is not None:

            def finished_elsewhere(shard: Shard, record: dict[str, Any]) -> None:
                finished(shard, record)
                progress.seen(record["rows"])

            distribute(job, left, finished_elsewhere)
    finally:
        progress.close()
    job.output.remove_abandoned()
    manifest = _manifest(job, shards, records)
    job.output.write_json(MANIFEST, manifest)
    if job.output.read_text(DESCRIPTION) is None:  # it may have been edited
        job.output.write_text(DESCRIPTION, _description(job))
    return manifest


def _manifest(
    job: LabelJob, shards: Sequence[Shard], records: Mapping[int, dict[str, Any]]
) -> dict[str, Any]:
    files = [records[shard.number] for shard in shards]
    return {
        "format": job.format,
        "classes": [list(words) for words in job.vocabulary.words_of_class],
        "names": list(job.vocabulary.names),
        "images": sum(record["rows"] for record in files),
        "errors": sum(record["errors"] for record in files),
        "shards": files,
    }


def _check_min_score(job: LabelJob) -> None:
    """A description that is there may have been edited, so it is left to the user."""
    text = job.output.read_text(DESCRIPTION)
    if job.min_score is None or text is None:
        return
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return  # whoever trains with it is told
    there = content.get("min_score", 0.0) if isinstance(content, dict) else job.min_score
    if there != job.min_score:
        raise UserError(
            f"--min-score {job.min_score}: {DESCRIPTION} in --output {job.output.place!r} is there "
            f"already, with min_score {there}; correct it there, or leave out --min-score"
        )


def _description(job: LabelJob) -> str:
    """The yaml file by which a training takes the labels as ground truth."""
    name = re.sub(r"[^\w.-]+", "_", job.output.place.rstrip("/").rpartition("/")[2]).strip("_.-")
    content = {"name": name or "labelled", "labelled": ".", "min_score": job.min_score or 0.0}
    return (
        "# For train_net.py --dataset; what scores less than min_score is ignored.\n"
        + yaml.safe_dump(content, sort_keys=False)
    )
