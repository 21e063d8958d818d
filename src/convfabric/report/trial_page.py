"""A page in which the network of a run answers images that are dropped on it: one file, nothing leaves the browser."""

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

from convfabric.boxes.answers import LIKELY, MOST_OVERLAP
from convfabric.data.reading import SIXTEEN_BITS
from convfabric.errors import SettingError
from convfabric.exporting.int8 import INT8_FILE
from convfabric.exporting.program import carried_facts
from convfabric.fabric.archive import Passport, write_atomically
from convfabric.report.browser_runtime import VERSION, BrowserRuntime, browser_runtime, packed
from convfabric.report.pictures import shades_of
from convfabric.report.style import STYLE

PAGE = "try.html"
SCRIPT = Path(__file__).with_name("trial.js")
TRIAL_STYLE = """
main{border:2px dashed var(--line);border-radius:10px;padding:1em;background:var(--card)}
figure{margin:1em 1em 1em 0}figcaption{font-size:14px;text-align:left}
canvas{max-width:100%;height:auto;max-height:60vh;min-width:120px;border:1px solid var(--line)}
ul{list-style:none;padding:0;margin:.3em 0}li i{display:inline-block;width:.9em;height:.9em;border-radius:3px;
margin-right:.4em;vertical-align:-.1em}
"""
READ = (1, 3)
"""Channels that image files are read with."""


def write_trial(folder: Path, papers: Passport, runtime: BrowserRuntime | None = None) -> Path:
    """``try.html`` in the folder of a run, with the ONNX file that is delivered there.

    The runtime is fetched where none is given. Raises SettingError where the network reads no images as browsers do.
    """
    check_tried(papers)
    small = folder / INT8_FILE
    model = (small if small.is_file() else folder / "model.onnx").read_bytes()
    page = trial_page(folder.resolve().name, papers, model, runtime or browser_runtime())
    write_atomically(folder / PAGE, page)
    return folder / PAGE


def check_tried(papers: Passport) -> None:
    """Raises SettingError where the network reads no images as browsers do: of 8 bits, grey or in colour.

    Of images of 16 bits they show the upper eight, which is what numbers from 0 to 65535 become here as well.
    """
    channels, bounds = papers.preprocessing.channels, papers.preprocessing.bounds
    if channels not in READ or bounds != SIXTEEN_BITS:
        raise SettingError(
            "--try: browsers read images as 8 bits, grey or in colour; this network reads "
            f"{channels} channels, from {bounds[0]:g} to {bounds[1]:g}. predict.py reads them."
        )


def trial_page(name: str, papers: Passport, model: bytes, runtime: BrowserRuntime) -> str:
    """The page as HTML."""
    script = SCRIPT.read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; connect-src data: blob:; "
        f"script-src 'sha256-{digest}' blob: 'wasm-unsafe-eval'"
    )
    held = {"network": packed(model), **runtime._asdict()}
    blocks = "".join(f'<script type="text/plain" id="{part}">{text}</script>' for part, text in held.items())
    size = "×".join(map(str, papers.preprocessing.size[::-1]))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Try {escape(name)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}{TRIAL_STYLE}</style>'
        f"<h1>Try {escape(name)}</h1>"
        f'<main><p id="state" role="status">The network is being unpacked.</p><p><input id="files" type="file" '
        f'accept="image/*" multiple aria-label="Images to answer"></p></main>'
        f'<p class="note">{escape(papers.graph.head.task.capitalize())} of images of {size} pixels, '
        "prepared as predict.py prepares them; milliseconds are this browser's, one thread, by ONNX Runtime Web "
        f"{VERSION} (MIT licence).</p>"
        f'<section id="answers" aria-live="polite"></section>'
        f'<script type="application/json" id="facts">{_in_a_script(_facts(papers))}</script>{blocks}'
        f"<script>{script}</script></html>"
    )


def _facts(papers: Passport) -> dict[str, Any]:
    shades = shades_of(len(papers.classes)).tolist()
    return carried_facts(papers) | {"shades": shades, "least": LIKELY, "overlap": MOST_OVERLAP}


def _in_a_script(facts: dict[str, Any]) -> str:
    """JSON that ends no element of HTML, whatever classes are called."""
    return json.dumps(facts).replace("<", "\\u003c")
