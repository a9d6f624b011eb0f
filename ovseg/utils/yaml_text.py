"""What a yaml text says, looked at before it is built: aliases that would fill the memory."""

from __future__ import annotations

import yaml

_MOST = 1_000_000  # values, aliases written out


def check_yaml(text: str) -> yaml.Node | None:
    """The nodes of a yaml text, nothing of which is built.

    Returns:
        The node of the document; None: it is empty.

    Raises:
        yaml.YAMLError: it is no yaml, its brackets are nested too deep, an alias stands in itself,
            or its aliases stand for more than a million values.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None and _count(node, {}) > _MOST:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST} values")
    except RecursionError as error:
        raise yaml.YAMLError("its brackets are nested too deep") from error
    return node


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node, those that aliases stand for each time anew."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    if not known[id(node)]:
        raise yaml.YAMLError("an alias stands in what it names")
    return known[id(node)]
