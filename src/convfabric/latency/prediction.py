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

from convfabric.execution.folding import with_convolutions_for_norms, with_norms_folded
from convfabric.execution.shortcuts import without_shortcuts
from convfabric.fabric.module import Fabric
from convfabric.graph import Edge, Graph, Node
from convfabric.graph.costs import FLOAT_BYTES, costs, edge_costs, edge_work, entry_work, node_work
from convfabric.graph.sizes import map_sizes
from convfabric.graph.subnetworks import Sampler, narrowed
from convfabric.latency.table import Table
from convfabric.operators import Chain, Operator, Part, Size, Work, area

MEASURED_GRAPHS = 24
DRAWN_GRAPHS = 120
TURNS = 2
SPARED_MS = tuple(microseconds / 1000 for microseconds in range(17))
"""Candidates for the overhead that is taken off the time of every operation."""
Simple = Mapping[str, Part]
"""For each edge, node and the entry of a graph, by its name, its operator once norms are folded, and its channels."""


def simplified(graph: Graph) -> Simple:
    """The operator of each edge, node and the entry of a graph once norms are folded.

    >>> from convfabric.weavers import weave
    >>> simplified(weave("resnet-20"))["entry"].operator.bias
    False
    """
    simple = with_convolutions_for_norms(with_norms_folded(Fabric(graph).eval())).graph
    entry = simple.entry
    parts = {"entry": Part(entry.operator, entry.image_channels, simple.node(entry.place).channels)}
    parts |= {edge.name: Part(edge.operator, *simple.ends(edge)) for edge in simple.edges}
    return parts | {str(node.place): Part(node.then, node.channels, node.channels) for node in simple.nodes}


def operations(graph: Graph, simple: Simple, image: Size) -> Iterator[Work]:
    """Every operation that a sub-network runs, for images of a height and width; one that occurs twice comes twice.

    A ReLU, or nothing, behind a node is part of what comes before it. So is a norm, as soon as no identity is left
    among what arrives that could not take it over; an identity is part of a convolution beside it.

    >>> from convfabric.weavers import weave
    >>> graph = weave("vgg", channels=4)
    >>> len(list(operations(graph, simplified(graph), (32, 32))))
    8
    """
    return _operations(without_shortcuts(graph), simple, image)


def _operations(graph: Graph, simple: Simple, image: Size) -> Iterator[Work]:
    """The same where every identity stays by itself, and with it the norm behind."""
    yield _as(simple["entry"], entry_work(graph, image))
    for edge in graph.edges:
        if not simple[edge.name].operator.free:
            yield _as(simple[edge.name], edge_work(graph, edge, image))
    for node in graph.nodes:
        then = simple[str(node.place)]
        left = _left_over(then.operator)
        arriving = graph.arriving(node.place)
        folds = node.join == "sum" and all(edge.operator.linear and not edge.shared for edge in arriving)
        if left is not None and not folds:
            yield _as(Part(left, *then[1:]), node_work(graph, node.place, image))


def _as(part: Part, work: Work) -> Work:
    """The work of an edge or the entry, by its operator once norms are folded, as narrow as the work is."""
    return work._replace(operator=part.operator.narrowed(part[1:], work[1:3]))


def _left_over(then: Operator) -> Operator | None:
    """The operator of a node without what runtimes do within the convolutions before it; None for nothing."""
    steps = then.steps if isinstance(then, Chain) else (then,)
    kept = tuple(step for step in steps if not step.absorbed)
    return Chain(kept) if kept else None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Milliseconds as a sum with weights above zero: a fixed part, the operations' times, and what lies between."""

    table: Table
    simple: Simple
    image: Size
    measured: Mapping[Graph, float]
    """Milliseconds of the sub-networks that it was fitted to."""
    weights: tuple[float, ...]
    """Of what :func:`features` gives."""
    spared_ms: float
    """Overhead of timing an operation alone, where every kernel is looked at and rounded up."""
    errors: tuple[float, ...]
    """|predicted / measured - 1| of each measured graph, left out of the fit."""
    rank: float
    """Spearman's correlation of predicted and measured over the same."""

    def renewed(self, measured_ms: Callable[[Graph], float]) -> "Prediction":
        """Fitted to the same sub-networks, each measured once more; what is quicker than before counts."""
        least = {graph: min(took, measured_ms(graph)) for graph, took in self.measured.items()}
        return predict_from(least, self.table, self.simple, self.image)

    @property
    def median_error(self) -> float:
        """The median of the errors."""
        return float(np.median(self.errors))

    def milliseconds(self, graph: Graph) -> float:
        """Predicted latency of a sub-network."""
        return float(np.dot(self.weights, features(graph, self.simple, self.image, self.table, self.spared_ms)))

    def edge_milliseconds(self, graph: Graph, edge: Edge) -> float:
        """The least by which an edge makes a graph slower: its operation, and what it writes and stores."""
        part = self.simple[edge.name]
        if part.operator.free:
            return 0.0
        taken = self.table.milliseconds(_as(part, edge_work(graph, edge, self.image)))
        found = edge_costs(graph, edge, self.image)
        values, stored = found.activation_bytes / FLOAT_BYTES / 1e6, 0.0 if edge.shared else found.parameters / 1e6
        terms = (0.0, max(0.0, taken - self.spared_ms), 1.0, 0.0, values, stored)
        return float(np.dot(self.weights, terms))

    def __str__(self) -> str:
        return (
            f"predictions are off by {self.median_error:.0%} (median of {len(self.errors)} measured sub-networks, "
            f"each left out of the fit), rank correlation {self.rank:.2f}"
        )


