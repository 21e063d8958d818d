"""Curves as SVG: of training, and of exits."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from convfabric.evaluation.exit_thresholds import Exits
from convfabric.progress import FIGURES, figure_in


def curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Losses, and the validation figure, against epochs, one stage behind the other; rows as in metrics.csv.

    >>> row = {"stage": "fabric", "train_loss": 2.0, "val_loss": 2.1, "val_accuracy": 0.3, "val_miou": ""}
    >>> curves([row, row])[:4]
    '<svg'
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    both = [Figure(figsize=(4.5, 3)) for _ in range(2)]
    for one in both:
        FigureCanvasSVG(one)
        one.subplots_adjust(left=0.17, right=0.97, bottom=0.17, top=0.96)
    losses, figures = (one.subplots() for one in both)
    epochs = range(1, len(rows) + 1)
    losses.plot(epochs, [row["train_loss"] for row in rows], label="train")
    losses.plot(epochs, [row["val_loss"] for row in rows], label="val")
    losses.set(xlabel="epoch", ylabel="loss (nats)", yscale="log")
    losses.legend(frameon=False)
    name = figure_in(rows[0])
    figures.plot(epochs, [100 * float(row[name]) for row in rows], color="#1b4965")
    figures.set(xlabel="epoch", ylabel=f"val {FIGURES[name]} (%)")
    for axes in (losses, figures):
        for end in (i + 1.5 for i, (a, b) in enumerate(pairwise(rows)) if a["stage"] != b["stage"]):
            axes.axvline(end, color="#a9b4bd", linestyle=":")
    return "".join(map(_drawn, both))


def exit_curve(exits: Exits) -> str:
    """Accuracy against multiply-accumulates: of each exit, and of batches that stop early within a budget."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    stops = sorted(exits.budgeted, key=lambda stop: stop.macs)
    points = [(stop.macs / 1e6, 100 * stop.accuracy) for stop in stops]
    axes.plot(*zip(*points, strict=True), label="stopping by confidence", color="#5fa8d3")
    points = [(exit_.macs / 1e6, 100 * exit_.score) for exit_ in exits.each]
    axes.plot(*zip(*points, strict=True), "o--", label="always the same exit", color="#1b4965")
    axes.set(xlabel="M MACs per image, mean", ylabel=f"{exits.split} accuracy (%)")
    axes.legend(frameon=False)
    return _drawn(figure)


def _drawn(figure: Any) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue().partition("<svg")[1] + drawn.getvalue().partition("<svg")[2]
