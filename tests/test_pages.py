"""No text from files becomes markup in a page, and no page loads or runs anything from elsewhere."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from convfabric.report.curve_page import Dot, Point, curve_page
from convfabric.report.drawing import draw
from convfabric.report.gallery import figures, gallery
from convfabric.report.pages import STYLE, Picture, opening, page
from convfabric.runs.record import RunRecord
from convfabric.weavers import weave

MARKUP = "</script></title></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def filled(kind: Any) -> Any:
    """A value of a kind in which every text is markup."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is tuple:
        parts = [part for part in get_args(kind) if part is not ...]
        return tuple(filled(part) for part in (parts * 2 if ... in get_args(kind) else parts))
    if get_origin(kind) is Mapping:
        return {filled(get_args(kind)[0]): filled(get_args(kind)[1])}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{part.name: filled(hints[part.name]) for part in fields(kind) if part.init})
    return {str: MARKUP, int: 1, float: 0.5, bool: True}[kind]


def record() -> RunRecord:
    found: RunRecord = filled_parts()
    return found


def filled_parts() -> Any:
    hints = get_type_hints(RunRecord)
    cut = get_type_hints(RunRecord)["cut"]
    made = {name: filled(hint) for name, hint in hints.items() if name != "cut"}
    kind = next(part for part in get_args(cut) if part is not NoneType)
    own = get_type_hints(kind)
    made["cut"] = kind(
        **{p.name: filled(own[p.name]) for p in fields(kind) if p.name != "ceilings"}, ceilings={"macs": 1.0}
    )
    made["data"] = replace(made["data"], images={"train": 1, "val": 1, "test": 1}, scored_split="test")
    return RunRecord(**made)


GRAPH = weave("fabric-tiny", size=(8, 8))
ODD = replace(GRAPH, name=MARKUP, heads=(replace(GRAPH.head, name=MARKUP),))
PICTURE = Picture(png_base64="", caption=MARKUP, width=4)
POINT = Point(**{name: filled(hint) for name, hint in get_type_hints(Point).items()})
PAGES = {
    "report": lambda: page(record(), draw(ODD), "", [PICTURE], [MARKUP], exits=""),
    "curve": lambda: curve_page(
        MARKUP, MARKUP, ODD, [POINT, POINT], [Dot(name=MARKUP, milliseconds=1.0, score=0.5)], [[MARKUP]] * 3, [MARKUP]
    ),
    "gallery": lambda: gallery([(MARKUP, MARKUP, draw(ODD) + figures([PICTURE]))]),
    "drawing": lambda: draw(ODD),
}


@pytest.mark.parametrize("kind", PAGES)
def test_markup_in_any_field_is_text(kind: str) -> None:
    made = PAGES[kind]()
    assert "alert" in made
    assert "<script>alert" not in made
    assert "<img src=x" not in made
    assert made.count("<script") == made.count("</script>") == (2 if kind == "curve" else 0)


def test_pages_say_that_nothing_else_may_run() -> None:
    assert "script-src 'none'" in opening("a", STYLE)
    assert "script-src 'sha256-" in opening("a", STYLE, "show()")
    assert "default-src 'none'" in PAGES["curve"]()
