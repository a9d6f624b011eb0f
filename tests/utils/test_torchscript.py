"""TorchScript archives give what torch.jit.load gives, and none of their code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ovseg.errors import UserError
from ovseg.utils.checkpoint_files import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")


class Block(nn.Module):
    """With a tensor that is no weight, as the attention mask of OpenAI's CLIPs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 4, 1, bias=False).half()
        self.mask = torch.full((2, 2), -torch.inf)
        self.sizes = [1, 2]
        self.register_buffer("table", torch.arange(6).reshape(2, 3).t())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.norm(x).half()) + self.mask.sum() + self.sizes[0]


class Net(nn.Module):
    """Blocks, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.again = self.blocks[0]
        self.scale = nn.Parameter(torch.tensor(4.6))
        self.empty = nn.Parameter(torch.zeros(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x) * self.scale


def test_weights_are_those_of_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.jit.save(torch.jit.script(Net()), tmp_path / "a.pt")
    expected = torch.jit.load(tmp_path / "a.pt").state_dict()
    found = read_checkpoint(tmp_path / "a.pt")
    assert found.form == "torchscript"
    assert found.weights.keys() == expected.keys()
    for name, value in expected.items():
        assert found.weights[name].dtype == value.dtype
        assert torch.equal(found.weights[name], value), name


class Restoring(nn.Module):
    """Restores itself by code, which makes a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight = torch.zeros(2)
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return (self.weight, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.path = state[1]
        self.training = state[2]
        self.weight = torch.from_file(state[1], True, 4)


def test_code_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    torch.jit.save(torch.jit.script(Restoring(str(ran))), tmp_path / "a.pt")
    assert not ran.exists()
    told = r"it holds code besides weights (__torch__.*Restoring.__setstate__)"
    with pytest.raises(UserError, match=re.escape(told).replace(r"\.\*", ".*")):
        read_checkpoint(tmp_path / "a.pt")
    assert not ran.exists()
    torch.jit.load(tmp_path / "a.pt")
    assert ran.exists()  # it would have been
