"""Rows of pools and of interpolation."""

from dataclasses import replace
from typing import Any

from convfabric.errors import ImportingError
from convfabric.importing.formulas import Formula
from convfabric.importing.patterns.forms import Indices, Value, alike, around, padded, response, row, seen
from convfabric.importing.patterns.values import function, joined
from convfabric.importing.responses import Response, Seen, as_map, changed_by, made_by
from convfabric.operators import (
    AdaptivePool,
    GlobalPool,
    Nearest,
    Operator,
    Padding,
    PixelSoftmax,
    Pool,
    Resize,
    Switches,
    padding_of,
)


@row("aten.max_pool2d.default")
def max_pooled(
    x: Value,
    kernel: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0, 0),  # type: ignore[assignment]
    dilation: list[int] = (1, 1),  # type: ignore[assignment]
    ceil: bool = False,
) -> Value:
    """A max pool over a response."""
    if alike(dilation, "dilation") != 1:
        raise ImportingError("a dilated pool")
    source, more = padded(x, float("-inf"))
    return pooled("max", source, kernel, stride, around(padding, more), ceil)


@row("aten.max_pool2d_with_indices.default")
def _(*args: Any) -> Value:
    made = max_pooled(*args)
    [pool] = made.response.arriving
    return made, Indices(pool.source, pool.operator)


@row("aten.max_unpool2d.default")
def _(x: Value, indices: Value, size: list[int]) -> Value:
    if not isinstance(indices, Indices) or replace(indices.pool, ceil=False) != Pool(padding=(0, 0, 0, 0)):
        raise ImportingError("indices other than those of a 2×2 max pool without padding")
    of = indices.of.size
    if of[0] % 2 or of[1] % 2:
        raise ImportingError(f"indices of a pool over {of[0]}×{of[1]} pixels: only maps of even sides are read")
    if tuple(size) != of:
        raise ImportingError(f"indices of a pool over {of[0]}×{of[1]} pixels, put on {size[0]}×{size[1]}")
    raised, switches = whole(response(x), Nearest(), indices.of.size), whole(indices.of, Switches(), indices.of.size)
    return joined("product", raised, switches)


@row("aten.avg_pool2d.default")
def _(
    x: Value,
    kernel: list[int],
    stride: list[int] = (),  # type: ignore[assignment]
    padding: list[int] = (0, 0),  # type: ignore[assignment]
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> Value:
    if divisor is not None:
        raise ImportingError("an average pool with a divisor of its own")
    source, more = padded(x, 0.0)
    if any(more) and any(padding):
        raise ImportingError("an average pool that is padded twice")
    counts = any(more) or (count_include_pad and any(padding))
    return pooled("average", source, kernel, stride, around(padding, more), ceil, counts)


def pooled(
    kind: Any, source: Response, kernel: Any, stride: Any, padding: Padding, ceil: bool, counts: bool = False
) -> Value:
    """A pool over a response."""
    side = alike(kernel, "sides of a pool")
    step = alike(stride or kernel, "strides")
    plain = not ceil and not counts and padding == padding_of(side) and side % 2 == 1
    operator = Pool(
        kind=kind, kernel=side, stride=step, padding=None if plain else padding, ceil=ceil, counts_padding=counts
    )
    return as_map(made_by(source, operator, source.channels, operator.size_after(source.size), {}))


@row("aten._adaptive_avg_pool2d.default", "aten.adaptive_avg_pool2d.default")
def _(x: Value, size: list[int]) -> Value:
    source, wanted = response(x), (size[0], size[-1])
    return whole(source, GlobalPool() if wanted == (1, 1) else AdaptivePool(size=wanted), wanted)


@row("aten.adaptive_max_pool2d.default")
def _(x: Value, size: list[int]) -> Value:
    source, wanted = response(x), (size[0], size[-1])
    operator = GlobalPool(kind="max") if wanted == (1, 1) else AdaptivePool(kind="max", size=wanted)
    return whole(source, operator, wanted), None


@row("aten.mean.dim", "aten.amax.default")
def over_pixels(x: Value, axes: list[int], keep: bool = False, *, kind: Any = "average") -> Value:
    """The mean, or what else, of all pixels; of channels a function that may yet become part of a longer one."""
    laid = (x.of if isinstance(x, Formula) else seen(x)).dims
    dims = [axis % len(laid) for axis in axes]
    if kind == "average" and keep and len(dims) == 1 and {name[0] for name, _ in laid[dims[0]]} == {"C"}:
        return function("mean")(x)
    one = seen(x)
    meant = sorted(name for at in dims for name, _ in one.dims[at])
    wanted = sorted(name for name, length in (("H", one.response.size[0]), ("W", one.response.size[1])) if length > 1)
    if meant != wanted:
        kind = "mean" if kind == "average" else kind
        raise ImportingError(f"the {kind} over {meant or 'nothing'} of a tensor laid out as {one.dims}")
    found = made_by(one.response, GlobalPool(kind=kind), one.response.channels, (1, 1), {})
    left = [() if at in dims else dim for at, dim in enumerate(one.dims) if keep or at not in dims]
    return Seen(found, tuple(left))


@row("aten.linalg_vector_norm.default")
def _(x: Value, power: float, axes: list[int], keep: bool = False) -> Value:
    if power != 2:
        raise ImportingError(f"a norm of power {power}")
    return over_pixels(x, axes, keep, kind="length")


def whole(source: Response, operator: Operator, size: tuple[int, int]) -> Value:
    """An operator of the whole map that keeps channels."""
    return as_map(made_by(source, operator, source.channels, size, {}))


@row("aten.upsample_bilinear2d.vec", "aten.upsample_bilinear2d.default")
def _(x: Value, size: Any, corners: bool = False, *scales: Any, shape: Any) -> Value:
    return whole(response(x), Resize(size=shape[-2:], corners=corners), shape[-2:])


@row("aten.upsample_nearest2d.vec", "aten.upsample_nearest2d.default")
def _(x: Value, size: Any, *scales: Any, shape: Any) -> Value:
    source, size = response(x), (shape[-2], shape[-1])
    times = size[0] // source.size[0]
    doublings = times.bit_length() - 1
    doubled_so = doublings > 0 and size == (source.size[0] << doublings, source.size[1] << doublings)
    return whole(source, Nearest(doublings=doublings) if doubled_so else Resize(size=size, mode="nearest"), size)


@row("aten.softmax.int", "aten._softmax.default")
def _(x: Value, axis: int, *anything: Any) -> Value:
    one = seen(x)
    at = axis % len(one.dims)
    if {name for name, _ in one.dims[at]} != {"H", "W"}:
        raise ImportingError(f"a softmax over {one.dims[at]} of a tensor laid out as {one.dims}")
    return Seen(changed_by(one.response, PixelSoftmax(), {}), one.dims)


@row("aten.matmul.default")
def _(x: Value, y: Value) -> Value:
    one, other = seen(x), seen(y)
    pixels = one.dims[-1]
    if (
        {name for name, _ in pixels} != {"H", "W"}
        or other.dims[-2:] != (pixels, ())
        or len(one.dims) != len(other.dims)
    ):
        raise ImportingError(f"a product of tensors laid out as {one.dims} and {other.dims}")
    weighed = joined("product", as_map(one.response), as_map(other.response))
    found = made_by(weighed.response, GlobalPool(kind="sum"), one.response.channels, (1, 1), {})
    return Seen(found, (*one.dims[:-1], ()))