def features(graph: Graph, simple: Simple, image: Size, table: Table, spared_ms: float) -> tuple[float, ...]:
    """The terms of a prediction.

    1; ms of all operations, each less what is spared, if anything is left; their number; M values added or joined;
    M values written; M parameters, which are read from farther away in a whole network than in an operation that is
    timed alone.
    """
    times = [table.milliseconds(run) for run in operations(graph, simple, image)]
    joined = sum(_joined(without_shortcuts(graph), node, image) for node in graph.nodes)
    found = costs(graph, image)
    operations_ms = sum(max(0.0, taken - spared_ms) for taken in times)
    millions = joined / 1e6, found.activation_bytes / FLOAT_BYTES / 1e6, found.parameters / 1e6
    return 1.0, operations_ms, float(len(times)), *millions


def _joined(graph: Graph, node: Node, image: Size) -> int:
    """Values read to add or join what arrives at a node beyond the first."""
    arriving = len(graph.arriving(node.place)) + (node.place == graph.entry.place)
    return max(0, arriving - 1) * node.channels * area(map_sizes(graph, image)[node.place])


def sample_graphs(sampler: Sampler, weight: Callable[[Graph], float], count: int, seed: int = 0) -> list[Graph]:
    """The whole graph, the smallest, and random sub-networks spread evenly over the range of a weight.

    >>> from convfabric.weavers import weave
    >>> sampler = Sampler.of(weave("fabric-tiny"), 0.5, (32, 32))
    >>> len(sample_graphs(sampler, lambda graph: len(graph.edges), 8))
    8
    """
    dice = random.Random(seed)
    ends = [sampler.graph, sampler.smallest]
    different = {sampler.draw(dice) for _ in range(DRAWN_GRAPHS)}.difference(ends)
    drawn = sorted(different, key=lambda graph: (weight(graph), graph.name))
    places = np.linspace(0, len(drawn) - 1, max(2, count - len(ends))) if drawn else ()
    return list(dict.fromkeys([*ends, *(drawn[round(i)] for i in places)]))


def measured_graphs(sampler: Sampler, image: Size, count: int = MEASURED_GRAPHS) -> list[Graph]:
    """The sub-networks that a prediction is fitted to, evenly over the range of multiply-accumulates."""
    return sample_graphs(sampler, lambda graph: costs(graph, image).macs, count)


def every_operation(sampler: Sampler, simple: Simple, image: Size) -> list[Work]:
    """Each operation that some sub-network runs, at every width that the sampler knows, once.

    >>> from convfabric.graph.subnetworks import Sampler
    >>> from convfabric.weavers import weave
    >>> graph = weave("vgg", channels=4)
    >>> len(every_operation(Sampler.of(graph, 1.0, (32, 32)), simplified(graph), (32, 32)))
    8
    """
    graph = sampler.graph
    counts = {
        place: [group.at(i)[place] for i in range(len(group.counts))]
        for group in sampler.widths
        for place in group.places
    }
    found = list(_operations(graph, simple, image))
    for group in sampler.widths:
        for count in map(group.at, range(len(group.counts))):
            found += _operations(narrowed(graph, count), simple, image)
    for edge in graph.edges:
        work = edge_work(graph, edge, image)
        if not (edge.operator.ties or graph.node(edge.target).join == "concatenation"):
            pairs = product(counts.get(edge.source, work[1:2]), counts.get(edge.target, work[2:3]))
            for before, after in pairs:
                found.append(_as(simple[edge.name], work._replace(channels_in=before, channels_out=after)))
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
        measured=dict(measured),
        weights=weights,
        spared_ms=SPARED_MS[spared],
        errors=errors,
        rank=rank,
    )


def _fit(rows: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[int, tuple[float, ...]]:
    """Fit once per overhead candidate; the best one's index and its non-negative weights.

    ``rows``: (overheads, graphs, features).
    """
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
    expect: Callable[[list[Work], list[Graph]], None] = lambda works, graphs: None,
) -> Prediction:
    """A prediction for the sub-networks of a graph: operations timed that the table lacks, and a few whole ones.

    Those are measured in turns, and the least of each counts: a neighbour's work makes a network slower, never quicker.
    ``watch`` is told of the measurements of whole ones how many are done, ``expect`` before all what is to be timed.
    """
    simple = simplified(sampler.graph)
    works = every_operation(sampler, simple, image)
    chosen = measured_graphs(sampler, image, count)
    expect(table.missing(works), chosen)
    table.measure(works)
    least = dict.fromkeys(chosen, inf)
    for done, graph in enumerate(chosen * TURNS, 1):
        least[graph] = min(least[graph], measured_ms(graph))
        watch(done, TURNS * len(chosen))
    return predict_from(least, table, simple, image)
