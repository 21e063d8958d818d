"""From graph, worths, costs and a budget to a smaller graph. Never sees a tensor."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace

from convfabric.costs import costs, peak_bytes
from convfabric.errors import BudgetError, GraphError, SettingError
from convfabric.graph import Edge, Graph
from convfabric.operators import Size
from convfabric.routes import cheapest_route

Ceiling = float | str | None
"""A number, a share of the whole fabric such as "25%", or None for no ceiling."""
Measure = Callable[[Graph], float]

_UNITS = {
    "latency_ms": ("ms", 1.0),
    "macs": ("M MACs per image", 1e6),
    "params": ("k parameters", 1e3),
    "memory_mb": ("MB", 1.0),
    "edges": ("edges", 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Ceilings; those that are None do not bind.

    >>> Budget(macs="25%", latency_ms=2).resolved({"macs": 1000.0, "latency_ms": 9.0}).macs
    250.0
    """

    latency_ms: Ceiling = None
    """Milliseconds per image on this device, one image at a time."""
    macs: Ceiling = None
    """Multiply-accumulates per image."""
    params: Ceiling = None
    """Trained values."""
    memory_mb: Ceiling = None
    """Megabytes (10^6 bytes) of parameters and responses alive at once, float32, one image."""
    edges: Ceiling = None
    """Edges of the graph, the unit in which the paper cuts."""

    def __post_init__(self) -> None:
        for name, ceiling in asdict(self).items():
            _checked(name, ceiling)

    @property
    def ceilings(self) -> dict[str, Ceiling]:
        """The ceilings that bind."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def resolved(self, whole: Mapping[str, float]) -> "Budget":
        """The same budget with every share turned into a number, of what the whole fabric takes."""
        shares = {name: value for name, value in self.ceilings.items() if isinstance(value, str)}
        return replace(self, **{name: float(value[:-1]) / 100 * whole[name] for name, value in shares.items()})

    def __str__(self) -> str:
        return ", ".join(_said_ceiling(name, value) for name, value in self.ceilings.items()) or "no ceiling"


def _said_ceiling(name: str, ceiling: Ceiling) -> str:
    if isinstance(ceiling, str):
        return f"{ceiling} of the fabric's {_UNITS[name][0].removeprefix('M ').removeprefix('k ')}"
    return said_amount(name, ceiling or 0.0)


def _checked(name: str, ceiling: Ceiling) -> None:
    said = ceiling if isinstance(ceiling, str) else f"{ceiling or 0:g}"
    wanted = f"{name}={said}: give a positive number or a share such as 25%."
    try:
        number = float(ceiling.removesuffix("%") if isinstance(ceiling, str) else 1 if ceiling is None else ceiling)
    except ValueError:
        raise SettingError(wanted) from None
    share = isinstance(ceiling, str)
    if not 0 < number < float("inf") or (share and not str(ceiling).endswith("%")) or (share and number > 100):
        raise SettingError(wanted)


def budget_from(settings: Mapping[str, Ceiling]) -> Budget:
    """The budget in a mapping of settings; plain numbers may come as text.

    >>> budget_from({"macs": "2e6"}).macs
    2000000.0
    """
    if unknown := sorted(set(settings) - {field.name for field in fields(Budget)}):
        raise SettingError(f"{', '.join(unknown)}: a budget has {', '.join(_UNITS)}.")
    return Budget(**{name: _number(name, value) for name, value in settings.items()})


def _number(name: str, value: Ceiling) -> Ceiling:
    if not isinstance(value, str) or value.endswith("%"):
        return value
    try:
        return float(value)
    except ValueError:
        raise SettingError(f"{name}={value}: give a positive number or a share such as 25%.") from None


def said_amount(name: str, value: float) -> str:
    """A number of the budget with its unit.

    >>> said_amount("macs", 2_500_000)
    '2.5 M MACs per image'
    """
    unit, scale = _UNITS[name]
    return f"{value / scale:.3g} {unit}"


def measures(image: Size, latency_ms: Measure | None = None) -> dict[str, Measure]:
    """How each kind of ceiling is measured on a graph, for images of a height and width in pixels."""
    known: dict[str, Measure] = {
        "macs": lambda graph: costs(graph, image).macs,
        "params": lambda graph: costs(graph, image).parameters,
        "memory_mb": lambda graph: peak_bytes(graph, image) / 1e6,
        "edges": lambda graph: len(graph.edges),
    }
    return known if latency_ms is None else known | {"latency_ms": latency_ms}


def choose(
    graph: Graph, worth: Mapping[str, float], budget: Budget, image: Size, latency_ms: Measure | None = None
) -> Graph:
    """The sub-graph that keeps the edges of most worth for what they cost, within the budget.

    Edges go one by one, least worth per share of the budget first, unless no route would be left or what
    remains could not be joined; then those that still fit come back, most worth first. Exits stay as long as the
    budget can be met with all of them. Where that ends above the budget the cheapest route is protected and the
    rest goes. ``latency_ms`` predicts a graph's milliseconds.
    Raises BudgetError where even the cheapest route is above a ceiling.
    """
    how = measures(image, latency_ms)
    if "latency_ms" in budget.ceilings and latency_ms is None:
        raise SettingError("a budget in milliseconds needs a prediction of milliseconds.")
    asked = {name: how[name] for name in budget.ceilings}
    budget = budget.resolved({name: measure(graph) for name, measure in asked.items()})
    scores = {edge.name: worth[edge.name] / _share(graph, edge, budget, asked) for edge in graph.edges}
    chosen = _cut(graph, scores, budget, asked, frozenset(), exits=len(graph.heads))
    if not _fits(chosen, budget, asked) and len(graph.heads) > 1:
        chosen = _cut(graph, scores, budget, asked, frozenset())
    if not _fits(chosen, budget, asked):
        cheapest = _cheapest(graph, asked)
        if not _fits(cheapest, budget, asked):
            raise BudgetError(_says_no(graph, cheapest, budget, asked))
        chosen = _cut(graph, scores, budget, asked, cheapest.edge_names)
    return _refilled(graph, chosen, scores, budget, asked)


def _fits(graph: Graph, budget: Budget, asked: Mapping[str, Measure]) -> bool:
    return all(measure(graph) <= _ceiling(budget, name) for name, measure in asked.items())


def _ceiling(budget: Budget, name: str) -> float:
    ceiling = budget.ceilings[name]
    assert isinstance(ceiling, int | float), f"{name} is not resolved"
    return ceiling


def _share(graph: Graph, edge: Edge, budget: Budget, asked: Mapping[str, Measure]) -> float:
    """What an edge alone takes of the ceilings, summed; never zero."""
    shares = (max(taken_by(graph, edge, measure), 0.0) / _ceiling(budget, name) for name, measure in asked.items())
    return sum(shares) + 1e-12


def _cut(
    graph: Graph,
    scores: Mapping[str, float],
    budget: Budget,
    asked: Mapping[str, Measure],
    protected: frozenset[str],
    exits: int = 1,
) -> Graph:
    """The graph less what scores least, as long as at least so many exits can answer."""
    for name in sorted(scores, key=lambda name: (scores[name], name)):
        if _fits(graph, budget, asked):
            break
        if name in graph.edge_names and name not in protected:
            try:
                smaller = graph.restrict(graph.edge_names - {name})
            except GraphError:
                continue
            graph = smaller if len(smaller.heads) >= exits else graph
    return graph


def _refilled(
    whole: Graph, chosen: Graph, scores: Mapping[str, float], budget: Budget, asked: Mapping[str, Measure]
) -> Graph:
    for name in sorted(scores, key=lambda name: (-scores[name], name)):
        if name not in chosen.edge_names:
            try:
                fuller = whole.restrict(chosen.edge_names | {name})
            except GraphError:
                continue
            if name in fuller.edge_names and _fits(fuller, budget, asked):
                chosen = fuller
    return chosen


def _cheapest(graph: Graph, asked: Mapping[str, Measure]) -> Graph:
    """The route that is cheapest by the first ceiling asked for; by MACs where that one does not add up."""
    measure = next(iter(asked.values()))
    if "memory_mb" in asked:
        measure = asked.get("macs", measure)
    return cheapest_route(graph, lambda edge: taken_by(graph, edge, measure))


def taken_by(graph: Graph, edge: Edge, measure: Measure) -> float:
    """What one edge adds to a measure of its graph, all nodes staying.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny")
    >>> taken_by(graph, graph.edges[0], lambda graph: len(graph.edges))
    1
    """
    return measure(graph) - measure(replace(graph, edges=tuple(other for other in graph.edges if other is not edge)))


def _says_no(whole: Graph, cheapest: Graph, budget: Budget, asked: Mapping[str, Measure]) -> str:
    route = f"{cheapest.entry.place}→{cheapest.head.reads[0]}"
    over = next(name for name in asked if asked[name](cheapest) > _ceiling(budget, name))
    needs = said_amount(over, asked[over](cheapest))
    rest = " Nothing in it can be cut." if cheapest.edge_names == whole.edge_names else ""
    return (
        f"no sub-network fits {said_amount(over, _ceiling(budget, over))}: "
        f"the cheapest route {route} needs {needs}.{rest}"
    )
