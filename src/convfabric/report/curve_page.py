"""The page of a curve: what networks of one fabric answer and take, and a slider that shows which edges go."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from convfabric.graph import Graph
from convfabric.report.drawing import DARK, DEAD, LIVE, PALE, draw
from convfabric.report.style import STYLE, opening, table

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 54, 20, 14, 46
OTHERS = "#e07a3f"
FEW, MANY = (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One network of the curve."""

    name: str
    """The budget requested, such as 2 ms."""
    milliseconds: float
    """Measured."""
    measured: str
    """How."""
    score: float
    """Accuracy or mIoU from 0 to 1."""
    about: str
    """One line: costs, and how it came to be."""
    edges: tuple[str, ...]
    """Names of those that stay."""
    channels: Mapping[str, int]
    """By the names of the places that stay."""
    error: float = 0.0
    """Standard error of the score; 0 where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A network of another kind, to compare."""

    name: str
    milliseconds: float
    score: float


class Trial(NamedTuple):
    """A sub-network that the search tried, with the weights it inherited."""

    milliseconds: float
    """Predicted."""
    fitness: float
    """On a part of the validation images: accuracy or mIoU, less a share of the loss."""
    edges: str
    """1 for each edge of the fabric that stays, in its order, else 0."""
    channels: tuple[int, ...]
    """Of each node of the fabric, in its order; 0 where it goes."""


def curve_page(
    title: str,
    figure: str,
    whole: Graph,
    points: Sequence[Point],
    dots: Sequence[Dot],
    rows: Sequence[Sequence[str]],
    conditions: Sequence[str],
    note: str = "",
    tried: Sequence[Trial] = (),
) -> str:
    """One HTML file that opens offline.

    ``figure`` names the score, ``note`` says what it was taken on, ``rows`` begin with their heading.
    """
    chosen = len(points) // 2
    order = {"edges": [edge.name for edge in whole.edges], "nodes": [str(node.place) for node in whole.nodes]}
    known = {"points": [asdict(point) for point in points], "tried": tried, **order}
    facts = json.dumps(known).replace("<", "\\u003c")
    listed = "".join(f"<li>{escape(line)}</li>" for line in conditions)
    return (
        opening(f"{title}: curve", STYLE + _STYLE, _SCRIPT)
        + f"<h1>{escape(title)}: {len(points)} network{'s' * (len(points) > 1)} from one training</h1>"
        f'<p class="note">{escape(note)}</p><div class="chart plate">{chart(points, dots, figure)}</div>'
        f'<p class="pick"><label for="budget">Budget</label><input id="budget" type="range" min="0" '
        f'max="{len(points) - 1}" step="1" value="{chosen}">{_tried_slider(len(tried))}'
        '<output id="said" for="budget"></output></p>'
        f'<div class="wide plate" id="network">{draw(whole)}</div>'
        '<p class="note">Layers from left to right, the finest scale on top, channels in the nodes. Dark edges are in '
        "the network that is shown, pale ones are not.</p>"
        f'<h2>All networks</h2><div class="wide">{table(rows[0], rows[1:])}</div>'
        f"<h2>Conditions</h2><ul>{listed}</ul>"
        f'<script type="application/json" id="facts">{facts}</script><script>{_SCRIPT}</script></html>\n'
    )


def _tried_slider(count: int) -> str:
    """A slider over what was tried, where something was."""
    if not count:
        return ""
    return (
        f'<label for="tried">{count} tried by the search</label>'
        f'<input id="tried" type="range" min="0" max="{count - 1}" step="1" value="{count - 1}">'
    )


def chart(points: Sequence[Point], dots: Sequence[Dot], figure: str) -> str:
    """Score against milliseconds on a logarithmic axis: ours joined, others as dots with their names, as SVG.

    >>> dots = [Dot(name=name, milliseconds=ms, score=0.9) for name, ms in (("one", 0.5), ("other", 1.0))]
    >>> chart([], dots, "test accuracy").count("<circle")
    2
    """
    every: list[Point | Dot] = [*points, *dots]
    times = [one.milliseconds for one in every]
    errors = [(point.score, way * point.error) for point in points for way in (-1, 1)]
    scores = [*(100 * one.score for one in every), *(100 * (score + error) for score, error in errors)]
    low, high = log10(min(times)) - 0.08, log10(max(times)) + 0.08
    step = _nice((max(scores) - min(scores)) / 4 or 1.0)
    floor_, ceiling = step * floor(min(scores) / step), step * ceil(max(scores) / step + 0.2)

    def x(milliseconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (log10(milliseconds) - low) / (high - low)

    def y(percent: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (percent - floor_) / (ceiling - floor_)

    steps = FEW if high - low > 1 else MANY
    ticks = [round(s * 10.0**power, 9) for power in range(floor(low), ceil(high) + 1) for s in steps]
    across = [t for t in ticks if low <= log10(t) <= high]
    up = [floor_ + step * i for i in range(round((ceiling - floor_) / step) + 1)]
    spots = sorted((x(point.milliseconds), y(100 * point.score)) for point in points)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in spots)
    shapes = [
        *(_tick(x(t), HEIGHT - BOTTOM + 16, f"{t:g}", x(t), TOP, x(t), HEIGHT - BOTTOM, "middle") for t in across),
        *(_tick(LEFT - 8, y(t) + 4, f"{t:g}", LEFT, y(t), WIDTH - RIGHT, y(t), "end") for t in up),
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">measured milliseconds per image</text>',
        f'<text transform="translate(14 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">{escape(figure)}, %</text>',
        f'<polyline points="{line}" fill="none" stroke="{DARK}" stroke-width="2"/>',
        *(
            f'<path d="M{x(p.milliseconds):.1f} {y(100 * (p.score - p.error)):.1f}V{y(100 * (p.score + p.error)):.1f}" '
            f'stroke="{DARK}" opacity="0.5"/>'
            for p in points
            if p.error
        ),
        *(_dot(x(dot.milliseconds), y(100 * dot.score), dot.name, WIDTH) for dot in dots),
        *(
            f'<circle class="point" data-at="{i}" cx="{x(p.milliseconds):.1f}" cy="{y(100 * p.score):.1f}" r="5" '
            f'fill="{LIVE}" stroke="{DARK}"><title>{escape(p.name)}: {100 * p.score:.2f} %</title></circle>'
            for i, p in enumerate(points)
        ),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(figure)} against milliseconds</title>'
        + "".join(shapes)
        + "</svg>"
    )


