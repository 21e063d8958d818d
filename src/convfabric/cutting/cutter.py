"""From a trained fabric to the best network within a budget: choose, measure, again if need be."""

from dataclasses import dataclass, replace

from convfabric.choice import Budget, ceiling, measures, said_amount
from convfabric.cutting.strategies import Material, Strategy
from convfabric.cutting.surgery import extract
from convfabric.errors import BudgetError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.target import Precision
from convfabric.operators import Size

MOST_ATTEMPTS = 6
HEADROOM = 0.97
LITTLE = 0.5
"""Share of a ceiling of MACs or parameters below which it is said that a network leaves much of it."""
CLOSE = 0.9
"""Share of a ceiling of milliseconds below which a larger network is looked for, once."""
SLOWER = 1.1
"""Times the whole fabric's milliseconds above which it is said that a network cut from it is slower."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network after pruning, and what was known when it was chosen."""

    network: Fabric
    """Weights and normalisation statistics as in the fabric."""
    predicted_ms: float
    size: Size
    """Of the images that it was chosen for, height and width in pixels."""
    precision: Precision = "float32"
    """Numbers that it was chosen for."""


class Cutter:
    """Cuts networks from one trained fabric, each to its budget; what was learnt for one is used for the next.

    Channels are taken from the end: see :func:`convfabric.cutting.surgery.ranked`.
    """

    def __init__(self, material: Material, strategy: Strategy) -> None:
        self.material = material
        self.search = strategy(material)

    def cut(self, budget: Budget, share: float = 1.0) -> Cut:
        """The best network that the search finds within a resolved budget, its milliseconds measured on its target.

        Where the measured time is above the ceiling, or a share of it, a smaller network is taken; where it is far
        below, a larger one is tried once. Raises BudgetError where none fits.
        """
        allowed = _number(budget.latency_ms)
        if allowed is not None:
            self.material.survey.renew(self.material.say)
        wanted, aim, best = None if allowed is None else share * allowed, share * HEADROOM, None
        for _ in range(MOST_ATTEMPTS):
            graph = self.search(aimed(budget, aim))
            took = self.material.took_ms[graph] = self.material.survey.took_ms(graph, wanted)
            if wanted is not None and took > wanted:
                if best:
                    break
                edges = f"{len(graph.edges)} edges take {took:.3g} ms, above {wanted:.3g}"
                self.material.say(f"{edges}: taking a smaller network")
                aim *= min(0.95, wanted / took)
                continue
            again = wanted is not None and best is None and took < CLOSE * wanted and graph != self.whole
            best = graph
            if not again:
                break
            aim *= HEADROOM * (wanted or took) / took
        if best is None:
            less = f" with {1 - share:.0%} to spare for the exported file" if share < 1 else ""
            found = f"no network was found in {MOST_ATTEMPTS} attempts that takes at most {allowed:.3g} ms{less}."
            raise BudgetError(found)
        self._tell(best, budget)
        return self._made(best)

    def finalists(self, budget: Budget, share: float, count: int) -> list[Cut]:
        """What :meth:`cut` finds, and up to ``count`` in all of the best others that were tried and are quick enough.

        First those of other depths, then those of other edges than any before.
        """
        found = [self.cut(budget, share)]
        ranked = sorted(self.material.tried, key=lambda graph: self.material.tried[graph], reverse=True)
        for differs in (lambda graph: len(graph.heads), lambda graph: graph.edge_names):
            for graph in ranked:
                if len(found) >= count:
                    return found
                there = {differs(one.network.graph) for one in found}
                if differs(graph) not in there and self._is_within(graph, budget, share):
                    found.append(self._made(graph))
        return found

    def _made(self, graph: Graph) -> Cut:
        prediction, small = self.material.survey.prediction, extract(self.material.fabric, graph)
        return Cut(
            network=small,
            predicted_ms=prediction.milliseconds(graph),
            size=prediction.image,
            precision=prediction.table.target.precision,
        )

    def _is_within(self, graph: Graph, budget: Budget, share: float) -> bool:
        """Whether a graph is under every ceiling, its milliseconds measured."""
        allowed = _number(budget.latency_ms)
        if not self.material.survey.fits(graph, aimed(budget, 1 / HEADROOM)):
            return False
        if allowed is None:
            return True
        took = self.material.took_ms[graph] = self.material.survey.took_ms(graph, share * allowed)
        return took <= share * allowed

    @property
    def whole(self) -> Graph:
        """The fabric's graph."""
        return self.material.fabric.graph

    def _tell(self, graph: Graph, budget: Budget) -> None:
        """Where fewer multiply-accumulates take more milliseconds, and where much less is taken than was allowed."""
        material = self.material
        counted = [(name, ceiling(budget, name)) for name in ("macs", "params") if name in budget.ceilings]
        for name, most in counted if graph != self.whole else ():
            takes = measures(material.survey.prediction.image)[name](graph)
            if takes < LITTLE * most:
                allowed = f"{said_amount(name, takes)} of {said_amount(name, most)} allowed"
                images = f"{len(material.data.splits['val'])} validation images"
                material.say(f"what was cut takes {allowed}: it answers best of what was found, on {images}")
        whole, took = material.survey.measured(self.whole).median_ms, material.took_ms[graph]
        if took > SLOWER * whole:
            limits = f"--latency-ms limits milliseconds, such as --latency-ms {whole:.2g}"
            material.say(f"what was cut takes {took:.3g} ms, the whole fabric {whole:.3g} ms: {limits}")


def aimed(budget: Budget, ratio: float) -> Budget:
    """The budget with its milliseconds, if they are limited, times a ratio.

    >>> aimed(Budget(latency_ms=2.0, macs=5), 0.5)
    Budget(latency_ms=1.0, macs=5, params=None, memory_mb=None, edges=None)
    """
    wanted = _number(budget.latency_ms)
    return budget if wanted is None else replace(budget, latency_ms=wanted * ratio)


def _number(ceiling: object) -> float | None:
    return float(ceiling) if isinstance(ceiling, int | float) else None
