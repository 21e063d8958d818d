"""The table of rows, and the forms in which rows ask for values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from convfabric.errors import ImportingError
from convfabric.importing.formulas import Formula
from convfabric.importing.responses import Constant, Response, Seen, as_map, changed_by, made_by
from convfabric.operators import Pad, Padding, Pool, Shuffle, padding_of

Value = Any
"""A tensor that stands for a response, a formula, something padded, a constant, a number, or several of those."""
Row = Callable[..., Value]
ROWS: dict[str, Row] = {}
"""By the name of an operator of ATen, overload included, what reads it."""


@dataclass(frozen=True)
class Padded:
    """A response with rows and columns around it, which the next operator may do as well."""

    response: Response
    padding: Padding
    mode: Any = "constant"
    value: float = 0.0


@dataclass(frozen=True)
class Indices:
    """Where a max pool found the values that it kept."""

    of: Response
    pool: Pool


@dataclass(frozen=True)
class Every:
    """A response of whose rows and columns some are left out, the first of every so many taken."""

    response: Response
    rows: int = 1
    columns: int = 1


def row(*names: str) -> Callable[[Row], Row]:
    """Enters a function as what reads these operators of ATen."""

    def entered(function: Row) -> Row:
        ROWS.update(dict.fromkeys(names, function))
        return function

    return entered


def seen(value: Value) -> Seen:
    """The tensor of a response, of a formula the one that it makes."""
    if isinstance(value, Seen):
        return value
    if isinstance(value, Formula):
        if found := value.seen():
            return found
        raise ImportingError(f"no operator is {value.text}")
    if isinstance(value, Padded):
        source, operator = value.response, Pad(padding=value.padding, mode=value.mode, value=value.value)
        return as_map(made_by(source, operator, source.channels, operator.size_after(source.size), {}))
    if isinstance(value, Every):
        if value.rows != value.columns:
            raise ImportingError(
                f"rows by steps of {value.rows} and columns by steps of {value.columns}: only equal ones are read"
            )
        source, one_pixel = value.response, Pool(kernel=1, stride=value.rows)
        return as_map(made_by(source, one_pixel, source.channels, one_pixel.size_after(source.size), {}))
    what = {Indices: "indices of a max pool", Constant: "a constant"}.get(type(value), f"a {type(value).__name__}")
    raise ImportingError(f"{what} where a map is needed")


def response(value: Value) -> Response:
    """The response of a tensor (batch, channels, height, width), its channels in their order."""
    one = seen(value)
    if not one.is_map():
        if one.response.size == (1, 1) and len(one.dims) == 2:
            return response(replace(one, dims=(*one.dims, (), ())))
        raise ImportingError(f"a tensor laid out as {one.dims} where (batch, channels, height, width) is needed")
    if not one.in_order(one.channel_axes):
        names = [name for name, _ in one.channel_axes]
        if names != ["C1", "C0"]:
            raise ImportingError(f"channels in the order {names}")
        return changed_by(one.response, Shuffle(groups=one.channel_axes[1][1]), {})
    return one.response


def padded(value: Value, fill: float) -> tuple[Response, Padding]:
    """A response, and the padding with a value that the next operator has to do."""
    if isinstance(value, Padded) and min(value.padding) >= 0 and (value.mode, value.value) == ("constant", fill):
        return value.response, value.padding
    return response(value), (0, 0, 0, 0)


def alike(values: Sequence[int], what: str) -> int:
    """The one number that is given for both sides."""
    if len(set(values)) != 1:
        raise ImportingError(f"{what} {list(values)}, of two kinds")
    return values[0]


def usual(kernel: int | tuple[int, int], dilation: int, padding: Padding) -> Padding | None:
    """None for the padding that operators have unless told otherwise."""
    return None if padding == padding_of(kernel, dilation) else padding


def around(padding: Sequence[int], more: Padding = (0, 0, 0, 0)) -> Padding:
    """Rows and columns on all four sides, from those in each direction, and others beside them."""
    high, wide = padding if len(padding) == 2 else (*padding, *padding)
    return high + more[0], high + more[1], wide + more[2], wide + more[3]
