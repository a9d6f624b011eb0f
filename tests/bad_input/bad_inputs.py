"""All cases of input that cannot be used, in the order of docs/bad-input.md."""

from __future__ import annotations

import importlib

from bad_cases import CASES, RAN

__all__ = ["CASES", "RAN"]

# each adds its cases
for name in (
    "bad_images", "bad_words", "bad_configs", "bad_checkpoints", "bad_data", "bad_proposals",
    "bad_pairs", "bad_uploads",
):  # fmt: skip
    importlib.import_module(name)
