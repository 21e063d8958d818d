"""The fabric of an earlier run with new heads, for other images or classes."""

from dataclasses import replace
from pathlib import Path

import torch

from convfabric.errors import SettingError
from convfabric.fabric.archive import GRAPH_FILE, load_fabric
from convfabric.fabric.module import HEADS, Fabric
from convfabric.graph import Graph
from convfabric.graph.laws import check
from convfabric.graph.rewrites import with_boxes, with_features
from convfabric.importing.network import Imported
from convfabric.operators import Opaque
from convfabric.weavers import Purpose


def continued(run: Path, purpose: Purpose, kept: bool = False) -> Imported:
    """The fabric of a run with its weights, and fresh heads for a purpose unless its own are kept.

    Raises ArchiveError for what is no run, SettingError where its images have other channels, GraphError where those
    of the purpose are too small.
    """
    whole = load_fabric(folder_of(run))[0]
    check_channels(f"run:{run}", whole.graph.entry.image_channels, purpose.image_channels)
    fabric = whole if kept else with_weights_of(whole, check(for_purpose(whole.graph, purpose), purpose.size))
    names = [name for name in fabric.state_dict() if kept or not name.startswith("heads.")]
    opaque = tuple(edge.name for edge in fabric.graph.edges if isinstance(edge.operator, Opaque))
    return Imported(
        fabric=fabric,
        origins={name: name for name in names},
        fresh=() if kept else HEADS,
        kept=opaque,
        unread=(),
        difference=0.0,
    )


def folder_of(run: Path) -> Path:
    """Where a run keeps its trained fabric; the folder itself where that holds a network and nothing else."""
    return run / "fabric" if (run / "fabric" / GRAPH_FILE).is_file() else run


def check_channels(network: str, own: int, channels: int) -> None:
    """SettingError for images of other channels than a network reads, with how to read them so.

    >>> check_channels("file:a.pt2", 3, 3)
    """
    if own != channels:
        kind = "colour" if own == 3 else "grey"
        said = f"reads images of {own} channel{'s' * (own > 1)}, these have {channels}"
        raise SettingError(f"network={network}: {said}; --set read_as={kind} reads them so.")


def for_purpose(graph: Graph, purpose: Purpose) -> Graph:
    """The graph with heads for a purpose: where they were, or one that reads every scale where the task is another.

    >>> from convfabric.weavers import weave
    >>> other = for_purpose(weave("msdnet"), Purpose(classes=3))
    >>> len(other.heads), other.head.classes
    (5, 3)
    >>> for_purpose(weave("vgg"), Purpose(task="segmentation", classes=3)).head.task
    'segmentation'
    """
    if purpose.task == "detection" and graph.head.task != "detection":
        return with_boxes(graph, purpose.classes)
    if graph.head.task != purpose.task or not all(head.linear for head in graph.heads):
        graph = with_features(graph)
    heads = tuple(replace(head, task=purpose.task, classes=purpose.classes) for head in graph.heads)
    return replace(graph, heads=heads)


def with_weights_of(fabric: Fabric, graph: Graph) -> Fabric:
    """A fabric of a graph with another's weights by name, but for its heads, whose weights are fresh.

    >>> from convfabric.weavers import weave
    >>> whole = Fabric(weave("vgg"))
    >>> small = with_weights_of(whole, with_features(whole.graph))
    >>> bool(torch.equal(small.state_dict()["entry.weight"], whole.state_dict()["entry.weight"]))
    True
    """
    found = Fabric(graph)
    known = fabric.state_dict()
    with torch.no_grad():
        for name, own in found.state_dict().items():
            if not name.startswith("heads."):
                own.copy_(known[name])
    return found.train(fabric.training)
