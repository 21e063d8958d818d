"""From a trained fabric to the best network within a budget: weigh, choose, extract, measure, again if need be."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from types import MappingProxyType

import torch

from convfabric.choice import Budget, Measure, ceiling, choose, choose_exactly, fits, measures, said_amount
from convfabric.choice.evolution import Evolution
from convfabric.cutting.fitness import Judge
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract
from convfabric.cutting.worth import WORTHS, Worths
from convfabric.data.imageset import ImageSet
from convfabric.errors import BudgetError, SettingError
from convfabric.execution.folding import folded
from convfabric.exporting.deployable import Deployable
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.measurement import Latency, measure
from convfabric.latency.prediction import MEASURED_GRAPHS, Prediction, calibrate
from convfabric.latency.table import Conditions, Table
from convfabric.latency.timing_models import drafted
from convfabric.operators import Size
from convfabric.runs.job import Job
from convfabric.runs.noting import Say
from convfabric.training.estimate import said_time

MOST_ATTEMPTS, LARGEST_SHARE = 6, 100
HEADROOM = 0.97
LITTLE = 0.5
"""Share of a ceiling of MACs or parameters below which it is said that a network leaves much of it."""
CLOSE = 0.9
"""Share of a ceiling of milliseconds below which a larger network is looked for, once."""
SLOWER = 1.1
"""Times the whole fabric's milliseconds above which it is said that a network cut from it is slower."""
SAMPLE_SECONDS = 0.1
FEW = 5
"""Of what is done many times, after how many it is said how long the rest takes."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a graph and its sub-networks take on this machine."""

    sampler: Sampler
    measured: Callable[[Graph], Latency]
    prediction: Prediction

    def resolved(self, budget: Budget) -> Budget:
        """The budget with every share turned into a number; raises what :func:`in_reach` does."""
        return in_reach(budget, self.sampler, self.prediction.image, lambda graph: self.measured(graph).median_ms)

    def fits(self, graph: Graph, budget: Budget) -> bool:
        """Whether a graph is predicted to be under every ceiling of a resolved budget."""
        how = measures(self.prediction.image, self.prediction.milliseconds)
        return fits(graph, budget, {name: how[name] for name in budget.ceilings})


def in_reach(budget: Budget, sampler: Sampler, image: Size, latency_ms: Measure | None = None) -> Budget:
    """The budget with every share turned into a number.

    Raises BudgetError, naming what the smallest sub-network takes, where that is above a ceiling.
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
            f"Smaller numbers of the network cost less (convfabric list names them), or another network.{share}"
        )


def survey(papers: Passport, threads: int, narrowest: float, say: Say, budgets: Sequence[Budget] = ()) -> Survey:
    """A graph and a few sub-networks measured as ONNX models; trained weights are not needed.

    Raises BudgetError where nothing in the graph meets one of the budgets, before anything is timed where that can be
    counted.
    """
    graph, image = papers.graph, papers.preprocessing.size
    sampler, measure_now = Sampler.of(graph, narrowest, image), latency_of(papers, threads)
    for budget in budgets:
        in_reach(replace(budget, latency_ms=None), sampler, image)
    table = Table.opened(Conditions(threads=threads))
    say(f"measuring up to {MEASURED_GRAPHS} sub-networks as this machine runs now, and operations not known yet")
    watch = _time_left("measurements", say)
    prediction = calibrate(sampler, image, table, lambda part: measure_now(part).quickest_ms, watch=watch)
    measured = cache(measure_now)
    say(f"whole fabric: {measured(graph)}; {prediction}")
    found = Survey(sampler=sampler, measured=measured, prediction=prediction)
    for budget in budgets:
        found.resolved(budget)
    return found


def latency_of(papers: Passport, threads: int, batch: int = 1) -> Callable[[Graph], Latency]:
    """Measures graphs as ONNX models with fresh weights, anew each time; the model of a graph is written once."""
    preprocessing = papers.preprocessing
    image = (preprocessing.channels, *preprocessing.size)

    @cache
    def model(graph: Graph) -> bytes:
        return drafted(Deployable(folded(Fabric(graph).eval()), papers), torch.zeros(batch, *image))

    return lambda graph: measure(model(graph), image, threads, batch, SAMPLE_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network just cut, and what was known when it was chosen."""

    network: Fabric
    """Weights as in the fabric; normalisation statistics not yet refreshed."""
    worth: Worths
    """Of every edge of the whole fabric."""
    predicted_ms: float


