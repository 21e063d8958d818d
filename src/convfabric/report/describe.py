"""Descriptions of graphs, in numbers and in lines."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from convfabric.errors import SettingError
from convfabric.execution.plans import plan_for
from convfabric.graph import POINT, Graph
from convfabric.graph.costs import FLOAT_BYTES, costs, peak_bytes, works
from convfabric.graph.depths import depth
from convfabric.graph.paths import count_routes
from convfabric.graph.receptive_fields import receptive_fields
from convfabric.graph.sizes import map_sizes
from convfabric.operators import Size
from convfabric.report.drawing import draw
from convfabric.report.gallery import Section
from convfabric.runs.job import network_from
from convfabric.weavers import FAMILIES, PRESETS, find_preset, is_imported, weave

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
    depth: int
    """Layers with kernels on the longest of them, the classifier included."""
    receptive_field: tuple[int, int] | None
    """Rows and columns of the image that a pixel of the last map depends on; None where that is all of it."""
    training_plan: str
    inference_plan: str
    run: str | None = None
    """The folder it was cut in; None of a network by name."""


def graph_named(name: str, size: str | None, changes: Sequence[str]) -> tuple[Graph, Size, str | None]:
    """The graph of a network by name or of a run, the size of its images, and the run's folder.

    >>> graph, size, run = graph_named("paper-mnist-dense", None, [])
    >>> description(graph, size).parameters, run
    (4512650, None)
    """
    if not Path(name).is_dir():
        return *network_from(name, size, changes), None
    if changes or size:
        raise SettingError(f"{name}: a run is described as it is; --set and --size are for networks by name.")
    from convfabric.fabric.archive import load_fabric

    papers = load_fabric(Path(name))[1]
    return papers.graph, papers.preprocessing.size, name


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
        depth=depth(graph, image),
        receptive_field=_last_field(graph),
        training_plan=str(plan_for(graph, training=True, build=False)),
        inference_plan=str(plan_for(graph, training=False, build=False)),
    )


def _last_field(graph: Graph) -> tuple[int, int] | None:
    """The receptive field of the last map that no pool of all pixels made; None for all of the image."""
    pooled = {edge.target for edge in graph.edges if math.isinf(edge.operator.stride)}
    maps = [place for place in graph.order if place.scale < POINT and place not in pooled]
    field = receptive_fields(graph)[maps[-1]]
    return (int(field.height), int(field.width)) if math.isfinite(field.height) else None


def layer_rows(graph: Graph, image: Size) -> list[list[str]]:
    """A head line, and for each layer its place, operator, channels, maps, costs for one image and receptive field.

    >>> for row in layer_rows(weave("resnet-20"), (32, 32))[:2]:
    ...     print(row)
    ['place', 'operator', 'channels', 'map', 'parameters', 'M MACs', 'kB written', 'sees']
    ['L0S0', 'Conv', '3 to 16', '32×32', '432', '0.44', '66', '3×3']
    """
    fields = receptive_fields(graph)
    rows = [["place", "operator", "channels", "map", "parameters", "M MACs", "kB written", "sees"]]
    for place, work in works(graph, image):
        operator, field = work.operator, fields[place]
        weights, values = operator.parameters(*work[1:3]), operator.values(*work[1:])
        if weights or values:
            seen = f"{field.height:.0f}×{field.width:.0f}" if math.isfinite(field.height) else "all"
            channels, size = f"{work.channels_in} to {work.channels_out}", f"{work.size_out[0]}×{work.size_out[1]}"
            costs_of = str(weights), f"{operator.macs(*work[1:]) / 1e6:.2f}", f"{FLOAT_BYTES * values / 1e3:.0f}"
            rows.append([str(place), type(operator).__name__, channels, size, *costs_of, seen])
    return [*rows, *_head_rows(graph, image)]


def _head_rows(graph: Graph, image: Size) -> Iterator[list[str]]:
    """For each head its linear maps of what it reads; those that answer by maps alone have none."""
    sizes = map_sizes(graph, image)
    for head in graph.heads if graph.head.linear else ():
        for place in head.reads:
            channels, (height, width) = graph.node(place).channels, sizes[place]
            pixels = 1 if head.task == "classification" else height * width
            weights = channels * head.values + head.values * (place == head.reads[0])
            written = FLOAT_BYTES * head.values * pixels / 1e3
            size = "1×1" if head.task == "classification" else f"{height}×{width}"
            costs_of = str(weights), f"{channels * head.values * pixels / 1e6:.2f}", f"{written:.0f}"
            yield [f"{head.name} at {place}", "Linear", f"{channels} to {head.values}", size, *costs_of, "all"]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells in columns, the first two to the left.

    >>> aligned([["a", "b", "c"], ["10", "2", "300"]])
    ['a   b    c', '10  2  300']
    """
    wide = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.ljust(w) if at < 2 else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, wide, strict=True))
        )
        for row in rows
    ]


def family_sections() -> Iterator[Section]:
    """For each family, with its default numbers, a drawing and what it costs.

    >>> next(family_sections())[0]
    'trellis'
    """
    for name, family in FAMILIES.items():
        yield _section(name, family.about, weave(name), GALLERY_SIZE)


def network_section(name: str) -> Section:
    """The same of a network of others, as it is.

    >>> network_section("torchvision:squeezenet1_1")[1].startswith("squeezenet1_1 of torchvision. 38 nodes, 45 edges")
    True
    """
    return _section(name, find_preset(name).about, *network_from(name, None, []))


def _section(name: str, about: str, graph: Graph, image: Size) -> Section:
    facts = description(graph, image)
    channels, height, width = facts.image
    line = (
        f"{about}. {facts.nodes} nodes, {facts.edges} edges, {facts.parameters / 1e6:.2f} M parameters, "
        f"{facts.macs / 1e6:.1f} M MACs for {channels}×{height}×{width} images."
    )
    return name, line, draw(graph)


def described_lines(facts: Description) -> list[str]:
    """The same for people, with units.

    >>> described_lines(description(weave("resnet-20"), (32, 32)))[2]
    'nodes             10'
    """
    channels, height, width = facts.image
    about = find_preset(facts.name).about if _is_named(facts.name) else "a network of yours"
    field = facts.receptive_field
    seen = "all of the image" if field is None else f"{field[0]}×{field[1]} pixels of the image"
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
        f"depth             {facts.depth} layers with kernels one after another; a pixel of the last map sees {seen}",
        f"architectures     {facts.architectures:,} chain{'s' * (facts.architectures != 1)} of edges from the "
        "images to the head; "
        f"their unions are up to 10^{facts.edges * math.log10(2):.0f}",
        f"runs on this CPU  {facts.training_plan} in training; {facts.inference_plan} in inference",
        "next: " + _next(facts),
    ]


def _next(facts: Description) -> str:
    if facts.run:
        return f"convfabric evaluate {shlex.quote(facts.run)}"
    return f"convfabric fit DATA --network {facts.name}" if _is_named(facts.name) else "convfabric list"


def _is_named(name: str) -> bool:
    """Whether ``--network`` takes the name of a graph."""
    return name in (*PRESETS, *FAMILIES) or is_imported(name)
