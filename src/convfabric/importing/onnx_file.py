"""An ONNX file as a module: each of its nodes a module of its own, so that what is unknown is named, or kept as it is.

Shapes that a file works out are worked out once, by ONNX Runtime's own constant folding for images of the file's size;
in the end module and runtime answer the same images.
"""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from convfabric.errors import ImportingError
from convfabric.fabric.archive import FACTS
from convfabric.importing.onnx_nodes import NODES
from convfabric.operators import Size

IMAGES = 2
"""At a time, in what a file's shapes are worked out for."""
COLOURS = (1, 3, 4)
"""Channels of images, by which those that come last are known."""
NEAR = 1e-4
"""Of the runtime's answers, as a share of the largest."""
FUSED = ["ConvBNFusion", "ConvMulFusion", "ConvAddFusion", "PadFusion", "ReluClipFusion"]
"""Rewrites of the runtime that are left out: norms stay what they are, and are trained on."""
FIXED = "python -m onnxruntime.tools.make_dynamic_shape_fixed"
ROLES: Mapping[str, tuple[str, ...]] = {
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "LayerNormalization"), ("weight", "bias")
    ),
    **dict.fromkeys(("PRelu", "MatMul"), ("weight",)),
}
"""Names of the tensors that a kind of node holds, of its inputs from the second on."""
OPERANDS = ("Add", "Sub", "Mul", "Div", "Sum", "Concat")
"""Kinds of node that work on tensors and on single numbers alike; all others are given what they hold as numbers."""


def module_of(file: Path) -> "OnnxNetwork":
    """The module that an ONNX file describes.

    Weights may lie in a file beside it. Of several answers the first is taken.
    Raises ImportingError for what is no such file, for images of no fixed size, and for nodes that nothing reads.

    >>> import tempfile
    >>> from convfabric.latency.drafts import drafted
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = (Path(folder) / "small.onnx").write_bytes(drafted(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)))
    ...     found = module_of(Path(folder) / "small.onnx")
    >>> found.size, found.image_channels, found(torch.zeros(2, 3, 8, 8)).shape
    ((8, 8), 3, torch.Size([2, 4, 6, 6]))
    """
    try:
        model = onnx.load(str(file))
    except Exception as fault:  # protobuf raises its own for a file of another kind, onnx for weights beside it
        raise ImportingError(f"{file}: not an ONNX file ({str(fault)[:100]}).") from None
    try:
        stated = (json.loads(one.value) for one in model.metadata_props if one.key == FACTS)
        facts: Mapping[str, Any] = next(stated, {})
        images = _images(model.graph, facts)
        folded = _folded(model)
        network = OnnxNetwork(folded.graph, images).eval()
        network.facts = facts
        _check_answers(network, images, folded)
    except ImportingError as fault:
        raise ImportingError(f"{file}: {fault}") from None
    except ValueError as fault:
        raise ImportingError(f"{file}: what it says of itself is no JSON ({str(fault)[:100]}).") from None
    return network


class Images(NamedTuple):
    """The images that a file reads."""

    at_once: int
    channels: int
    size: Size
    channels_last: bool


def _images(graph: Any, facts: Mapping[str, Any]) -> Images:
    """The images that a graph reads; their number is fixed where it was not, and so is a size that the facts state."""
    weights = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    if len(inputs) != 1:
        raise ImportingError(f"reads {len(inputs)} tensors, where one holds the images.")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        raise ImportingError(f"reads {helper.tensor_dtype_to_np_dtype(kind.elem_type)}, where float32 is read.")
    dims = kind.shape.dim
    if len(dims) != 4:
        raise ImportingError(f"reads a tensor of {len(dims)} dimensions, where (B, C, H, W) are images.")
    for dim, side in zip(dims[2:], facts.get("size", ()), strict=False):
        dim.dim_value = side
    if not all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims[1:]):
        named = "×".join(dim.dim_param or str(dim.dim_value or "?") for dim in dims)
        raise ImportingError(f"reads images of {named}, of no fixed size: {FIXED} gives it one.")
    if not dims[0].dim_value > 0:
        dims[0].dim_value = IMAGES
    images, one, two, three = (dim.dim_value for dim in dims)
    last = one not in COLOURS and three in COLOURS
    return Images(images, three, (one, two), last) if last else Images(images, one, (two, three), last)


