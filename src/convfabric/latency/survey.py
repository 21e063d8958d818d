"""Latency survey of a graph and its sub-networks on a target: a few measured, the others predicted."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

from convfabric.choice import Budget, Measure, Summed, ceiling, fits, measures, said_amount
from convfabric.errors import BudgetError
from convfabric.fabric.archive import Passport
from convfabric.graph import Graph
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.devices import device_of
from convfabric.latency.measurement import Latency, calmest
from convfabric.latency.prediction import MEASURED_GRAPHS, Prediction, calibrate
from convfabric.latency.table import Table
from convfabric.latency.target import HERE, Target
from convfabric.operators import Size, Work
from convfabric.progress import Say, time_left

LARGEST_SHARE = 100
SAMPLE_SECONDS = 0.1


FRESH = 120.0
"""Seconds for which a machine is taken to be as it was when sub-networks were measured."""


@dataclass(kw_only=True)
class Survey:
    """Latency of a graph and its sub-networks on a target."""

    sampler: Sampler
    measured: Callable[[Graph], Latency]
    """Once for each graph."""
    prediction: Prediction
    again: Callable[[Graph], Latency]
    """Anew whenever it is asked."""
    waits: bool = False
    """Whether measurements come later than they are asked for, so that what is not known yet is predicted."""
    since: float = field(default_factory=time.monotonic)
    """When sub-networks were last measured."""

    def renew(self, say: Say) -> None:
        """Measures the sub-networks of the prediction once more, unless it was just done, and fits it anew.

        A neighbour may have slowed the machine for minutes; what is quickest counts.
        """
        if time.monotonic() - self.since > FRESH and not self.waits:
            self.prediction = self.prediction.renewed(lambda part: self.again(part).fastest_block_ms)
            self.since = time.monotonic()
            say(f"measured once more, as the machine runs now: {self.prediction}")

    def took_ms(self, graph: Graph, most: float | None) -> float:
        """Measured milliseconds; where they are above ``most``, the least of three.

        Predicted, where a measurement would have to be waited for: it is made of the file that is delivered.
        """
        if self.waits and graph not in self.prediction.measured:
            return self.prediction.milliseconds(graph)
        return calmest(lambda: self.again(graph), most, self.measured(graph)).median_ms

    def resolved(self, budget: Budget) -> Budget:
        """The budget with every share turned into a number; raises what :func:`in_reach` does."""
        most = budget.latency_ms if isinstance(budget.latency_ms, int | float) else None

        def takes(graph: Graph) -> float:
            return self.took_ms(graph, most if graph == self.sampler.smallest else None)

        return in_reach(budget, self.sampler, self.prediction.image, takes)

    def limits(self, budget: Budget) -> list[tuple[Summed, float]]:
        """The measures under a ceiling of a resolved budget that edges add to, and their ceilings."""
        how = measures(self.prediction.image)
        how["latency_ms"] = Summed(self.prediction.milliseconds, self.prediction.edge_milliseconds, exact=False)
        pairs = [(how[name], ceiling(budget, name)) for name in budget.ceilings]
        return [(measure, most) for measure, most in pairs if isinstance(measure, Summed)]

    def fits(self, graph: Graph, budget: Budget) -> bool:
        """Whether a graph is predicted to be under every ceiling of a resolved budget."""
        how = measures(self.prediction.image, self.prediction.milliseconds)
        return fits(graph, budget, {name: how[name] for name in budget.ceilings})


def in_reach(budget: Budget, sampler: Sampler, image: Size, latency_ms: Measure | None = None) -> Budget:
    """The budget with every share turned into a number.

    Raises BudgetError, naming what the smallest sub-network takes, where that is above a ceiling.

    >>> from convfabric.weavers import weave
    >>> in_reach(Budget(edges="50%"), Sampler.of(weave("fabric-tiny"), 1.0, (32, 32)), (32, 32)).edges
    20.5
    """
    how = measures(image, latency_ms)
    asked = {name: how[name] for name in budget.ceilings}
    budget = budget.resolved({name: measure_of(sampler.graph) for name, measure_of in asked.items()})
    for name, measure_of in asked.items():
        _check_smallest(sampler.smallest, name, ceiling(budget, name), measure_of(sampler.smallest))
    return budget


def _check_smallest(smallest: Graph, name: str, most: float, takes: float) -> None:
    if takes > most:
        measured = ", measured" if name == "latency_ms" else ""
        share = f" A share is written {most:g}%." if name in ("macs", "params") and most <= LARGEST_SHARE else ""
        edges = f"{len(smallest.edges)} edge{'s' * (len(smallest.edges) != 1)}"
        raise BudgetError(
            f"no sub-network fits {said_amount(name, most)}: the smallest, {edges} from "
            f"{smallest.entry.place} to {smallest.head.reads[0]}, takes {said_amount(name, takes)}{measured}. "
            f"Allow more, or take smaller images (--size), or a smaller network (convfabric list).{share}"
        )


def _least(measure: Callable[[Graph], Latency], most: float, part: Graph) -> float:
    return calmest(lambda: measure(part), most).median_ms


DISTURBED = 1.3
"""Times what the quickest block took before: above that other work is measured too."""


def steady(part: Graph, measure: Callable[[Graph], Latency], known: Mapping[Graph, float]) -> Latency:
    """A measurement of a sub-network; again where it is far above the milliseconds that it is known to have taken."""
    took = known.get(part)
    return calmest(lambda: measure(part), DISTURBED * took if took else None)


def survey(papers: Passport, target: Target, narrowest: float, say: Say, budgets: Sequence[Budget] = ()) -> Survey:
    """A graph and a few sub-networks measured on a target; trained weights are not needed.

    Raises BudgetError where nothing in the graph meets one of the budgets, before anything is timed where that can be
    counted.
    """
    graph, image = papers.graph, papers.preprocessing.size
    sampler = Sampler.of(graph, narrowest, image)
    device = device_of(target)
    measure_now = device.times_networks(papers, target, SAMPLE_SECONDS)
    for budget in budgets:
        in_reach(replace(budget, latency_ms=None), sampler, image)
        if isinstance(budget.latency_ms, int | float) and not device.waits:
            in_reach(
                Budget(latency_ms=budget.latency_ms), sampler, image, partial(_least, measure_now, budget.latency_ms)
            )
    table = Table.opened(target)
    where = "this machine" if target.device == HERE else target.device
    say(f"measuring up to {MEASURED_GRAPHS} sub-networks as {where} runs now, and operations not known yet")

    def expect(works: Sequence[Work], graphs: Sequence[Graph]) -> None:
        device.expect(works, graphs, papers, target, SAMPLE_SECONDS)

    prediction = calibrate(
        sampler,
        image,
        table,
        lambda part: measure_now(part).fastest_block_ms,
        watch=time_left("measurements", say),
        expect=expect,
    )
    for doubt in device.doubts():
        say(doubt)
    measured = cache(lambda part: steady(part, measure_now, prediction.measured))
    say(f"whole fabric: {measured(graph)}; {prediction}")
    found = Survey(sampler=sampler, measured=measured, prediction=prediction, again=measure_now, waits=device.waits)
    for budget in budgets:
        found.resolved(budget)
    return found
