"""Gates on edges, trained beside the weights: which edges a network of a wanted cost should keep.

Budgeted Super Networks (Veniat & Denoyer, CVPR 2018): each image draws each gate, h ~ Bernoulli(σ(γ)), and γ follows
REINFORCE of the reward -(loss + λ max(0, cost - target)). Beside it the hard-concrete relaxation (Louizos et al.,
ICLR 2018), whose draws have gradients. Both end as a worth for each edge and as a choice of edges.

Legend of the suffixes: B images, E gated edges.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import log

import torch
from torch import Tensor, nn

from convfabric.errors import NoRouteError, SettingError
from convfabric.fabric.module import Gates as GatesByEdge
from convfabric.graph import POINT, Edge, Graph
from convfabric.graph.costs import edge_costs
from convfabric.graph.parallel_steps import parallel_steps
from convfabric.operators import Size
from convfabric.training.recipe import Recipe

OPEN_AT_FIRST = 3.0
"""Logit of every gate before training: probability 0.95."""
TOLERANCE = 0.05
"""Share by which the cost that gates are made sure for may lie above the target."""
HEAT, LOWEST, HIGHEST = 2 / 3, -0.1, 1.1
"""Of the hard-concrete distribution: temperature, and the ends that are clipped to 0 and 1."""


@dataclass(frozen=True)
class Draw:
    """The gates of one batch."""

    values_BE: Tensor
    """0 or 1; in between for the relaxation, with gradients."""
    log_probability_B: Tensor | None
    """Of what was drawn, with gradients; None for the relaxation."""


class Gates(nn.Module):
    """One gate for each edge that costs something and ends at a node that only adds.

    Where a node normalises what arrives, a closed edge would leave it another response than a missing one, so edges
    into such nodes follow the edges behind them. Raises SettingError where no edge of the graph can be gated.
    """

    def __init__(self, graph: Graph, recipe: Recipe, image: Size) -> None:
        super().__init__()
        self.graph, self.recipe = graph, recipe
        self.names = [edge.name for edge in graph.edges if _can_be_gated(graph, edge)]
        if not self.names:
            raise SettingError(
                f"gates={recipe.gates}: every node of {graph.name} normalises what arrives, so no edge can be gated; "
                "b-cnf and resnet-fabric have edges that can."
            )
        self.logits_E = nn.Parameter(torch.full((len(self.names),), OPEN_AT_FIRST))
        self.column = {name: i for i, name in enumerate(self.names)}
        kind = {"macs": "macs", "params": "parameters", "steps": "macs"}[recipe.gate_cost]
        each = {edge.name: float(getattr(edge_costs(graph, edge, image), kind)) for edge in graph.edges}
        self.whole = sum(each.values())
        self.costs = {name: self._price(name, each) for name in self.names}
        self.fixed = self.whole - sum(self.costs.values())

    def _price(self, name: str, each: dict[str, float]) -> float:
        """Cost of a gated edge, with its part of the edges before it that follow it."""
        [edge] = [edge for edge in self.graph.edges if edge.name == name]
        beside = sum(other.source == edge.source for other in self.graph.edges if other.name in self.column)
        follow = [before for before in self.graph.arriving(edge.source) if before.name not in self.column]
        return each[name] + sum(each[before.name] for before in follow) / beside

    def draw(self, batch: int) -> Draw:
        """The gates of so many images, each drawn by itself."""
        logits_BE = self.logits_E.expand(batch, -1)
        if self.recipe.gates == "hard-concrete":
            noise = torch.rand_like(logits_BE).clamp(1e-6, 1 - 1e-6)
            stretched = torch.sigmoid((noise.logit() + logits_BE) / HEAT) * (HIGHEST - LOWEST) + LOWEST
            return Draw(stretched.clamp(0, 1), None)
        values = torch.bernoulli(torch.sigmoid(logits_BE.detach()))
        each = nn.functional.binary_cross_entropy_with_logits(logits_BE, values, reduction="none")
        return Draw(values, -each.sum(1))

    def by_edge(self, draw: Draw) -> GatesByEdge:
        """Factors of the results of edges, by name."""
        return {name: draw.values_BE[:, i, None, None, None] for name, i in self.column.items()}

    def cost(self, values_BE: Tensor) -> Tensor:
        """(B,) share of the whole graph's cost that lies on open edges.

        Differentiable for the relaxation; steps are not. An open edge is free while no way leads through it by the
        gates that are more open than not, so that the target is spent on what answers. That does not hang on one
        draw: closing an edge that all ways pass saves its own price only.
        """
        if self.recipe.gate_cost == "steps":
            kept = [frozenset(self._kept(row)) for row in values_BE.detach()]
            whole = parallel_steps(self.graph, self.recipe.gate_workers)
            taken = [_steps(self.graph, names, self.recipe.gate_workers) / whole for names in kept]
            return torch.tensor(taken, device=values_BE.device)
        likely = frozenset(name for name, value in self.probabilities().items() if value > 0.5)
        idle = likely - _ways(self.graph, likely)
        prices_E = values_BE.new_tensor([self.costs[name] * (name not in idle) for name in self.names])
        return (values_BE @ prices_E + self.fixed) / self.whole

    def _kept(self, values_E: Tensor) -> list[str]:
        shut = {name for name, i in self.column.items() if values_E[i] < 0.5}
        return [name for name in sorted(self.graph.edge_names) if name not in shut]

    def probabilities(self) -> dict[str, float]:
        """For every edge the probability that its gate is open; 1 where it has none. A worth like any other."""
        own = dict(zip(self.names, torch.sigmoid(self._odds_E().detach()).tolist(), strict=True))
        return {edge.name: own.get(edge.name, 1.0) for edge in self.graph.edges}

    def _odds_E(self) -> Tensor:
        """Logarithms of the odds that gates are open."""
        relaxed = self.recipe.gates == "hard-concrete"
        return self.logits_E - HEAT * log(-LOWEST / HIGHEST) if relaxed else self.logits_E

    def affordable(self) -> frozenset[str]:
        """The edges that the target pays for.

        The least probable gates go until it does; then those come back, the most probable first, through which a way
        leads and that what is left of the target pays for.
        """
        likely = self.probabilities()
        order = sorted(self.names, key=lambda name: (likely[name], name))
        kept = frozenset(likely)
        while order and self._share(kept) > self.recipe.gate_target:
            kept -= {order.pop(0)}
        kept = _ways(self.graph, kept)
        for name in sorted(set(self.names) - kept, key=lambda name: (-likely[name], name)):
            more = _ways(self.graph, kept | {name})
            if name in more and self._share(more) <= self.recipe.gate_target * (1 + TOLERANCE):
                kept = more
        return kept

    def _share(self, kept: frozenset[str]) -> float:
        """Of the whole graph's cost, what the edges cost that a way leads through."""
        if self.recipe.gate_cost == "steps":
            workers = self.recipe.gate_workers
            return _steps(self.graph, kept, workers) / parallel_steps(self.graph, workers)
        ways = _ways(self.graph, kept)
        return (sum(self.costs[name] for name in self.names if name in ways) + self.fixed) / self.whole

    def chosen(self) -> Graph:
        """The graph of the edges whose gates are more open than not; the whole one where no way is left."""
        likely = self.probabilities()
        try:
            return self.graph.restrict(name for name, value in likely.items() if value > 0.5)
        except NoRouteError:
            return self.graph

    def loss(self, draw: Draw, losses_B: Tensor, way: float) -> Tensor:
        """The gates' part of the loss: the price of the cost, of doubt, and REINFORCE.

        The baseline of an image is the mean reward of the others, so that the gradient has no bias; REINFORCE adds
        to gradients, not to the loss. ``way`` is the share of the training that is over: in its second half gates are
        made sure, those open that the target pays for and the others shut, at a price of doubt that rises evenly.
        """
        recipe = self.recipe
        doubt = self._doubt(max(0.0, 2 * way - 1) * recipe.gate_doubt)
        over_B = recipe.gate_weight * (self.cost(draw.values_BE) - recipe.gate_target).clamp(min=0)
        if draw.log_probability_B is None:
            return over_B.mean() + doubt
        learnt = reinforced(draw.log_probability_B, -(losses_B.detach() + over_B.detach()))
        return over_B.mean().detach() + doubt + learnt - learnt.detach()

    def _doubt(self, price: float) -> Tensor:
        """A price for each gate that is not yet open, where the target pays for it, or not yet shut."""
        if price == 0:
            return self.logits_E.new_zeros(())
        inside = self.affordable()
        ends_E = self.logits_E.new_tensor([float(name in inside) for name in self.names])
        return price * nn.functional.binary_cross_entropy_with_logits(self._odds_E(), ends_E, reduction="sum")


