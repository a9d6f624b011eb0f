"""Text features that earlier processes computed: one SQLite file for all models.

SQLite keeps the file whole when several processes write and when one of them is killed. A file that
cannot be used is left alone: words are encoded anew then, and a warning says so.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.utils.digests import digest

logger = logging.getLogger(__name__)

#: words that are kept; of 768 numbers each they take 200 MB
MAX_WORDS = 65536
# to be raised when words get other features than before by the same weights
FORM = 1
_WAIT = 10.0  # seconds for another process that writes
_TABLE = """
CREATE TABLE IF NOT EXISTS features (
    encoder TEXT, word BLOB, feature BLOB, checksum INTEGER, PRIMARY KEY (encoder, word)
)
"""


class TextStore:
    """Features of words on disk, by the encoder that made them."""

    def __init__(self, path: Path, max_words: int = MAX_WORDS) -> None:
        """
        Args:
            path: of the file; it and its folder are made when the first words are written.
            max_words: of all encoders together; those written first go first.
        """
        self.path = path
        self._max_words = max_words
        self._usable = True

    def read(self, encoder: str, words: Sequence[str]) -> dict[str, Tensor]:
        """The features, float32 (D,) each, of those words that are there.

        Args:
            encoder: tells apart what features depend on besides the word.
            words: any.
        """
        found: dict[str, Tensor] = {}
        if not self._usable or not self.path.is_file():
            return found
        query = "SELECT feature, checksum FROM features WHERE encoder = ? AND word = ?"
        with self._never_in_the_way(), self._open() as connection:
            connection.execute(_TABLE)  # a process may have ended before it made it
            for word in words:
                row = connection.execute(query, (encoder, _key(word))).fetchone()
                if row is not None and zlib.crc32(row[0]) == row[1]:
                    found[word] = torch.from_numpy(np.frombuffer(row[0], "<f4").copy())
        return found

    def write(self, encoder: str, features: Mapping[str, Tensor]) -> None:
        """Keep features (D,) of words; ``encoder`` as for :meth:`read`."""
        if not self._usable:
            return
        rows = []
        for word, feature in features.items():
            content = feature.detach().cpu().numpy().astype("<f4").tobytes()
            rows.append((encoder, _key(word), content, zlib.crc32(content)))
        with self._never_in_the_way(), self._open() as connection, connection:
            connection.execute(_TABLE)
            connection.executemany("REPLACE INTO features VALUES (?, ?, ?, ?)", rows)
            connection.execute(
                "DELETE FROM features WHERE rowid IN "
                "(SELECT rowid FROM features ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
                (self._max_words,),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one call: they must not be shared among threads and processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.path, timeout=_WAIT)) as connection:
            yield connection

    @contextmanager
    def _never_in_the_way(self) -> Iterator[None]:
        """Go on without the file where it cannot be used."""
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                logger.debug("text cache %s is busy; this time without it", self.path)
                return
            self._usable = False
            logger.warning(
                "text cache %s cannot be used (%s): class names are encoded anew; delete the file, "
                "set OVSEG_HOME to a folder that can be written, or give --no-cache "
                "(MODEL.CLIP_ADAPTER.TEXT_CACHE False)", self.path, error,
            )  # fmt: skip


def text_encoder_digest(model: nn.Module, templates: Sequence[str]) -> str:
    """Tells apart what the features of a word depend on: text tower, tokenizer and templates.

    Args:
        model: a CLIP of :func:`build_untrained_clip`.
        templates: see :func:`text_templates`.
    """
    tower = [
        f"{name} {type(module).__name__} {module.extra_repr()} {getattr(module, 'num_heads', '')}"
        for name, module in model.named_modules()
        if name and not name.startswith("visual")
    ]
    # matrix products of GPUs may be rounded to ten bits
    rounded = torch.backends.cuda.matmul.allow_tf32 and next(model.parameters()).is_cuda
    tokenizer: Any = model.tokenizer
    about = [FORM, rounded, tokenizer.description, list(templates), tower]
    weights = (
        memoryview(weight.detach().cpu().flatten().view(torch.uint8).numpy())
        for name, weight in model.state_dict().items()
        if not name.startswith("visual.")
    )
    return digest([json.dumps(about), *weights])


def _key(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")
