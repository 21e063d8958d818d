"""The page of a run: one HTML file that opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from convfabric.evaluation.exit_thresholds import Exits
from convfabric.evaluation.scoring import Score
from convfabric.report.cards import cards
from convfabric.report.confusions import CONFUSION_STYLE, Confusion, confusion_table, precision_of, recall_of
from convfabric.report.page_script import SCRIPT, SCRIPT_STYLE
from convfabric.report.pictures import Picture, figure
from convfabric.report.style import STYLE, opening, table
from convfabric.report.words import exit_rows, figure_name, said_share, said_tuning
from convfabric.runs.record import (
    CutRecord,
    DataRecord,
    ExportRecord,
    NetworkRecord,
    RunRecord,
    TuningRecord,
    parts_of,
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """All that a page shows beside the record: SVG, pictures, and lines of text."""

    network: str
    """The fabric and the edges that were kept, as SVG."""
    curves: str
    exits: str = ""
    """Accuracy against cost of early exits, as SVG; empty without."""
    pictures: Sequence[Picture]
    confusion: Confusion = ()
    """Of classification, images by class and prediction."""
    shades: Sequence[str] = ()
    """Of segmentation, the colour of each class as CSS has it."""
    again: str
    """The command that repeats the run."""
    conditions: Sequence[str]
    run: str = ""
    """The name of the folder; that of the data heads the page where there is none."""


def page(record: RunRecord, drawn: Drawn) -> str:
    """The whole page, from the record of a finished run and what was drawn of it."""
    data, fabric, cut, network, tuning, exported = parts_of(record)
    sections = (
        f"<h1>{escape(drawn.run or data.name)}</h1>",
        cards(record),
        "".join(f'<p class="bad">Doubtful: {escape(doubt)}.</p>' for doubt in record.doubts),
        _section("Scores", _scores(data, fabric, network, tuning, exported)),
        _section("Mistakes", confusion_table(drawn.confusion, data.classes)) if drawn.confusion else "",
        _section(_pictures_title(data, network, len(drawn.pictures)), _pictures(data, drawn)),
        _section("Classes", _classes(data, fabric, network, drawn.confusion)),
        _exits(record.exits, drawn.exits),
        _section("Costs", _costs(data, fabric, cut, network, exported)),
        _operations(exported),
        _section("The fabric, and what is left of it", f'<div class="plate">{drawn.network}</div>{_DRAWING_NOTE}'),
        _section("Training", f'{_beginning(record)}<div class="plate">{drawn.curves}</div>'),
        _section("The same again", f"<pre>{escape(drawn.again)}</pre>"),
        "<details><summary>Conditions</summary>" + _list([*data.notes, *drawn.conditions]) + "</details>",
    )
    head = opening(f"{drawn.run or data.name}: convfabric", STYLE + SCRIPT_STYLE + CONFUSION_STYLE, SCRIPT)
    return f"{head}{''.join(sections)}<script>{SCRIPT}</script></html>\n"


_DRAWING_NOTE = (
    '<output id="about">Touch an edge to read its operator, channels, map, cost and worth.</output>'
    '<p class="note">Layers from left to right, the finest scale on top, channels in the nodes. Dark edges are kept, '
    "the wider the more they are worth (by rank); pale ones were cut.</p>"
)


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>{content}"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


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


def _operations(exported: ExportRecord) -> str:
    """The milliseconds parted by kind of operation, the longest first; nothing where the file was timed elsewhere."""
    total = sum(exported.operations.values())
    if not total:
        return ""
    longest = sorted(exported.operations.items(), key=lambda one: -one[1])
    whole = exported.latency.median_ms
    rows = [[kind, f"{whole * took / total:.4f} ms", f"{took / total:.0%}"] for kind, took in longest if took]
    note = "Shares of the measured milliseconds, by the runtime's own profile of the delivered file."
    return _section("Time by operation", table(["operation", "time", "share"], rows) + f'<p class="note">{note}</p>')


def _int8_lines(exported: ExportRecord) -> list[str]:
    """What the int8 file, if there is one, is and costs."""
    if exported.int8 is None:
        return []
    small = exported.int8
    return [f"model.int8.onnx, which is delivered and measured: {small.bytes / 1e3:.0f} kB; {small}."]


def _row(name: str, before: float, after: float, scale: float, unit: str) -> list[str]:
    digits = 0 if scale == 1 else 2
    return [name, *(f"{value / scale:.{digits}f} {unit}".strip() for value in (before, after)), f"{after / before:.0%}"]


def _classes(data: DataRecord, fabric: NetworkRecord, network: NetworkRecord, confusion: Confusion) -> str:
    """Images, precision and recall of each class; or IoU or average precision, of the fabric and of the network."""
    if confusion:
        rows = [
            [name, str(sum(confusion[at])), _share(precision_of(confusion, at)), _share(recall_of(confusion, at))]
            for at, name in enumerate(data.classes)
        ]
        return table(["class", "images", "precision", "recall"], rows)
    kind, before, after = "IoU", fabric.score.class_iou, network.score.class_iou
    if data.task == "detection":
        kind, before, after = "AP", fabric.score.class_ap, network.score.class_ap
    rows = [[name, *map(_share, both)] for name, *both in zip(data.classes, before, after, strict=False)]
    return table(["class", f"{kind}, fabric", f"{kind}, network"], rows)


def _share(value: float | None) -> str:
    return "not there" if value is None else f"{100 * value:.1f} %"


def _pictures(data: DataRecord, drawn: Drawn) -> str:
    shown = "".join(map(figure, drawn.pictures))
    if data.task == "classification":
        return f'<p class="note" id="filtered" role="status"></p>{shown}'
    if data.task == "detection":
        return shown
    key = "".join(
        f'<span><i style="background:{shade}"></i>{escape(name)}</span>'
        for name, shade in zip(data.classes, drawn.shades, strict=False)
    )
    dial = (
        '<input id="dial" type="range" min="0" max="2" step="0.05" value="2" aria-label="image, truth or prediction">'
    )
    return f'<p class="dial"><span>image</span>{dial}<span>truth · prediction</span></p><p class="key">{key}</p>{shown}'


def _pictures_title(data: DataRecord, network: NetworkRecord, shown: int) -> str:
    if data.task == "detection":
        return "Boxes that are there (left), and boxes found (right)"
    if data.task == "segmentation":
        return "Images, their masks, and the network's"
    score = network.score
    errors = round(score.images * (1 - score.accuracy))
    listed = f"{errors} errors" if shown == errors else f"{shown} of {errors} errors, the surest"
    return f"{listed} on {data.scored_split}" + ": prediction, its probability (class)" * bool(errors)
