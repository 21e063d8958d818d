"""int8 forms of ONNX models, by ONNX Runtime's own tools: static, one scale for each channel of weights.

Activations are uint8, for which processors have quicker instructions than for int8 times int8.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Pixels = NDArray[np.float32]


def prepared(model: bytes) -> bytes:
    """A float32 model with shapes inferred and constants worked out, as :func:`quantised` wants it.

    Symbols are left out where the tools cannot follow them: maps that grow, of a batch of any size.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, found = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        given.write_bytes(model)
        grows = any(node.op_type == "Resize" for node in onnx.load_from_string(model).graph.node)
        quant_pre_process(given, found, skip_symbolic_shape=grows)
        return found.read_bytes()


def quantised(model: bytes, batches: Iterable[Pixels], float32: Sequence[str] = ()) -> bytes:
    """A prepared model in int8, its ranges from the batches of its input; named nodes stay in float32.

    >>> import torch
    >>> from convfabric.latency.drafts import drafted
    >>> model = prepared(drafted(torch.nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8)))
    >>> small = quantised(model, [np.random.default_rng(0).standard_normal((1, 1, 8, 8), np.float32)])
    >>> "QuantizeLinear" in {node.op_type for node in onnx.load_from_string(small).graph.node}
    True
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, found = Path(folder) / "given.onnx", Path(folder) / "quantised.onnx"
        given.write_bytes(model)
        quantize_static(
            given,
            found,
            _Batches(given, batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(float32),
        )
        return found.read_bytes()


def weighted_nodes(model: bytes) -> list[str]:
    """The names of the nodes with weights, in their order.

    >>> import torch
    >>> from convfabric.latency.drafts import drafted
    >>> len(weighted_nodes(drafted(torch.nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8))))
    1
    """
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return [node.name for node in onnx.load_from_string(model).graph.node if node.op_type in kinds]


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """The batches, as the tools ask for them."""

    def __init__(self, model: Path, batches: Iterable[Pixels]) -> None:
        self.name = onnx.load(model, load_external_data=False).graph.input[0].name
        self.left = iter(batches)

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch; None behind the last."""
        batch = next(self.left, None)
        return None if batch is None else {self.name: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences advice to developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
