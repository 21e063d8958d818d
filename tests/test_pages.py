"""Pages: no text from files becomes markup, nothing is loaded from elsewhere, and what can be touched answers."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

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


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
ERRORS = [Picture(source=DOT, caption="error", width=112, mistake=mistake) for mistake in ((0, 1), (0, 1), (1, 0))]
MASKED = Picture(source=DOT, caption="masks", width=480, above=(DOT, DOT))
TOUCH = """{
const figures=()=>document.querySelectorAll('figure:not([hidden])').length,found={all:figures()};
const [button,edge]=['.mistake','.hit'].map((what)=>document.querySelector(what)),dial=document.getElementById('dial');
if(button){button.click();found.some=figures();found.said=document.getElementById('filtered').textContent;
 found.pressed=button.getAttribute('aria-pressed');button.click();found.again=figures();}
const opacity=(layer)=>getComputedStyle(layer).opacity;
if(dial)for(const at of [0,1,2]){dial.value=at;dial.dispatchEvent(new Event('input'));
 found[at]=[...document.querySelectorAll('.layer')].map(opacity);}
edge.focus();found.edge=document.getElementById('about').textContent;
found.wide=document.documentElement.scrollWidth-window.innerWidth;
const said=document.createElement('pre');said.id='found';said.textContent=JSON.stringify(found);
document.body.append(said);
}"""


def driven(page_: str, width: int, folder: Path) -> dict[str, Any]:
    """What a browser of some width finds when it touches a page; the page's own rule lets no such script run."""
    file = folder / "page.html"
    open_ = re.sub(r"<meta http-equiv=.Content-Security-Policy[^>]*>", "", page_)
    file.write_text(open_.replace("</html>", f"<script>{TOUCH}</script></html>"), "utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom", file.as_uri()]
    shown = subprocess.run([str(BROWSER), *words], check=True, capture_output=True, text=True, timeout=120).stdout
    [said] = re.findall(r'<pre id="found">(.*?)</pre>', shown)
    return dict(json.loads(html.unescape(said)))


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_mistakes_masks_and_edges_answer_to_touch_and_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    facts = dict.fromkeys(GRAPH.edge_names, "an edge " * 30)
    drawn = replace(DRAWN, network=draw(GRAPH, facts=facts), pictures=ERRORS, confusion=((3, 2), (1, 3)))
    found = driven(page(record(), drawn), 390, tmp_path)
    assert (found["all"], found["some"], found["again"]) == (3, 2, 3)
    assert found["pressed"] == "true"
    assert found["said"].startswith("2 of 3 pictures: ")
    assert found["edge"].startswith("an edge an edge")
    assert found["wide"] <= 0
    many = replace(record(), data=replace(record().done("data").data, task="segmentation"))  # type: ignore[type-var]
    masks = driven(page(many, replace(drawn, pictures=[MASKED], confusion=())), 390, tmp_path)
    assert [masks[str(at)] for at in range(3)] == [["0", "0"], ["0.7", "0"], ["0", "0.7"]]
    assert masks["wide"] <= 0
