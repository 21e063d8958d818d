"""Milliseconds of any sub-network: its operations' times added, corrected on whole ones that were measured."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr

from convfabric.execution.folding import carries, folded
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Node
from convfabric.graph.costs import FLOAT_BYTES, costs, edge_work, entry_work, node_work, size_at
from convfabric.graph.subnetworks import Sampler, narrowed
from convfabric.latency.table import Table
from convfabric.operators import Chain, Identity, Operator, Relu, Size, Work, area

MEASURED_GRAPHS = 24
DRAWN_GRAPHS = 120
TURNS = 2
SPARED_MS = tuple(microseconds / 1000 for microseconds in range(17))
"""What may be taken off the time of every operation."""
Simple = Mapping[str, Operator]
"""For each part of a graph, by its name, what is left of its operator once norms are folded."""


def simplified(graph: Graph) -> Simple:
    """What runs at each edge, node and at the entry of a graph once norms are folded."""
    simple = folded(Fabric(graph).eval()).graph
    operators = {edge.name: edge.operator for edge in simple.edges} | {"entry": simple.entry.operator}
    return operators | {str(node.place): node.then for node in simple.nodes}


def operations(graph: Graph, simple: Simple, image: Size) -> Iterator[Work]:
    """Every operation that a sub-network runs, for images of a height and width; one that occurs twice comes twice.

    A ReLU, or nothing, behind a node is part of what comes before it. So is a norm, as soon as no identity is left
    among what arrives that could not take it over.
    """
    yield entry_work(graph, image)._replace(operator=simple["entry"])
    for edge in graph.edges:
        if not isinstance(simple[edge.name], Identity):
            yield edge_work(graph, edge, image)._replace(operator=simple[edge.name])
    for node in graph.nodes:
        left = _left_over(simple[str(node.place)])
        arriving = graph.arriving(node.place)
        folds = node.join == "sum" and all(carries(edge.operator) and not edge.shared for edge in arriving)
        if left is not None and not folds:
            yield node_work(graph, node.place, image)._replace(operator=left)


def _left_over(then: Operator) -> Operator | None:
    if isinstance(then, Relu | Identity):
        return None
    steps = then.steps if isinstance(then, Chain) else (then,)
    kept = tuple(step for step in steps if not isinstance(step, Relu | Identity))
    return Chain(kept) if kept else None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Milliseconds as a sum with weights above zero: a fixed part, the operations' times, and what lies between."""

    table: Table
    simple: Simple
    image: Size
    weights: tuple[float, ...]
    """Of what :func:`features` gives."""
    spared_ms: float
    """What an operation takes less in a network than timed alone, where every kernel is looked at and rounded up."""
    errors: tuple[float, ...]
    """|predicted / measured - 1| of each measured graph, left out of the fit."""
    rank: float
    """Spearman's correlation of predicted and measured over the same."""

    @property
    def median_error(self) -> float:
        """The median of the errors."""
        return float(np.median(self.errors))

    def milliseconds(self, graph: Graph) -> float:
        """What a sub-network is predicted to take."""
        return float(np.dot(self.weights, features(graph, self.simple, self.image, self.table, self.spared_ms)))

    def __str__(self) -> str:
        return (
            f"predictions are off by {self.median_error:.0%} (median of {len(self.errors)} measured sub-networks, "
            f"each left out of the fit), rank correlation {self.rank:.2f}"
        )


def features(graph: Graph, simple: Simple, image: Size, table: Table, spared_ms: float) -> tuple[float, ...]:
    """What a prediction adds up.

    1; ms of all operations, each less what is spared, if anything is left; their number; M values added or joined;
    M values written; M parameters, which are read from farther away in a whole network than in an operation that is
    timed alone.
    """
    times = [table.milliseconds(run) for run in operations(graph, simple, image)]
    joined = sum(_joined(graph, node, image) for node in graph.nodes)
    found = costs(graph, image)
    operations_ms = sum(max(0.0, taken - spared_ms) for taken in times)
    millions = joined / 1e6, found.activation_bytes / FLOAT_BYTES / 1e6, found.parameters / 1e6
    return 1.0, operations_ms, float(len(times)), *millions


