"""Pages: no text from files becomes markup, nothing is loaded from elsewhere, and what can be touched answers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from browser import Tab, needs_browser, tab
from convfabric.pipeline.tried import trial_of
from convfabric.report.curve_page import Dot, Point, curve_page
from convfabric.report.drawing import draw
from convfabric.report.gallery import figures, gallery
from convfabric.report.pages import Drawn, page
from convfabric.report.pictures import Picture
from convfabric.report.style import STYLE, opening
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
PICTURE = Picture(source="", caption=MARKUP, width=4)
POINT = Point(**{name: filled(hint) for name, hint in get_type_hints(Point).items()})
FACTS = dict.fromkeys(ODD.edge_names, MARKUP)
DRAWN = Drawn(
    network=draw(ODD, facts=FACTS),
    curves="",
    pictures=[PICTURE],
    confusion=((3, 1), (1, 3)),
    shades=["red"],
    again=MARKUP,
    conditions=[MARKUP],
)
PAGES = {
    "report": lambda: page(record(), DRAWN),
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
    assert made.count("<h1>") == (kind != "drawing")
    assert made.count("<script") == made.count("</script>") == {"curve": 2, "report": 1}.get(kind, 0)


def test_pages_say_that_nothing_else_may_run() -> None:
    assert "script-src 'none'" in opening("a", STYLE)
    assert "script-src 'sha256-" in opening("a", STYLE, "show()")
    assert "default-src 'none'" in PAGES["curve"]()


DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
ERRORS = [Picture(source=DOT, caption="error", width=112, mistake=mistake) for mistake in ((0, 1), (0, 1), (1, 0))]
MASKED = Picture(source=DOT, caption="masks", width=480, above=(DOT, DOT))
ANY_WINDOW = pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
BEYOND = "document.documentElement.scrollWidth - window.innerWidth"
SHOWN = "document.querySelectorAll('figure:not([hidden])').length"
OPACITY = "[...document.querySelectorAll('.layer')].map((layer) => getComputedStyle(layer).opacity)"
PALE_EDGES = "[...document.querySelectorAll('#network path')].filter((edge) => edge.style.opacity === '0.45').length"
LIGHT = "getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'"


@contextmanager
def opened(made: str, folder: Path, width: int, dark: bool = False) -> Iterator[Tab]:
    (folder / "page.html").write_text(made, "utf-8")
    with tab(folder / "page.html", width, dark) as shown:
        yield shown


def slid(shown: Tab, dial: str, to: int) -> None:
    found = f"const dial = document.getElementById('{dial}'); dial.value = {to};"
    shown.run(f"{{ {found} dial.dispatchEvent(new Event('input')); }}")


@needs_browser
@ANY_WINDOW
def test_mistakes_and_edges_answer_to_touch_and_nothing_is_wider_than_the_window(
    width: int, dark: bool, tmp_path: Path
) -> None:
    facts = dict.fromkeys(GRAPH.edge_names, "an edge " * 30)
    drawn = replace(DRAWN, network=draw(GRAPH, facts=facts), pictures=ERRORS, confusion=((3, 2), (1, 3)))
    with opened(page(record(), drawn), tmp_path, width, dark) as shown:
        assert shown.run(LIGHT) != dark
        touch = "document.querySelector('.mistake').click()"
        assert shown.run(SHOWN) == 3
        shown.run(touch)
        assert shown.run(SHOWN) == 2
        assert shown.run("document.querySelector('.mistake').getAttribute('aria-pressed')") == "true"
        assert shown.run("document.getElementById('filtered').textContent").startswith("2 of 3 pictures: ")
        shown.run(touch)
        assert shown.run(SHOWN) == 3
        shown.run("document.querySelector('.hit').focus()")
        assert shown.run("document.getElementById('about').textContent").startswith("an edge an edge")
        assert shown.run(BEYOND) <= 0


@needs_browser
@ANY_WINDOW
def test_masks_are_laid_over_images(width: int, dark: bool, tmp_path: Path) -> None:
    many = replace(record(), data=replace(record().done("data").data, task="segmentation"))  # type: ignore[type-var]
    drawn = replace(DRAWN, pictures=[MASKED], confusion=())
    with opened(page(many, drawn), tmp_path, width, dark) as shown:
        for at, wanted in enumerate([["0", "0"], ["0.7", "0"], ["0", "0.7"]]):
            slid(shown, "dial", at)
            assert shown.run(OPACITY) == wanted
        assert shown.run(BEYOND) <= 0


@needs_browser
@ANY_WINDOW
def test_the_slider_of_a_curve_shows_what_is_kept_for_each_budget(width: int, dark: bool, tmp_path: Path) -> None:
    some = sorted(GRAPH.edge_names)[:2]
    points = [replace(POINT, name=f"budget {at}", edges=tuple(some[:at])) for at in (0, 1, 2)]
    dots = [Dot(name="another", milliseconds=1.0, score=0.5)]
    part = GRAPH.restrict(GRAPH.edge_names - {some[0]})
    tried = [trial_of(GRAPH, part, 0.25, 0.5), trial_of(GRAPH, GRAPH, 0.5, 0.75)]
    rows = [["name"], ["a long cell " * 20], ["b"]]
    made = curve_page("a run", "", GRAPH, points, dots, rows, ["a condition"], tried=tried)
    with opened(made, tmp_path, width, dark) as shown:
        for at in (2, 1, 0):
            slid(shown, "budget", at)
            assert shown.run("document.getElementById('said').textContent").startswith(f"budget {at}: ")
            assert shown.run(PALE_EDGES) == len(GRAPH.edges) - at
        for at, pale in ((0, len(GRAPH.edges) - len(part.edges)), (1, 0)):
            slid(shown, "tried", at)
            assert "ms predicted" in shown.run("document.getElementById('said').textContent")
            assert shown.run(PALE_EDGES) == pale
        assert shown.run(BEYOND) <= 0