def _nice(rough: float) -> float:
    """The next of 1, 2, 5, 10, ... times a power of ten.

    >>> _nice(0.3), _nice(7)
    (0.5, 10.0)
    """
    power = float(10 ** floor(log10(rough)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)


def _tick(at: float, below: float, said: str, x1: float, y1: float, x2: float, y2: float, anchor: str) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{DEAD}"/>'
        f'<text x="{at:.1f}" y="{below:.1f}" text-anchor="{anchor}" fill="#5c6b76">{said}</text>'
    )


def _dot(x: float, y: float, name: str, width: float) -> str:
    left = x > 0.75 * width
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{OTHERS}"/><text x="{x - 7 if left else x + 7:.1f}" '
        f'y="{y + 4:.1f}" text-anchor="{"end" if left else "start"}" fill="{OTHERS}">{escape(name)}</text>'
    )


_STYLE = """
.wide{overflow-x:auto}.pick{display:flex;flex-wrap:wrap;gap:.4em 1em;align-items:center;position:sticky;top:0;
background:var(--paper);padding:.5em 0;margin:0;border-bottom:1px solid var(--line)}
.chart>svg,.wide>svg{width:100%;height:auto}.chart>svg{display:block;max-width:760px;margin:auto}
#network svg{min-width:520px}
.pick input{flex:1 1 200px;min-width:0}
.pick output{flex:1 1 100%;min-height:3em}.point{cursor:pointer}td,th{padding:.25em .5em}th{vertical-align:bottom}
td{white-space:nowrap}td:first-child{white-space:normal;min-width:9em}
#network path,#network circle{transition:stroke .2s,fill .2s,opacity .2s}
"""
_SCRIPT = f"""
const facts=JSON.parse(document.getElementById('facts').textContent);
const all=(what)=>document.querySelectorAll(what),place=(id)=>document.getElementById(id);
const slider=place('budget'),tried=place('tried');
function shown(edges,channels,at,said){{
 const kept=new Set(edges);
 document.querySelector('#network title').textContent=kept.size+' of '+all('#network path').length+' edges kept';
 for(const path of all('#network path')){{const stays=kept.has(path.dataset.edge);
  path.style.stroke=stays?'{DARK}':'{PALE}';path.style.opacity=stays?.85:.45;}}
 for(const circle of all('#network circle')){{const there=channels[circle.dataset.place];
  circle.style.fill=there?'{LIVE}':'{DEAD}';circle.style.stroke=there?'{DARK}':'{PALE}';
  circle.nextElementSibling.textContent=there||'';}}
 for(const dot of all('.point'))dot.setAttribute('r',Number(dot.dataset.at)===at?9:5);
 place('said').textContent=said;
}}
function show(){{
 const at=Number(slider.value),point=facts.points[at];
 shown(point.edges,point.channels,at,point.name+': '+(100*point.score).toFixed(2)+' % in '
  +point.milliseconds.toFixed(3)+' ms; '+point.about);
}}
function showTried(){{
 const [milliseconds,fitness,bits,counts]=facts.tried[tried.value],channels={{}};
 facts.nodes.forEach((name,i)=>{{channels[name]=counts[i];}});
 const edges=facts.edges.filter((_,i)=>bits[i]==='1');
 shown(edges,channels,-1,'Tried with inherited weights: fitness '+fitness.toFixed(3)+' (validation, less a share of '
  +'the loss), '+milliseconds.toFixed(3)+' ms predicted, '+edges.length+' edges');
}}
slider.addEventListener('input',show);
if(tried)for(const kind of ['input','focus'])tried.addEventListener(kind,showTried);
for(const dot of all('.point'))dot.addEventListener('click',()=>{{slider.value=dot.dataset.at;show();}});
show();
"""
