"""The kinds of file that a network is exported to: one row each, with how it is written, run and accepted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from onnx.helper import find_min_ir_version_for, make_opsetid
from torch.export import ExportedProgram

from convfabric.errors import ExportError
from convfabric.exporting.program import carried_facts, quiet
from convfabric.fabric.archive import FACTS, Passport, write_atomically

TOLERANCE = 1e-4
"""Largest difference of logits that is let pass, as a share of the largest logit above 1."""
OPSET = 18
"""Version of ONNX's operators that is written unless told otherwise: the oldest that torch writes."""
BOXES = 3
"""Axes of an answer that is boxes."""
Pixels = NDArray[np.float32]
"""(batch, channels, height, width), 0 to 255."""
Logits = NDArray[np.float32]
"""(batch, classes), or with a height and a width behind them; or boxes (batch, anchors, 4 + classes)."""
Answer = Callable[[Pixels], Logits]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file."""

    name: str
    suffix: str
    """Of the file, which is called model."""
    write: Callable[[ExportedProgram, Passport, Path], None]
    run: Callable[[Path], Answer]
    """From a file to what answers by it."""
    accept: Callable[[str, Logits, Logits], float]
    """From a file's name, the logits wanted and those found to their largest difference; raises ExportError."""

    @property
    def file(self) -> str:
        """The name of the file in a run folder."""
        return f"model{self.suffix}"


def write_onnx(exported: ExportedProgram, papers: Passport, file: Path, opset: int = OPSET) -> None:
    """The program as an ONNX file that carries its classes and preprocessing as metadata, see :func:`save_onnx`."""
    output = "boxes" if papers.graph.head.task == "detection" else "logits"
    save_onnx(exported, file, json.dumps(carried_facts(papers)), opset, outputs=(output,))


def save_onnx(
    exported: ExportedProgram,
    file: Path,
    facts: str,
    opset: int = OPSET,
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("logits",),
) -> None:
    """The program as an ONNX file of a version of ONNX's operators, in the oldest file format that has them.

    Runtimes load files up to a format: ONNX Runtime 1.14 the one of version 18, 1.18 that of 21.
    """
    with quiet():
        made = torch.onnx.export(
            exported, (), dynamo=True, input_names=inputs, output_names=outputs, opset_version=opset
        )
    assert made is not None
    versions = [make_opsetid(domain, version) for domain, version in made.model.opset_imports.items()]
    made.model.ir_version = find_min_ir_version_for(versions)
    made.model.metadata_props[FACTS] = facts
    write_atomically(file, _with_named_axes(made.model_proto).SerializeToString())


def _with_named_axes(model: ModelProto) -> ModelProto:
    """The model with its free axes called batch, height and width instead of by torch's symbols."""
    shape = model.graph.input[0].type.tensor_type.shape.dim
    names = {
        axis.dim_param: name
        for axis, name in zip(shape, ("batch", "channels", "height", "width"), strict=False)
        if axis.dim_param
    }
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    return model


def run_onnx(file: Path | bytes) -> Answer:
    """A function that answers by an ONNX file, or what is in one, under ONNX Runtime on the processor."""
    given = file if isinstance(file, bytes) else str(file)
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run(None, {"images": pixels})[0])


def write_torch_export(exported: ExportedProgram, papers: Passport, file: Path) -> None:
    """The program as torch saves it, with its classes and preprocessing beside it."""
    content = BytesIO()  # on a full disk torch's own writer of files ends the process
    with quiet():
        torch.export.save(exported, content, extra_files={FACTS: json.dumps(carried_facts(papers))})
    write_atomically(file, content.getvalue())


def run_torch_export(file: Path) -> Answer:
    """A function that answers by a saved program, under torch."""
    with quiet():
        again: Any = torch.export.load(file).module()
    return lambda pixels: np.asarray(again(torch.from_numpy(pixels)).detach().numpy())


def accept_close(name: str, wanted: Logits, found: Logits) -> float:
    """The largest difference of logits.

    Raises ExportError where it is above the tolerance, or where a first choice differs by more than rounding.

    >>> accept_close("model.onnx", np.float32([[1.0, 3.0]]), np.float32([[1.0, 3.00002]])) < 1e-4
    True
    """
    if wanted.ndim == BOXES:
        return max(_apart(name, wanted[..., :4], found[..., :4]), _apart(name, wanted[..., 4:], found[..., 4:]))
    apart = _apart(name, wanted, found)
    first, other = wanted.argmax(1)[:, None], found.argmax(1)[:, None]
    margin = np.take_along_axis(wanted, first, 1) - np.take_along_axis(wanted, other, 1)
    rounding = 2 * TOLERANCE * np.maximum(1.0, np.abs(wanted).max(1, keepdims=True))
    if bool((margin > rounding).any()):
        raise ExportError(
            f"{name} answers unlike the network: {int((margin > rounding).sum())} first choices differ, by up to "
            f"{float(margin.max()):.2e}. The file was not kept."
        )
    return apart


def _apart(name: str, wanted: Logits, found: Logits) -> float:
    """The largest difference; ExportError where it is above the tolerance."""
    apart, largest = float(np.abs(wanted - found).max()), max(1.0, float(np.abs(wanted).max()))
    if not apart <= TOLERANCE * largest:
        raise ExportError(
            f"{name} answers unlike the network: logits are up to {apart:.2e} apart, {TOLERANCE * largest:.0e} is let "
            "pass. The file was not kept."
        )
    return apart


FORMATS = (
    Format(name="ONNX", suffix=".onnx", write=write_onnx, run=run_onnx, accept=accept_close),
    Format(name="torch.export", suffix=".pt2", write=write_torch_export, run=run_torch_export, accept=accept_close),
)
"""Every kind that a run is exported to."""


def formats_with(opset: int) -> tuple[Format, ...]:
    """Every kind, ONNX with a version of its operators."""
    onnx, *others = FORMATS
    return replace(onnx, write=partial(write_onnx, opset=opset)), *others
