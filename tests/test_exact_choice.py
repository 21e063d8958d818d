"""The integer program and the evolution, against trying everything."""

import ctypes
import os
import random
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from scipy.optimize import milp

from convfabric.choice import Budget, choose, choose_exactly, exact, fits, measures
from convfabric.choice.evolution import Evolution
from convfabric.choice.exact import Additive
from convfabric.errors import BudgetError, GraphError, SettingError
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.weavers import Trellis, weave, weave_trellis
from graphs import random_trellis

IMAGE = (32, 32)


def random_worth(graph: Graph, seed: int) -> dict[str, float]:
    dice = random.Random(seed)
    return {edge.name: dice.random() for edge in graph.edges}


def total(graph: Graph, worth: dict[str, float]) -> float:
    return sum(worth[name] for name in graph.edge_names)


def best_of_all(graph: Graph, worth: dict[str, float], most_macs: float) -> float:
    """The largest total worth of any restriction within a ceiling, by trying every set of edges."""
    best, names = -1.0, sorted(graph.edge_names)
    for count in range(1, len(names) + 1):
        for kept in combinations(names, count):
            try:
                part = graph.restrict(kept)
            except GraphError:
                continue
            if costs(part, IMAGE).macs <= most_macs:
                best = max(best, total(part, worth))
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_integer_program_finds_what_trying_everything_finds(seed: int, share: float) -> None:
    graph = weave_trellis(Trellis(layers=3, scales=2, channels=4, doubling=True, operators="block", head="all"))
    worth, most = random_worth(graph, seed), share * costs(graph, IMAGE).macs
    found = choose_exactly(graph, worth, Budget(macs=most), IMAGE)
    assert costs(found, IMAGE).macs <= most
    assert total(found, worth) == pytest.approx(best_of_all(graph, worth, most), rel=1e-3)


@pytest.mark.skipif(os.name != "posix", reason="its own standard output is another one")
def test_what_the_solver_prints_by_itself_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def printing(*args: Any, **words: Any) -> Any:
        ctypes.CDLL(None).puts(b"tmpSolver.run();")
        return milp(*args, **words)

    monkeypatch.setattr(exact, "milp", printing)
    graph = weave("fabric-tiny")
    choose_exactly(graph, random_worth(graph, 0), Budget(edges=7), IMAGE)
    print("heard")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "heard\n"


