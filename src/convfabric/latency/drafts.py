"""ONNX models that are only timed: written in a tenth of the time that a file to be delivered takes."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.symbolic_helper import parse_args

from convfabric.execution.folding import as_delivered
from convfabric.execution.quantisation import prepared, quantised
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.target import Precision
from convfabric.operators import Size, Work

AFTER = 8
"""Channels of the convolution behind an operation that is timed."""
KEPT_DRAFTS = 64


@lru_cache(maxsize=KEPT_DRAFTS)
def operation_draft(work: Work, batch: int, precision: Precision = "float32") -> bytes:
    """The model of an operation between two convolutions, for a batch."""
    example = torch.zeros(batch, work.channels_in, *work.size_in)
    return _in(precision, drafted(_Between(work), example), torch.randn_like(example))


@lru_cache(maxsize=KEPT_DRAFTS)
def network_draft(graph: Graph, papers: Passport, batch: int, precision: Precision = "float32") -> bytes:
    """The model of a graph with fresh weights, folded, for a batch of images as a passport says."""
    example = torch.zeros(batch, papers.preprocessing.channels, *papers.preprocessing.size)
    network = Deployable(as_delivered(Fabric(graph).eval()), papers)
    return _in(precision, drafted(network, example), 255 * torch.rand_like(example))


def _in(precision: Precision, model: bytes, example: Tensor) -> bytes:
    """A model in a number format; that of int8 has the ranges of an example."""
    return quantised(prepared(model), [example.numpy()]) if precision == "int8" else model


class _Between(nn.Module):
    """A 1×1 convolution, the operation, a ReLU and another 1×1: what surrounds it lays out its input and output."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.before = nn.Conv2d(work.channels_in, work.channels_in, 1)
        self.operation = layer(work.operator, work.channels_in, work.channels_out)
        self.after = nn.Conv2d(work.channels_out, AFTER, 1)
        self.size: Size = work.size_out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        response: Tensor = self.after(F.relu(self.operation(F.relu(self.before(x_BCHW)), self.size)))
        return response


def drafted(module: nn.Module, example: Tensor) -> bytes:
    """The ONNX model of a module in evaluation mode, for inputs of the example's shape.

    torch's tracing exporter writes it, which runs the same operations; files that leave the house are written by
    its successor, and compared with the network. Where a torch no longer has it, that one writes drafts as well.

    >>> len(drafted(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2))) > 100
    True
    """
    file = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.inference_mode():
        warnings.simplefilter("ignore")
        try:
            with _unheard(), _padding_in_one():
                torch.onnx.export(module.eval(), (example,), file, dynamo=False, input_names=["images"])  # type: ignore[arg-type]
        except Exception:  # where it cannot write something, such as adaptive pools of uneven parts, it raises anything
            made = torch.onnx.export(module.eval(), (example,), dynamo=True, input_names=["images"])
            assert made is not None
            return bytes(made.model_proto.SerializeToString())
    return file.getvalue()


@contextmanager
def _unheard() -> Iterator[None]:
    """Without the whole graph that the tracing exporter prints, past Python, of what it cannot write."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


PAD, SINCE = "aten::pad", 11
"""The operator, and the version of ONNX's operators since which it reads its sides from a tensor."""
MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@contextmanager
def _padding_in_one() -> Iterator[None]:
    """Sides of a padding are written as numbers, as in delivered files.

    The tracing exporter has them worked out by nine operations, and no runtime makes them part of the convolution then,
    so that networks with uneven padding seem to take up to twice as long.
    """
    exporter: Any = torch.onnx
    exporter.register_custom_op_symbolic(PAD, _pad, SINCE)
    try:
        yield
    finally:
        exporter.unregister_custom_op_symbolic(PAD, SINCE)


@parse_args("v", "is", "s", "f")
def _pad(graph: Any, x: Any, sides: list[int], mode: str, value: float | None) -> Any:
    """ONNX's Pad, its sides from the last dimension to the first turned into those before and after all of them."""
    dimensions = x.type().dim()
    before, after = [0] * dimensions, [0] * dimensions
    for at in range(len(sides) // 2):
        before[-1 - at], after[-1 - at] = sides[2 * at : 2 * at + 2]
    given = [graph.op("Constant", value_t=torch.tensor(before + after))]
    if value:
        given.append(graph.op("Constant", value_t=torch.tensor(value)))
    return graph.op("Pad", x, *given, mode_s=MODES[mode])
