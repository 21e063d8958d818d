"""One graph for each law that breaks that law."""

from dataclasses import replace
from typing import Any

import pytest

from convfabric.errors import GraphError
from convfabric.graph import Edge, Graph, Node, Place
from convfabric.graph.laws import LAWS, broken_laws, check
from convfabric.operators import Conv, GlobalPool, Identity, Pool
from convfabric.weavers import Trellis, weave_trellis

GOOD = weave_trellis(Trellis(layers=3, scales=2, channels=4))
A, B = Place(0, 0), Place(1, 0)


def with_edge(edge: Edge) -> Graph:
    return replace(GOOD, edges=(*GOOD.edges, edge))


def with_node(place: Place, **changes: Any) -> Graph:
    nodes = (replace(node, **changes) if node.place == place else node for node in GOOD.nodes)
    return replace(GOOD, nodes=tuple(nodes))


BROKEN = {
    "a place holds one node": replace(GOOD, nodes=(*GOOD.nodes, GOOD.nodes[0])),
    "an edge is one of a kind": with_edge(GOOD.edges[0]),
    "edges, entry and heads name nodes that exist": with_edge(Edge(source=A, target=Place(9, 0), operator=Conv())),
    "places count from 0": replace(GOOD, heads=(replace(GOOD.head, name="forward"),)),
    "channels and images": replace(GOOD, heads=(replace(GOOD.head, classes=1),)),
    "maps that meet have one size": replace(GOOD, edges=(*GOOD.edges[1:], replace(GOOD.edges[0], operator=Identity()))),
    "a product has a factor of more than one pixel": replace(
        GOOD,
        nodes=(
            *(replace(node, join="product") if node.place == B else node for node in GOOD.nodes),
            Node(place=Place(0, 16), channels=4),
        ),
        edges=(
            *(edge for edge in GOOD.edges if edge.target != B),
            Edge(source=A, target=Place(0, 16), operator=GlobalPool()),
            Edge(source=Place(0, 16), target=B, operator=Identity()),
        ),
    ),
    "no edge runs to an earlier layer": with_edge(Edge(source=Place(2, 0), target=A, operator=Conv())),
    "joins equal counts": replace(
        GOOD,
        nodes=tuple(replace(node, channels=9) if node.place == B else node for node in GOOD.nodes),
        edges=tuple(
            replace(edge, operator=Identity()) if (edge.source, edge.target) == (A, B) else edge for edge in GOOD.edges
        ),
    ),
    "a concatenation has the channels that arrive": with_node(B, join="concatenation"),
    "an operator can join the channels": replace(
        GOOD, edges=(replace(GOOD.edges[0], operator=Conv(stride=2, groups=3)), *GOOD.edges[1:])
    ),
    "what a node does after joining keeps size": with_node(B, then=Pool()),
    "heads differ in name, agree in task": replace(GOOD, heads=(GOOD.head, GOOD.head)),
    "heads stand in the order in which they can answer": replace(
        GOOD, heads=(replace(GOOD.head, name="late"), replace(GOOD.head, name="early", reads=(B,)))
    ),
    "edges that share weights are alike": replace(
        GOOD, edges=tuple(replace(edge, shared="one") if edge.target.layer == 1 else edge for edge in GOOD.edges)
    ),
    "edges run in no circle": with_edge(Edge(source=Place(0, 1), target=A, operator=Conv(stride=1))),
    "every node lies on a route": replace(GOOD, nodes=(*GOOD.nodes, Node(place=Place(1, 0, lane=1), channels=4))),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_graph_that_breaks_a_law_is_refused_with_its_sentence(sentence: str) -> None:
    with pytest.raises(GraphError, match=sentence):
        check(BROKEN[sentence], (8, 8))


@pytest.mark.parametrize("name", ["", "a.b", "forward", "items", "<b>", "x" * 101, "1"])
def test_names_that_layers_cannot_have_are_refused(name: str) -> None:
    edges = tuple(replace(edge, shared=name) for edge in GOOD.edges[:1]) + GOOD.edges[1:]
    for odd in (replace(GOOD, heads=(replace(GOOD.head, name=name),)), *([replace(GOOD, edges=edges)] if name else [])):
        with pytest.raises(GraphError, match="is no name"):
            check(odd)


@pytest.mark.parametrize("changes", [{"channels": 10**30}, {"place": Place(-1, 0)}, {"place": Place(0, 10**9)}])
def test_counts_that_no_machine_has_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=r"channels|below zero|beyond"):
        check(replace(GOOD, nodes=(*GOOD.nodes[:-1], replace(GOOD.nodes[-1], **changes))))


def test_every_law_has_a_graph_that_breaks_it() -> None:
    said = "\n".join(line for graph in BROKEN.values() for line in broken_laws(graph, (8, 8)))
    assert [sentence for sentence, _ in LAWS if sentence not in said] == []


def test_all_broken_laws_are_reported_at_once() -> None:
    twice = replace(BROKEN["channels and images"], entry=replace(GOOD.entry, operator=Conv(groups=2)))
    assert len(broken_laws(twice)) == 2