class Cutter:
    """Cuts networks from one trained fabric, each to its budget; what was learnt for one is used for the next.

    Channels are taken from the end: see :func:`convfabric.cutting.surgery.ranked`.
    """

    def __init__(
        self,
        fabric: Fabric,
        data: ImageSet,
        found: Survey,
        job: Job,
        say: Say = print,
        worth: Worths | None = None,
    ) -> None:
        """``worth`` replaces what the job would measure, as gates do that were trained."""
        self.fabric, self.data, self.found, self.job, self.say = fabric, data, found, job, say
        self.worth = worth or WORTHS[job.procedure.worth](fabric, data)
        self.took: dict[Graph, float] = {}
        """Milliseconds of what was measured so far."""
        self.search = SEARCHES[job.procedure.search](self)

    def cut(self, budget: Budget, share: float = 1.0) -> Cut:
        """The best network that the search finds within a resolved budget, its milliseconds measured on this machine.

        Where the measured time is above the ceiling, or a share of it, a smaller network is taken; where it is far
        below, a larger one is tried once. Raises BudgetError where none fits.
        """
        allowed = _number(budget.latency_ms)
        wanted, aim, best = None if allowed is None else share * allowed, share * HEADROOM, None
        for _ in range(MOST_ATTEMPTS):
            graph = self.search(aimed(budget, aim))
            took = self.took[graph] = self.found.measured(graph).median_ms
            if wanted is not None and took > wanted:
                if best:
                    break
                self.say(f"{len(graph.edges)} edges take {took:.3g} ms, above {wanted:.3g}: taking a smaller network")
                aim *= min(0.95, wanted / took)
                continue
            again = wanted is not None and best is None and took < CLOSE * wanted and graph != self.fabric.graph
            best = graph
            if not again:
                break
            aim *= HEADROOM * (wanted or took) / took
        if best is None:
            less = f" with {1 - share:.0%} to spare for the exported file" if share < 1 else ""
            said = f"no network was found in {MOST_ATTEMPTS} attempts that takes at most {allowed:.3g} ms{less}."
            raise BudgetError(said)
        self._tell(best, budget)
        predicted = self.found.prediction.milliseconds(best)
        return Cut(network=extract(self.fabric, best), worth=self.worth, predicted_ms=predicted)

    def _tell(self, graph: Graph, budget: Budget) -> None:
        """Where fewer multiply-accumulates take more milliseconds, and where much less is taken than was allowed."""
        counted = [(name, ceiling(budget, name)) for name in ("macs", "params") if name in budget.ceilings]
        for name, most in counted if graph != self.fabric.graph else ():
            takes = measures(self.found.prediction.image)[name](graph)
            if takes < LITTLE * most:
                allowed = f"{said_amount(name, takes)} of {said_amount(name, most)} allowed"
                images = f"{len(self.data.splits['val'])} validation images"
                self.say(f"what was cut takes {allowed}: it answers best of what was found, on {images}")
        whole, took = self.found.measured(self.fabric.graph).median_ms, self.took[graph]
        if took > SLOWER * whole:
            limits = f"--latency-ms limits milliseconds, such as --latency-ms {whole:.2g}"
            self.say(f"what was cut takes {took:.3g} ms, the whole fabric {whole:.3g} ms: {limits}")


def aimed(budget: Budget, ratio: float) -> Budget:
    """The budget with its milliseconds, if they are limited, times a ratio."""
    wanted = _number(budget.latency_ms)
    return budget if wanted is None else replace(budget, latency_ms=wanted * ratio)


def _number(ceiling: object) -> float | None:
    return float(ceiling) if isinstance(ceiling, int | float) else None


Search = Callable[[Budget], Graph]
"""From a resolved budget to a graph that is predicted to be under it."""


def by_worth(cutter: Cutter) -> Search:
    """Edges of least worth for what they cost go first; where that leads nowhere, the smallest sub-network."""

    def search(budget: Budget) -> Graph:
        try:
            return _in_rounds(cutter, budget)
        except BudgetError:
            return next(_starts(cutter, budget), cutter.found.sampler.smallest)

    return search


