"""Proposals made up for models with random weights, which propose nothing sensible."""

from __future__ import annotations

from dataclasses import replace

import torch

from ovseg.structures import Regions


def made_up(regions: Regions, visible: int, seed: int = 0) -> Regions:
    """Regions of which ``visible`` can show: soft cells that fill the image, and weaker copies."""
    generator = torch.Generator().manual_seed(seed)
    count, (height, width) = len(regions.masks), regions.masks.shape[1:]
    rows = torch.rand(visible, generator=generator)[:, None, None] * height
    columns = torch.rand(visible, generator=generator)[:, None, None] * width
    y, x = torch.arange(height)[:, None], torch.arange(width)
    distance = ((y - rows) ** 2 + (x - columns) ** 2).sqrt()
    cells = (-distance / 4).softmax(dim=0)
    copies = torch.arange(count) % visible
    strength = torch.where(torch.arange(count) < visible, 1.0, 0.9)
    return replace(regions, masks=(cells[copies] * strength[:, None, None]).contiguous())
