"""The super-networks of Budgeted Super Networks (Veniat & Denoyer, CVPR 2018): their graphs, without gates."""

from dataclasses import dataclass, replace

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.graph.laws import check
from convfabric.operators import Chain, Conv, Identity, Nearest, Norm, Operator, Relu, basic_block, projection
from convfabric.weavers.builder import Draft, Purpose
from convfabric.weavers.trellis import weave_trellis
from convfabric.weavers.trellis_numbers import Trellis


@dataclass(frozen=True, kw_only=True)
class ResnetFabric:
    """The numbers of a ResNet fabric: three stages, and blocks that lead across from each to the next."""

    blocks: int = 3
    """Of each stage; 3, 5, 7, 9 and 18 hold ResNet-20, -32, -44, -56 and -110."""
    channels: int = 16
    """Of the first stage; each of the others doubles them."""
    crossing: str = "slr"
    """Which blocks lead across: s to the mirrored node, l one later, r one earlier."""

    def __post_init__(self) -> None:
        if min(self.blocks, self.channels) < 1 or set(self.crossing) - set("slr"):
            raise SettingError(f"{self}: blocks and channels are at least 1, crossing has letters of slr.")


@dataclass(frozen=True, kw_only=True)
class BudgetedTrellis:
    """The numbers of a B-CNF: the paper's trellis, each edge normalised by itself."""

    layers: int = 8
    """Columns of nodes that each scale has."""
    scales: int = 6
    """Rows of nodes."""
    channels: int = 128
    """Of each node."""


def weave_resnet_fabric(numbers: ResnetFabric, purpose: Purpose, name: str = "resnet-fabric") -> Graph:
    """The ResNet fabric with these numbers.

    >>> len(weave_resnet_fabric(ResnetFabric(crossing=""), Purpose()).edges)
    18
    """
    draft = Draft(name, purpose)
    place = draft.enter(Place(0, 0), Conv(bias=False), numbers.channels)
    before = [place]
    for stage in range(3):
        nodes = [place]
        for index in range(numbers.blocks):
            sources = dict.fromkeys([place, *(_across(numbers, before, index) if stage else ())])
            arriving = [arrival for source in sources for arrival in _block(source, 2 ** (stage - source.scale))]
            here = Place(place.layer + 1, stage)
            place = draft.put(here, numbers.channels << stage, *arriving, then=Relu())
            nodes.append(place)
        before = nodes
    draft.answer(place)
    return draft.finished()


def _across(numbers: ResnetFabric, before: list[Place], index: int) -> list[Place]:
    """The nodes of the stage before that lead to a block; its first node is the stage's input."""
    last = numbers.blocks - 1 - index
    wanted = {"s": last - 1, "l": last if index else None, "r": last - 2 if last else None}
    found = [wanted[letter] for letter in numbers.crossing]
    return [before[max(0, position + 1)] for position in found if position is not None]


def _block(source: Place, stride: int) -> tuple[tuple[Place, Operator], ...]:
    shortcut: Operator = Identity() if stride == 1 else projection(stride)
    return (source, shortcut), (source, basic_block(stride))


def weave_budgeted_trellis(numbers: BudgetedTrellis, purpose: Purpose, name: str = "b-cnf") -> Graph:
    """The B-CNF with these numbers: its trellis with a norm on each edge, and none at nodes.

    >>> len(weave_budgeted_trellis(BudgetedTrellis(channels=4), Purpose()).edges)
    122
    """
    trellis = Trellis(layers=numbers.layers, scales=numbers.scales, channels=numbers.channels)
    graph = weave_trellis(trellis, purpose, name)
    edges = tuple(replace(edge, operator=_normed(edge.operator)) for edge in graph.edges)
    nodes = tuple(replace(node, then=Relu()) for node in graph.nodes)
    entry = replace(graph.entry, operator=Chain((Conv(), Norm())))
    return check(replace(graph, nodes=nodes, edges=edges, entry=entry), purpose.size)


def _normed(operator: Operator) -> Chain:
    return Chain((Nearest(), Conv(), Norm())) if operator.stride < 1 else Chain((operator, Norm()))
