"""What a graph is and costs, as facts and as lines."""

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convfabric.errors import SettingError
from convfabric.execution.plans import plan_for
from convfabric.graph import Graph
from convfabric.graph.costs import costs, peak_bytes
from convfabric.graph.paths import count_routes
from convfabric.operators import Size
from convfabric.report.drawing import draw
from convfabric.report.gallery import Section
from convfabric.runs.job import network_from
from convfabric.weavers import FAMILIES, PRESETS, find_preset, weave

Facts = dict[str, Any]
GALLERY_SIZE = (32, 32)


def described(name: str, size: str | None = None, changes: Sequence[str] = ()) -> Facts:
    """Nodes, edges, parameters, MACs, activation bytes and architectures of a preset, a trellis or a run's network.

    >>> described("paper-mnist-dense")["parameters"]
    4512650
    """
    if Path(name).is_dir():
        if changes or size:
            raise SettingError(f"{name}: a run is described as it is; --set and --size are for networks by name.")
        from convfabric.fabric.archive import load_fabric

        papers = load_fabric(Path(name))[1]
        return facts_of(papers.graph, papers.preprocessing.size) | {"run": name}
    return facts_of(*network_from(name, size, changes))


def facts_of(graph: Graph, image: Size) -> Facts:
    """The facts of a graph for images of a height and width in pixels."""
    found = costs(graph, image)
    return {
        "name": graph.name,
        "task": graph.head.task,
        "image": [graph.entry.image_channels, *image],
        "classes": graph.head.classes,
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "parameters": found.parameters,
        "macs": found.macs,
        "activation_bytes": found.activation_bytes,
        "peak_bytes": peak_bytes(graph, image),
        "architectures": count_routes(graph),
        "training_plan": str(plan_for(graph, training=True, build=False)),
        "inference_plan": str(plan_for(graph, training=False, build=False)),
    }


def family_sections() -> Iterator[Section]:
    """For each family, with its default numbers, a drawing and what it costs."""
    for name, family in FAMILIES.items():
        graph = weave(name)
        facts = facts_of(graph, GALLERY_SIZE)
        line = (
            f"{family.about}. {facts['nodes']} nodes, {facts['edges']} edges, {facts['parameters'] / 1e6:.2f} M "
            f"parameters, {facts['macs'] / 1e6:.1f} M MACs for 3×32×32 images."
        )
        yield name, line, draw(graph)


def described_lines(facts: Facts) -> list[str]:
    """The facts for people, with units."""
    channels, height, width = facts["image"]
    known = [*PRESETS, *FAMILIES]
    about = find_preset(facts["name"]).about if facts["name"] in known else "a network of yours"
    title = f"{facts['run']}: cut from {facts['name']}" if "run" in facts else f"{facts['name']}: {about}"
    return [
        title,
        f"for {facts['task']} of {channels}×{height}×{width} images (C×H×W) into {facts['classes']} classes",
        f"nodes             {facts['nodes']}",
        f"edges             {facts['edges']}",
        f"parameters        {facts['parameters']:,}",
        f"MACs per image    {facts['macs']:,}",
        f"activation bytes  {facts['activation_bytes']:,} (every float32 response of one image)",
        f"memory at once    {facts['peak_bytes']:,} bytes (weights and responses alive together, one image)",
        f"architectures     {facts['architectures']:,} chain{'s' * (facts['architectures'] != 1)} of edges from the "
        "images to the head; "
        f"their unions are up to 10^{facts['edges'] * math.log10(2):.0f}",
        f"runs on this CPU  {facts['training_plan']} in training; {facts['inference_plan']} in inference",
        "next: " + _next(facts),
    ]


def _next(facts: Facts) -> str:
    if "run" in facts:
        return f"convfabric evaluate {shlex.quote(facts['run'])}"
    return (
        f"convfabric fit DATA --network {facts['name']}"
        if facts["name"] in (*PRESETS, *FAMILIES)
        else "convfabric list"
    )
