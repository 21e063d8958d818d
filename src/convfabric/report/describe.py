"""Descriptions of graphs, in numbers and in lines."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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

GALLERY_SIZE = (32, 32)


@dataclass(frozen=True, kw_only=True)
class Description:
    """A graph in numbers, for images of one size."""

    name: str
    task: str
    image: tuple[int, int, int]
    """Channels, height and width."""
    classes: int
    nodes: int
    edges: int
    parameters: int
    macs: int
    """Multiply-accumulates per image."""
    activation_bytes: int
    """Of every float32 response of one image."""
    peak_bytes: int
    """Of weights and the responses alive at once, for one image."""
    architectures: int
    """Chains of edges from the images to the head."""
    training_plan: str
    inference_plan: str
    run: str | None = None
    """The folder it was cut in; None of a network by name."""


def described(name: str, size: str | None = None, changes: Sequence[str] = ()) -> Description:
    """Nodes, edges, parameters, MACs, activation bytes and architectures of a preset, a trellis or a run's network.

    >>> described("paper-mnist-dense").parameters
    4512650
    """
    if Path(name).is_dir():
        if changes or size:
            raise SettingError(f"{name}: a run is described as it is; --set and --size are for networks by name.")
        from convfabric.fabric.archive import load_fabric

        papers = load_fabric(Path(name))[1]
        return replace(description(papers.graph, papers.preprocessing.size), run=name)
    return description(*network_from(name, size, changes))


def description(graph: Graph, image: Size) -> Description:
    """A graph in numbers, for images of a height and width in pixels.

    >>> description(weave("resnet-20"), (32, 32)).parameters
    272474
    """
    found = costs(graph, image)
    return Description(
        name=graph.name,
        task=graph.head.task,
        image=(graph.entry.image_channels, *image),
        classes=graph.head.classes,
        nodes=len(graph.nodes),
        edges=len(graph.edges),
        **asdict(found),
        peak_bytes=peak_bytes(graph, image),
        architectures=count_routes(graph),
        training_plan=str(plan_for(graph, training=True, build=False)),
        inference_plan=str(plan_for(graph, training=False, build=False)),
    )


def family_sections() -> Iterator[Section]:
    """For each family, with its default numbers, a drawing and what it costs.

    >>> next(family_sections())[0]
    'trellis'
    """
    for name, family in FAMILIES.items():
        graph = weave(name)
        facts = description(graph, GALLERY_SIZE)
        line = (
            f"{family.about}. {facts.nodes} nodes, {facts.edges} edges, {facts.parameters / 1e6:.2f} M "
            f"parameters, {facts.macs / 1e6:.1f} M MACs for 3×32×32 images."
        )
        yield name, line, draw(graph)


def described_lines(facts: Description) -> list[str]:
    """The same for people, with units.

    >>> described_lines(described("resnet-20"))[2]
    'nodes             10'
    """
    channels, height, width = facts.image
    known = [*PRESETS, *FAMILIES]
    about = find_preset(facts.name).about if facts.name in known else "a network of yours"
    title = f"{facts.run}: cut from {facts.name}" if facts.run else f"{facts.name}: {about}"
    return [
        title,
        f"for {facts.task} of {channels}×{height}×{width} images (C×H×W) into {facts.classes} classes",
        f"nodes             {facts.nodes}",
        f"edges             {facts.edges}",
        f"parameters        {facts.parameters:,}",
        f"MACs per image    {facts.macs:,}",
        f"activation bytes  {facts.activation_bytes:,} (every float32 response of one image)",
        f"peak memory       {facts.peak_bytes:,} bytes (weights and activations alive together, one image)",
        f"architectures     {facts.architectures:,} chain{'s' * (facts.architectures != 1)} of edges from the "
        "images to the head; "
        f"their unions are up to 10^{facts.edges * math.log10(2):.0f}",
        f"runs on this CPU  {facts.training_plan} in training; {facts.inference_plan} in inference",
        "next: " + _next(facts),
    ]


def _next(facts: Description) -> str:
    if facts.run:
        return f"convfabric evaluate {shlex.quote(facts.run)}"
    return f"convfabric fit DATA --network {facts.name}" if facts.name in (*PRESETS, *FAMILIES) else "convfabric list"
