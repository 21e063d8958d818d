import random

import pytest

from convfabric.choice import Budget, budget_from, choose, measures
from convfabric.errors import BudgetError, SettingError
from convfabric.graph import Graph
from convfabric.graph.costs import costs, peak_bytes
from convfabric.weavers import Trellis, weave, weave_trellis

IMAGE = (32, 32)


def random_worth(graph: Graph, seed: int) -> dict[str, float]:
    dice = random.Random(seed)
    return {edge.name: dice.random() for edge in graph.edges}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "budget",
    [
        Budget(macs="25%"),
        Budget(params="30%"),
        Budget(memory_mb="60%"),
        Budget(edges=9),
        Budget(latency_ms=2.0),
        Budget(macs="50%", params="40%", edges=20),
    ],
    ids=str,
)
def test_what_is_chosen_is_within_every_ceiling(budget: Budget, seed: int) -> None:
    graph = weave("fabric-small", layers=6)
    milliseconds = lambda graph: 0.1 * len(graph.edges) + costs(graph, IMAGE).macs / 5e7  # noqa: E731
    how = measures(IMAGE, milliseconds)
    ceilings = budget.resolved({name: measure(graph) for name, measure in how.items()}).ceilings
    chosen = choose(graph, random_worth(graph, seed), budget, IMAGE, milliseconds)
    assert all(how[name](chosen) <= ceiling for name, ceiling in ceilings.items())  # type: ignore[operator]
    assert chosen.edge_names < graph.edge_names


def test_an_ample_budget_keeps_everything() -> None:
    graph = weave("fabric-tiny")
    assert choose(graph, random_worth(graph, 0), Budget(macs=1e12), IMAGE) == graph


@pytest.mark.parametrize("seed", range(12))
def test_a_budget_of_edges_is_used_whole(seed: int) -> None:
    graph = weave("paper-mnist-narrow", size=IMAGE, channels=2)
    dice = random.Random(seed)
    scales = [dice.random() for _ in range(6)]
    worth = {edge.name: scales[edge.source.scale] + 0.2 * dice.random() for edge in graph.edges}
    assert len(choose(graph, worth, Budget(edges=40), IMAGE).edges) == 40


def test_edges_of_most_worth_stay() -> None:
    graph = weave_trellis(Trellis(layers=4, scales=3, channels=4))
    route = {"L0S0_L1S1", "L1S1_L2S2", "L2S2_L3S2"}
    worth = {edge.name: 1.0 if edge.name in route else 0.001 for edge in graph.edges}
    assert choose(graph, worth, Budget(edges=3), IMAGE).edge_names == route


def test_a_budget_below_the_cheapest_route_is_refused_with_what_that_costs() -> None:
    graph = weave("fabric-tiny")
    with pytest.raises(
        BudgetError, match=r"fits 0\.01 M MACs per image: the cheapest route L0S0→L3S\d needs \d\.\d+ M"
    ):
        choose(graph, random_worth(graph, 0), Budget(macs=1e4), IMAGE)


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_of_just_the_cheapest_route_is_met(seed: int) -> None:
    graph = weave("fabric-tiny")
    with pytest.raises(BudgetError, match="needs"):
        choose(graph, random_worth(graph, seed), Budget(macs=1), IMAGE)
    least = min(_chain_macs(graph))
    assert costs(choose(graph, random_worth(graph, seed), Budget(macs=least), IMAGE), IMAGE).macs == least


def _chain_macs(graph: Graph) -> list[int]:
    def chains(place, names):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        if place in graph.head.reads:
            yield names
        for edge in graph.edges:
            if edge.source == place:
                yield from chains(edge.target, names | {edge.name})

    return [costs(graph.restrict(names), IMAGE).macs for names in chains(graph.entry.place, frozenset())]


def test_memory_is_that_of_weights_and_responses() -> None:
    graph = weave("fabric-tiny")
    assert measures(IMAGE)["memory_mb"](graph) == peak_bytes(graph, IMAGE) / 1e6


@pytest.mark.parametrize("said", ["0", "-3", "fast", "0%", "150%", "nan", "%"])
def test_a_ceiling_that_is_no_positive_number_is_refused(said: str) -> None:
    with pytest.raises(SettingError, match=f"macs={said}: give a number above 0, such as 1e7, or a share"):
        budget_from({"macs": said})


def test_a_ceiling_of_another_kind_is_refused() -> None:
    with pytest.raises(SettingError, match=r"macs=\[1\]: give a number above 0"):
        Budget(macs=[1])  # type: ignore[arg-type]


def test_milliseconds_need_a_prediction() -> None:
    graph = weave("fabric-tiny")
    with pytest.raises(SettingError, match="needs a prediction"):
        choose(graph, random_worth(graph, 0), Budget(latency_ms=1), IMAGE)
