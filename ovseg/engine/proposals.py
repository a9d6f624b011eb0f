"""Writing proposals for whole data sets."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ovseg.data.loader import Example
from ovseg.data.proposal_files import write_proposals
from ovseg.engine.dense_crf import DenseCrfSegmenter
from ovseg.modeling import OVSeg


class SaveProposals(nn.Module):
    """Writes the proposals of a model in evaluation besides segmenting by them."""

    def __init__(self, model: OVSeg | DenseCrfSegmenter, folder: Path) -> None:
        """Write into the subfolder of each data set's name, a file an image."""
        super().__init__()
        self.model = model
        self.folder = folder
        # an evaluation puts this mode back when it is over
        self.training = model.training

    def forward(self, batched_inputs: list[Example]) -> list[dict[str, Tensor]]:
        """As :class:`OVSeg` in evaluation; each input has ``meta`` and ``file_name``."""
        encoded = self.model.encode(batched_inputs)
        for inputs, regions in zip(batched_inputs, encoded, strict=True):
            name = f"{Path(inputs['file_name']).stem}.npz"
            write_proposals(self.folder / inputs["meta"]["dataset_name"] / name, regions)
        return [self.model.segment(*each) for each in zip(batched_inputs, encoded, strict=True)]