@pytest.mark.parametrize("budget", [Budget(macs="40%"), Budget(params="50%", macs="50%"), Budget(edges=12)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_integer_program_is_never_worse_than_going_by_worth_for_cost(budget: Budget, seed: int) -> None:
    graph = weave("fabric-small", operators="residual")
    worth = random_worth(graph, seed)
    exact, greedy = (how(graph, worth, budget, IMAGE) for how in (choose_exactly, choose))
    assert total(exact, worth) >= total(greedy, worth) * 0.999


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ["macs", "params", "edges"])
def test_parts_of_an_additive_measure_add_up_for_every_restriction(seed: int, name: str) -> None:
    graph, image = random_trellis(seed)
    measure = measures(image)[name]
    sums, part = Additive.of(graph, measure), Sampler.of(graph, 1.0, image).draw(random.Random(seed))
    names = [edge.name for edge in part.edges] + [str(n.place) for n in part.nodes if n.place != graph.entry.place]
    assert sums.fixed + sum(sums.parts[name] for name in names) == pytest.approx(measure(part))


def test_what_does_not_add_up_is_refused_by_name() -> None:
    graph = weave("fabric-tiny")
    worth = random_worth(graph, 0)
    with pytest.raises(SettingError, match="memory_mb=1: memory does not add up"):
        choose_exactly(graph, worth, Budget(memory_mb=1), IMAGE)
    concatenating = weave("unet", size=IMAGE)
    with pytest.raises(SettingError, match="concatenates, so its costs do not add up"):
        choose_exactly(concatenating, random_worth(concatenating, 0), Budget(macs="50%"), IMAGE)
    sharing = weave("fabric-tiny", shared=True, operators="block", doubling=False)
    with pytest.raises(SettingError, match="shares weights"):
        choose_exactly(sharing, random_worth(sharing, 0), Budget(params="50%"), IMAGE)
    with pytest.raises(BudgetError, match="no sub-network of fabric-tiny fits"):
        choose_exactly(graph, worth, Budget(macs=1e4), IMAGE)


def evolution_of(graph: Graph, share: float) -> tuple[Evolution, list[Graph]]:
    """A search that prizes some edges and wide nodes, and the graphs that it asks about."""
    sampler, asked = Sampler.of(graph, 0.25, IMAGE), list[Graph]()
    budget, how = Budget(macs=share * costs(graph, IMAGE).macs), {"macs": measures(IMAGE)["macs"]}
    worth = random_worth(graph, 5)

    def fitness(parts: Sequence[Graph]) -> list[float]:
        asked.extend(parts)
        return [
            sum(worth[name] ** 2 for name in part.edge_names) + sum(n.channels for n in part.nodes) / 500
            for part in parts
        ]

    return Evolution(sampler=sampler, fits=lambda part: fits(part, budget, how), fitness=fitness), asked


def test_evolution_finds_better_than_the_same_number_of_random_draws() -> None:
    evolution, _ = evolution_of(weave("fabric-tiny", operators="residual"), 0.15)
    found = evolution.run([], trials=120)
    dice = random.Random(1)
    drawn = [evolution.grown(evolution.repaired(evolution.sampler.draw(dice), dice), dice) for _ in range(120)]
    assert found[0].fitness > max(evolution.fitness(drawn))
    assert all(evolution.fits(one.graph) for one in found)
    assert [one.fitness for one in found] == sorted((one.fitness for one in found), reverse=True)


def test_evolution_asks_once_for_each_graph_and_ends_the_same_for_a_seed() -> None:
    graph = weave("fabric-tiny")
    runs = []
    for _ in range(2):
        evolution, asked = evolution_of(graph, 0.3)
        runs.append([one.graph for one in evolution.run([graph], trials=30, seed=7)])
        assert len(asked) == len(set(asked)) == 30
    assert runs[0] == runs[1]


def test_what_is_grown_has_no_room_for_a_wider_node() -> None:
    graph = weave("fabric-small", operators="residual")
    evolution, _ = evolution_of(graph, 0.2)
    dice = random.Random(0)
    part = evolution.grown(evolution.repaired(graph, dice), dice)
    kept, positions = evolution.genes(part)
    for at, group in enumerate(evolution.sampler.widths):
        if positions[at] + 1 < len(group.counts) and group.places & {node.place for node in part.nodes}:
            wider = evolution.made((kept, (*positions[:at], positions[at] + 1, *positions[at + 1 :])))
            assert wider is None or not evolution.fits(wider)


@pytest.mark.parametrize("operators", ["plain", "residual"])
def test_what_is_grown_takes_all_that_a_budget_allows(operators: str) -> None:
    graph = weave("fabric-small", operators=operators)
    everything, _ = evolution_of(graph, 1.0)
    some, _ = evolution_of(graph, 0.5)
    for seed in range(8):
        dice = random.Random(seed)
        assert everything.grown(everything.sampler.smallest, dice) == graph
        part = some.grown(some.repaired(some.sampler.draw(dice), dice), dice)
        kept, positions = some.genes(part)
        more = (some.made((kept | unit, positions)) for unit in some.sampler.units)
        assert not any(some.fits(larger) for larger in more if larger not in (None, part))


def test_evolution_refuses_a_budget_that_the_smallest_misses() -> None:
    evolution, _ = evolution_of(weave("fabric-tiny"), 1e-9)
    with pytest.raises(BudgetError, match="not even the smallest sub-network of fabric-tiny fits"):
        evolution.run([], trials=4)