def _joined(graph: Graph, node: Node, image: Size) -> int:
    """Values read to add or join what arrives at a node beyond the first."""
    arriving = len(graph.arriving(node.place)) + (node.place == graph.entry.place)
    return max(0, arriving - 1) * node.channels * area(size_at(node.place.scale, image))


def sample_graphs(sampler: Sampler, weight: Callable[[Graph], float], count: int, seed: int = 0) -> list[Graph]:
    """The whole graph, the smallest, and random sub-networks spread evenly over the range of a weight."""
    dice = random.Random(seed)
    ends = [sampler.graph, sampler.smallest]
    different = {sampler.draw(dice) for _ in range(DRAWN_GRAPHS)}.difference(ends)
    drawn = sorted(different, key=lambda graph: (weight(graph), graph.name))
    places = np.linspace(0, len(drawn) - 1, max(2, count - len(ends))) if drawn else ()
    return list(dict.fromkeys([*ends, *(drawn[round(i)] for i in places)]))


def every_operation(sampler: Sampler, simple: Simple, image: Size) -> list[Work]:
    """Each operation that some sub-network runs, at every width that the sampler knows, once."""
    graph = sampler.graph
    counts = {place: group.counts for group in sampler.widths for place in group.places}
    found = list(operations(graph, simple, image))
    for group in sampler.widths:
        for count in group.counts:
            found += operations(narrowed(graph, dict.fromkeys(group.places, count)), simple, image)
    for edge in graph.edges:
        work = edge_work(graph, edge, image)._replace(operator=simple[edge.name])
        if not (edge.operator.keeps_channels or graph.node(edge.target).join == "concatenation"):
            ends = product(counts.get(edge.source, ()), counts.get(edge.target, ()))
            found += [work._replace(channels_in=before, channels_out=after) for before, after in ends]
    return list(dict.fromkeys(found))


def predict_from(measured: Mapping[Graph, float], table: Table, simple: Simple, image: Size) -> Prediction:
    """The prediction that fits graphs with known milliseconds best, no part below zero, by relative error."""
    rows = np.array([[features(graph, simple, image, table, spared) for graph in measured] for spared in SPARED_MS])
    times = np.array(list(measured.values()))

    def guess(out: int) -> float:
        others = np.arange(len(times)) != out
        spared, weights = _fit(rows[:, others], times[others]) if others.any() else _fit(rows, times)
        return float(np.dot(weights, rows[spared, out]))

    guesses = [guess(out) for out in range(len(times))]
    errors = tuple(abs(guessed / time - 1) for guessed, time in zip(guesses, times, strict=True))
    rank = float(spearmanr(guesses, times).statistic) if len(times) > 2 else 1.0
    spared, weights = _fit(rows, times)
    return Prediction(
        table=table,
        simple=simple,
        image=image,
        weights=weights,
        spared_ms=SPARED_MS[spared],
        errors=errors,
        rank=rank,
    )


def _fit(rows: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[int, tuple[float, ...]]:
    """Which of what may be spared fits best, and the weights with it; rows are spared × graphs × features."""
    fits = [nnls(row / times[:, None], np.ones(len(times))) for row in rows]
    best = min(range(len(fits)), key=lambda i: fits[i][1])
    return best, tuple(float(weight) for weight in fits[best][0])


def calibrate(
    sampler: Sampler,
    image: Size,
    table: Table,
    measured_ms: Callable[[Graph], float],
    count: int = MEASURED_GRAPHS,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Prediction:
    """A prediction for the sub-networks of a graph: operations timed that the table lacks, and a few whole ones.

    Those are measured in turns, and the least of each counts: a neighbour's work makes a network slower, never quicker.
    ``watch`` is told of the measurements of whole ones how many are done.
    """
    simple = simplified(sampler.graph)
    table.measure(every_operation(sampler, simple, image))

    def added(graph: Graph) -> float:
        return sum(table.milliseconds(work) for work in operations(graph, simple, image))

    chosen = sample_graphs(sampler, added, count)
    least = dict.fromkeys(chosen, inf)
    for done, graph in enumerate(chosen * TURNS, 1):
        least[graph] = min(least[graph], measured_ms(graph))
        watch(done, TURNS * len(chosen))
    return predict_from(least, table, simple, image)
