"""Milliseconds of any restriction of a graph, from a few of them that were measured."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from convfabric.choice import Budget, choose
from convfabric.costs import costs
from convfabric.errors import BudgetError
from convfabric.graph import Graph
from convfabric.operators import Size

SHARES = ("60%", "35%", "15%")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Milliseconds as a sum: a fixed part, and so much for each edge, each M MACs and each MB written."""

    weights: tuple[float, float, float, float]
    """Milliseconds: fixed, per edge, per million MACs, per million bytes of responses."""
    image: Size
    median_error: float
    """Median over the measured graphs, each left out of the fit in turn, of |predicted / measured - 1|."""

    def milliseconds(self, graph: Graph) -> float:
        """What the graph is predicted to take for one image."""
        return float(np.dot(self.weights, _features(graph, self.image)))

    def corrected(self, ratio: float) -> "Prediction":
        """The same prediction times a ratio of measured to predicted."""
        fixed, edge, macs, written = (weight * ratio for weight in self.weights)
        return Prediction(weights=(fixed, edge, macs, written), image=self.image, median_error=self.median_error)


def _features(graph: Graph, image: Size) -> tuple[float, float, float, float]:
    found = costs(graph, image)
    return 1.0, float(len(graph.edges)), found.macs / 1e6, found.activation_bytes / 1e6


def sample_graphs(graph: Graph, image: Size, seed: int = 0) -> list[Graph]:
    """The whole graph and random restrictions of it, over the range of its MACs."""
    dice = random.Random(seed)
    sampled = [graph]
    for share in SHARES:
        worth = {edge.name: dice.random() for edge in graph.edges}
        try:
            smaller = choose(graph, worth, Budget(macs=share), image)
        except BudgetError:
            continue
        if smaller not in sampled:
            sampled.append(smaller)
    return sampled


def predict_from(measured: Mapping[Graph, float], image: Size) -> Prediction:
    """The prediction that fits graphs with known milliseconds best, no part below zero, by relative error."""
    rows = np.array([_features(graph, image) for graph in measured])
    times = np.array(list(measured.values()))
    errors = []
    for left_out in range(len(times)):
        rest = [i for i in range(len(times)) if i != left_out]
        guess = float(np.dot(_fit(rows[rest], times[rest]), rows[left_out])) if rest else times[left_out]
        errors.append(abs(guess / times[left_out] - 1))
    fixed, edge, macs, written = _fit(rows, times)
    return Prediction(weights=(fixed, edge, macs, written), image=image, median_error=float(np.median(errors)))


def _fit(rows: NDArray[np.float64], times: NDArray[np.float64]) -> list[float]:
    found, _ = nnls(rows / times[:, None], np.ones(len(times)))
    return [float(weight) for weight in found]


def calibrate(graph: Graph, image: Size, measured_ms: Callable[[Graph], float]) -> Prediction:
    """A prediction for the restrictions of a graph, from measuring a few of them."""
    return predict_from({sampled: measured_ms(sampled) for sampled in sample_graphs(graph, image)}, image)
