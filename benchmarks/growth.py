"""How the time of a training step grows with edges, channels, pixels and batch: an exponent for each, drawn."""

import math
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from statistics import median

import torch
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from torch.nn import functional as F

from convfabric.execution.plans import plan_for
from convfabric.execution.runners import for_training
from convfabric.fabric.module import Fabric
from convfabric.weavers import weave
from records import write_record

Row = dict[str, object]
Turns = Callable[[Mapping[str, Callable[[], object]], int], dict[str, list[float]]]
USUAL = {"layers": 8, "channels": 32, "side": 32, "batch": 32}
STEPS = {
    "layers": (4, 8, 16, 32),
    "channels": (16, 32, 64, 128),
    "side": (16, 32, 64),
    "batch": (8, 32, 128),
}
NAMES = {"layers": "edges", "channels": "channels", "side": "pixels", "batch": "images a step"}


def growth(results: Path, threads: int, taking_turns: Turns) -> Path:
    """Times one number after another, the others as usual, and writes record and drawing."""
    rows: list[Row] = []
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for kind in ("dense", "sparse"):
        for changed, values in STEPS.items():
            made = {str(value): step(kind, **(USUAL | {changed: value})) for value in values}
            times = taking_turns({value: go for value, (go, _) in made.items()}, 5)
            points = [(counted(changed, v, made[str(v)][1]), median(times[str(v)])) for v in values]
            lines[kind, changed] = points
            line = {"fabric": kind, "against": NAMES[changed]}
            slope = {"exponent": round(exponent(points), 2)}
            rows += [{**line, "number": x, "ms a step": round(1000 * seconds, 1), **slope} for x, seconds in points]
            print(*line.values(), *slope.values(), flush=True)
    drawing = results / f"{date.today().isoformat()}-speed-growth.svg"
    sentences = [
        f"Training steps after the plan, {threads} threads; medians of 5. Unless varied: "
        + ", ".join(f"{name} {value}" for name, value in USUAL.items())
        + "; 4 scales. Exponent: slope of log time against log number, by least squares over the points of a line. "
        "Work grows with exponent 1 in edges, pixels and images; in channels with 2 (dense) and 1 (sparse).",
        f"![time of a step against each number]({drawing.name})",
    ]
    record = write_record("speed-growth", sentences, rows, results)
    drawing.write_text(drawn(lines))
    return record


def step(kind: str, layers: int, channels: int, side: int, batch: int) -> tuple[Callable[[], object], int]:
    """A training step, and the number of edges."""
    torch.manual_seed(0)
    graph = weave(f"paper-cifar10-{kind}", size=(side, side), layers=layers, channels=channels, scales=4)
    fabric, plan = Fabric(graph).train().to(memory_format=torch.channels_last), plan_for(graph, training=True)
    model = for_training(fabric, plan)
    images = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (batch,))
    optimiser = torch.optim.SGD(fabric.parameters(), lr=0.01, momentum=0.9)

    def go() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
            logits = model(images)[-1]
        torch.autograd.backward(F.cross_entropy(logits.float(), targets))
        optimiser.step()

    return go, len(graph.edges)


def counted(changed: str, value: int, edges: int) -> float:
    """The number on the axis."""
    return {"layers": edges, "side": value**2}.get(changed, value)


def exponent(points: list[tuple[float, float]]) -> float:
    """The slope of log time against log number."""
    logs = [(math.log(number), math.log(seconds)) for number, seconds in points]
    x, y = (sum(axis) / len(logs) for axis in zip(*logs, strict=True))
    slope: float = sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)
    return slope


def drawn(lines: Mapping[tuple[str, str], list[tuple[float, float]]]) -> str:
    """One panel for each number, both fabrics in it."""
    import io

    figure = Figure(figsize=(12, 3), layout="constrained")
    FigureCanvasSVG(figure)
    panels = dict(zip(STEPS, figure.subplots(1, len(STEPS), sharey=True), strict=True))
    for (kind, changed), points in lines.items():
        label = f"{kind}: exponent {exponent(points):.2f}"
        numbers, seconds = zip(*points, strict=True)
        colour = {"dense": "#1b4965", "sparse": "#5fa8d3"}[kind]
        panels[changed].loglog(numbers, [1000 * s for s in seconds], "o-", label=label, color=colour)
        panels[changed].set_xlabel(NAMES[changed])
        panels[changed].legend(frameon=False)
    panels["layers"].set_ylabel("ms a training step")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
