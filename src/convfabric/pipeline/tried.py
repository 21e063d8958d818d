"""The sub-networks that a search tried, kept beside the network that it chose, for the page of a curve."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convfabric.errors import ArchiveError
from convfabric.fabric.archive import write_atomically
from convfabric.graph import Graph
from convfabric.report.curve_page import Trial
from convfabric.runs.folder import TRIED


def keep_tried(folder: Path, whole: Graph, tried: Mapping[Graph, float], took: Callable[[Graph], float]) -> None:
    """``tried.json`` in a folder: of each sub-network of a graph its fitness, predicted milliseconds and parts."""
    rows = [trial_of(whole, graph, took(graph), fitness) for graph, fitness in tried.items()]
    if rows:
        write_atomically(folder / TRIED, json.dumps(rows))


def trial_of(whole: Graph, graph: Graph, milliseconds: float, fitness: float) -> Trial:
    """What is kept of one sub-network.

    >>> from convfabric.weavers import weave
    >>> whole = weave("vgg", channels=4)
    >>> trial_of(whole, whole, 0.25, 0.5).edges == "1" * len(whole.edges)
    True
    """
    channels = {node.place: node.channels for node in graph.nodes}
    return Trial(
        milliseconds=round(milliseconds, 5),
        fitness=round(fitness, 5),
        edges="".join(str(int(edge.name in graph.edge_names)) for edge in whole.edges),
        channels=tuple(channels.get(node.place, 0) for node in whole.nodes),
    )


def read_tried(folders: Sequence[Path], whole: Graph) -> list[Trial]:
    """What the searches of several networks tried, each sub-network once, the quickest first.

    Raises ArchiveError where a file is damaged, or is of another graph.
    """
    found = set[Trial]()
    for file in (folder / TRIED for folder in folders):
        if file.is_file():
            try:
                found |= {_read(row, whole) for row in json.loads(file.read_text("utf-8"))}
            except (ValueError, TypeError):
                raise ArchiveError(f"{file}: damaged, or of another fabric. Without it the page has fewer.") from None
    return sorted(found)


def _read(row: Any, whole: Graph) -> Trial:
    milliseconds, fitness, edges, channels = row
    if len(edges) != len(whole.edges) or len(channels) != len(whole.nodes):
        raise ValueError
    return Trial(float(milliseconds), float(fitness), str(edges), tuple(map(int, channels)))
