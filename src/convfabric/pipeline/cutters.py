"""What networks of a fabric take, and which fits best, for images of each size that they may read."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from convfabric.choice import Budget, ceiling, measures
from convfabric.cutting.cutter import Cut, Cutter
from convfabric.cutting.strategies import Material, Strategy, by_trying, by_worth, exactly
from convfabric.cutting.surgery import ranked
from convfabric.cutting.worth import WORTHS, channel_worth
from convfabric.data.imageset import ImageSet
from convfabric.errors import BudgetError
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.json_format import parsed, text_of
from convfabric.latency.survey import Survey, survey
from convfabric.operators import Size
from convfabric.progress import Listener
from convfabric.runs.job import Job, Procedure
from convfabric.training.loop import GATES
from convfabric.training.objectives import sizes_of

DEEPEST = 6.0
"""Times its budget that a whole network may take for images of a size: of what takes more too little would be left."""


def surveyed(
    graph: Graph, job: Job, data: ImageSet, listener: Listener, budgets: Sequence[Budget] | None = None
) -> Survey:
    """Latency survey of the graph on the job's target; BudgetError where nothing in it meets the budgets."""
    papers = Passport(graph=graph, classes=data.classes, preprocessing=data.preprocessing, ignore=data.ignore)
    return survey(papers, job.target, job.recipe.narrowest, listener.say, budgets or [job.budget])


def cutter_of(
    run: Path, fabric: Fabric, job: Job, data: ImageSet, listener: Listener, found: Survey | None = None
) -> Cutter:
    """The cutter of the trained fabric of a run; channels that were not trained in an order are ranked.

    Where gates were trained, their probabilities are what edges are worth.
    """
    found = found or surveyed(fabric.graph, job, data, listener)
    source = fabric if job.recipe.subnetworks else ranked(fabric, channel_worth(fabric, data))
    gated = job.recipe.gates != "none"
    worth = parsed(text_of(run / GATES), GATES) if gated else WORTHS[job.procedure.worth](source, data)
    material = Material(
        fabric=source,
        data=data,
        recipe=job.recipe,
        survey=found,
        worth=worth,
        channels=channel_worth(source, data),
        say=listener.say,
    )
    return Cutter(material, strategy_of(job.procedure))


def strategy_of(procedure: Procedure) -> Strategy:
    """The way to choose that a procedure names, with its numbers.

    >>> strategy_of(Procedure(search="exact")) is exactly
    True
    """
    strategies = {
        "evolution": by_trying(procedure.trials),
        "worth": by_worth(procedure.rounds, procedure.worth),
        "exact": exactly,
    }
    return strategies[procedure.search]


class Surveys:
    """Surveys of a graph, one for each size of images, which is made when it is first asked for."""

    def __init__(
        self, graph: Graph, job: Job, data: ImageSet, listener: Listener, budgets: Sequence[Budget] | None = None
    ) -> None:
        """Raises BudgetError where nothing in the graph meets one of the budgets, by default the job's, at any size."""
        self.graph, self.job, self.data, self.listener = graph, job, data, listener
        self.sizes = sizes_of(graph, job.recipe, data.preprocessing.size)
        self.known = {self.sizes[-1]: self._made(self.sizes[-1], budgets)}

    def at(self, size: Size) -> Survey:
        """The survey for images of a height and width."""
        if size not in self.known:
            self.known[size] = self._made(size, [Budget()])
        return self.known[size]

    @property
    def largest(self) -> Survey:
        """That for the images as the fabric reads them."""
        return self.at(self.sizes[0])

    def _made(self, size: Size, budgets: Sequence[Budget] | None) -> Survey:
        if len(self.sizes) > 1:
            self.listener.say(f"for images of {size[1]}×{size[0]} pixels:")
        prepared = replace(self.data, preprocessing=replace(self.data.preprocessing, size=size))
        return surveyed(self.graph, self.job, prepared, self.listener, budgets)

    def resolved(self, budget: Budget) -> Budget:
        """The budget with every share, of what the whole takes for the largest images, turned into a number."""
        how = measures(self.sizes[0], lambda graph: self.largest.measured(graph).median_ms)
        return budget.resolved({name: how[name](self.graph) for name in budget.ceilings})

    def in_question(self, budget: Budget) -> list[Size]:
        """The sizes, the largest first, for which a network within a resolved budget may be the best.

        For larger images too little would be left of the whole, for smaller ones the whole is within the budget.
        """
        times = {size: self._times(size, budget) for size in self.sizes}
        within = next((size for size in self.sizes if times[size] <= 1), self.sizes[-1])
        asked = self.sizes[: self.sizes.index(within) + 1]
        return [size for size in asked if times[size] <= DEEPEST] or [within]

    def _times(self, size: Size, budget: Budget) -> float:
        """How many times the tightest ceiling the whole takes, its milliseconds by its multiply-accumulates."""
        macs = {image: costs(self.graph, image).macs for image in (size, self.sizes[0])}

        def milliseconds(graph: Graph) -> float:
            return self.largest.measured(graph).median_ms * macs[size] / macs[self.sizes[0]]

        how = measures(size, milliseconds)
        return max((how[name](self.graph) / ceiling(budget, name) for name in budget.ceilings), default=0.0)


class Cutters:
    """Cutters of a trained fabric, one for each size of images, which is made when it is first asked for."""

    def __init__(self, run: Path, fabric: Fabric, surveys: Surveys) -> None:
        self.surveys, self.data = surveys, surveys.data
        self.first = cutter_of(run, fabric, surveys.job, self.data, surveys.listener, surveys.largest)
        self.known = {surveys.sizes[0]: self.first}

    def at(self, size: Size) -> Cutter:
        """The cutter for images of a size; what edges and channels are worth is known from the largest."""
        if size not in self.known:
            data, found = self.data.at(size), self.surveys.at(size)
            material = replace(self.first.material, data=data, survey=found, took_ms={}, tried={})
            self.known[size] = Cutter(material, strategy_of(self.surveys.job.procedure))
        return self.known[size]

    def finalists(self, budget: Budget, share: float, count: int) -> list[Cut]:
        """Networks within a budget, or a share of its milliseconds, that are worth a brief fine-tuning.

        About so many, for each size in question one at least. Raises BudgetError where none fits.
        """
        resolved, found, faults = self.surveys.resolved(budget), list[Cut](), list[BudgetError]()
        sizes = self.surveys.in_question(resolved)
        for size in sizes:
            try:
                found += self.at(size).finalists(resolved, share, ceil(count / len(sizes)))
            except BudgetError as fault:
                faults.append(fault)
        if not found:
            raise faults[-1]
        return found
