"""Every setting with its default, the values it takes and what it says, read from the records that hold them."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convfabric.operators import Size
from convfabric.runs.job import SECTIONS
from convfabric.setting_values import OTHER_NAMES
from convfabric.weavers import FAMILIES

TITLES: Mapping[str, str] = MappingProxyType(
    {"options": "data", "recipe": "training", "budget": "budget", "procedure": "search, fine-tuning and export"}
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting."""

    name: str
    part: str
    """Data, training, budget, the stages after, or the family of networks that it is a number of."""
    default: Any
    kind: str
    """What values it takes, in words."""
    about: str

    @property
    def said_default(self) -> str:
        """The default as it is typed; a dash where it follows from something else."""
        if self.default is None:
            return "-"
        if isinstance(self.default, tuple):
            return f"[{','.join(map(str, self.default))}]"
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    @property
    def brief(self) -> str:
        """The first sentence, or where that tells of one value of several the values."""
        first = re.split(r"(?<!al)\. ", self.about)[0].rstrip(".")
        return self.kind if first.startswith(re.split(", | or ", self.kind)[0]) else first


def meant_by(name: str) -> str:
    """Suggestion for a name that no setting has.

    >>> meant_by("batch_size"), meant_by("epoch")
    ('Did you mean batch?', 'Did you mean epochs?')
    """
    names = [one.name for one in every_setting()]
    near = [OTHER_NAMES.get(name.lower(), ""), *get_close_matches(name, names, n=1)]
    return next((f"Did you mean {one}?" for one in near if one), "convfabric settings lists all.")


def every_setting() -> Iterator[Setting]:
    """All settings: those of every job, then those of each family of networks.

    >>> next(one for one in every_setting() if one.name == "momentum").about
    'Of sgd: share of the step before that a step adds.'
    """
    for section, record in SECTIONS.items():
        yield from settings_in(record, TITLES[section])
    for name, family in FAMILIES.items():
        yield from settings_in(family.numbers, f"numbers of {name}")


def settings_in(record: type, part: str) -> Iterator[Setting]:
    """The fields of a dataclass with the text below each.

    >>> from convfabric.weavers import Trellis
    >>> [(one.default, one.kind) for one in settings_in(Trellis, "numbers of trellis")][:2]
    [(8, 'whole number'), (6, 'whole number')]
    """
    [body] = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(body, ast.ClassDef)
    texts, last = dict[str, str](), ""
    for line in body.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            last = line.target.id
        elif last and isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            texts[last] = inspect.cleandoc(str(line.value.value)).replace("\n", " ")
            last = ""
        else:
            last = ""
    hints = get_type_hints(record)
    for field in fields(record):
        default = field.default if field.default is not MISSING else None
        about = texts.get(field.name, "")
        yield Setting(name=field.name, part=part, default=default, kind=said_kind(hints[field.name]), about=about)


def said_kind(hint: Any) -> str:
    """The values that an annotation lets a setting have, in words.

    >>> said_kind(float | None), said_kind(tuple[int, ...]), said_kind(Literal["a", "b"])
    ('number', 'list of whole numbers', 'a or b')
    """
    if hint == Size:
        return "WIDTHxHEIGHT in pixels"
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(said_kind(kind) for kind in kinds)
    if get_origin(hint) is Literal:
        *others, last = map(str, kinds)
        return f"{', '.join(others)} or {last}" if others else last
    if get_origin(hint) is tuple:
        return f"list of {said_kind(kinds[0])}s"
    if get_origin(hint) is Mapping:
        return f"{said_kind(kinds[1])}s by name"
    if is_dataclass(hint):
        return str(getattr(hint, "__name__", hint))
    return {float: "number", int: "whole number", bool: "true or false", str: "text"}.get(hint, str(hint))
