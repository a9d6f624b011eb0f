"""CLIP's image tower in a lower precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from ovseg.errors import UserError
from ovseg.modeling.precision import DTYPES

#: precisions that a copy of the tower is made for
LOWERED = (*DTYPES, "int8")


class PlainAttention(nn.Module):
    """Self-attention whose projections are ``nn.Linear``, as quantisation wants them.

    It stands in for ``nn.MultiheadAttention`` where queries are the first tokens of the keys.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take the weights of ``attention``, self-attention with ``batch_first``."""
        super().__init__()
        width = attention.embed_dim
        self.heads = attention.num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out = nn.Linear(width, width)
        self.out.weight, self.out.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **_: Any) -> tuple[Tensor, None]:
        """As of ``nn.MultiheadAttention``: (B, L, D), and no weights."""
        parts = self.qkv(key).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = parts.unbind()
        found = F.scaled_dot_product_attention(queries[:, :, : query.shape[1]], keys, values)
        return self.out(found.transpose(1, 2).flatten(2)), None


class LoweredTowers:
    """The copy of an image tower that was asked for last, as long as the tower stays the same.

    A copy of this starts empty.
    """

    def __init__(self) -> None:
        self._kept: tuple[object, Callable[..., Tensor]] | None = None
        self._lock = Lock()

    def get(self, tower: Any, precision: str, compiled: bool) -> Callable[..., Tensor]:
        """The tower in a precision ("fp16", "bf16", "int8"; others leave it as it is).

        With ``compiled`` it goes through ``torch.compile``, which takes its time at the first call.
        """
        weights = [
            (p.data_ptr(), 0 if p.is_inference() else p._version) for p in tower.parameters()
        ]
        key = (precision, compiled, weights)
        with self._lock:
            if self._kept is None or self._kept[0] != key:
                # weights of inference mode could not be copied to by later loading
                with torch.inference_mode(False), torch.no_grad():
                    self._kept = key, self._make(tower, precision, compiled)
            return self._kept[1]

    @staticmethod
    def _make(tower: nn.Module, precision: str, compiled: bool) -> Callable[..., Tensor]:
        if precision == "int8":
            tower = int8_tower(tower)
        elif precision in DTYPES:
            tower = cast_tower(tower, DTYPES[precision])
        made: Callable[..., Tensor] = torch.compile(tower, dynamic=True) if compiled else tower
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> LoweredTowers:
        return LoweredTowers()

    def __reduce__(self) -> tuple[type[LoweredTowers], tuple[()]]:
        return LoweredTowers, ()


def cast_tower(tower: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose weights have ``dtype``."""
    return _with_plain_attention(tower).to(dtype)


def int8_tower(tower: nn.Module) -> nn.Module:
    """A copy for CPUs whose linear layers multiply 8-bit integers, by torchao.

    Weights are rounded once, by the range of each output channel; activations when they come, by
    that of each token. Of towers that are not open_clip's own vision transformer, attention stays
    in float32.

    Raises:
        UserError: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise UserError(
            "MODEL.PRECISION int8 needs the package torchao; install it: pip install 'ovseg[int8]'"
        ) from error
    copied = _with_plain_attention(tower)
    quantize_(copied, Int8DynamicActivationInt8WeightConfig(), _is_plain_linear)
    return copied


def _with_plain_attention(tower: nn.Module) -> nn.Module:
    # PyTorch's own attention is several times slower in bfloat16 on a CPU
    copied = copy.deepcopy(tower).eval()
    for block in copied.modules():
        if isinstance(block, ResidualAttentionBlock):
            block.attn = PlainAttention(block.attn)
    return copied


def _is_plain_linear(module: nn.Module, _: str) -> bool:
    """Not a part of ``nn.MultiheadAttention``, which reads its weights itself."""
    return type(module) is nn.Linear
