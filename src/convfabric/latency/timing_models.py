"""ONNX models that are only timed: written in a tenth of the time that a file to be delivered takes."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx.symbolic_helper import parse_args


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
