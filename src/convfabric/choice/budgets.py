"""Ceilings, and how what is under them is measured."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace

from convfabric.errors import SettingError
from convfabric.graph import Edge, Graph
from convfabric.graph.costs import costs, edge_costs, peak_bytes
from convfabric.operators import Size

Ceiling = float | str | None
"""A number, a share of the whole fabric such as "25%", or None for no ceiling."""
Measure = Callable[[Graph], float]


@dataclass(frozen=True)
class Summed:
    """A measure that edges add to, each what it costs by itself."""

    whole: Measure
    of_edge: Callable[[Graph, Edge], float]
    """Never more than a graph's measure grows by an edge."""
    exact: bool = True
    """Whether it grows by just that, all nodes staying."""

    def __call__(self, graph: Graph) -> float:
        """The measure of a graph."""
        return self.whole(graph)


_UNITS = {
    "latency_ms": ("ms", 1.0),
    "macs": ("M MACs per image", 1e6),
    "params": ("k parameters", 1e3),
    "memory_mb": ("MB", 1.0),
    "edges": ("edges", 1.0),
}
_PREFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}


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
        return f"{ceiling} of the fabric's {_bare(name)}"
    return said_amount(name, ceiling or 0.0)


def _checked(name: str, ceiling: Ceiling) -> None:
    """SettingError for what is neither a number above 0 nor a share."""
    if ceiling is None:
        return
    share = isinstance(ceiling, str)
    try:
        number = float(ceiling.removesuffix("%") if isinstance(ceiling, str) else ceiling)
    except (ValueError, TypeError):
        raise SettingError(_wanted(name, ceiling)) from None
    if not 0 < number < float("inf") or (share and not str(ceiling).endswith("%")) or (share and number > 100):
        raise SettingError(_wanted(name, ceiling))


def _wanted(name: str, ceiling: object) -> str:
    said = f"{ceiling:g}" if isinstance(ceiling, float) else ceiling
    such = ", such as 1e7" if name in ("macs", "params") else ""
    return f"{name}={said}: give a number above 0{such}, or a share such as 25%, of at most 100%."


def budget_from(settings: Mapping[str, Ceiling]) -> Budget:
    """The budget in a mapping of settings; numbers may come as text, MACs and parameters in k, M or G.

    >>> budget_from({"macs": "2e6"}).macs, budget_from({"params": "1.5k"}).params
    (2000000.0, 1500.0)
    """
    if unknown := sorted(set(settings) - {field.name for field in fields(Budget)}):
        raise SettingError(f"{', '.join(unknown)}: a budget has {', '.join(_UNITS)}.")
    return Budget(**{name: _number(name, value) for name, value in settings.items()})


def _number(name: str, value: Ceiling) -> Ceiling:
    if not isinstance(value, str) or value.endswith("%"):
        return value
    times = _PREFIXES.get(value[-1:], 1.0) if name in ("macs", "params") else 1.0
    try:
        return times * float(value[:-1] if times > 1 else value)
    except ValueError:
        raise SettingError(_wanted(name, value)) from None


def said_amount(name: str, value: float) -> str:
    """A number of the budget with its unit.

    >>> said_amount("macs", 2_500_000), said_amount("macs", 1)
    ('2.5 M MACs per image', '1 MACs per image')
    >>> said_amount("params", 0.4)
    '0.4 parameters'
    """
    unit, scale = _UNITS[name]
    return f"{value:g} {_bare(name)}" if value < scale / 100 and scale > 1 else f"{value / scale:.3g} {unit}"


def _bare(name: str) -> str:
    """The unit without the letter of its scale."""
    return _UNITS[name][0].removeprefix("M ").removeprefix("k ")


def measures(image: Size, latency_ms: Measure | None = None) -> dict[str, Measure]:
    """How each kind of ceiling is measured on a graph, for images of a height and width in pixels.

    >>> from convfabric.weavers import weave
    >>> measures((32, 32))["edges"](weave("resnet-20"))
    18
    """
    known: dict[str, Measure] = {
        "macs": Summed(lambda graph: costs(graph, image).macs, lambda graph, edge: edge_costs(graph, edge, image).macs),
        "params": Summed(
            lambda graph: costs(graph, image).parameters,
            lambda graph, edge: 0 if edge.shared else edge_costs(graph, edge, image).parameters,
            exact=False,
        ),
        "memory_mb": lambda graph: peak_bytes(graph, image) / 1e6,
        "edges": Summed(lambda graph: len(graph.edges), lambda graph, edge: 1),
    }
    return known if latency_ms is None else known | {"latency_ms": latency_ms}


def fits(graph: Graph, budget: Budget, asked: Mapping[str, Measure]) -> bool:
    """Whether a graph is under every ceiling of a resolved budget.

    >>> from convfabric.weavers import weave
    >>> how = measures((32, 32))
    >>> fits(weave("resnet-20"), Budget(edges=20), {"edges": how["edges"]})
    True
    """
    return all(measure(graph) <= ceiling(budget, name) for name, measure in asked.items())


def ceiling(budget: Budget, name: str) -> float:
    """A ceiling that is a number.

    >>> ceiling(Budget(macs=5e6), "macs")
    5000000.0
    """
    found = budget.ceilings[name]
    assert isinstance(found, int | float), f"{name} is not resolved"
    return found


def taken_by(graph: Graph, edge: Edge, measure: Measure) -> float:
    """Increase of a measure of a graph by one edge, all nodes staying.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny")
    >>> taken_by(graph, graph.edges[0], lambda graph: len(graph.edges))
    1
    """
    if isinstance(measure, Summed) and (measure.exact or not edge.shared):
        return measure.of_edge(graph, edge)
    return measure(graph) - measure(replace(graph, edges=tuple(other for other in graph.edges if other is not edge)))
