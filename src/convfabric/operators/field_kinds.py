"""Whether the fields of a record hold what their annotations say."""

import math
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def misfits(record: Any) -> Iterator[str]:
    """For each field of a frozen dataclass that holds something of another kind, its name, value and kind.

    >>> from convfabric.operators import Pool
    >>> pool = Pool()
    >>> object.__setattr__(pool, "kind", "mean")
    >>> list(misfits(pool))
    ["kind='mean' is none of max, average, sum"]
    """
    of: Any = type(record)
    for name, kind in _kinds(of).items():
        if not _fits(kind, value := getattr(record, name)):
            yield f"{name}={value!r} is {_said(kind)}"


@cache
def _kinds(record: Any) -> dict[str, Any]:
    hints = get_type_hints(record)
    return {name: hints[name] for name, field in record.__dataclass_fields__.items() if field.init}


def _fits(kind: Any, value: Any) -> bool:
    kinds, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(one, value) for one in kinds)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in kinds)
    if origin is tuple:
        each = kinds[:1] * len(value) if isinstance(value, tuple) and kinds[-1] is ... else kinds
        return isinstance(value, tuple) and len(value) == len(each) and all(map(_fits, each, value))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind if kind in (int, bool, str, NoneType) else isinstance(value, kind)


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "none of " + ", ".join(map(str, get_args(kind)))
    names = [getattr(one, "__name__", str(one)) if not get_args(one) else str(one) for one in _parts(kind)]
    return "not " + " or ".join(names).replace("NoneType", "None")


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
