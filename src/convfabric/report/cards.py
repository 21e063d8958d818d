"""What counts about a run, at a glance: whether the budget is met, accuracy, milliseconds, size, work."""

from html import escape

from convfabric.evaluation.baseline import said_beside
from convfabric.report.words import figure_name, said_macs, said_share
from convfabric.runs.record import CutRecord, ExportRecord, NetworkRecord, RunRecord, parts_of


def cards(record: RunRecord) -> str:
    """The cards as HTML."""
    data, fabric, cut, network, _, exported = parts_of(record)
    score, latency = record.delivered or network.score, exported.latency
    met = record.budget_met is not False
    file = "model.int8.onnx" if exported.int8 else "model.onnx"
    kilobytes = (exported.int8.bytes if exported.int8 else exported.onnx_bytes) / 1e3
    threads = f"{latency.threads} thread{'s' * (latency.threads > 1)}"
    shown = (
        ("Budget", "✓ met" if met else "✗ missed", _spent(cut, network, exported), "good" if met else "bad"),
        (figure_name(data), said_share(score), said_beside(score), ""),
        ("Latency", f"{latency.median_ms:.3g} ms", f"{latency.runtime}, {threads}, batch {latency.batch}", ""),
        ("Size", f"{kilobytes:.0f} kB", f"{file}, {network.parameters / 1e3:.1f} k parameters", ""),
        ("Work", said_macs(network.macs), f"{network.macs / fabric.macs:.0%} of the fabric's", ""),
    )
    return '<div class="cards">' + "".join(_card(*one) for one in shown) + "</div>"


def _card(title: str, figure: str, beside: str, mood: str) -> str:
    return (
        f'<div class="card"><small>{escape(title)}</small><b class="{mood}">{escape(figure)}</b>'
        f"<small>{escape(beside)}</small></div>"
    )


def _spent(cut: CutRecord, network: NetworkRecord, exported: ExportRecord) -> str:
    """What the network takes of each ceiling.

    The ceiling of edges is told by itself, as others may have been added to it.
    """
    taken = {
        "latency_ms": (exported.latency.median_ms, 1.0, "ms"),
        "macs": (network.macs, 1e6, "M MACs"),
        "params": (network.parameters, 1e3, "k parameters"),
        "memory_mb": (network.peak_bytes / 1e6, 1.0, "MB"),
        "edges": (network.edges, 1.0, "edges"),
    }
    said = []
    for name, most in cut.ceilings.items():
        value, unit, word = taken[name]
        said.append(f"{value / unit:.3g} of {most / unit:.3g} {word}")
    return ", ".join(said) or cut.requested
