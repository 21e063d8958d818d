"""What each kind of ONNX node makes of its inputs, as functions of torch: a row for each kind that networks have.

A row is called with the inputs in their order, those that the file holds as tensors or plain values, and with the
attributes by name; ``outputs`` is how many are wanted.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.errors import ImportingError

FLOAT32 = 1
"""ONNX's number for it."""
NODES: dict[str, Callable[..., Any]] = {}
"""By kind of node."""


def node(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function as what these kinds of node do."""

    def entered(function: Callable[..., Any]) -> Callable[..., Any]:
        NODES.update(dict.fromkeys(kinds, function))
        return function

    return entered


def _alone(function: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """What a kind of node without attributes does."""
    return lambda x, *more, **settings: function(x)


SINGLE: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Selu": F.selu,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Identity": lambda x: x,
    "Dropout": lambda x: x,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda x: x.amax((2, 3), keepdim=True),
}
NODES.update({kind: _alone(function) for kind, function in SINGLE.items()})
NODES["LeakyRelu"] = lambda x, alpha=0.01, **_: F.leaky_relu(x, alpha)
NODES["Elu"] = lambda x, alpha=1.0, **_: F.elu(x, alpha)
NODES["Gelu"] = lambda x, approximate="none", **_: F.gelu(x, approximate=approximate)
NODES["Softmax"] = lambda x, axis=-1, **_: torch.softmax(x, axis)
NODES["LogSoftmax"] = lambda x, axis=-1, **_: torch.log_softmax(x, axis)
NODES["Add"] = lambda x, y, **_: x + y
NODES["Sub"] = lambda x, y, **_: x - y
NODES["Mul"] = lambda x, y, **_: x * y
NODES["Div"] = lambda x, y, **_: x / y
NODES["Pow"] = lambda x, y, **_: x**y
NODES["Concat"] = lambda *parts, axis, **_: torch.cat(parts, axis)
NODES["Transpose"] = lambda x, perm, **_: x.permute(perm)
NODES["DepthToSpace"] = lambda x, blocksize, mode="DCR", **_: _from_depth(x, blocksize, mode)
NODES["SpaceToDepth"] = lambda x, blocksize, **_: _to_depth(x, blocksize)


@node("Cast")
def _(x: Tensor, to: int, outputs: int = 1, **others: Any) -> Tensor:
    if to != FLOAT32:
        raise ImportingError(f"a cast to type {to}; float32 is {FLOAT32}.")
    return x


def _from_depth(x: Tensor, side: int, mode: str) -> Tensor:
    if mode == "CRD":
        return F.pixel_shuffle(x, side)
    parts = x.reshape(len(x), side * side, -1, *x.shape[2:])
    return F.pixel_shuffle(parts.transpose(1, 2).flatten(1, 2), side)


def _to_depth(x: Tensor, side: int) -> Tensor:
    parts = F.pixel_unshuffle(x, side)
    return parts.reshape(len(x), -1, side * side, *parts.shape[2:]).transpose(1, 2).flatten(1, 2)


@node("Sum")
def _(first: Tensor, *others: Tensor, outputs: int = 1) -> Tensor:
    for other in others:
        first = first + other
    return first


@node("HardSigmoid")
def _(x: Tensor, alpha: float = 0.2, beta: float = 0.5, outputs: int = 1) -> Tensor:
    usual = math.isclose(alpha, 1 / 6, rel_tol=1e-4) and beta == 0.5
    return F.hardsigmoid(x) if usual else torch.clamp(alpha * x + beta, 0, 1)


@node("Clip")
def _(x: Tensor, least: float | None = None, most: float | None = None, outputs: int = 1, **limits: float) -> Tensor:
    least, most = limits.get("min", least), limits.get("max", most)
    return F.relu(x) if (least, most) == (0, None) else torch.clamp(x, least, most)


@node("PRelu")
def _(x: Tensor, slope: Tensor, outputs: int = 1) -> Tensor:
    return F.prelu(x, slope.flatten())


@node("Conv")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Sequence[int] = (),
    dilations: Sequence[int] = (),
    group: int = 1,
    outputs: int = 1,
    **padding: Any,
) -> Tensor:
    sides = weight.shape[2:]
    strides, dilations = list(strides or [1] * len(sides)), list(dilations or [1] * len(sides))
    x, pads = _padded(x, [d * (k - 1) + 1 for d, k in zip(dilations, sides, strict=True)], strides, 0.0, **padding)
    convolve: Any = F.conv2d if len(sides) == 2 else F.conv1d
    answer: Tensor = convolve(x, weight, bias, strides, pads, dilations, group)
    return answer


@node("ConvTranspose")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    output_padding: Sequence[int] = (0, 0),
    outputs: int = 1,
    **others: Any,
) -> Tensor:
    before, after = list(pads[:2]), list(pads[2:])
    more = [b - a + o for b, a, o in zip(before, after, output_padding, strict=True)]
    if min(more) < 0 or any(others.get(name, "NOTSET") != "NOTSET" for name in ("auto_pad", "output_shape")):
        raise ImportingError(f"a transposed convolution with pads={list(pads)} and {others}.")
    return F.conv_transpose2d(x, weight, bias, list(strides), before, more, group, list(dilations))


def _padded(
    x: Tensor,
    reach: Sequence[int],
    strides: Sequence[int],
    value: float,
    pads: Sequence[int] = (),
    auto_pad: str = "NOTSET",
    **others: Any,
) -> tuple[Tensor, list[int]]:
    """The input of an operator with what is around it, and the padding on either side that the operator does itself."""
    count = len(reach)
    before, after = list(pads[:count] or [0] * count), list(pads[count:] or [0] * count)
    if auto_pad.startswith("SAME"):
        missing = [
            max(0, (-(-side // step) - 1) * step + far - side)
            for side, step, far in zip(x.shape[2:], strides, reach, strict=True)
        ]
        less, more = [one // 2 for one in missing], [-(-one // 2) for one in missing]
        before, after = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if before == after and all(2 * one <= far or value == 0 for one, far in zip(before, reach, strict=True)):
        return x, before
    frame = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
    return F.pad(x, frame, value=value), [0] * count


@node("MaxPool")
def _(
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    ceil_mode: int = 0,
    outputs: int = 1,
    **padding: Any,
) -> Tensor:
    if outputs > 1:
        raise ImportingError("indices of a max pool.")
    x, pads = _padded(x, kernel_shape, strides, -math.inf, **padding)
    return F.max_pool2d(x, list(kernel_shape), list(strides), pads, list(dilations), bool(ceil_mode))


@node("AveragePool")
def _(
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    outputs: int = 1,
    **padding: Any,
) -> Tensor:
    padded, pads = _padded(x, kernel_shape, strides, 0.0, **padding)
    if padded is not x and not count_include_pad:
        raise ImportingError("an average pool whose padding is uneven and does not count.")
    return F.avg_pool2d(padded, list(kernel_shape), list(strides), pads, bool(ceil_mode), bool(count_include_pad))


@node("BatchNormalization")
def _(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float = 1e-5, **others: Any
) -> Tensor:
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, epsilon)


@node("InstanceNormalization")
def _(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5, outputs: int = 1) -> Tensor:
    return F.group_norm(x, x.shape[1], weight, bias, epsilon)


@node("LayerNormalization")
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5, **others: Any
) -> Tensor:
    return F.layer_norm(x, list(x.shape[axis:]), weight, bias, epsilon)


@node("LRN")
def _(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, outputs: int = 1) -> Tensor:
    return F.local_response_norm(x, size, alpha, beta, bias)


@node("MatMul")
def _(x: Tensor, y: Tensor, outputs: int = 1) -> Tensor:
    return F.linear(x, y.t()) if isinstance(y, nn.Parameter) and y.ndim == 2 else x @ y


@node("Gemm")
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    outputs: int = 1,
) -> Tensor:
    if transA or (alpha, beta) != (1.0, 1.0):
        raise ImportingError(f"a product with transA={transA}, alpha={alpha:g}, beta={beta:g}.")
    held = bias is None or isinstance(bias, nn.Parameter)  # else the runtime has made a sum of maps a bias
    answer = F.linear(x, weight if transB else weight.t(), bias if held else None)
    return answer if held or bias is None else answer + bias


def _over(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, axes: Any = None, keepdims: int = 1, outputs: int = 1, **others: Any) -> Tensor:
        every = list(range(x.ndim)) if axes is None else list(axes)
        return reduce(x, [axis % x.ndim for axis in every], bool(keepdims))

    return run


NODES["ReduceMean"] = _over(lambda x, axes, keep: x.mean(axes, keepdim=keep))
NODES["ReduceMax"] = _over(lambda x, axes, keep: x.amax(axes, keepdim=keep))
NODES["ReduceSum"] = _over(lambda x, axes, keep: x.sum(axes, keepdim=keep))
NODES["ReduceL2"] = _over(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep))


@node("Reshape")
def _(x: Tensor, shape: Sequence[int], outputs: int = 1, **others: Any) -> Tensor:
    return x.reshape([x.shape[i] if side == 0 else side for i, side in enumerate(shape)])


@node("Flatten")
def _(x: Tensor, axis: int = 1, outputs: int = 1) -> Tensor:
    return x.flatten(axis) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@node("Squeeze")
def _(x: Tensor, axes: Sequence[int] | None = None, outputs: int = 1) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(list(axes))


@node("Unsqueeze")
def _(x: Tensor, axes: Sequence[int], outputs: int = 1) -> Tensor:
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@node("Expand")
def _(x: Tensor, shape: Sequence[int], outputs: int = 1) -> Tensor:
    return x.expand([max(side, have) for side, have in zip(shape, x.shape, strict=True)])


@node("Split")
def _(
    x: Tensor, split: Sequence[int] | None = None, axis: int = 0, num_outputs: int = 0, outputs: int = 1
) -> tuple[Tensor, ...]:
    side = -(-x.shape[axis] // outputs)
    return torch.split(x, side if split is None else list(split), axis)


@node("SplitToSequence")
def _(x: Tensor, split: Any = 1, axis: int = 0, keepdims: int = 1, outputs: int = 1) -> list[Tensor]:
    parts = list(torch.split(x, split, axis))
    return parts if keepdims else [part.squeeze(axis) for part in parts]


@node("SequenceAt")
def _(parts: list[Tensor], at: int, outputs: int = 1) -> Tensor:
    return parts[at]


@node("Slice")
def _(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
    outputs: int = 1,
) -> Tensor:
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, min(end, x.shape[axis]), step)
    return x[tuple(where)]


@node("Pad")
def _(
    x: Tensor,
    pads: Sequence[int],
    value: float | None = None,
    axes: Sequence[int] | None = None,
    mode: str = "constant",
    outputs: int = 1,
) -> Tensor:
    count = len(pads) // 2
    sides = dict(zip(axes or range(count), zip(pads[:count], pads[count:], strict=True), strict=True))
    frame = [side for axis in reversed(range(x.ndim)) for side in sides.get(axis, (0, 0))]
    while len(frame) > 4 and frame[-2:] == [0, 0]:
        frame = frame[:-2]
    kinds = {"edge": "replicate", "wrap": "circular"}
    return F.pad(x, frame, kinds.get(mode, mode), **({"value": value or 0.0} if mode == "constant" else {}))


@node("Resize", "Upsample")
def _(
    x: Tensor,
    roi: Sequence[float] = (),
    scales: Sequence[float] = (),
    sizes: Sequence[int] | None = None,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    outputs: int = 1,
    **others: Any,
) -> Tensor:
    times = scales or roi
    size = sizes[2:] if sizes else [int(side * by) for side, by in zip(x.shape[2:], times[2:], strict=True)]
    if mode == "nearest":
        return F.interpolate(x, list(size), mode="nearest")
    if mode != "linear":
        raise ImportingError(f"resizing by {mode}.")
    corners = coordinate_transformation_mode == "align_corners"
    return F.interpolate(x, list(size), mode="bilinear", align_corners=corners)
