"""The best of many sub-networks that fit, by trying them: better ones are changed a little and tried again.

As in once-for-all networks (Cai et al. 2020, section 3.4) the best so far have children, changed a little or crossed;
of many children the one is tried that a ridge regression on everything tried so far takes for the best.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convfabric.choice.budgets import Summed
from convfabric.errors import BudgetError, GraphError
from convfabric.graph import Edge, Graph
from convfabric.graph.subnetworks import Sampler

PARENTS, CHILDREN = 8, 8
BROOD = 8
"""Sub-networks that are tried at once, by however many processes: so all of them choose the same."""
RIDGE = 0.02
DRAWN = 0.4
"""Share of the trials that go to starts and random draws."""
CROSSED = 0.3
CHANGES = 3
MOST_TRIES = 30
Genes = tuple[frozenset[str], tuple[int, ...]]
"""Names of the edges that stay, and for each group of widths the position of its count."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A sub-network, and how good it was found to be."""

    graph: Graph
    fitness: float


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """A search among the sub-networks of one graph that fit a budget."""

    sampler: Sampler
    fits: Callable[[Graph], bool]
    fitness: Callable[[Sequence[Graph]], Sequence[float]]
    """Of each graph, larger is better; asked once for each."""
    limits: Sequence[tuple[Summed, float]] = ()
    """Measures and their ceilings that fitting graphs are under, by which what surely does not fit is not made."""

    def run(
        self,
        starts: Iterable[Graph],
        trials: int,
        seed: int = 0,
        watch: Callable[[int, float], None] = lambda done, best: None,
    ) -> list[Tried]:
        """So many graphs tried, the best first. Starts that do not fit are made to.

        Raises BudgetError where not even the smallest fits.
        """
        if not self.fits(self.sampler.smallest):
            raise BudgetError(f"not even the smallest sub-network of {self.sampler.graph.name} fits.")
        dice, tried = random.Random(seed), dict[Graph, float]()
        waiting = [self.grown(self.repaired(graph, dice), dice) for graph in starts]
        drawn = max(PARENTS, round(trials * DRAWN))
        while len(tried) < trials:
            brood = list[Graph]()
            while len(brood) < min(BROOD, trials - len(tried)):
                graph = self._next(waiting, tried, brood, dice, drawing=len(tried) + len(brood) < drawn)
                if graph is None:
                    break
                brood.append(graph)
            if not brood:
                break
            for graph, fitness in zip(brood, self.fitness(brood), strict=True):
                tried[graph] = fitness
                watch(len(tried), max(tried.values()))
        found = [Tried(graph=graph, fitness=fitness) for graph, fitness in tried.items()]
        return sorted(found, key=lambda one: one.fitness, reverse=True)

    def _next(
        self, waiting: list[Graph], tried: dict[Graph, float], brood: list[Graph], dice: random.Random, drawing: bool
    ) -> Graph | None:
        """A graph that neither was tried nor is about to be; None where none is found."""
        while waiting:
            graph = waiting.pop(0)
            if graph not in tried and graph not in brood:
                return graph
        parents = sorted(tried, key=lambda graph: tried[graph], reverse=True)[:PARENTS]
        for attempt in range(MOST_TRIES):
            if not parents or drawing == (attempt < MOST_TRIES // 2):
                child = self.sampler.draw(dice)
            else:
                children = [self.repaired(self._child(parents, dice), dice) for _ in range(CHILDREN)]
                promise = self._promise(tried)
                child = max(children, key=promise)
            child = self.grown(self.repaired(child, dice), dice)
            if child not in tried and child not in brood:
                return child
        return None

    def _child(self, parents: list[Graph], dice: random.Random) -> Graph:
        if dice.random() < CROSSED:
            return self.crossed(dice.choice(parents), dice.choice(parents), dice)
        return self.changed(dice.choice(parents), dice)

    def _promise(self, tried: dict[Graph, float]) -> Callable[[Graph], float]:
        """Fitness as a ridge regression on edges and widths sees it, from what was tried."""
        rows = np.array([self._row(graph) for graph in tried])
        values = np.array(list(tried.values()))
        middle, mean = rows.mean(0), values.mean()
        centred = rows - middle
        inner = centred @ centred.T
        ridge = RIDGE * max(float(np.trace(inner)) / len(rows), 1e-9)
        weights = centred.T @ np.linalg.solve(inner + ridge * np.eye(len(rows)), values - mean)
        return lambda graph: float((self._row(graph) - middle) @ weights)

    def _row(self, graph: Graph) -> NDArray[np.float64]:
        kept, positions = self.genes(graph)
        wide = [at / (len(group.counts) - 1) for at, group in zip(positions, self.sampler.widths, strict=True)]
        return np.array([*(float(unit <= kept) for unit in self.sampler.units), *wide])

    def changed(self, graph: Graph, dice: random.Random) -> Graph:
        """A graph with a few edges and widths other than before."""
        kept, positions = self.genes(graph)
        for _ in range(dice.randint(1, CHANGES)):
            if positions and dice.random() < 0.5:
                at = dice.randrange(len(positions))
                moved = positions[at] + dice.choice((-1, 1))
                positions = (*positions[:at], self._clipped(at, moved), *positions[at + 1 :])
            else:
                unit = dice.choice(self.sampler.units)
                kept = kept - unit if unit <= kept else kept | unit | self._free
        return self.made((kept, positions)) or graph

    def crossed(self, mother: Graph, father: Graph, dice: random.Random) -> Graph:
        """A graph with each edge and width of one of two."""
        (kept, positions), (others, theirs) = self.genes(mother), self.genes(father)
        edges = self._free
        for unit in self.sampler.units:
            edges = edges | unit if unit <= dice.choice((kept, others)) else edges
        return self.made((edges, tuple(dice.choice(pair) for pair in zip(positions, theirs, strict=True)))) or mother

    def repaired(self, graph: Graph, dice: random.Random) -> Graph:
        """A graph that fits, less one unit of edges or one step of width after another."""
        while not self.fits(graph):
            kept, positions = self.genes(graph)
            fewer = [(unit, positions) for unit in self.sampler.units if unit <= kept]
            fewer += [(frozenset(), moved) for at in range(len(positions)) if (moved := self._moved(positions, at, -1))]
            dice.shuffle(fewer)
            made = (self.made((kept - unit, moved)) for unit, moved in fewer)
            graph = next((less for less in made if less is not None and less != graph), self.sampler.smallest)
        return graph

    def grown(self, graph: Graph, dice: random.Random) -> Graph:
        """A graph that fits, with whatever more still fits, tried in random order: wider nodes, then edges.

        What leads nowhere yet is held on to, for another edge may join it.
        """
        held, positions = self.genes(graph)
        wider = list(range(len(positions)))
        absent = [unit for unit in self.sampler.units if not unit <= held]
        dice.shuffle(wider)
        dice.shuffle(absent)
        for at in wider:
            while moved := self._moved(positions, at, 1):
                if self.limits and self._surely_too_wide(graph, moved, at):
                    break
                more = self.made((held, moved))
                if more is None or not self.fits(more):
                    break
                graph, positions = more, moved
        held = held | self._free
        wide = self.made((self.sampler.graph.edge_names, positions)) if self.limits else None
        edges = {edge.name: edge for edge in wide.edges} if wide else {}
        for unit in absent:
            if wide and self._surely_over(graph, wide, [edges[name] for name in unit]):
                continue
            more = self.made((held | unit, positions))
            if more is not None and self.fits(more):
                graph, held = more, held | unit
        return graph

    def _surely_too_wide(self, graph: Graph, moved: tuple[int, ...], at: int) -> bool:
        """Whether a graph is above a ceiling with one group of widths moved, by the growth of its edges there alone."""
        places = self.sampler.widths[at].places
        now = [edge for edge in graph.edges if edge.source in places or edge.target in places]
        try:
            wide = self.sampler.weighed({edge.name for edge in now}, moved)
        except GraphError:
            return False
        for measure, most in self.limits:
            grown = (
                measure.of_edge(wide, e) - measure.of_edge(graph, was) for e, was in zip(wide.edges, now, strict=True)
            )
            if measure(graph) + sum(grown) > most:
                return True
        return False

    def _surely_over(self, graph: Graph, wide: Graph, edges: list[Edge]) -> bool:
        """Whether edges of the whole graph at a graph's widths take more than the graph leaves of a ceiling.

        Edges that lead nowhere yet take nothing, so the answer holds for those between places it has.
        """
        here = {node.place for node in graph.nodes}
        if not all(edge.source in here or edge.target in here for edge in edges):
            return False
        added = ((measure, most, sum(measure.of_edge(wide, edge) for edge in edges)) for measure, most in self.limits)
        return any(measure(graph) + more > most for measure, most, more in added)

    @property
    def _free(self) -> frozenset[str]:
        """Edges that cost nothing: tried wherever they lead somewhere."""
        return self.sampler.graph.free_edges

    def genes(self, graph: Graph) -> Genes:
        """Edges and width positions that identify a sub-network; groups of places that it lacks are at their widest."""
        channels = {node.place: node.channels for node in graph.nodes}
        positions = []
        for group in self.sampler.widths:
            counts = [channels[place] for place in group.places if place in channels]
            positions.append(_nearest(group.counts, counts[0]) if counts else len(group.counts) - 1)
        return graph.edge_names, tuple(positions)

    def made(self, genes: Genes) -> Graph | None:
        """The sub-network of some genes; None where there is none."""
        try:
            return self.sampler.part(*genes)
        except GraphError:
            return None

    def _clipped(self, at: int, position: int) -> int:
        return min(max(0, position), len(self.sampler.widths[at].counts) - 1)

    def _moved(self, positions: tuple[int, ...], at: int, by: int) -> tuple[int, ...] | None:
        """The positions with one of them moved; None where it cannot be."""
        moved = self._clipped(at, positions[at] + by)
        return None if moved == positions[at] else (*positions[:at], moved, *positions[at + 1 :])


def _nearest(counts: tuple[int, ...], count: int) -> int:
    return min(range(len(counts)), key=lambda i: abs(counts[i] - count))
