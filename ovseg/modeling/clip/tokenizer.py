"""The tokenizer that belongs to a CLIP's text tower."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from ovseg.errors import UserError

CONTEXT = 77  # places of CLIP's ordinary text tower


class Tokenizer:
    """From texts to token ids, as a text tower's config says.

    Hugging Face's tokenizers are made when the first text comes: they may have to be fetched.
    """

    def __init__(self, text_cfg: Mapping[str, Any]) -> None:
        """
        Args:
            text_cfg: open_clip's.

        Raises:
            UserError: it needs the package transformers, which is not installed.
        """
        self.context_length = text_cfg.get("context_length") or CONTEXT
        self.name: str | None = text_cfg.get("hf_tokenizer_name")
        self._options = dict(text_cfg.get("tokenizer_kwargs") or {})
        self._mode = text_cfg.get("tokenizer_mode")
        self._made: HFTokenizer | SimpleTokenizer | None = None
        if self.name:
            require_transformers(f"its tokenizer {self.name}")

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids int64 (N, context_length) of N texts; longer ones are cut.

        Raises:
            UserError: the tokenizer cannot be had.
        """
        if not self.name and not self._options:
            return open_clip.tokenize(list(texts), context_length=self.context_length)
        if self._made is None:
            self._made = self._make()
        tokens: Tensor = self._made(list(texts), context_length=self.context_length)
        return tokens

    @property
    def description(self) -> str:
        """Tells apart tokenizers that may give other ids."""
        return json.dumps([self.context_length, self.name, self._options, self._mode], default=str)

    def _make(self) -> HFTokenizer | SimpleTokenizer:
        if not self.name:
            return SimpleTokenizer(context_length=self.context_length, **self._options)
        try:
            return HFTokenizer(
                self.name,
                context_length=self.context_length,
                tokenizer_mode=self._mode,
                **self._options,
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"CLIP's tokenizer {self.name} cannot be had ({type(error).__name__}): connect "
                "once, or copy Hugging Face's cache (HF_HOME) from a machine that has it"
            ) from error


def require_transformers(purpose: str) -> None:
    """Check that the package transformers is installed.

    Raises:
        UserError: it is not.
    """
    if find_spec("transformers") is None:
        raise UserError(
            "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME: this CLIP needs the package transformers for "
            f"{purpose}; install it: pip install 'ovseg[hf-text]'"
        )