def _folded(model: Any) -> Any:
    """The model with its constants and shapes worked out, its operators those of the standard."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=FUSED
            )
            return onnx.load(options.optimized_model_filepath)
    except Exception as fault:  # the runtime raises its own kinds for files that it does not run
        raise ImportingError(f"ONNX Runtime does not run it ({str(fault)[:200]}).") from None


class OnnxNetwork(nn.Module):
    """A graph of ONNX, its nodes called one after another."""

    size: Size
    """Height and width of the images, pixels."""
    image_channels: int
    facts: Mapping[str, Any] = MappingProxyType({})
    """What a file that convfabric delivered says of itself."""

    def __init__(self, graph: Any, images: Images) -> None:
        super().__init__()
        self.image_channels, self.size, self.channels_last = images.channels, images.size, images.channels_last
        tensors = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self.images = next(one.name for one in graph.input if one.name not in tensors)
        self.answer = graph.output[0].name
        self.nodes, self.calls = nn.ModuleDict(), list[tuple[str, list[str], list[str]]]()
        known: dict[str, nn.Parameter] = {}
        for node in graph.node:
            if all(one in tensors for one in node.input if one):
                tensors |= _worked_out(node, tensors)
                continue
            name = self._name(node)
            self.nodes[name] = OnnxNode(node, tensors, known, images.at_once)
            self.calls.append((name, [one for one in node.input if one and one not in tensors], list(node.output)))

    def _name(self, node: Any) -> str:
        """A name that no module has yet: the node's own, or what it makes."""
        plain = re.sub(r"\W+", "_", node.name or node.output[0]).strip("_") or node.op_type
        names = chain([plain], (f"{plain}_{i}" for i in count(1)))
        return next(name for name in names if name not in self.nodes)

    def forward(self, images: Tensor) -> Tensor:
        """The first tensor that the graph answers for images (B, C, H, W)."""
        values: dict[str, Any] = {self.images: images.permute(0, 2, 3, 1) if self.channels_last else images}
        for name, read, made in self.calls:
            result = self.nodes[name](*(values[one] for one in read))
            values |= dict(zip(made, result if isinstance(result, tuple) else (result,), strict=False))
        answer: Tensor = values[self.answer]
        return answer


def _worked_out(node: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a node makes of constants alone, or is."""
    made = ReferenceEvaluator(node).run(None, {name: tensors[name] for name in node.input if name})
    return dict(zip(node.output, made, strict=True))


class OnnxNode(nn.Module):
    """One node of a graph, with the weights that it reads."""

    def __init__(self, node: Any, tensors: Mapping[str, Any], known: dict[str, nn.Parameter], at_once: int) -> None:
        super().__init__()
        self.kind, self.at_once = node.op_type, at_once
        if node.domain not in ("", "ai.onnx") or self.kind not in NODES:
            hint = "; give the float32 network, before it was quantised" if "Linear" in self.kind else ""
            where = f"{node.name or node.output[0]}: {node.domain or 'onnx'}.{self.kind}"
            raise ImportingError(f"{where}: nothing reads it{hint}.")
        self.settings = {one.name: _plain(helper.get_attribute_value(one)) for one in node.attribute}
        self.outputs = len(node.output)
        self.read: list[tuple[str, Any]] = [self._part(i, one, tensors, known) for i, one in enumerate(node.input)]

    def _part(self, at: int, name: str, tensors: Mapping[str, Any], known: dict[str, nn.Parameter]) -> tuple[str, Any]:
        """Where an input comes from: a value, a tensor of the node's own by name, or a number or list that is given."""
        if not name:
            return "given", None
        if name not in tensors:
            return "value", None
        array, roles = tensors[name], ROLES.get(self.kind, ())
        if not roles and (array.size == 1 or self.kind not in OPERANDS):
            numbers = array.tolist() if array.ndim else array.item()
            if self.kind == "Reshape" and numbers[0] == self.at_once:
                numbers[0] = 0  # as many images as there are
            single = array.size == 1 and array.dtype.kind == "f"
            return "given", array.reshape(-1)[0].item() if single else numbers
        role = roles[at - 1] if 0 < at <= len(roles) else f"tensor{at}"
        tensor = torch.from_numpy(array.astype(np.float32))
        if role.startswith("running_"):
            self.register_buffer(role, tensor)
        else:  # kernels may be used twice; of what has one dimension files name equal ones once
            once = nn.Parameter(tensor, requires_grad=False)
            self.register_parameter(role, known.setdefault(name, once) if array.ndim > 1 else once)
        return "held", role

    def forward(self, *values: Any) -> Any:
        """What the node makes of the values that no file holds."""
        waiting = iter(values)
        inputs = [
            next(waiting) if kind == "value" else getattr(self, what) if kind == "held" else what
            for kind, what in self.read
        ]
        return NODES[self.kind](*inputs, outputs=self.outputs, **self.settings)


def _plain(value: Any) -> Any:
    """An attribute as text, number or list."""
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _check_answers(network: OnnxNetwork, said: Images, model: Any) -> None:
    """ImportingError where the module and ONNX Runtime answer random images otherwise, or the module cannot run."""
    images = torch.rand(said.at_once, said.channels, *said.size, generator=torch.Generator().manual_seed(0))
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = images.permute(0, 2, 3, 1).contiguous() if network.channels_last else images
    wanted = torch.from_numpy(session.run([network.answer], {network.images: given.numpy()})[0])
    try:
        with torch.no_grad():
            found = network(images)
    except ImportingError:
        raise
    except Exception as fault:  # whatever torch raises for attributes that a node's function does not know
        raise ImportingError(f"a node is not as it is read ({type(fault).__name__}: {str(fault)[:150]}).") from None
    largest = wanted.abs().max().clamp(min=1e-30)
    apart = float((found - wanted).abs().max() / largest) if found.shape == wanted.shape else 1.0
    if not apart <= NEAR:
        raise ImportingError(f"read as a module its answers are {apart:.1e} of the largest from ONNX Runtime's.")
