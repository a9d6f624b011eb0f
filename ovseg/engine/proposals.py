"""Writing proposals for whole data sets."""

from __future__ import annotations

import shutil
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm

from ovseg.data.loader import Example
from ovseg.data.proposal_files import write_proposals
from ovseg.engine.resumable import Counts, model_settings, resumable_pass
from ovseg.modeling import OVSeg


def save_proposals(cfg: CfgNode, model: OVSeg) -> None:
    """Write the model's proposals for ``DATASETS.TEST`` to ``TEST.SAVE_PROPOSALS``, resumable.

    Args:
        cfg: names the data sets and the folder; each data set has a subfolder.
        model: in evaluation mode.
    """
    folder = Path(cfg.TEST.SAVE_PROPOSALS)
    for name in cfg.DATASETS.TEST:

        def write(batch: list[Example], target: Path = folder / name) -> list[str | None]:
            for example, regions in zip(batch, model.propose(batch), strict=True):
                write_proposals(target / f"{Path(example['file_name']).stem}.npz", regions)
            return [None] * len(batch)

        unfinished = folder / name / ".unfinished"
        settings = {"proposals": True, **model_settings(cfg)}
        resumable_pass(cfg, name, Counts({}), write, folder=unfinished, settings=settings)
        if comm.is_main_process():
            shutil.rmtree(unfinished)
