"""What networks of a fabric take, and which fits best, in every form: sizes of images, and numbers."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path
from typing import NamedTuple

from convfabric.choice import Budget, ceiling, measures
from convfabric.cutting.cutter import Cut, Cutter
from convfabric.cutting.strategies import Material, Strategy, by_trying, by_worth, exactly
from convfabric.cutting.surgery import ranked
from convfabric.cutting.worth import WORTHS, channel_worth
from convfabric.data.imageset import ImageSet
from convfabric.errors import BudgetError, UntimedError
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.json_format import parsed, text_of
from convfabric.latency.devices import device_of
from convfabric.latency.survey import Survey, survey
from convfabric.latency.target import Precision, Target
from convfabric.operators import Size
from convfabric.progress import Listener
from convfabric.runs.job import Job, Procedure
from convfabric.training.loop import GATES
from convfabric.training.objectives import sizes_of

DEEPEST = 6.0
"""Times its budget that a whole network may take for images of a size: of what takes more too little would be left."""


def surveyed(
    graph: Graph,
    job: Job,
    data: ImageSet,
    listener: Listener,
    budgets: Sequence[Budget] | None = None,
    target: Target | None = None,
) -> Survey:
    """Latency survey of the graph on a target, by default the job's; BudgetError where nothing in it meets the budgets.

    The job's budget counts unless others are given.
    """
    papers = Passport(graph=graph, classes=data.classes, preprocessing=data.preprocessing, ignore=data.ignore)
    return survey(papers, target or job.target, job.recipe.narrowest, listener.say, budgets or [job.budget])


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


class Form(NamedTuple):
    """A form of network: the height and width of its images, and the numbers it works in."""

    size: Size
    precision: Precision

    def __str__(self) -> str:
        return f"{self.precision} and images of {self.size[1]}×{self.size[0]} pixels"


class Surveys:
    """Surveys of a graph, one for each form, which is made when it is first asked for."""

    def __init__(
        self, graph: Graph, job: Job, data: ImageSet, listener: Listener, budgets: Sequence[Budget] | None = None
    ) -> None:
        """Raises BudgetError where nothing in the graph meets one of the budgets, by default the job's, in any form."""
        self.graph, self.job, self.data, self.listener = graph, job, data, listener
        self.sizes = sizes_of(graph, job.recipe, data.preprocessing.size)
        self.precisions = tuple(target.precision for target in job.targets)
        self.known: dict[Form, Survey] = {}
        self._begin(budgets)

    def _begin(self, budgets: Sequence[Budget] | None) -> None:
        """The survey of the smallest images, in every kind of numbers; of a device whose times come later all at once.

        Numbers in which no budget is met are left out.
        """
        faults, waiting = list[BudgetError](), list[UntimedError]()
        sizes = self.sizes if device_of(self.job.target).waits else self.sizes[-1:]
        for size, precision in product(sizes, self.precisions):
            try:
                form = Form(size, precision)
                self.known[form] = self._made(form, budgets if size == self.sizes[-1] else [Budget()])
            except BudgetError as fault:
                faults.append(fault)
            except UntimedError as fault:
                waiting.append(fault)
        if waiting:
            raise waiting[-1]
        if not self.known:
            raise faults[0]
        within = {form.precision for form in self.known if form.size == self.sizes[-1]}
        self.precisions = tuple(one for one in self.precisions if one in within)

    def at(self, form: Form) -> Survey:
        """The survey of a form."""
        if form not in self.known:
            self.known[form] = self._made(form, [Budget()])
        return self.known[form]

    @property
    def first(self) -> Form:
        """That of the images as the fabric reads them."""
        return Form(self.sizes[0], self.precisions[0])

    def _made(self, form: Form, budgets: Sequence[Budget] | None) -> Survey:
        if len(self.sizes) * len(self.precisions) > 1:
            self.listener.say(f"for {form}:")
        prepared = replace(self.data, preprocessing=replace(self.data.preprocessing, size=form.size))
        target = replace(self.job.target, precision=form.precision)
        return surveyed(self.graph, self.job, prepared, self.listener, budgets, target)

    def resolved(self, budget: Budget) -> Budget:
        """The budget with every share, of what the whole takes in the first form, turned into a number."""
        how = measures(self.sizes[0], lambda graph: self.at(self.first).measured(graph).median_ms)
        return budget.resolved({name: how[name](self.graph) for name in budget.ceilings})

    def in_question(self, budget: Budget, float32: bool = False) -> list[Form]:
        """The forms in which a network within a resolved budget may be the best, those of the largest images first.

        For larger images too little would be left of the whole, for smaller ones the whole is within the budget.
        ``float32`` leaves out all other numbers.
        """
        precisions: tuple[Precision, ...] = ("float32",) if float32 else self.precisions
        return [form for precision in precisions for form in self._in_question(budget, precision)]

    def _in_question(self, budget: Budget, precision: Precision) -> list[Form]:
        forms = [Form(size, precision) for size in self.sizes]
        times = {form: self._times(form, budget) for form in forms}
        within = next((form for form in forms if times[form] <= 1), forms[-1])
        asked = forms[: forms.index(within) + 1]
        return [form for form in asked if times[form] <= DEEPEST] or [within]

    def _times(self, form: Form, budget: Budget) -> float:
        """How many times the tightest ceiling the whole takes, its milliseconds by its multiply-accumulates."""
        largest = Form(self.sizes[0], form.precision)
        share = costs(self.graph, form.size).macs / costs(self.graph, largest.size).macs
        how = measures(form.size, lambda graph: self.at(largest).measured(graph).median_ms * share)
        return max((how[name](self.graph) / ceiling(budget, name) for name in budget.ceilings), default=0.0)


class Cutters:
    """Cutters of a trained fabric, one for each form of network, which is made when it is first asked for."""

    def __init__(self, run: Path, fabric: Fabric, surveys: Surveys) -> None:
        self.surveys, self.data = surveys, surveys.data
        form = surveys.first
        self.first = cutter_of(run, fabric, surveys.job, self.data, surveys.listener, surveys.at(form))
        self.known = {form: self.first}

    def at(self, form: Form) -> Cutter:
        """The cutter of a form; what edges and channels are worth is known from the first."""
        if form not in self.known:
            data, found = self.data.at(form.size), self.surveys.at(form)
            alike = [one for other, one in self.known.items() if other.size == form.size]
            tried = alike[0].material.tried if alike else {}
            material = replace(self.first.material, data=data, survey=found, took_ms={}, tried=tried)
            self.known[form] = Cutter(material, strategy_of(self.surveys.job.procedure))
        return self.known[form]

    def finalists(self, budget: Budget, share: float, count: int, float32: bool = False) -> list[Cut]:
        """Networks within a budget, or a share of its milliseconds, that are worth a brief fine-tuning.

        About so many, of each form in question one at least, see :meth:`Surveys.in_question`. Raises BudgetError where
        none fits.
        """
        resolved, found, faults = self.surveys.resolved(budget), list[Cut](), list[BudgetError]()
        forms = self.surveys.in_question(resolved, float32)
        for form in forms:
            try:
                found += self.at(form).finalists(resolved, share, ceil(count / len(forms)))
            except BudgetError as fault:
                faults.append(fault)
        if not found:
            raise faults[-1]
        return found
