"""An evaluation goes on when one of its images cannot be read."""

from __future__ import annotations

from typing import Any

from torch import nn

from ovseg.data.loader import Example, Mapper
from ovseg.errors import UserError


class MarkUnreadable:
    """Hands on what cannot be read as the dataset dict with an ``error`` line."""

    def __init__(self, mapper: Mapper) -> None:
        """Wrap ``mapper``, whose :class:`UserError` names the file and the way out."""
        self._mapper = mapper

    def __call__(self, example: Example) -> Example:
        """The mapper's example; or, after its :class:`UserError`, the dict with ``error``."""
        try:
            return self._mapper(example)
        except UserError as error:
            return {**example, "error": str(error)}


class SkipUnreadable(nn.Module):
    """Runs a model on the examples without ``error``; the others' output is an empty dict."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap ``model``, which takes a list of examples and returns a list of outputs."""
        super().__init__()
        self.model = model
        # an evaluation puts this mode back when it is over
        self.training = model.training

    def forward(self, examples: list[Example]) -> list[dict[str, Any]]:
        """Outputs in the order of ``examples``."""
        sound = [example for example in examples if "error" not in example]
        outputs = iter(self.model(sound) if sound else [])
        return [{} if "error" in example else next(outputs) for example in examples]
