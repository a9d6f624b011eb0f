"""Reading pickles that come from elsewhere without running what they hold."""

from __future__ import annotations

import argparse
import importlib
import pickle
from typing import Any

import numpy as np

#: what builds NumPy's arrays, scalars and dtypes, by NumPy 1's names and by NumPy 2's
NUMPY_BUILDERS = (
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),  # arrays of protocol 5
    ("numpy._core.numeric", "_frombuffer"),
)


class ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays, strings and numbers in plain containers, and nothing else.

    Any other class or function raises :class:`pickle.UnpicklingError`.
    """

    allowed = (("collections", "OrderedDict"), ("_codecs", "encode"), *NUMPY_BUILDERS)

    def find_class(self, module: str, name: str) -> Any:
        """The class or function ``module.name``, if it is one of those allowed."""
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in such a file")
        if module.startswith(("numpy.core.", "numpy._core.")):
            return _numpy_builder(module, name)
        return super().find_class(module, name)


def torch_safe_globals() -> list[Any]:
    """What ``torch.load(weights_only=True)`` may build besides tensors.

    NumPy's values, which optimizers keep as learning rates, and the ``argparse.Namespace`` of a
    script's options. Hand it to ``torch.serialization.safe_globals``.
    """
    builders = [(_numpy_builder(*builder), ".".join(builder)) for builder in NUMPY_BUILDERS]
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    return [*builders, *dtypes, argparse.Namespace]


def _numpy_builder(module: str, name: str) -> Any:
    """What another release calls so: NumPy 2 has ``_core``, 1 has ``core``, 1.26 parts of both."""
    new = module.replace("numpy.core", "numpy._core")
    try:
        return getattr(importlib.import_module(new), name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(new.replace("_core", "core")), name)
