"""A graph written down as JSON, and read back: the two are equal, unknown keys are refused."""

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from convfabric.errors import ArchiveError
from convfabric.graph.laws import check
from convfabric.graph.parts import Place
from convfabric.graph.structure import Graph
from convfabric.operators import Operator

Record = TypeVar("Record")
FORMAT = 3
"""Raised whenever what is written changes meaning. Format 2, where operators over whole maps named scales, is read."""
DROPPED = {"GlobalPool": "scales", "FullyConnected": "scales"}
"""Fields of operators that format 2 had."""


@cache
def _operator_kinds() -> dict[str, type[Operator]]:
    import convfabric.operators.catalogue  # noqa: F401 - so that every operator is known

    kinds: dict[str, type[Operator]] = {}
    fresh: list[type[Operator]] = list(Operator.__subclasses__())
    while fresh:
        kind = fresh.pop()
        fresh.extend(kind.__subclasses__())
        if dataclasses.is_dataclass(kind):
            kinds[kind.__name__] = kind
    return kinds


def written(value: object) -> Any:
    """Plain lists, dicts, numbers and strings for any record of ours.

    >>> from convfabric.operators import Conv
    >>> written(Conv(kernel=1))
    {'operator': 'Conv', 'kernel': 1, 'stride': 1, 'dilation': 1, 'groups': 1, 'bias': True, 'padding': None}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {"operator": type(value).__name__} if isinstance(value, Operator) else {}
        own = (f for f in dataclasses.fields(value) if f.init)
        return kind | {f.name: written(getattr(value, f.name)) for f in own}
    if isinstance(value, Place):
        return value._asdict()
    if isinstance(value, tuple | list):
        return [written(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): written(item) for key, item in value.items()}
    return value


def read(kind: Any, value: Any, where: str) -> Any:
    """The record of a kind that :func:`written` gave; ArchiveError names the spot that does not fit.

    >>> from convfabric.operators import Conv
    >>> read(Operator, {"operator": "Conv", "kernel": 1}, "entry")
    Conv(kernel=1, stride=1, dilation=1, groups=1, bias=True, padding=None)
    """
    if kind is Operator:
        kind, value = _operator_kind(value, where)
    if get_origin(kind) in (Union, UnionType):
        kind = _fitting(get_args(kind), value)
    if value is None and kind is NoneType:
        return None
    if dataclasses.is_dataclass(kind) or kind is Place:
        return _read_record(kind, value, where)
    if get_origin(kind) is tuple:
        return _read_tuple(get_args(kind), value, where)
    if get_origin(kind) is Mapping:
        if not isinstance(value, dict):
            raise ArchiveError(f"{where}: found {value!r}, expected names and values.")
        return {key: read(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    fits = value in get_args(kind) if get_origin(kind) is Literal else type(value) is kind
    if not (fits or (kind is float and type(value) is int)) or (kind is float and not isfinite(value)):
        raise ArchiveError(f"{where}: found {value!r}, expected {getattr(kind, '__name__', kind)}.")
    return value


def _read_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    count = None if kinds[-1] is ... else len(kinds)
    if not isinstance(value, list) or count not in (None, len(value)):
        wanted = "a list" if count is None else f"a list of {count}"
        raise ArchiveError(f"{where}: found {value!r}, expected {wanted}.")
    return tuple(read(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(value))


def _fitting(kinds: tuple[Any, ...], value: Any) -> Any:
    """Of several kinds the one that a value is written as: nothing, a list, a record or a number."""
    shape = {type(None): NoneType, list: tuple, dict: dict, int: float}.get(type(value), type(value))
    shape = type(value) if type(value) in kinds else shape
    same = (k for k in kinds if k is shape or get_origin(k) is shape or (shape is dict and dataclasses.is_dataclass(k)))
    return next(same, kinds[0])


def _operator_kind(value: Any, where: str) -> tuple[type[Operator], Any]:
    if isinstance(value, dict) and value.get("operator") not in _operator_kinds():
        _operator_kinds.cache_clear()
    if not isinstance(value, dict) or value.get("operator") not in _operator_kinds():
        known = ", ".join(sorted(_operator_kinds()))
        found = value.get("operator") if isinstance(value, dict) else value
        raise ArchiveError(
            f"{where}: found operator {found!r}, known are {known}. Import the module of your own ones first."
        )
    return _operator_kinds()[value["operator"]], {k: v for k, v in value.items() if k != "operator"}


def _read_record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ArchiveError(f"{where}: found {value!r}, expected the fields of {kind.__name__}.")
    hints = get_type_hints(kind)
    fields = kind._fields if kind is Place else (field.name for field in dataclasses.fields(kind) if field.init)
    names = set(fields)
    if unknown := sorted(set(value) - names):
        raise ArchiveError(
            f"{where}: unknown key {', '.join(unknown)}; {kind.__name__} has {', '.join(sorted(names))}."
        )
    needed = () if kind is Place else dataclasses.fields(kind)
    if missing := [part.name for part in needed if _required(part) and part.name not in value]:
        raise ArchiveError(f"{where}: {', '.join(missing)} missing; {kind.__name__} has {', '.join(sorted(names))}.")
    try:
        return kind(**{name: read(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    except (TypeError, ValueError) as fault:
        if isinstance(fault, ArchiveError):
            raise
        raise ArchiveError(f"{where}: {fault}") from None


def _required(part: "dataclasses.Field[Any]") -> bool:
    return part.init and part.default is part.default_factory is dataclasses.MISSING


def to_text(value: object) -> str:
    """A record of ours as JSON text, with the number of the format.

    >>> from convfabric.operators import Relu
    >>> from_text(Operator, to_text(Relu()), "an operator")
    Relu()
    """
    return json.dumps({"format": FORMAT} | written(value), indent=1)


def from_text(kind: type[Record], text: str, where: str) -> Record:
    """The record that :func:`to_text` wrote; ArchiveError says what does not fit, and where.

    >>> from convfabric.graph.parts import Place
    >>> from_text(Place, '{"format": 3, "layer": 1, "scale": 0}', "a place")
    Place(layer=1, scale=0, lane=0)
    """
    document = parsed(text, where)
    if not isinstance(document, dict) or document.get("format") not in (2, FORMAT):
        found = document.get("format") if isinstance(document, dict) else document
        raise ArchiveError(f"{where}: found format {found!r}, this version reads {FORMAT} and 2.")
    document = document if document["format"] == FORMAT else _from_format_2(document)
    record: Record = read(kind, {key: value for key, value in document.items() if key != "format"}, where)
    return record


def parsed(text: str, where: str) -> Any:
    """A JSON document; ArchiveError for text that is none, numbers that are none, and what is too deep or too long.

    >>> parsed('{"format": 3}', "a record")
    {'format': 3}
    """

    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no number")

    try:
        return json.loads(text, parse_constant=refused)
    except RecursionError:
        raise ArchiveError(f"{where}: nested too deep.") from None
    except ValueError as fault:
        raise ArchiveError(f"{where}: not JSON ({fault}).") from None


def text_of(file: Path) -> str:
    """The text of one of our files; ArchiveError where it cannot be read.

    >>> text_of(Path("no/such/file"))
    Traceback (most recent call last):
        ...
    convfabric.errors.ArchiveError: no/such/file: no such file.
    """
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        raise ArchiveError(f"{file}: no such file.") from None
    except UnicodeDecodeError as fault:
        raise ArchiveError(f"{file}: not in UTF-8 ({fault}).") from None
    except OSError as fault:
        raise ArchiveError(f"{file}: cannot be read ({fault.strerror or fault}).") from None


def _from_format_2(value: Any) -> Any:
    """A document of format 2 as this format writes it."""
    if isinstance(value, list):
        return [_from_format_2(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = DROPPED.get(str(value.get("operator")))
    return {key: _from_format_2(item) for key, item in value.items() if key != dropped}


def graph_to_json(graph: Graph) -> str:
    """The graph as JSON text.

    >>> from convfabric.weavers import weave
    >>> graph_from_json(graph_to_json(weave("resnet"))) == weave("resnet")
    True
    """
    return to_text(graph)


def graph_from_json(text: str, where: str = "graph") -> Graph:
    """The graph that :func:`graph_to_json` wrote, checked against every law.

    Raises ArchiveError for text that is not such a graph, GraphError for one that breaks a law.

    >>> from convfabric.weavers import Trellis, weave_trellis
    >>> graph = weave_trellis(Trellis(layers=2, scales=2, channels=4, operators="block"))
    >>> graph_from_json(graph_to_json(graph)) == graph
    True
    """
    return check(from_text(Graph, text, where))
