"""A page with a drawing of every family."""

from collections.abc import Iterable, Sequence
from html import escape

from convfabric.report.pictures import Picture, figure
from convfabric.report.style import STYLE, opening

Section = tuple[str, str, str]
"""A title, a line below it, and HTML."""


def gallery(sections: Iterable[Section], heading: str = "Every family is a graph on the grid") -> str:
    """One HTML file that opens offline, with a heading for each section.

    >>> "<h2>a</h2>" in gallery([("a", "about", "<svg/>")])
    True
    """
    parts = "".join(
        f'<h2>{escape(title)}</h2><p class="note">{escape(line)}</p><div class="wide">{content}</div>'
        for title, line, content in sections
    )
    style = STYLE + ".wide{overflow-x:auto}.wide svg{max-width:none}"
    return (
        opening("convfabric: gallery", style) + f"<h1>{escape(heading)}</h1>"
        '<p class="note">Layers from left to right, the finest scale on top; numbers are channels, orange nodes '
        f"concatenate, the others add.</p>{parts}</html>\n"
    )


def figures(pictures: Sequence[Picture]) -> str:
    """Pictures side by side, each with its caption.

    >>> figures([Picture(source="", caption="a", width=4)]).count("<figure>")
    1
    """
    return "".join(map(figure, pictures))
