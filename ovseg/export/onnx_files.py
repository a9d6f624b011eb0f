"""Graphs as ONNX files in float32, or with weights of less bits, each checked."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from ovseg.errors import UserError
from ovseg.export.graphs import Graph

#: LayerNormalization is an operator since 17; 18 is the newest that all the runtimes tested read
OPSET = 18
PRECISIONS = ("fp32", "fp16", "int8")
# tensors with fewer numbers stay float32: they are no part of the size, and may be of the accuracy
_SMALLEST = 1024
# of a protobuf file, less what the graph itself may take; more goes to a file beside it
_MOST_BYTES = 2**31 - 2**26


def require_onnx() -> None:
    """Check that what writes ONNX is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ovseg export needs the package {error.name}; install it with: "
            "pip install 'ovseg[export]'"
        ) from error
    del onnx, onnxruntime


def to_onnx(graph: Graph, program: ExportedProgram) -> Any:
    """A traced graph as ONNX's ``ModelProto``, in float32."""
    with _quiet():
        exported = torch.onnx.export(
            program, (), input_names=list(graph.examples), output_names=list(graph.outputs),
            dynamo=True, opset_version=OPSET, verbose=False,
        )  # fmt: skip
    assert exported is not None
    model = exported.model_proto
    _name_dimensions(model, graph)
    return model


def with_precision(model: Any, precision: str) -> Any:
    """A float32 ``ModelProto`` with its weights in another precision.

    Args:
        model: may be changed.
        precision: one of :data:`PRECISIONS`. "fp16": weights are stored in half precision and
            computed with in float32. "int8": matrices have 8 bits, those of linear layers with
            8-bit arithmetic.
    """
    if precision == "int8":
        model = _with_8_bit_matrices(model)
    if precision != "fp32":
        _store_smaller(model, precision)
    return model


def save_onnx(model: Any, path: Path) -> None:
    """Write a ``ModelProto``, and check it; weights of more than 2 GB lie in ``<path>.data``."""
    import onnx

    large = model.ByteSize() > _MOST_BYTES
    beside: dict[str, Any] = {"save_as_external_data": True, "location": f"{path.name}.data"}
    onnx.save(model, str(path), **(beside if large else {}))
    onnx.checker.check_model(str(path), full_check=not large)


def _name_dimensions(model: Any, graph: Graph) -> None:
    """Call the lengths of the inputs as the graph does, and forget the formulas of the others."""
    for value in model.graph.input:
        for place, dimension in graph.dimensions[value.name].items():
            value.type.tensor_type.shape.dim[place].dim_param = _name(dimension)
    del model.graph.value_info[:]


def _name(dimension: Any) -> str:
    text: str = dimension.__name__
    return text.split("*")[-1]


def _with_8_bit_matrices(model: Any) -> Any:
    """Linear layers with 8-bit weights, a scale for each output, and 8-bit arithmetic."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, str(source), save_as_external_data=True, location="weights")
        quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
            weight_type=QuantType.QInt8, use_external_data_format=True,
        )  # fmt: skip
        return onnx.load(str(target))


def _store_smaller(model: Any, precision: str) -> None:
    """Store float32 weights as float16, or matrices as 8 bits with a scale for each row, in place.

    The graph gets a node for each that makes float32 of them again, once when a runtime loads it.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes, kept = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else None
        if values is None or values.size < _SMALLEST:
            kept.append(tensor)
            continue
        stored = f"{tensor.name}_stored"
        if precision == "fp16" or values.ndim < 2:
            limit = np.finfo(np.float16).max
            half = values.clip(-limit, limit).astype(np.float16)
            kept.append(numpy_helper.from_array(half, stored))
            nodes.append(helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT))
            continue
        rows = np.abs(values.reshape(len(values), -1)).max(axis=1)
        scale = np.maximum(rows / 127, np.finfo(np.float32).tiny).astype(np.float32)
        whole = np.rint(values / scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        kept += [
            numpy_helper.from_array(whole, stored),
            numpy_helper.from_array(scale, f"{stored}_scale"),
        ]
        inputs = [stored, f"{stored}_scale"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [tensor.name], axis=0))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])


@contextmanager
def _quiet() -> Iterator[None]:
    """Do not show what the exporters say to each other."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
