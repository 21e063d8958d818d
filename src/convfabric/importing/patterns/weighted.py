"""Rows of operators with weights: convolutions, linear maps, norms."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch

from convfabric.errors import ImportingError
from convfabric.importing.patterns.forms import Padded, Value, alike, around, padded, response, row, seen, usual
from convfabric.importing.responses import Constant, Seen, Tensors, as_map, changed_by, made_by, reshaped
from convfabric.operators import (
    AlongChannels,
    Conv,
    Depthwise,
    FullyConnected,
    GroupNorm,
    LayerNorm,
    Norm,
    Operator,
    OverChannels,
    PRelu,
    Scale,
    UpConv,
)


def weights(weight: Value, bias: Value, shape: Sequence[int]) -> Tensors:
    """Weights of a shape and a bias, where there is one."""
    if not isinstance(weight, Constant) or not isinstance(bias, Constant | None):
        raise ImportingError("weights that depend on the images")
    found = {"weight": replace(weight, tensor=weight.tensor.reshape(tuple(shape)))}
    return found | ({"bias": bias} if bias else {})


@row("aten.convolution.default")
def _(
    x: Value,
    weight: Value,
    bias: Value,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Value:
    if transposed:
        return raised(x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolved(x, weight, bias, stride, padding, dilation, groups)


@row("aten.conv2d.default")
def convolved(
    x: Value,
    weight: Value,
    bias: Value = None,
    stride: list[int] = (1, 1),  # type: ignore[assignment]
    padding: list[int] = (0, 0),  # type: ignore[assignment]
    dilation: list[int] = (1, 1),  # type: ignore[assignment]
    groups: int = 1,
) -> Value:
    """A convolution of a response."""
    source, more = padded(x, 0.0)
    named = weights(weight, bias, weight.tensor.shape)
    made, _, high, wide = weight.tensor.shape
    kernel = high if high == wide else (high, wide)
    apart, step = alike(dilation, "dilation"), alike(stride, "strides")
    around_it = usual(kernel, apart, around(padding, more))
    shared: dict[str, Any] = {"kernel": kernel, "stride": step, "dilation": apart, "padding": around_it}
    shared["bias"] = "bias" in named
    alone = groups == source.channels == made and groups > 1
    operator: Operator = Depthwise(**shared) if alone else Conv(groups=groups, **shared)
    return as_map(made_by(source, operator, made, operator.size_after(source.size), named))


@row("aten.conv_transpose2d.input")
def raised(
    x: Value,
    weight: Value,
    bias: Value = None,
    stride: list[int] = (1, 1),  # type: ignore[assignment]
    padding: list[int] = (0, 0),  # type: ignore[assignment]
    more: list[int] = (0, 0),  # type: ignore[assignment]
    groups: int = 1,
    dilation: list[int] = (1, 1),  # type: ignore[assignment]
) -> Value:
    """A transposed convolution of stride 2, and what is cut off from twice the size."""
    source, (_, made, high, wide) = response(x), weight.tensor.shape
    gone, longer, kernel = alike(padding, "padding"), alike(more, "output padding"), alike((high, wide), "sides")
    before, side = gone - (kernel - 1) // 2, kernel - 2 * gone + longer - 2
    if (*stride, groups, *dilation) != (2, 2, 1, 1, 1) or before < 0 or before + side > 0:
        said = f"stride {list(stride)}, padding {list(padding)}, {groups} groups, dilation {list(dilation)}"
        raise ImportingError(f"a transposed convolution of {kernel}×{kernel} by {said}")
    as_convolved = replace(weight, tensor=weight.tensor.transpose(0, 1).flip(2, 3))
    named = weights(as_convolved, bias, as_convolved.tensor.shape)
    operator = UpConv(kernel=kernel, bias="bias" in named)
    found = as_map(made_by(source, operator, made, operator.size_after(source.size), named))
    after = -before - side
    return Padded(found.response, (-before, -after, -before, -after)) if before or after else found


@row("aten.addmm.default")
def _(bias: Value, x: Value, turned: Value) -> Value:
    return linear(x, turned, bias)


@row("aten.conv1d.default")
def _(
    x: Value,
    weight: Value,
    bias: Value = None,
    stride: list[int] = (1,),  # type: ignore[assignment]
    padding: list[int] = (0,),  # type: ignore[assignment]
    dilation: list[int] = (1,),  # type: ignore[assignment]
    groups: int = 1,
) -> Value:
    one, kernel = seen(x), weight.tensor.shape[-1]
    if bias or tuple(weight.tensor.shape[:2]) != (1, 1) or (stride[0], padding[0], dilation[0]) != (1, kernel // 2, 1):
        raise ImportingError(f"a convolution of rows by {tuple(weight.tensor.shape)}")
    if len(one.dims) != 3 or one.dims[1] or not one.is_last():
        raise ImportingError(f"a convolution of rows of a tensor laid out as {one.dims}")
    found = changed_by(one.response, AlongChannels(kernel=kernel), {"weight": weight})
    return Seen(found, one.dims)


@row("aten.mm.default")
def _(x: Value, turned: Value) -> Value:
    return linear(x, turned, None)


@row("aten.linear.default")
def _(x: Value, weight: Value, bias: Value = None) -> Value:
    return linear(x, replace(weight, tensor=weight.tensor.T), bias)


def linear(x: Value, turned: Value, bias: Value) -> Value:
    """A linear map of channels at each pixel, or of a whole map; weights are (read, made)."""
    one = seen(x)
    if not isinstance(turned, Constant):
        raise ImportingError("a product of two matrices that both depend on the images")
    read, made = turned.tensor.shape
    if not one.in_order(one.channel_axes) and len(one.dims) == 2:
        flat = tuple(prod(length for _, length in dim) for dim in one.dims)
        axes = [tuple(axis for axis in one.dims[-1] if axis[0] == side) for side in ("H", "W")]
        one = reshaped(as_map(response(replace(one, dims=(one.dims[0], one.channel_axes, *axes)))), flat)
    source = one.response
    if one.is_last() and source.size != (1, 1):
        named = weights(replace(turned, tensor=turned.tensor.T), bias, (made, read, 1, 1))
        operator: Operator = Conv(kernel=1, bias="bias" in named)
        found = made_by(source, operator, made, source.size, named)
        return Seen(found, (*one.dims[:-1], (("C", made),) if made > 1 else ()))
    names = [name for dim in one.dims for name, _ in dim]
    if len(one.dims) != 2 or names != sorted(names, key=lambda name: ("BCHW".index(name[0]), name)):
        raise ImportingError(f"a linear map of a tensor laid out as {one.dims}")
    named = weights(replace(turned, tensor=turned.tensor.T), bias, (made, source.channels, *source.size))
    operator = FullyConnected(size=source.size, bias="bias" in named)
    found = made_by(source, operator, made, (1, 1), named)
    return Seen(found, ((("B", 2),), (("C", made),) if made > 1 else ()))


@row("aten._native_batch_norm_legit_no_training.default")
def _(x: Value, weight: Value, bias: Value, mean: Value, variance: Value, momentum: float, eps: float) -> Value:
    return (normed(x, weight, bias, mean, variance, eps),)


@row("aten.batch_norm.default")
def _(
    x: Value,
    weight: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    trains: bool,
    momentum: float,
    eps: float,
    _: Any,
) -> Value:
    if trains:
        raise ImportingError("a batch norm as in training, by the statistics of the images")
    return normed(x, weight, bias, mean, variance, eps)


def normed(x: Value, weight: Value, bias: Value, mean: Value, variance: Value, eps: float) -> Value:
    """Batch normalisation of a response."""
    named = {**_factors(weight, bias, x), "running_mean": mean, "running_var": variance}
    changed, dims = changed_by(response(x), Norm(eps=eps), named), seen(x).dims
    return Seen(changed, dims) if len(dims) == 2 else as_map(changed)


@row("aten.native_layer_norm.default")
def _(x: Value, shape: list[int], weight: Value, bias: Value, eps: float) -> Value:
    return (layer_normed(x, shape, weight, bias, eps),)


@row("aten.layer_norm.default")
def layer_normed(
    x: Value, shape: list[int], weight: Value = None, bias: Value = None, eps: float = 1e-5, _: Any = False
) -> Value:
    """Layer normalisation over the channels of every pixel."""
    one = seen(x)
    if len(shape) != 1 or weight is None or not one.in_order(one.dims[-1]):
        raise ImportingError(f"a layer norm over {shape} of a tensor laid out as {one.dims}")
    found = changed_by(one.response, LayerNorm(eps=eps), {"weight": weight, "bias": bias})
    return Seen(found, one.dims)


@row("aten.rms_norm.default")
def _(x: Value, shape: list[int], weight: Value = None, eps: float | None = None) -> Value:
    one = seen(x)
    if len(shape) != 1 or not one.in_order(one.dims[-1]):
        raise ImportingError(f"an RMS norm over {shape} of a tensor laid out as {one.dims}")
    found = changed_by(one.response, OverChannels(eps=torch.finfo(torch.float32).eps if eps is None else eps), {})
    return Seen(changed_by(found, Scale(), {"weight": weight}) if weight else found, one.dims)


@row("aten.group_norm.default")
def group_normed(
    x: Value, groups: int, weight: Value = None, bias: Value = None, eps: float = 1e-5, _: Any = False
) -> Value:
    """Group normalisation of a response."""
    return as_map(changed_by(response(x), GroupNorm(groups=groups, eps=eps), _factors(weight, bias, x)))


@row("aten.instance_norm.default")
def _(
    x: Value, weight: Value, bias: Value, mean: Value, variance: Value, own: bool, momentum: float, eps: float, _: Any
) -> Value:
    if not own:
        return normed(x, weight, bias, mean, variance, eps)
    return group_normed(x, response(x).channels, weight, bias, eps)


def _factors(weight: Value, bias: Value, x: Value) -> Tensors:
    """The factor and the constant of each channel, one and zero where a norm has none."""
    channels = response(x).channels
    return {"weight": weight or Constant(torch.ones(channels)), "bias": bias or Constant(torch.zeros(channels))}


@row("aten.prelu.default")
def _(x: Value, slope: Value) -> Value:
    source = response(x)
    return as_map(changed_by(source, PRelu(single=slope.tensor.numel() == 1), {"weight": slope}))


@row("aten.native_group_norm.default")
def _(x: Value, weight: Value, bias: Value, images: int, channels: int, pixels: int, groups: int, eps: float) -> Value:
    return (group_normed(x, groups, weight, bias, eps),)
