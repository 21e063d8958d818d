"""Counts that papers state, and that exact arithmetic gives from their wiring."""

import random
from typing import Any

import pytest

from convfabric.errors import SettingError
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs
from convfabric.graph.paths import cheapest_route, cheapest_routes, count_routes
from convfabric.weavers import PRESETS, Purpose, Trellis, weave, weave_trellis


@pytest.mark.parametrize(("layers", "scales", "edges"), [(8, 6, 122), (16, 6, 250), (9, 6, 138), (8, 9, 191)])
def test_edges_are_as_many_as_in_the_authors_generator(layers: int, scales: int, edges: int) -> None:
    assert len(weave_trellis(Trellis(layers=layers, scales=scales)).edges) == edges


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("paper-mnist-dense", 4_512_650),
        ("paper-cifar10-dense", 18_022_410),
        ("paper-part-labels-dense", 7_064_451),
    ],
)
def test_parameters_are_those_of_the_published_graphs(name: str, parameters: int) -> None:
    assert costs(weave(name), PRESETS[name].size).parameters == parameters


def test_nineteen_convolutions_and_five_poolings_give_42504_chains() -> None:
    graph = weave_trellis(Trellis(layers=25, scales=6, channels=1))
    lattice = graph.restrict(
        edge.name
        for edge in graph.edges
        if edge.target.layer == edge.source.layer + 1 and edge.target.scale >= edge.source.scale
    )
    assert count_routes(lattice) == 42_504


def test_last_layer_runs_to_where_the_head_reads() -> None:
    numbers = Trellis(layers=3, scales=3, channels=2)
    down = weave_trellis(numbers)
    up = weave_trellis(numbers, Purpose(task="segmentation"))
    assert down.head.reads == (Place(2, 2),)
    assert {"L2S0_L2S1", "L2S1_L2S2"} <= down.edge_names
    assert up.head.reads == (Place(2, 0),)
    assert {"L2S2_L2S1", "L2S1_L2S0"} <= up.edge_names


def test_doubling_doubles_at_each_coarser_scale() -> None:
    graph = weave_trellis(Trellis(layers=2, scales=4, channels=3, doubling=True, finest=1))
    assert [graph.node(Place(0, s)).channels for s in (1, 2, 3, 4)] == [3, 6, 12, 24]


def test_too_many_scales_are_refused_with_the_most_there_can_be() -> None:
    with pytest.raises(SettingError, match=r"scales=7 .* 32×32 images .* carry at most 6 scales"):
        weave("paper-mnist-dense", scales=7)


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"Did you mean fabric-small\?"):
        weave("fabric-smal")


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(SettingError, match="depth: fabric-small has layers, scales"):
        weave("fabric-small", depth=3)


def test_a_trellis_without_layers_is_refused() -> None:
    with pytest.raises(SettingError, match="layers=0: give at least 1"):
        Trellis(layers=0)


def test_cheapest_route_is_cheaper_than_every_other_chain() -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4))
    price = {edge.name: i + 1.0 for i, edge in enumerate(graph.edges)}
    found = cheapest_route(graph, lambda edge: price[edge.name])
    assert sum(price[edge.name] for edge in found.edges) == min(_all_chains(graph, price))


def _all_chains(graph, price):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    def from_here(place: Place) -> list[float]:
        ends = [0.0] if place in graph.head.reads else []
        onward = [edge for edge in graph.edges if edge.source == place]
        return ends + [price[edge.name] + rest for edge in onward for rest in from_here(edge.target)]

    return from_here(graph.entry.place)


@pytest.mark.parametrize("seed", range(5))
def test_the_k_cheapest_routes_are_the_first_of_all_routes_by_cost(seed: int) -> None:
    graph = weave_trellis(Trellis(layers=3, scales=3, channels=4))
    dice = random.Random(seed)
    price = {edge.name: dice.random() for edge in graph.edges}

    def total(route: Graph) -> float:
        return sum(price[name] for name in route.edge_names)

    every = cheapest_routes(graph, lambda edge: price[edge.name], 10_000)
    assert len({route.edge_names for route in every}) == len(every) == count_routes(graph)
    assert [total(route) for route in every] == sorted(total(route) for route in every)
    found = cheapest_routes(graph, lambda edge: price[edge.name], 5)
    assert [route.edge_names for route in found] == [route.edge_names for route in every[:5]]


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_each_scale_begins_behind_the_finer_one_and_no_node_is_dead(delay: int) -> None:
    graph = weave("trellis", layers=3, scales=3, channels=4, delay=delay, head="all", operators="plain")
    columns = {s: sorted(node.place.layer for node in graph.nodes if node.place.scale == s) for s in range(3)}
    assert columns == {s: [delay * s, delay * s + 1, delay * s + 2] for s in range(3)}
    assert graph.restrict(graph.edge_names) == graph
    assert any(edge.target.scale < edge.source.scale for edge in graph.edges) == (delay == 1)


@pytest.mark.parametrize("numbers", [{"delay": 3, "head": "all"}, {"delay": 1}, {"delay": -1, "head": "all"}])
def test_a_delay_that_leaves_a_gap_or_an_unread_scale_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="from 0 to the layers, and every scale"):
        Trellis(layers=2, **numbers)
