"""By worth for what it costs: edges go and come back one at a time."""

from collections.abc import Mapping

from convfabric.choice.budgets import Budget, Measure, ceiling, fits, measures, said_amount, taken_by
from convfabric.errors import BudgetError, GraphError, SettingError
from convfabric.graph import Edge, Graph
from convfabric.graph.paths import cheapest_route
from convfabric.operators import Size


def choose(
    graph: Graph, worth: Mapping[str, float], budget: Budget, image: Size, latency_ms: Measure | None = None
) -> Graph:
    """The sub-graph that keeps the edges of most worth for what they cost, within the budget.

    Edges go one by one, least worth per share of the budget first, unless no route would be left or what
    remains could not be joined; then those that still fit come back, most worth first. Exits stay as long as the
    budget can be met with all of them. Where that ends above the budget the cheapest route is protected and the
    rest goes. ``latency_ms`` predicts a graph's milliseconds.
    Raises BudgetError where even the cheapest route is above a ceiling.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny")
    >>> worth = {edge.name: 1.0 for edge in graph.edges}
    >>> len(choose(graph, worth, Budget(edges="50%"), (32, 32)).edges), len(graph.edges)
    (20, 41)
    """
    how = measures(image, latency_ms)
    if "latency_ms" in budget.ceilings and latency_ms is None:
        raise SettingError("a budget in milliseconds needs a prediction of milliseconds.")
    asked = {name: how[name] for name in budget.ceilings}
    budget = budget.resolved({name: measure(graph) for name, measure in asked.items()})
    scores = {edge.name: worth[edge.name] / _share(graph, edge, budget, asked) for edge in graph.edges}
    chosen = _cut(graph, scores, budget, asked, frozenset(), exits=len(graph.heads))
    if not fits(chosen, budget, asked) and len(graph.heads) > 1:
        chosen = _cut(graph, scores, budget, asked, frozenset())
    if not fits(chosen, budget, asked):
        cheapest = _cheapest(graph, asked)
        if not fits(cheapest, budget, asked):
            raise BudgetError(_says_no(graph, cheapest, budget, asked))
        chosen = _cut(graph, scores, budget, asked, cheapest.edge_names)
    return _refilled(graph, chosen, scores, budget, asked)


def _share(graph: Graph, edge: Edge, budget: Budget, asked: Mapping[str, Measure]) -> float:
    """The shares of the ceilings that an edge alone takes, summed; never zero."""
    shares = (max(taken_by(graph, edge, measure), 0.0) / ceiling(budget, name) for name, measure in asked.items())
    return sum(shares) + 1e-12


def _cut(
    graph: Graph,
    scores: Mapping[str, float],
    budget: Budget,
    asked: Mapping[str, Measure],
    protected: frozenset[str],
    exits: int = 1,
) -> Graph:
    """The graph less what scores least, as long as at least so many exits can answer.

    An edge waits that would take others along and the graph below the budget at once: it goes where nothing else does.
    """
    waiting: list[Graph] = []
    for name in sorted(scores, key=lambda name: (scores[name], name)):
        if fits(graph, budget, asked):
            return graph
        if name in graph.edge_names and name not in protected:
            try:
                smaller = graph.restrict(graph.edge_names - {name})
            except GraphError:
                continue
            if len(smaller.heads) < exits:
                continue
            if len(smaller.edges) < len(graph.edges) - 1 and fits(smaller, budget, asked):
                waiting.append(smaller)
            else:
                graph = smaller
    return graph if fits(graph, budget, asked) or not waiting else max(waiting, key=lambda graph: len(graph.edges))


def _refilled(
    whole: Graph, chosen: Graph, scores: Mapping[str, float], budget: Budget, asked: Mapping[str, Measure]
) -> Graph:
    for name in sorted(scores, key=lambda name: (-scores[name], name)):
        if name not in chosen.edge_names:
            try:
                fuller = whole.restrict(chosen.edge_names | {name})
            except GraphError:
                continue
            if name in fuller.edge_names and fits(fuller, budget, asked):
                chosen = fuller
    return chosen


def _cheapest(graph: Graph, asked: Mapping[str, Measure]) -> Graph:
    """The route that is cheapest by the first ceiling asked for; by MACs where that one does not add up."""
    measure = next(iter(asked.values()))
    if "memory_mb" in asked:
        measure = asked.get("macs", measure)
    return cheapest_route(graph, lambda edge: taken_by(graph, edge, measure))


def _says_no(whole: Graph, cheapest: Graph, budget: Budget, asked: Mapping[str, Measure]) -> str:
    route = f"{cheapest.entry.place}→{cheapest.head.reads[0]}"
    over = next(name for name in asked if asked[name](cheapest) > ceiling(budget, name))
    needs = said_amount(over, asked[over](cheapest))
    rest = " Nothing in it can be cut." if cheapest.edge_names == whole.edge_names else ""
    return (
        f"no sub-network fits {said_amount(over, ceiling(budget, over))}: "
        f"the cheapest route {route} needs {needs}.{rest}"
    )
