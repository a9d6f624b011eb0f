"""Where the weights are in what a checkpoint file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.errors import UserError
from ovseg.utils.io import read_json

# entries that hold the weights of a training checkpoint, whatever else holds some
_PLACES = ("model", "state_dict", "model_state_dict")
# how deep a table of weights may lie: {"ema_model": {"module": {...}}}
_DEEPEST = 2


class Unreadable(Exception):
    """Why a file cannot be read."""


def split_weights(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights, and everything else.

    Raises:
        Unreadable: there are none, or several tables of weights and no sign which is meant.
    """
    if not isinstance(content, Mapping):
        raise _no_weights(content)
    held = [name for name in _PLACES if name in content]
    for name in held:
        if isinstance(content[name], Mapping):
            weights = _table(content[name])
            if not weights:
                raise _no_weights(content[name])
            return weights, _others(content, name)
    weights = _table(content)
    if weights:
        return weights, {key: value for key, value in content.items() if key not in weights}
    found = dict(_tables(content))
    if len(found) > 1:
        raise Unreadable(
            f"it holds several tables of weights, {', '.join(found)}; save the one that is meant "
            "as model"
        )
    for place, weights in found.items():
        return weights, _others(content, place.split(".")[0])
    raise _no_weights(content[held[0]] if held else content)


def _tables(content: Mapping[Any, Any], depth: int = 1) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Tables of tensors inside a table, with their places; not the state of an optimizer."""
    for name, value in content.items():
        if not isinstance(value, Mapping) or not isinstance(name, str) or name == "optimizer":
            continue
        if weights := _table(value):
            yield name, weights
        elif depth < _DEEPEST:
            for place, weights in _tables(value, depth + 1):
                yield f"{name}.{place}", weights


def _table(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor | np.ndarray | np.generic)
    }


def _others(content: Mapping[Any, Any], place: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != place}


def _no_weights(found: Any) -> Unreadable:
    name = type(found).__name__
    kind = f"{'an' if name[0] in 'aeiou' else 'a'} {name} in place of a state dict, "
    kind = "" if isinstance(found, Mapping) else kind
    return Unreadable(f"it holds {kind}no table of names and tensors; give another file")


def shards(index: Path) -> list[Path]:
    """The files of a checkpoint that is in several, by its ``.index.json`` beside them.

    Raises:
        Unreadable: the index is broken, or one of them is missing.
    """
    try:
        names = sorted(set(read_json(index, dict)["weight_map"].values()))
    except (UserError, KeyError, AttributeError, TypeError) as error:
        raise Unreadable("it is no index of weights; get it again") from error
    paths = [index.with_name(Path(str(name)).name) for name in names]
    for path in paths:
        if not path.is_file():
            raise Unreadable(f"it names {path.name}, which is not beside it; get that too")
    return paths


def check_finite(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that a training has spoilt.

    Raises:
        UserError: one is not finite; begins with ``what``.
    """
    for name, value in weights.items():
        if not value.is_floating_point():
            continue
        # some attention masks are kept with the weights, and hold minus infinity by design
        spoilt = value.isnan() if name.endswith("attn_mask") else ~value.isfinite()
        if spoilt.any():
            raise UserError(
                f"{what} holds the weight {name}, of whose {value.numel()} numbers "
                f"{int(spoilt.sum())} are not finite; its training went astray: give an earlier "
                "checkpoint"
            )
