"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, noun: str, verbs: str = "") -> str:
    """``1 image``, ``2 images``; with ``verbs`` "was/were" ``1 image was``, ``2 images were``."""
    one, _, several = verbs.partition("/")
    return f"{number} {noun}{'s' * (number != 1)} {one if number == 1 else several}".rstrip()
