"""Ways to choose within a budget: each is made with its numbers and handed to the cutter."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from convfabric.choice import Budget, choose, choose_exactly, measures
from convfabric.choice.evolution import Evolution
from convfabric.cutting.fitness import Judge
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract, strengths
from convfabric.cutting.worth import WORTHS, Worths
from convfabric.data.imageset import ImageSet
from convfabric.errors import BudgetError, GraphError, SettingError
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.survey import Survey
from convfabric.progress import Say, time_left
from convfabric.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Material:
    """Inputs of a choice: a trained fabric, its data, latency and worth of its parts."""

    fabric: Fabric
    """Its channels in the order in which they are kept, see :func:`convfabric.cutting.surgery.ranked`."""
    data: ImageSet
    recipe: Recipe
    """That the fabric was trained by."""
    survey: Survey
    worth: Worths
    """Of every edge."""
    channels: Mapping[Place, Tensor]
    """The worth of the channels of every place."""
    took_ms: dict[Graph, float] = field(default_factory=dict)
    """Milliseconds of networks measured so far."""
    tried: dict[Graph, float] = field(default_factory=dict)
    """How well sub-networks answered that were tried so far."""
    say: Say = print


Search = Callable[[Budget], Graph]
"""From a resolved budget to a graph that is predicted to be under it."""
Strategy = Callable[[Material], Search]


def by_worth(rounds: int, measure: str) -> Strategy:
    """Edges of least worth for what they cost go first; where that leads nowhere, the smallest sub-network.

    The ceilings come down in so many rounds; after each what is left is weighed anew, by a measure of WORTHS.
    """

    def prepared(material: Material) -> Search:
        def search(budget: Budget) -> Graph:
            try:
                return _in_rounds(material, budget, rounds, measure)
            except BudgetError:
                return next(_starts(material, budget), material.survey.sampler.smallest)

        return search

    return prepared


def exactly(material: Material) -> Search:
    """The edges of largest total worth, at the widest even level of channels where any fit."""
    found = material.survey
    solve = partial(choose_exactly, worth=material.worth, image=found.prediction.image)

    def search(budget: Budget) -> Graph:
        for level in _levels(found.sampler):
            try:
                return solve(graph=level, budget=budget, latency_ms=found.prediction.milliseconds)
            except BudgetError:
                continue
        return found.sampler.smallest

    return search


def by_trying(trials: int) -> Strategy:
    """The best on validation images, with inherited weights, of many that an evolution tries; worth gives it starts."""

    def prepared(material: Material) -> Search:
        judge = Judge.of(material.fabric, material.data, material.recipe, material.tried)
        return partial(_tried, material, judge, trials)

    return prepared


def _tried(material: Material, judge: Judge, trials: int, budget: Budget) -> Graph:
    found, most = material.survey, budget.latency_ms

    def under(graph: Graph) -> bool:
        fast = not isinstance(most, int | float) or material.took_ms.get(graph, 0.0) <= most
        return fast and found.fits(graph, budget)

    if under(material.fabric.graph):
        return material.fabric.graph
    if not under(found.sampler.smallest):
        return found.sampler.smallest
    material.say(f"trying {trials} sub-networks on {len(judge.few.splits['val'])} validation images")
    limits = found.limits(budget)
    evolution = Evolution(sampler=found.sampler, fits=under, fitness=judge.all, limits=limits)
    starts = [*sorted(judge.known, key=judge, reverse=True)[:4], *_starts(material, budget)]
    told = time_left("sub-networks tried", material.say)
    evolution.run(starts, trials, watch=lambda done, best: told(done, trials))
    return max(filter(under, judge.known), key=judge)


def _levels(sampler: Sampler) -> Iterator[Graph]:
    """The whole graph at every even level of widths, the widest first."""
    steps = max((len(group.counts) for group in sampler.widths), default=1)
    for taken in range(steps):
        yield sampler.part(
            sampler.graph.edge_names, [max(0, len(group.counts) - 1 - taken) for group in sampler.widths]
        )


def _starts(material: Material, budget: Budget) -> Iterator[Graph]:
    """Up to each exit, as wide as fits; the whole less its weakest channels; at each level the edges of most worth."""
    yield from _up_to_exits(material, budget)
    yield from _weakest_gone(material, budget)
    prediction = material.survey.prediction
    for level in _levels(material.survey.sampler):
        for chooser in (choose, choose_exactly):
            try:
                yield chooser(level, material.worth, budget, prediction.image, prediction.milliseconds)
            except (BudgetError, SettingError):
                continue


def _up_to_exits(material: Material, budget: Budget) -> Iterator[Graph]:
    """Where there are several exits, all that leads to each of them, at the widest even level of channels that fits."""
    sampler, graph = material.survey.sampler, material.fabric.graph
    deepest = len(graph.heads) if len(graph.heads) > 1 else 0
    for level in _levels(sampler):
        for exits in range(deepest, 0, -1):
            part = level.restrict(graph.until(exits).edge_names)
            if material.survey.fits(part, budget):
                yield part
                deepest = exits - 1


def _weakest_gone(material: Material, budget: Budget) -> Iterator[Graph]:
    """The whole graph less the channels that are weakest for what they take, as many as have to go; or nothing."""
    sampler, fits = material.survey.sampler, material.survey.fits
    steps = sorted(step for at in range(len(sampler.widths)) for step in _steps(material, budget, at))
    positions = [len(group.counts) - 1 for group in sampler.widths]
    for _, at, position in steps:
        positions[at] = min(positions[at], position)
        try:
            part = sampler.part(sampler.graph.edge_names, positions)
        except GraphError:
            return
        if fits(part, budget):
            yield part
            return


def _steps(material: Material, budget: Budget, at: int) -> Iterator[tuple[float, int, int]]:
    """For each narrower width of a group, the widest first, worth lost for what is saved, and which width it is.

    What is saved is a share of what the ceilings allow.
    """
    sampler = material.survey.sampler
    group, whole = sampler.widths[at], [len(group.counts) - 1 for group in sampler.widths]
    [tie] = (tie for tie in sampler.graph.ties if tie.places == group.places)
    strong = strengths(material.fabric, tie, material.channels)
    worst = 0.0
    for position in reversed(range(len(group.counts) - 1)):
        try:
            part = sampler.part(sampler.graph.edge_names, [*whole[:at], position, *whole[at + 1 :]])
        except GraphError:
            return
        saved = sum((limit(sampler.graph) - limit(part)) / most for limit, most in material.survey.limits(budget))
        lost = float(strong[tie.units * group.counts[position] // group.counts[-1] :].sum())
        worst = max(worst, lost / max(saved, 1e-9))
        yield worst, at, position


def _in_rounds(material: Material, budget: Budget, rounds: int, measure: str) -> Graph:
    """Cut in rounds: the ceilings come down evenly, by ratio, and what is left is weighed anew each time."""
    prediction = material.survey.prediction
    asked = measures(prediction.image, prediction.milliseconds)
    start = {name: asked[name](material.fabric.graph) for name in budget.ceilings}
    network, worth = material.fabric, material.worth
    for done in range(1, rounds + 1):
        if done > 1:
            worth = WORTHS[measure](network, material.data)
        ceilings = _between(start, budget, done / rounds)
        smaller = choose(network.graph, worth, ceilings, prediction.image, prediction.milliseconds)
        network = extract(network, smaller)
        if done < rounds:
            refresh(network, material.data, material.recipe)
    return network.graph


def _between(start: Mapping[str, float], budget: Budget, way: float) -> Budget:
    """Ceilings between what the fabric takes and the budget; a ceiling that does not bind stays."""
    ends = {name: float(value) for name, value in budget.ceilings.items() if isinstance(value, int | float)}
    return Budget(**{n: end if end >= start[n] else start[n] * (end / start[n]) ** way for n, end in ends.items()})
