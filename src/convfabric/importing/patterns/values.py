"""Rows of functions of single values, and of responses that are added, multiplied or laid behind one another."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from convfabric.errors import ImportingError
from convfabric.importing.formulas import Formula, is_known, written
from convfabric.importing.patterns.forms import ROWS, Row, Value, response, row, seen
from convfabric.importing.responses import Arrival, Constant, Response, Seen, as_map, changed_by, made_by
from convfabric.operators import Identity, Resize, Scale, Slice, Times


def function(name: str) -> Row:
    """What reads a function of single values, with its numbers."""

    def read(x: Value, *numbers: Any, **named: Any) -> Value:
        numbers = (*numbers, *(value for key, value in named.items() if key == "approximate" and value != "none"))
        text = written(name, x.text if isinstance(x, Formula) else "x", *numbers)
        if isinstance(x, Formula) and is_known(text):
            return Formula(x.of, text)
        made = Formula(seen(x), written(name, "x", *numbers))
        if made.operator() or is_known(made.text):
            return made
        raise ImportingError(f"no operator is {made.text}")

    return read


for _name in (
    *("relu", "relu6", "sigmoid", "tanh", "hardtanh", "clamp", "clamp_min", "gelu", "leaky_relu"),
    *("silu", "hardswish", "hardsigmoid", "rsqrt", "elu", "mish", "softplus", "erf"),
):
    ROWS[f"aten.{_name}.default"] = function(_name)


@row("aten.add.Tensor")
def _(one: Value, other: Value) -> Value:
    one, other = (float(x.tensor) if isinstance(x, Constant) and x.tensor.numel() == 1 else x for x in (one, other))
    if isinstance(one, int | float):
        one, other = other, one
    if isinstance(other, int | float):
        return function("add")(one, other)
    if isinstance(one, Constant):
        one, other = other, one
    if isinstance(other, Constant):
        return factor(one, _worked_out(other, torch.ones_like(other.tensor)), other)
    return joined("sum", one, other)


ROWS["aten.pow.Tensor_Scalar"] = function("pow")


@row("aten.square.default")
def _(x: Value) -> Value:
    return function("pow")(x, 2)


@row("aten.sub.Tensor")
def _(one: Value, other: Value) -> Value:
    if isinstance(one, Constant | int | float):
        return ROWS["aten.add.Tensor"](function("mul")(other, -1), one)
    if isinstance(other, Constant) and other.tensor.numel() > 1:
        return ROWS["aten.add.Tensor"](one, _worked_out(other, -other.tensor))
    if isinstance(other, Constant | int | float):
        return function("sub")(one, float(other.tensor) if isinstance(other, Constant) else other)
    return joined("sum", one, function("mul")(other, -1))


ROWS["aten.rsub.Scalar"] = function("rsub")


@row("aten.div.Tensor")
def _(one: Value, other: Value) -> Value:
    if isinstance(other, Constant) and other.tensor.numel() > 1:
        return factor(one, _worked_out(other, 1 / other.tensor))
    if isinstance(other, Constant):
        other = float(other.tensor)
    if isinstance(other, Formula) and is_known(text := together("div", one, other)):
        return Formula(one.of if isinstance(one, Formula) else one, text)
    return function("div")(one, other)


@row("aten.mul.Tensor")
def _(one: Value, other: Value) -> Value:
    if isinstance(one, Constant | int | float):
        one, other = other, one
    if isinstance(other, Constant) and other.tensor.numel() == 1:
        other = float(other.tensor)  # kept as a number, which is not trained
    if isinstance(other, int | float):
        return function("mul")(one, other)
    if isinstance(other, Constant):
        return factor(one, other)
    if (text := together("mul", one, other)) and is_known(text):
        return Formula(one.of if isinstance(one, Formula) else one, text)
    return joined("product", one, other)


def together(what: str, one: Value, other: Value) -> str:
    """The product, or what else, of two functions of the same tensor; nothing where they are of two."""
    of = [value.of if isinstance(value, Formula) else seen(value) for value in (one, other)]
    same = of[0].response is of[1].response and of[0].dims == of[1].dims and one is not other
    texts = [value.text if isinstance(value, Formula) else "x" for value in (one, other)]
    return written(what, *texts) if same else ""


@row("aten.addcmul.default")
def _(bias: Value, weight: Value, x: Value) -> Value:
    if not isinstance(bias, Constant) or not isinstance(weight, Constant):
        raise ImportingError("a sum of a response and a product of two")
    return factor(x, weight, bias)


def factor(value: Value, constant: Constant, plus: Constant | None = None) -> Value:
    """A response whose channels are multiplied by numbers of their own, and others added."""
    one, named = seen(value), {}
    for name, numbers in (("weight", constant), ("bias", plus)):
        if numbers is not None:
            _check_each_channel(one, numbers)
            named[name] = replace(numbers, tensor=numbers.tensor.flatten())
    return Seen(changed_by(one.response, Scale(bias="bias" in named), named), one.dims)


def _worked_out(constant: Constant, tensor: Tensor) -> Constant:
    """Another tensor that was made of a constant."""
    return Constant(tensor, "", constant.made_of)


def _check_each_channel(one: Seen, numbers: Constant) -> None:
    """ImportingError unless there is a number for each channel of a tensor."""
    shape = (1,) * (len(one.dims) - numbers.tensor.ndim) + tuple(numbers.tensor.shape)
    along = [at for at, side in enumerate(shape) if side > 1]
    if numbers.tensor.numel() != one.response.channels or len(along) > 1 or not one.in_order(one.dims[along[0]]):
        raise ImportingError(f"a factor of shape {tuple(numbers.tensor.shape)} for a tensor laid out as {one.dims}")


def joined(join: Any, *values: Value) -> Value:
    """Responses added or multiplied, value by value; maps of one pixel, or factors of one channel, for all."""
    parts = [seen(value) for value in values]
    largest = max(parts, key=lambda part: prod((part.response.channels, *part.response.size)))
    arriving = []
    for part in parts:
        laid = [dim if dim else there for dim, there in zip(part.dims, largest.dims, strict=False)]
        if len(part.dims) != len(largest.dims) or tuple(laid) != largest.dims:
            raise ImportingError(f"tensors laid out as {largest.dims} and {part.dims} are joined")
        spread = part.response.size != largest.response.size
        if join == "sum" and part.response.channels != largest.response.channels:
            raise ImportingError(f"{part.response.channels} channels are added to {largest.response.channels}")
        size = largest.response.size
        arriving.append(
            Arrival(part.response, Resize(size=size, mode="nearest") if spread and join == "sum" else Identity())
        )
    channels, size = largest.response.channels, largest.response.size
    point = all(part.response.point for part in parts)
    return Seen(Response(channels, size, arriving, join, point=point), largest.dims)


@row("aten.cat.default")
def _(values: list[Value], axis: int = 0) -> Value:
    known = next((value for value in values if not isinstance(value, Constant)), None)
    parts: list[Seen] = []
    for value in values:
        parts += _zeros_like(value, known, axis) if isinstance(value, Constant) else [seen(value)]
    dims = parts[0].dims
    at = axis % len(dims)
    others = [tuple(dim for i, dim in enumerate(part.dims) if i != at) for part in parts]
    if len(set(others)) > 1 or not all(part.in_order(part.dims[at]) for part in parts):
        raise ImportingError(f"tensors laid out as {[part.dims for part in parts]} follow on one another along {axis}")
    found = side_by_side([part.response for part in parts])
    return Seen(found, (*dims[:at], (("C", found.channels),), *dims[at + 1 :]))


def side_by_side(parts: Sequence[Response]) -> Response:
    """The channels of responses one after another."""
    channels, point = sum(part.channels for part in parts), all(part.point for part in parts)
    arriving = [Arrival(part, Identity()) for part in parts]
    return Response(channels, parts[0].size, arriving, "concatenation", point=point)


def silent(source: Response, channels: int) -> list[Response]:
    """So many channels of zeros, made of a response as often as it takes."""
    whole, left = divmod(channels, source.channels)
    parts = [source] * whole
    if left:
        parts.append(made_by(source, Slice(start=0, stop=left), left, source.size, {}))
    return [changed_by(part, Times(factor=0.0), {}) for part in parts]


def _zeros_like(constant: Constant, known: Value, axis: int) -> list[Seen]:
    """Zeros beside a map; ImportingError for other constants, and beside what is none."""
    source, sides = response(known), constant.tensor.shape
    if axis != 1 or constant.tensor.any() or tuple(sides[2:]) != source.size:
        raise ImportingError(f"a constant of shape {tuple(sides)} that is not zeros beside a map of {source.size}")
    return [as_map(part) for part in silent(source, sides[1])]
