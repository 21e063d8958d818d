"""ONNX models that are only timed: written in a tenth of the time that a file to be delivered takes."""

import io
import warnings
from contextlib import redirect_stdout

import torch
from torch import Tensor, nn


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
            torch.onnx.export(module.eval(), (example,), file, dynamo=False, input_names=["images"])  # type: ignore[arg-type]
        except (TypeError, ValueError):
            made = torch.onnx.export(module.eval(), (example,), dynamo=True, input_names=["images"])
            assert made is not None
            return bytes(made.model_proto.SerializeToString())
    return file.getvalue()
