"""From a trained fabric to the best network within a budget: weigh, choose, extract, measure, again if need be."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from convfabric.archive import Passport, passport
from convfabric.choice import Budget, choose, measures, said_amount
from convfabric.data.imageset import ImageSet
from convfabric.errors import BudgetError
from convfabric.exporting.deployable import program, write_onnx
from convfabric.extraction.statistics import refresh
from convfabric.extraction.surgery import extract
from convfabric.extraction.worth import WORTHS, Worths
from convfabric.fabric import Fabric
from convfabric.graph import Graph
from convfabric.job import Procedure
from convfabric.latency.measurement import Latency, measure
from convfabric.latency.prediction import Prediction, calibrate
from convfabric.routes import cheapest_route

MOST_ATTEMPTS = 6
HEADROOM = 0.97
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network just cut, and what was known when it was chosen."""

    network: Fabric
    """Weights as in the fabric; normalisation statistics not yet refreshed."""
    worth: Worths
    """Of every edge of the whole fabric."""
    budget: Budget
    """Every share turned into a number."""
    predicted_ms: float
    measured_ms: float
    prediction: Prediction


def latency_of(papers: Passport, threads: int) -> Callable[[Graph], Latency]:
    """Measures graphs as exported files, with fresh weights; a graph asked for twice is measured once."""

    @cache
    def measured(graph: Graph) -> Latency:
        preprocessing = papers.preprocessing
        with tempfile.TemporaryDirectory() as folder:
            file, own = Path(folder) / "model.onnx", replace(papers, graph=graph)
            write_onnx(program(Fabric(graph), own), own, file)
            return measure(file, (preprocessing.channels, *preprocessing.size), threads)

    return measured


def cut(fabric: Fabric, data: ImageSet, budget: Budget, procedure: Procedure, say: Say = print) -> Cut:
    """The network of most worth within the budget, its milliseconds measured on this machine.

    Where the measured time is above the ceiling the next smaller network is taken.
    Raises BudgetError, naming what the cheapest route costs, where none fits.
    """
    image, measured = data.preprocessing.size, latency_of(passport(fabric, data), procedure.threads)
    prediction = calibrate(fabric.graph, image, lambda graph: measured(graph).median_ms)
    say(f"whole fabric: {measured(fabric.graph)}; predictions are off by {prediction.median_error:.0%} (median)")
    whole = {name: measure_of(fabric.graph) for name, measure_of in measures(image, prediction.milliseconds).items()}
    budget = budget.resolved(whole | {"latency_ms": measured(fabric.graph).median_ms})
    worth = WORTHS[procedure.worth](fabric, data)
    wanted = _number(budget.latency_ms)
    aimed = budget if wanted is None else replace(budget, latency_ms=wanted * HEADROOM)
    for _ in range(MOST_ATTEMPTS):
        try:
            network = _in_rounds(fabric, data, aimed, procedure, prediction, worth)
        except BudgetError:
            network = _at_once(fabric, aimed, budget, prediction, measured, worth)
        found = measured(network.graph).median_ms
        if wanted is None or found <= wanted:
            return Cut(
                network=network,
                worth=worth,
                budget=budget,
                predicted_ms=prediction.milliseconds(network.graph),
                measured_ms=found,
                prediction=prediction,
            )
        say(f"{len(network.graph.edges)} edges take {found:.3f} ms, above {wanted:.3f} ms: taking a smaller network")
        aimed = replace(aimed, latency_ms=(_number(aimed.latency_ms) or wanted) * min(0.95, wanted / found))
    raise BudgetError(f"no network was found in {MOST_ATTEMPTS} attempts that takes at most {wanted} ms.")


def _number(ceiling: object) -> float | None:
    return float(ceiling) if isinstance(ceiling, int | float) else None


def _in_rounds(
    fabric: Fabric, data: ImageSet, budget: Budget, procedure: Procedure, prediction: Prediction, worth: Worths
) -> Fabric:
    """Cut in rounds: the ceilings come down evenly, by ratio, and what is left is weighed anew each time."""
    image = data.preprocessing.size
    asked = measures(image, prediction.milliseconds)
    start = {name: asked[name](fabric.graph) for name in budget.ceilings}
    network = fabric
    for done in range(1, procedure.rounds + 1):
        if done > 1:
            worth = WORTHS[procedure.worth](network, data)
        ceilings = _between(start, budget, done / procedure.rounds)
        smaller = choose(network.graph, worth, ceilings, image, prediction.milliseconds)
        network = extract(network, smaller)
        if done < procedure.rounds:
            refresh(network, data)
    return extract(fabric, network.graph)


def _between(start: Mapping[str, float], budget: Budget, way: float) -> Budget:
    """Ceilings between what the fabric takes and the budget; a ceiling that does not bind stays."""
    ends = {name: _number(value) or 0.0 for name, value in budget.ceilings.items()}
    return Budget(**{n: end if end >= start[n] else start[n] * (end / start[n]) ** way for n, end in ends.items()})


def _at_once(
    fabric: Fabric,
    aimed: Budget,
    budget: Budget,
    prediction: Prediction,
    measured: Callable[[Graph], Latency],
    worth: Worths,
) -> Fabric:
    """Cut in one go, for budgets so tight that cutting in rounds loses the last route that fits."""
    try:
        smaller = choose(fabric.graph, worth, aimed, prediction.image, prediction.milliseconds)
    except BudgetError as none_fits:
        return _cheapest(fabric, budget, prediction, measured, none_fits)
    return extract(fabric, smaller)


def _cheapest(
    fabric: Fabric, budget: Budget, prediction: Prediction, measured: Callable[[Graph], Latency], fault: BudgetError
) -> Fabric:
    """The route that is predicted to be the quickest, where it is measured to fit after all."""
    wanted = _number(budget.latency_ms)
    if wanted is None:
        raise fault
    whole = prediction.milliseconds(fabric.graph)
    without = {
        edge.name: prediction.milliseconds(
            replace(fabric.graph, edges=tuple(e for e in fabric.graph.edges if e != edge))
        )
        for edge in fabric.graph.edges
    }
    route = cheapest_route(fabric.graph, lambda edge: whole - without[edge.name])
    found = measured(route).median_ms
    others = {name: how(route) for name, how in measures(prediction.image).items() if name in budget.ceilings}
    if found > wanted or any(value > (_number(budget.ceilings[name]) or 0) for name, value in others.items()):
        ends = f"{route.entry.place}→{route.head.reads[0]}"
        said = "; ".join(said_amount(name, value) for name, value in others.items())
        raise BudgetError(
            f"no sub-network fits {budget}: the cheapest route {ends} takes {found:.3f} ms measured"
            + (f"; {said}" if said else "")
            + ". A network with fewer channels or a coarser finest scale may: see --set channels=, --set finest=."
        ) from None
    return extract(fabric, route)
