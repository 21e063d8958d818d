"""From a trained fabric to the best network within a budget: weigh, choose, extract, measure, again if need be."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from convfabric.archive import Passport
from convfabric.choice import Budget, choose, measures, said_amount, taken_by
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
class Survey:
    """What a graph and its restrictions take on this machine, and the budget they have to meet."""

    measured: Callable[[Graph], Latency]
    prediction: Prediction
    budget: Budget
    """Every share turned into a number."""

    def lowered(self, ratio: float) -> "Survey":
        """The same survey with a lower ceiling of milliseconds."""
        return replace(self, budget=replace(self.budget, latency_ms=(_number(self.budget.latency_ms) or 0) * ratio))


def survey(papers: Passport, budget: Budget, threads: int, say: Say) -> Survey:
    """The graph and a few restrictions measured as exported files; trained weights are not needed.

    Raises BudgetError, naming what the cheapest route costs, where no restriction meets the budget.
    """
    graph, image, measured = papers.graph, papers.preprocessing.size, latency_of(papers, threads)
    alike = dict.fromkeys(graph.edge_names, 1.0)
    choose(graph, alike, replace(budget, latency_ms=None), image)
    prediction = calibrate(graph, image, lambda graph: measured(graph).median_ms)
    say(f"whole fabric: {measured(graph)}; predictions are off by {prediction.median_error:.0%} (median)")
    whole = {name: measure_of(graph) for name, measure_of in measures(image, prediction.milliseconds).items()}
    resolved = budget.resolved(whole | {"latency_ms": measured(graph).median_ms})
    found = Survey(measured=measured, prediction=prediction, budget=resolved)
    _at_once(graph, alike, resolved, found)
    return found


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


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network just cut, and what was known when it was chosen."""

    network: Fabric
    """Weights as in the fabric; normalisation statistics not yet refreshed."""
    worth: Worths
    """Of every edge of the whole fabric."""
    predicted_ms: float


def cut(fabric: Fabric, data: ImageSet, found: Survey, procedure: Procedure, say: Say = print) -> Cut:
    """The network of most worth within the budget, its milliseconds measured on this machine.

    Where the measured time is above the ceiling the next smaller network is taken.
    Raises BudgetError where none fits.
    """
    worth = WORTHS[procedure.worth](fabric, data)
    wanted = _number(found.budget.latency_ms)
    aimed = found.budget if wanted is None else replace(found.budget, latency_ms=wanted * HEADROOM)
    for _ in range(MOST_ATTEMPTS):
        try:
            network = _in_rounds(fabric, data, aimed, procedure, found.prediction, worth)
        except BudgetError:
            network = extract(fabric, _at_once(fabric.graph, worth, aimed, found))
        took = found.measured(network.graph).median_ms
        if wanted is None or took <= wanted:
            predicted = found.prediction.milliseconds(network.graph)
            return Cut(network=network, worth=worth, predicted_ms=predicted)
        say(f"{len(network.graph.edges)} edges take {took:.3g} ms, above {wanted:.3g} ms: taking a smaller network")
        aimed = replace(aimed, latency_ms=(_number(aimed.latency_ms) or wanted) * min(0.95, wanted / took))
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


def _at_once(graph: Graph, worth: Worths, aimed: Budget, found: Survey) -> Graph:
    """Cut in one go, for budgets so tight that cutting in rounds loses the last route that fits.

    Where not even that is predicted to fit, the route predicted to be the quickest, if it is measured to fit.
    """
    try:
        return choose(graph, worth, aimed, found.prediction.image, found.prediction.milliseconds)
    except BudgetError:
        if found.budget.latency_ms is None:
            raise
    return _quickest(graph, found)


def _quickest(graph: Graph, found: Survey) -> Graph:
    route = cheapest_route(graph, lambda edge: taken_by(graph, edge, found.prediction.milliseconds))
    takes = {name: how(route) for name, how in measures(found.prediction.image).items()}
    takes["latency_ms"] = found.measured(route).median_ms
    asked = {name: _number(ceiling) or 0.0 for name, ceiling in found.budget.ceilings.items()}
    if all(takes[name] <= ceiling for name, ceiling in asked.items()):
        return route
    ends = f"{route.entry.place}→{route.head.reads[0]}"
    said = ", ".join(said_amount(name, takes[name]) for name in asked)
    raise BudgetError(
        f"no sub-network fits {found.budget}: the cheapest route {ends} takes {said}, measured. "
        "Smaller numbers of the network cost less (convfabric list names them), or another network."
    ) from None
