"""The page of a run: one HTML file that opens offline."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from convfabric.evaluation.baseline import said_beside
from convfabric.evaluation.exit_thresholds import Exits
from convfabric.evaluation.scoring import HEADLINES, Score
from convfabric.runs.record import (
    CutRecord,
    DataRecord,
    ExportRecord,
    NetworkRecord,
    RunRecord,
    TuningRecord,
)

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#22303a;max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #d7dee4}
table{border-collapse:collapse;margin:.5em 0;display:block;overflow-x:auto}
td,th{padding:.25em .9em;text-align:right;border-bottom:1px solid #eef2f5}
td:first-child,th:first-child{text-align:left}.note{color:#5c6b76}
figure{display:inline-block;max-width:100%;margin:4px;text-align:center}
figcaption{font-size:11px}img{image-rendering:pixelated;border:1px solid #d7dee4;
max-width:100%;height:auto;box-sizing:border-box}svg{max-width:100%;height:auto}
"""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image for the page, with what is said under it."""

    png_base64: str
    caption: str
    width: int
    """Pixels on the screen."""


def page(
    record: RunRecord,
    drawing: str,
    curves: str,
    pictures: Sequence[Picture],
    conditions: Sequence[str],
    exits: str = "",
) -> str:
    """The whole page, from the record of a finished run and what was drawn of it."""
    data, fabric, cut, network, tuning, exported = parts_of(record)
    sections = (
        _headline(record),
        _section("Scores", _scores(data, fabric, network, tuning, exported)),
        _exits(record.exits, exits),
        _section("Costs", _costs(data, fabric, cut, network, exported)),
        _section("The fabric, and what is left of it", drawing + _DRAWING_NOTE),
        _section("Training", _beginning(record) + curves),
        _section(
            _pictures_title(data, network, len(pictures)),
            _class_table(data, fabric, network) + "".join(map(figure, pictures)),
        ),
        _section("Conditions", _list([*data.notes, *conditions])),
    )
    return f"{opening(f'{data.name}: convfabric', STYLE)}{''.join(sections)}</html>\n"


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


Parts = tuple[DataRecord, NetworkRecord, CutRecord, NetworkRecord, TuningRecord, ExportRecord]


def parts_of(record: RunRecord) -> Parts:
    """Data, fabric, cut, network, tuning and exported files of a finished run; ArchiveError where one is missing."""
    record.done("data", "fabric", "cut", "network", "tuning", "exported")
    parts: Any = (record.data, record.fabric, record.cut, record.network, record.tuning, record.exported)
    found: Parts = parts
    return found


_DRAWING_NOTE = (
    '<p class="note">Layers from left to right, the finest scale on top, channels in the nodes. Dark edges are kept, '
    "the wider the more they are worth (by rank); pale ones were cut.</p>"
)


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table of plain text.

    >>> table(["a"], [["<b>"]])
    '<table><tr><th>a</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def figure_name(data: DataRecord) -> str:
    """The name of the score that networks of a run are compared by, with its split.

    >>> facts = {"classes": (), "images": {}, "size": (8, 8), "channels": 1, "digest": "", "notes": ()}
    >>> figure_name(DataRecord(name="a", task="classification", scored_split="val", **facts))
    'val accuracy'
    """
    return f"{data.scored_split} {HEADLINES[data.task]}"


def said_share(score: Score) -> str:
    """The headline of a score, in percent.

    >>> said_share(Score(images=8, loss=0.5, accuracy=0.9812, miou=None, class_iou=()))
    '98.12 %'
    """
    return f"{100 * score.headline:.2f} %"


def said_figure(score: Score) -> str:
    """As :func:`said_share`, with what it is where that is not the share of right answers.

    >>> said_figure(Score(images=8, loss=0.5, accuracy=0.9, miou=0.5, class_iou=(0.6, 0.4)))
    '50.00 % mIoU, 90.00 % of pixels right'
    """
    if score.ap50 is not None:
        return f"{said_share(score)} AP50, {100 * score.accuracy:.2f} % of boxes surely found"
    pixels = "" if score.miou is None else f" mIoU, {100 * score.accuracy:.2f} % of pixels right"
    return said_share(score) + pixels


def said_tuning(tuning: TuningRecord) -> str:
    """Whether fine-tuned weights were kept, in words.

    >>> score = Score(images=8, loss=0.5, accuracy=0.98, miou=None, class_iou=())
    >>> said_tuning(TuningRecord(after_pruning=score, after_recalibration=score, fine_tuned=True))
    'fine-tuned'
    """
    return "fine-tuned" if tuning.fine_tuned else "not fine-tuned"


def _headline(record: RunRecord) -> str:
    data, fabric, cut, network, _, exported = parts_of(record)
    lines = [
        f"{figure_name(data)} {said_share(record.delivered or network.score)} at {said_macs(network.macs)}, "
        f"{network.macs / fabric.macs:.0%} of the fabric's; {exported.latency.median_ms:.3f} ms.",
        f"Budget: {cut.requested}.",
        *([f"{said_beside(record.delivered or network.score)}."] if network.score.recall else []),
        *(f"Doubtful: {doubt}." for doubt in record.doubts),
    ]
    return f"<h1>{escape(data.name)}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines)


def _scores(
    data: DataRecord, fabric: NetworkRecord, network: NetworkRecord, tuning: TuningRecord, exported: ExportRecord
) -> str:
    stages: tuple[tuple[str, Score], ...] = (
        ("fabric", fabric.score),
        ("after pruning", tuning.after_pruning),
        ("after batch-norm recalibration", tuning.after_recalibration),
        (said_tuning(tuning), network.score),
    )
    stages += (("in int8", exported.int8.score),) if exported.int8 else ()
    rows = [[name, said_share(score), f"{score.loss:.4f}", str(score.images)] for name, score in stages]
    return table(["network", figure_name(data), "loss (nats)", "images"], rows)


def said_macs(macs: int) -> str:
    """Multiply-accumulates per image with their unit.

    >>> said_macs(1_860_168)
    '1.86 M MACs'
    """
    return f"{macs / 1e6:.2f} M MACs"


def exit_rows(exits: Exits) -> list[list[str]]:
    """Of each exit, and of stopping where the recommended thresholds say: name, score, cost, share that leaves there.

    >>> from convfabric.evaluation.exit_thresholds import Exit
    >>> exit_rows(Exits(split="test", each=(Exit(name="exit1", score=0.5, macs=2_000_000),)))
    [['exit1', '50.00 %', '2.00 M MACs', '']]
    """
    best = exits.recommended
    shares = [f"{share:.0%}" for share in best.shares] if best else [""] * len(exits.each)
    rows = [
        [exit_.name, f"{100 * exit_.score:.2f} %", said_macs(exit_.macs), share]
        for exit_, share in zip(exits.each, shares, strict=True)
    ]
    if best:
        rows.append(["early", f"{100 * best.accuracy:.2f} %", f"{best.macs / 1e6:.2f} M MACs, mean", "100%"])
    return rows


def _exits(exits: Exits | None, drawn: str) -> str:
    if exits is None:
        return ""
    note = (
        '<p class="note">Costs are of an image that leaves there, all work before it included. Early: an image leaves '
        "at the first exit confident enough; thresholds were chosen on val.</p>"
    )
    kind = "accuracy" if exits.recommended else "mIoU"
    head = ["exit", f"{exits.split} {kind}", "cost", "leave early"]
    return _section("Exits", table(head, exit_rows(exits)) + note + drawn)


def _beginning(record: RunRecord) -> str:
    """The network of others that training began with, its weights and their licence; trainings that were given up."""
    said = [f"{name}: {value}" for name, value in record.begun_with.items()]
    others = f"<p>It began with a network of others.</p>{_list(said)}" if said else ""
    return others + (_list(record.given_up) if record.given_up else "")


def _costs(
    data: DataRecord, fabric: NetworkRecord, cut: CutRecord, network: NetworkRecord, exported: ExportRecord
) -> str:
    rows = [
        _row("edges", fabric.edges, network.edges, 1, ""),
        _row("MACs per image", fabric.macs, network.macs, 1e6, "M"),
        _row("parameters", fabric.parameters, network.parameters, 1e3, "k"),
        _row("activations per image", fabric.activation_bytes, network.activation_bytes, 1e3, "kB"),
        _row("peak memory", fabric.peak_bytes, network.peak_bytes, 1e6, "MB"),
    ]
    height, width = network.size or data.size
    lines = [
        f"model.onnx: {exported.onnx_bytes / 1e3:.0f} kB; logits differ from the network's by at most "
        f"{exported.largest_difference:.1e}.",
        f"Predicted latency {cut.predicted_ms:.3f} ms (predictions were {cut.prediction_error:.0%} off, median "
        f"over the networks measured), measured {exported.latency}.",
        *_int8_lines(exported),
        f"Images are {data.channels}×{height}×{width} (C×H×W).",
    ]
    return table(["", "fabric", "network", "share"], rows) + _list(lines)


def _int8_lines(exported: ExportRecord) -> list[str]:
    """What the int8 file, if there is one, is and costs."""
    if exported.int8 is None:
        return []
    small = exported.int8
    return [f"model.int8.onnx, which is delivered and measured: {small.bytes / 1e3:.0f} kB; {small}."]


def _row(name: str, before: float, after: float, scale: float, unit: str) -> list[str]:
    digits = 0 if scale == 1 else 2
    return [name, *(f"{value / scale:.{digits}f} {unit}".strip() for value in (before, after)), f"{after / before:.0%}"]


def _class_table(data: DataRecord, fabric: NetworkRecord, network: NetworkRecord) -> str:
    kind, before, after = "IoU", fabric.score.class_iou, network.score.class_iou
    if data.task == "detection":
        kind, before, after = "AP", fabric.score.class_ap, network.score.class_ap
    rows = [
        [name, *("not there" if v is None else f"{100 * v:.1f} %" for v in both)]
        for name, *both in zip(data.classes, before, after, strict=False)
    ]
    return table(["class", f"{kind}, fabric", f"{kind}, network"], rows) if rows else ""


def _pictures_title(data: DataRecord, network: NetworkRecord, shown: int) -> str:
    if data.task == "detection":
        return "Boxes that are there (left), and boxes found (right)"
    if data.task == "segmentation":
        return "Image, truth, prediction"
    score = network.score
    errors = round(score.images * (1 - score.accuracy))
    listed = f"{errors} errors" if shown == errors else f"{shown} of {errors} errors"
    return f"{listed} on {data.scored_split}: prediction (truth)"


def figure(picture: Picture) -> str:
    """A picture and its caption as HTML.

    >>> "<b>" in figure(Picture(png_base64="", caption="<b>", width=4))
    False
    """
    return (
        f'<figure><img width="{picture.width}" alt="{escape(picture.caption)}" '
        f'src="data:image/png;base64,{picture.png_base64}"><figcaption>{escape(picture.caption)}</figcaption></figure>'
    )
