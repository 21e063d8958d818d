"""The best choice there is, where worths and costs add up: an integer program, solved by HiGHS through scipy."""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from convfabric.choice.budgets import Budget, Measure, ceiling, fits, measures, taken_by
from convfabric.errors import BudgetError, SettingError
from convfabric.graph import Graph, Place
from convfabric.operators import Size

MOST_SECONDS = 20.0
STDOUT = 1
GAP = 1e-4
"""Share of the best total worth by which what is returned may fall short of it."""


@dataclass(frozen=True, kw_only=True)
class Additive:
    """A measure as a sum: a fixed part, and so much for each edge and node that stays."""

    fixed: float
    """The node where images enter is part of it."""
    parts: Mapping[str, float]
    """By the names of edges and places."""

    @classmethod
    def of(cls, graph: Graph, measure: Measure) -> "Additive":
        """The parts of a measure that adds up over a graph."""
        bare = replace(graph, edges=())
        others = [node.place for node in graph.nodes if node.place != graph.entry.place]
        parts = {str(place): measure(bare) - measure(_without(bare, place)) for place in others}
        fixed = measure(bare) - sum(parts.values())
        return cls(fixed=fixed, parts=parts | {edge.name: taken_by(graph, edge, measure) for edge in graph.edges})


def _without(bare: Graph, place: Place) -> Graph:
    heads = (replace(head, reads=tuple(read for read in head.reads if read != place)) for head in bare.heads)
    return replace(bare, nodes=tuple(node for node in bare.nodes if node.place != place), heads=tuple(heads))


def choose_exactly(
    graph: Graph, worth: Mapping[str, float], budget: Budget, image: Size, latency_ms: Measure | None = None
) -> Graph:
    """The sub-graph whose edges' worths have the largest sum, within ceilings of milliseconds, MACs, values or edges.

    Every node that stays is fed and read, and every exit stays that the budget can pay for along with the others.
    Raises SettingError for a ceiling or a graph whose costs do not add up (memory; concatenations; shared weights
    under a ceiling of parameters), BudgetError where nothing fits.

    >>> from convfabric.weavers import weave
    >>> graph = weave("fabric-tiny")
    >>> worth = {edge.name: 1.0 for edge in graph.edges}
    >>> len(choose_exactly(graph, worth, Budget(edges=7), (32, 32)).edges)
    7
    """
    how = measures(image, latency_ms)
    asked = {name: how[name] for name in budget.ceilings}
    _check_adds_up(graph, budget)
    budget = budget.resolved({name: measure(graph) for name, measure in asked.items()})
    sums = {name: Additive.of(graph, measure) for name, measure in asked.items()}
    for every_exit in (True, False):
        kept = _solved(graph, worth, {name: (sums[name], ceiling(budget, name)) for name in asked}, every_exit)
        if kept is not None:
            chosen = graph.restrict(kept)
            if fits(chosen, budget, asked):
                return chosen
    raise BudgetError(f"no sub-network of {graph.name} fits {budget}.")


def _check_adds_up(graph: Graph, budget: Budget) -> None:
    if budget.memory_mb is not None:
        raise SettingError(f"memory_mb={budget.memory_mb}: memory does not add up over edges; choose by worth instead.")
    if joins := sorted({node.join for node in graph.nodes} - {"sum"}):
        joined = {"concatenation": "concatenates", "product": "multiplies"}[joins[0]]
        raise SettingError(f"{graph.name} {joined}, so its costs do not add up over edges; choose by worth instead.")
    if budget.params is not None and any(edge.shared for edge in graph.edges):
        raise SettingError(f"{graph.name} shares weights, so parameters do not add up; choose by worth instead.")


def _solved(
    graph: Graph, worth: Mapping[str, float], ceilings: Mapping[str, tuple[Additive, float]], every_exit: bool
) -> list[str] | None:
    """Names of the edges of the best choice; None where there is none."""
    places = [node.place for node in graph.nodes]
    program = _Program([*(edge.name for edge in graph.edges), *map(str, places)])
    for edge in graph.edges:
        program.at_most({edge.name: 1.0, str(edge.source): -1.0}, 0.0)
        program.at_most({edge.name: 1.0, str(edge.target): -1.0}, 0.0)
    for place in places:
        if place != graph.entry.place:
            program.at_most({str(place): 1.0, **{edge.name: -1.0 for edge in graph.arriving(place)}}, 0.0)
        if place not in graph.reads:
            leaving = {edge.name: -1.0 for edge in graph.edges if edge.source == place}
            program.at_most({str(place): 1.0, **leaving}, 0.0)
    program.at_most({str(graph.entry.place): -1.0}, -1.0)
    answering = [head.reads for head in graph.heads] if every_exit else [graph.reads]
    for reads in answering:
        program.at_most({str(place): -1.0 for place in reads}, -1.0)
    for sums, most in ceilings.values():
        program.at_most(sums.parts, most - sums.fixed)
    chosen = program.best(worth)
    return None if chosen is None else [edge.name for edge in graph.edges if edge.name in chosen]


@contextmanager
def _unheard() -> Iterator[None]:
    """Standard output leads nowhere: HiGHS prints there whatever it is told, and ``--json`` has to be read from it."""
    flush = getattr(ctypes.CDLL(None), "fflush", None) if os.name == "posix" else None
    sys.stdout.flush()
    kept = os.dup(STDOUT)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), STDOUT)
        yield
    finally:
        if flush:
            flush(None)
        os.dup2(kept, STDOUT)
        os.close(kept)


class _Program:
    """Yes or no for each name, rows of at most, and what is to be largest."""

    def __init__(self, names: Sequence[str]) -> None:
        self.column = {name: i for i, name in enumerate(names)}
        self.rows: list[NDArray[np.float64]] = []
        self.most: list[float] = []

    def at_most(self, weights: Mapping[str, float], most: float) -> None:
        row = self._row(weights)
        size = float(np.abs(row).max()) or 1.0
        self.rows.append(row / size)
        self.most.append(most / size)

    def best(self, worth: Mapping[str, float]) -> set[str] | None:
        """Names of those that are yes; None where no choice is under every row."""
        aim = self._row(worth)
        with _unheard():
            found = milp(
                -aim / (np.abs(aim).max() or 1.0),
                constraints=LinearConstraint(np.array(self.rows), ub=np.array(self.most)),
                integrality=np.ones(len(aim)),
                bounds=Bounds(0, 1),
                options={"time_limit": MOST_SECONDS, "mip_rel_gap": GAP},
            )
        return None if found.x is None else {name for name, i in self.column.items() if found.x[i] > 0.5}

    def _row(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        row = np.zeros(len(self.column))
        for name, weight in weights.items():
            row[self.column[name]] = weight
        return row
