"""Reading pickles that come from elsewhere without running what they hold."""

from __future__ import annotations

import pickle
from typing import Any


class ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays, strings and numbers in plain containers, and nothing else.

    Any other class or function raises :class:`pickle.UnpicklingError`.
    """

    allowed = (
        ("collections", "OrderedDict"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),  # arrays of protocol 5
        ("numpy._core.numeric", "_frombuffer"),
        ("_codecs", "encode"),
    )

    def find_class(self, module: str, name: str) -> Any:
        """The class or function ``module.name``, if it is one of those allowed."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in such a file")
        return super().find_class(module, name)
