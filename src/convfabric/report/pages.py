"""The page of a run: one HTML file that opens offline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Facts = Mapping[str, Any]

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
    record: Facts,
    drawing: str,
    curves: str,
    pictures: Sequence[Picture],
    conditions: Sequence[str],
    exits: str = "",
) -> str:
    """The whole page, from the record of a run and what was drawn of it."""
    data = record["data"]
    sections = (
        _headline(record),
        _section("Answers", _answers(record)),
        _exits(record, exits),
        _section("Costs", _costs(record)),
        _section("The fabric, and what is left of it", drawing + _DRAWING_NOTE),
        _section("Training", curves),
        _section(_pictures_title(record, len(pictures)), _class_table(record) + "".join(map(figure, pictures))),
        _section("Conditions", _list([*data["notes"], *conditions])),
    )
    title = escape(f"{data['name']}: convfabric")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{"".join(sections)}</html>\n'
    )


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


def figure_name(record: Facts) -> str:
    """What a network of this run is judged by, with its split."""
    kind = "accuracy" if record["data"]["task"] == "classification" else "mIoU"
    return f"{record['data']['verdict']} {kind}"


def said_share(score: Facts) -> str:
    """The judging figure of a score, in percent.

    >>> said_share({"accuracy": 0.9812, "miou": None})
    '98.12 %'
    """
    return f"{100 * (score['accuracy'] if score['miou'] is None else score['miou']):.2f} %"


def _headline(record: Facts) -> str:
    network, fabric = record["network"], record["fabric"]
    share = network["macs"] / fabric["macs"]
    lines = [
        f"{figure_name(record)} {said_share(network['score'])} at {said_macs(network['macs'])}, "
        f"{share:.0%} of the fabric's; {record['exported']['latency']['median_ms']:.3f} ms.",
        f"Budget: {record['asked']}.",
    ]
    return f"<h1>{escape(record['data']['name'])}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines)


def _answers(record: Facts) -> str:
    network = record["network"]
    stages = (
        ("fabric", record["fabric"]["score"]),
        ("just cut", network["as_cut"]),
        ("statistics refreshed", network["refreshed"]),
        ("fine-tuned" if network.get("finetuned", True) else "not fine-tuned", network["score"]),
    )
    rows = [[name, said_share(score), f"{score['loss']:.4f}", str(score["images"])] for name, score in stages]
    return table(["network", figure_name(record), "loss (nats)", "images"], rows)


def said_macs(macs: int) -> str:
    """Multiply-accumulates per image with their unit.

    >>> said_macs(1_860_168)
    '1.86 M MACs'
    """
    return f"{macs / 1e6:.2f} M MACs"


def exit_rows(anytime: Facts) -> list[list[str]]:
    """Of each exit, and of stopping where the recommended thresholds say: name, score, cost, share that leaves there.

    >>> exit_rows({"exits": [{"name": "exit1", "accuracy": 0.5, "macs": 2_000_000}]})
    [['exit1', '50.00 % accuracy', '2.00 M MACs', '']]
    """
    name = "accuracy" if "accuracy" in anytime["exits"][0] else "miou"
    said, best = "mIoU" if name == "miou" else name, anytime.get("recommended")
    shares = [f"{share:.0%}" for share in best["shares"]] if best else [""] * len(anytime["exits"])
    rows = [
        [row["name"], f"{100 * row[name]:.2f} % {said}", said_macs(row["macs"]), share]
        for row, share in zip(anytime["exits"], shares, strict=True)
    ]
    if best:
        rows.append(["early", f"{100 * best['accuracy']:.2f} % {said}", f"{said_macs(best['macs'])}, mean", "100%"])
    return rows


def _exits(record: Facts, drawn: str) -> str:
    if not record.get("anytime"):
        return ""
    note = (
        '<p class="note">Costs are of an image that leaves there, all work before it included. Early: an image leaves '
        "at the first exit confident enough; thresholds were chosen on val.</p>"
    )
    head = ["exit", f"{record['anytime']['split']} score", "cost", "leave early"]
    return _section("Exits", table(head, exit_rows(record["anytime"])) + note + drawn)


def _costs(record: Facts) -> str:
    fabric, network = record["fabric"], record["network"]
    rows = [
        _row("edges", fabric["edges"], network["edges"], 1, ""),
        _row("MACs per image", fabric["macs"], network["macs"], 1e6, "M"),
        _row("parameters", fabric["parameters"], network["parameters"], 1e3, "k"),
        _row("responses written per image", fabric["activation_bytes"], network["activation_bytes"], 1e3, "kB"),
        _row("memory at once", fabric["peak_bytes"], network["peak_bytes"], 1e6, "MB"),
    ]
    exported = record["exported"]
    said = [
        f"model.onnx: {exported['onnx_bytes'] / 1e3:.0f} kB; logits differ from the network's by at most "
        f"{exported['largest_difference']:.1e}.",
        f"Predicted {network['predicted_ms']:.3f} ms (predictions were {network['prediction_error']:.0%} off, median "
        f"over the networks measured), measured {exported['said']}.",
        f"Images are {record['data']['channels']}×{record['data']['size'][0]}×{record['data']['size'][1]} (C×H×W).",
    ]
    return table(["", "fabric", "network", "share"], rows) + _list(said)


def _row(name: str, before: float, after: float, scale: float, unit: str) -> list[str]:
    digits = 0 if scale == 1 else 2
    return [name, *(f"{value / scale:.{digits}f} {unit}".strip() for value in (before, after)), f"{after / before:.0%}"]


def _class_table(record: Facts) -> str:
    found = record["network"]["score"]["class_iou"]
    if not found:
        return ""
    before = record["fabric"]["score"]["class_iou"]
    rows = [
        [name, *("not there" if v is None else f"{100 * v:.1f} %" for v in (a, b))]
        for name, a, b in zip(record["data"]["classes"], before, found, strict=True)
    ]
    return table(["class", "IoU, fabric", "IoU, network"], rows)


def _pictures_title(record: Facts, shown: int) -> str:
    if record["data"]["task"] == "segmentation":
        return "Image, truth, prediction"
    score = record["network"]["score"]
    errors = round(score["images"] * (1 - score["accuracy"]))
    listed = f"{errors} errors" if shown == errors else f"{shown} of {errors} errors"
    return f"{listed} on {record['data']['verdict']}: prediction (truth)"


def figure(picture: Picture) -> str:
    """A picture and its caption as HTML."""
    return (
        f'<figure><img width="{picture.width}" alt="{escape(picture.caption)}" '
        f'src="data:image/png;base64,{picture.png_base64}"><figcaption>{escape(picture.caption)}</figcaption></figure>'
    )
