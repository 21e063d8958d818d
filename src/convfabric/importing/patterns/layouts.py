"""Rows of operators that lay a tensor out otherwise, take a part of it, or put something around it."""

from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import Any

import torch

from convfabric.errors import ImportingError
from convfabric.importing.patterns.forms import Every, Padded, Value, response, row, seen
from convfabric.importing.patterns.values import side_by_side, silent
from convfabric.importing.responses import Seen, as_map, changed_by, made_by, reshaped
from convfabric.operators import Shuffle, Slice


@row("aten.split_with_sizes.default")
def _(x: Value, sizes: list[int], axis: int = 0) -> Value:
    ends = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return tuple(sliced(x, axis, start, stop) for start, stop in pairwise(ends))


@row("aten.chunk.default")
def _(x: Value, parts: int, axis: int = 0) -> Value:
    length = _length(x, axis)
    side = -(-length // parts)
    return tuple(sliced(x, axis, start, min(start + side, length)) for start in range(0, length, side))


@row("aten.split.Tensor")
def _(x: Value, side: int, axis: int = 0) -> Value:
    length = _length(x, axis)
    return tuple(sliced(x, axis, start, min(start + side, length)) for start in range(0, length, side))


@row("aten.slice.Tensor")
def _(x: Value, axis: int = 0, start: int | None = None, stop: int | None = None, step: int = 1) -> Value:
    if isinstance(x, Every) and step > 1 and axis == 3:
        return replace(x, columns=step)
    one, length = seen(x), _length(x, axis)
    start, stop = (start or 0) % max(length, 1), min(length if stop is None else stop, length)
    whole = start == 0 and stop == length
    if step == 1 and whole:
        return one
    if step != 1:
        if not whole or axis not in (2, 3) or not one.is_map():
            raise ImportingError(f"every {step}th of {length} along {axis}, from {start}")
        return Every(response(x), **{"rows" if axis == 2 else "columns": step})
    return sliced(x, axis, start, stop if stop >= 0 else stop + length)


def _length(x: Value, axis: int) -> int:
    dims = seen(x).dims
    return prod(length for _, length in dims[axis % len(dims)])


def sliced(x: Value, axis: int, start: int, stop: int) -> Value:
    """Some neighbouring channels."""
    one = seen(x)
    at = axis % len(one.dims)
    if one.is_map() and at == 1:
        one = as_map(response(x))
    if not one.dims[at] or not one.in_order(one.dims[at]):
        raise ImportingError(f"a part of a dimension other than channels, {start} to {stop} along {axis}")
    source = one.response
    found = made_by(source, Slice(start=start, stop=stop), stop - start, source.size, {})
    found.point = source.point
    return Seen(found, (*one.dims[:at], (("C", stop - start),) if stop - start > 1 else (), *one.dims[at + 1 :]))


@row("aten.channel_shuffle.default")
def _(x: Value, groups: int) -> Value:
    source = response(x)
    return as_map(changed_by(source, Shuffle(groups=groups), {}))


@row("aten.permute.default")
def _(x: Value, order: list[int]) -> Value:
    one = seen(x)
    return Seen(one.response, tuple(one.dims[at] for at in order))


@row("aten.transpose.int")
def _(x: Value, first: int, second: int) -> Value:
    one = seen(x)
    dims = list(one.dims)
    dims[first], dims[second] = dims[second], dims[first]
    return Seen(one.response, tuple(dims))


@row(
    *("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten.flatten.using_ints"),
    *("aten.unflatten.int", "aten.unsqueeze.default", "aten.squeeze.dims", "aten.squeeze.dim", "aten.view_as.default"),
)
def _(x: Value, *anything: Any, shape: Any, **named: Any) -> Value:
    return reshaped(seen(x), shape)


@row(
    *("aten.clone.default", "aten.alias.default", "aten.detach.default", "aten._to_copy.default"),
    *("aten.contiguous.default", "aten.dropout.default", "aten.feature_dropout.default"),
    *("aten.expand.default", "aten.expand_as.default", "aten.to.dtype", "aten.to.dtype_layout"),
)
def _(x: Value, *anything: Any, **named: Any) -> Value:
    return seen(x) if isinstance(x, Every) else x


@row("aten.as_strided.default")
def _(x: Value, size: list[int], strides: list[int], *anything: Any, shape: Any) -> Value:
    one = seen(x)
    usual_ones = torch.empty(shape, device="meta").stride()
    if any(one != other for one, other, side in zip(strides, usual_ones, shape, strict=True) if side > 1):
        raise ImportingError(f"a view with strides {strides}")
    return reshaped(one, shape)


@row("aten.pad.default")
def _(x: Value, sides: list[int], mode: Any = "constant", value: float | None = None) -> Value:
    return around_it(x, sides, value or 0.0, mode)


@row("aten.constant_pad_nd.default")
def around_it(x: Value, sides: list[int], value: float = 0.0, mode: Any = "constant") -> Value:
    """Rows and columns around a response."""
    if len(sides) == 6 and not any(sides[:4]) and min(sides) >= 0 and (mode, value) == ("constant", 0):
        source = response(x)
        before, after = (silent(source, channels) for channels in sides[4:])
        return as_map(side_by_side([*before, source, *after]))
    left, right, above, below, *others = (*sides, 0, 0, 0, 0)[: max(4, len(sides))]
    if any(others) or mode not in ("constant", "reflect", "replicate"):
        raise ImportingError(f"padding by {sides} ({mode}), not of height and width alone")
    return Padded(response(x), (above, below, left, right), mode, float(value))
