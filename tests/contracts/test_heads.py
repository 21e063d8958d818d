"""What every kind of head keeps to: every task, maps of its own or channels that are classes, one read or several."""

from math import prod

import pytest
import torch

from convfabric.cutting.surgery import extract, ranked
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place, Task
from convfabric.graph.costs import costs
from convfabric.graph.parts import SHAPES
from convfabric.graph.sizes import map_sizes
from convfabric.operators import Conv
from convfabric.weavers import Draft, Purpose
from nearness import EXACT, apart
from test_extraction import lively_fabric

CLASSES = 5
KINDS = [
    (task, linear, reads)
    for task in ("classification", "segmentation", "detection")
    for linear in (True, False)
    for reads in (1, 3)
    if linear or task != "detection"
]
every_head = pytest.mark.parametrize(("task", "linear", "reads"), KINDS)


def headed(task: Task, linear: bool, reads: int) -> Graph:
    """A network whose head reads maps at so many scales."""
    draft = Draft("headed", Purpose(task=task, classes=CLASSES, size=(12, 10)))
    place = draft.enter(Place(0, 0), Conv(), 6)
    read = []
    for scale in range(reads):
        place = draft.put(Place(scale + 1, scale), 6, (place, Conv(stride=2 if scale else 1)))
        read.append(draft.put(Place(scale + 1, scale, 1), CLASSES if not linear else 7, (place, Conv(kernel=1))))
    draft.answer(*read, linear=linear)
    return draft.finished()


@every_head
def test_answers_have_their_shape_and_every_weight_a_gradient(task: Task, linear: bool, reads: int) -> None:
    fabric = Fabric(headed(task, linear, reads))
    logits = fabric(torch.randn(2, 3, 12, 10))
    sizes = map_sizes(fabric.graph, (12, 10))
    anchors = SHAPES * sum(prod(sizes[place]) for place in fabric.graph.head.reads)
    behind = {"classification": (CLASSES,), "segmentation": (CLASSES, 12, 10), "detection": (CLASSES + 9, anchors)}
    assert logits.shape == (2, *behind[task])
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(p.grad is not None for p in fabric.heads.parameters())
    assert sum(p.numel() for p in fabric.parameters()) == costs(fabric.graph, (12, 10)).parameters


@every_head
def test_what_it_reads_is_cut_and_ranked_and_classes_stay_in_order(task: Task, linear: bool, reads: int) -> None:
    graph = headed(task, linear, reads)
    fabric, images = lively_fabric(graph, 0).double(), torch.randn(2, 3, 12, 10, dtype=torch.float64)
    fixed = {place for tie in graph.ties if tie.fixed for place in tie.places}
    assert fixed == (set() if linear else set(graph.head.reads))
    free = {place: graph.node(place).channels - 2 for tie in graph.ties if tie.units > 1 for place in tie.places}
    smaller = graph.narrow(free)
    with torch.no_grad():
        assert apart(ranked(fabric)(images), fabric(images)) < EXACT
        assert torch.equal(extract(fabric, smaller)(images), fabric(images, smaller))
        fewer = (
            [graph.restrict(graph.edge_names - {edge.name}) for edge in graph.arriving(graph.head.reads[-1])]
            if reads > 1
            else []
        )
        assert all(torch.equal(extract(fabric, part)(images), fabric(images, part)) for part in fewer)