def reinforced(log_probability_B: Tensor, rewards_B: Tensor) -> Tensor:
    """A scalar whose gradient is that of minus the expected reward (Williams 1992), without bias.

    Each reward is taken less the mean of the others' (a batch of one: less nothing).

    >>> log_probability = torch.tensor([-1.0, -2.0], requires_grad=True)
    >>> reinforced(log_probability, torch.tensor([1.0, 0.0])).item()
    -0.5
    """
    count = len(rewards_B)
    others = (rewards_B.sum() - rewards_B) / (count - 1) if count > 1 else torch.zeros_like(rewards_B)
    return -(log_probability_B * (rewards_B - others).detach()).mean()


def _can_be_gated(graph: Graph, edge: Edge) -> bool:
    """Whether a closed gate leaves the node behind the edge the response that a missing edge would."""
    node = graph.node(edge.target)
    pooled = edge.target.scale >= POINT and edge.target not in graph.reads
    return node.join == "sum" and node.then.keeps_zero and not edge.operator.free and not pooled


@lru_cache(maxsize=4096)
def _ways(graph: Graph, kept: frozenset[str]) -> frozenset[str]:
    """Of the edges that are kept those that a way leads through; all where none does."""
    try:
        return frozenset(graph.restrict(kept).edge_names)
    except NoRouteError:
        return kept


@lru_cache(maxsize=4096)
def _steps(graph: Graph, kept: frozenset[str], workers: int) -> int:
    """Steps of what is left of a graph; none where no way is left."""
    try:
        return parallel_steps(graph.restrict(kept), workers)
    except NoRouteError:
        return 0
