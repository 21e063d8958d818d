"""How pages look, in light and in dark; their head and their tables."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--ink:#22303a;--soft:#566570;--line:#d7dee4;--faint:#eef2f5;--paper:#fff;--card:#f6f8fa;
--good:#1d7a46;--bad:#b3261e;--accent:#1b4965}
@media(prefers-color-scheme:dark){:root{--ink:#e3e9ee;--soft:#a3b3bf;--line:#3a4954;--faint:#27323b;--paper:#141a1f;
--card:#1c242b;--good:#6fce98;--bad:#ff9d94;--accent:#8cc4ea}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1080px;margin:2em auto;
padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;margin:.5em 0;display:block;overflow-x:auto}
td,th{padding:.25em .9em;text-align:right;border-bottom:1px solid var(--faint)}
td:first-child,th:first-child{text-align:left}.note{color:var(--soft)}
figure{display:inline-block;max-width:100%;margin:4px;text-align:center;vertical-align:top}
figcaption{font-size:12px}img{image-rendering:pixelated;border:1px solid var(--line);
max-width:100%;height:auto;box-sizing:border-box}svg{max-width:100%;height:auto}
@media(max-width:500px){td,th{padding:.25em .4em}}
.plate{background:#fff;color:#22303a;border-radius:8px;overflow-x:auto}
"""


def opening(title: str, style: str, script: str = "") -> str:
    """The head of a page that loads nothing, and runs no script but the one given.

    >>> "default-src 'none'" in opening("a < b", STYLE), "a &lt; b" in opening("a < b", STYLE)
    (True, True)
    """
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{style}</style>'
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of plain text.

    >>> table(["a"], [["<b>"]])
    '<table><tr><th scope="col">a</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    lines = ["".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