def exactly(cutter: Cutter) -> Search:
    """The edges of largest total worth, at the widest even level of channels where any fit."""
    found = cutter.found
    solve = partial(choose_exactly, worth=cutter.worth, image=found.prediction.image)

    def search(budget: Budget) -> Graph:
        for level in _levels(found.sampler):
            try:
                return solve(graph=level, budget=budget, latency_ms=found.prediction.milliseconds)
            except BudgetError:
                continue
        return found.sampler.smallest

    return search


def by_trying(cutter: Cutter) -> Search:
    """The best on validation images, with inherited weights, of many that an evolution tries; worth gives it starts."""
    found, trials = cutter.found, cutter.job.procedure.trials
    judge = Judge.of(cutter.fabric, cutter.data, cutter.job.recipe)

    def search(budget: Budget) -> Graph:
        most = _number(budget.latency_ms)

        def under(graph: Graph) -> bool:
            return found.fits(graph, budget) and (most is None or cutter.took.get(graph, 0.0) <= most)

        if under(cutter.fabric.graph):
            return cutter.fabric.graph
        if not under(found.sampler.smallest):
            return found.sampler.smallest
        cutter.say(f"trying {trials} sub-networks on {len(judge.few.splits['val'])} validation images")
        evolution = Evolution(sampler=found.sampler, fits=under, fitness=judge)
        starts = [*sorted(judge.known, key=judge, reverse=True)[:4], *_starts(cutter, budget)]
        told = _time_left("sub-networks tried", cutter.say)
        evolution.run(starts, trials, watch=lambda done, best: told(done, trials))
        return max(filter(under, judge.known), key=judge)

    return search


def _time_left(what: str, say: Say) -> Callable[[int, int], None]:
    """Says early, and at the half, how long the rest will take; the clock runs from the first that is done."""
    times = list[float]()

    def watch(done: int, of: int) -> None:
        times.append(time.monotonic())
        if done in (FEW, of // 2) and 1 < done < of:
            seconds = (times[-1] - times[0]) * (of - done) / (done - 1)
            say(f"{done} of {of} {what}, about {said_time(seconds)} left")

    return watch


SEARCHES: Mapping[str, Callable[[Cutter], Search]] = MappingProxyType(
    {"evolution": by_trying, "worth": by_worth, "exact": exactly}
)
"""The ways to choose by name."""


def _levels(sampler: Sampler) -> Iterator[Graph]:
    """The whole graph at every even level of widths, the widest first."""
    steps = max((len(group.counts) for group in sampler.widths), default=1)
    for taken in range(steps):
        yield sampler.part(
            sampler.graph.edge_names, [max(0, len(group.counts) - 1 - taken) for group in sampler.widths]
        )


def _starts(cutter: Cutter, budget: Budget) -> Iterator[Graph]:
    """At each level of widths the edges of most worth for what they cost, and those of most worth in all."""
    prediction = cutter.found.prediction
    for level in _levels(cutter.found.sampler):
        for chooser in (choose, choose_exactly):
            try:
                yield chooser(level, cutter.worth, budget, prediction.image, prediction.milliseconds)
            except (BudgetError, SettingError):
                continue


def _in_rounds(cutter: Cutter, budget: Budget) -> Graph:
    """Cut in rounds: the ceilings come down evenly, by ratio, and what is left is weighed anew each time."""
    data, procedure, prediction = cutter.data, cutter.job.procedure, cutter.found.prediction
    asked = measures(prediction.image, prediction.milliseconds)
    start = {name: asked[name](cutter.fabric.graph) for name in budget.ceilings}
    network, worth = cutter.fabric, cutter.worth
    for done in range(1, procedure.rounds + 1):
        if done > 1:
            worth = WORTHS[procedure.worth](network, data)
        ceilings = _between(start, budget, done / procedure.rounds)
        smaller = choose(network.graph, worth, ceilings, prediction.image, prediction.milliseconds)
        network = extract(network, smaller)
        if done < procedure.rounds:
            refresh(network, data, cutter.job.recipe)
    return network.graph


def _between(start: Mapping[str, float], budget: Budget, way: float) -> Budget:
    """Ceilings between what the fabric takes and the budget; a ceiling that does not bind stays."""
    ends = {name: _number(value) or 0.0 for name, value in budget.ceilings.items()}
    return Budget(**{n: end if end >= start[n] else start[n] * (end / start[n]) ** way for n, end in ends.items()})
