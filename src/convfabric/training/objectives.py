"""Objectives of a training step: the whole fabric, the whole and parts of it, or the whole behind gates."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from convfabric.data.image_sizes import smaller
from convfabric.errors import GraphError, SettingError
from convfabric.evaluation.image_losses import losses_of
from convfabric.execution.plans import Plan
from convfabric.execution.runners import for_training
from convfabric.execution.subnetworks import WithSubnetworks
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.laws import check
from convfabric.graph.subnetworks import Sampler
from convfabric.operators import Size
from convfabric.training.gates import Gates
from convfabric.training.losses import prior_of, summed_loss
from convfabric.training.recipe import Recipe


@dataclass(frozen=True)
class Turn:
    """Where a step stands."""

    dice: random.Random
    """The same for a step however often the run was stopped before it."""
    way: float
    """Share of the training that is over."""


class Objective(Protocol):
    """How a batch becomes a loss."""

    model: nn.Module
    """The module that is called, and wrapped where several processes train."""
    own: nn.Module
    """The module that is trained beside the fabric; without parameters where nothing is."""

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor, teacher: Tensor | None, turn: Turn) -> Tensor:
        """The loss of a batch; ``model`` is the objective's, wrapped or not, ``teacher`` those of a teacher."""
        ...

    def scored_graph(self) -> Graph:
        """The part of the graph that is scored after an epoch."""
        ...


def objective_of(
    fabric: Fabric, recipe: Recipe, plan: Plan, void: int, image: Size, counts: Sequence[int] = ()
) -> Objective:
    """The objective that a recipe asks for; targets of the value ``void`` do not count.

    ``counts``: how many images, or pixels, of each class there are, as far as it is known.
    """
    task = fabric.graph.head.task
    for name, usual in (("dice", 0.0), ("hardest", 1.0)):
        if task != "segmentation" and getattr(recipe, name) != usual:
            raise SettingError(
                f"{name}={getattr(recipe, name)}: of masks alone, and this is {task}; leave it {usual:g}."
            )
    prior_K = prior_of(counts, recipe.balance)
    whole, total = for_training(fabric, plan), partial(summed_loss, void=void, kernels=plan.kernels, prior_K=prior_K)
    if recipe.gates != "none":
        return _Gated(fabric, recipe, whole, total, void, image)
    if recipe.subnetworks:
        return _WithParts(fabric, recipe, WithSubnetworks(fabric, whole, plan.kernels), total, image)
    return _Whole(fabric, recipe, whole, total)


Total = Callable[..., Tensor]
"""The loss of exits, targets, a recipe, and a teacher's logits."""


class _Whole:
    """The fabric learns from labels, and from a teacher if there is one."""

    def __init__(self, fabric: Fabric, recipe: Recipe, whole: nn.Module, total: Total) -> None:
        self.fabric, self.recipe, self.model, self.total = fabric, recipe, whole, total
        self.own: nn.Module = nn.Module()

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor, teacher: Tensor | None, turn: Turn) -> Tensor:
        return self.total(model(images), targets, self.recipe, teacher=teacher)

    def scored_graph(self) -> Graph:
        return self.fabric.graph


def sizes_of(graph: Graph, recipe: Recipe, image: Size) -> tuple[Size, ...]:
    """The sizes of images that a recipe trains a graph for, the largest first.

    Raises SettingError for masks and boxes, and where the graph cannot read one of them.

    >>> from convfabric.weavers import weave
    >>> sizes_of(weave("resnet-20"), Recipe(subnetworks=2, sizes=(0.5, 0.75)), (32, 32))
    ((32, 32), (24, 24), (16, 16))
    """
    found = tuple(dict.fromkeys(smaller(image, share) for share in (1.0, *sorted(recipe.sizes, reverse=True))))
    if recipe.sizes and graph.head.task != "classification":
        raise SettingError(f"sizes={list(recipe.sizes)}: boxes and masks are as large as their images: one size.")
    for size in found[1:]:
        try:
            check(graph, size)
        except GraphError as fault:
            raise SettingError(f"sizes={list(recipe.sizes)}: images of {size[1]}×{size[0]}: {fault}") from None
    return found


class _WithParts:
    """Sub-networks, drawn anew for each step, learn from the whole's answer in the same step.

    Their losses are averaged, and taken at temperature 1: added up, those of the least able would drown the whole's.
    Where images of several sizes are asked for each reads those of a size that is drawn, as in MutualNet (Yang et al.
    2020); the whole reads the largest.
    """

    def __init__(self, fabric: Fabric, recipe: Recipe, model: WithSubnetworks, total: Total, image: Size) -> None:
        self.fabric, self.recipe, self.total = fabric, recipe, total
        self.model: nn.Module = model
        self.own: nn.Module = nn.Module()
        self.sampler, self.sizes = (
            Sampler.of(fabric.graph, recipe.narrowest, image),
            sizes_of(fabric.graph, recipe, image),
        )
        self.narrowest = self.sampler.part(fabric.graph.edge_names, [0] * len(self.sampler.widths))
        self.of_parts = recipe.changed(temperature=1.0)

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor, teacher: Tensor | None, turn: Turn) -> Tensor:
        begun = turn.way >= self.recipe.subnetworks_from
        narrow = [self.narrowest] if self.recipe.subnetworks > 1 and begun else []
        drawn = [self.sampler.draw(turn.dice) for _ in range(self.recipe.subnetworks - len(narrow) if begun else 0)]
        whole, *parts = model(images, [(graph, turn.dice.choice(self.sizes)) for graph in (*narrow, *drawn)])
        loss = self.total(whole, targets, self.recipe, teacher=teacher)
        answered = whole[-1].detach().float()
        for exits in parts:
            loss = loss + self.total(exits, targets, self.of_parts, teacher=answered) / len(parts)
        return loss

    def scored_graph(self) -> Graph:
        return self.fabric.graph


class _Behind(nn.Module):
    """A fabric whose edges are gated, image by image."""

    def __init__(self, whole: nn.Module, gates: Gates) -> None:
        super().__init__()
        self.whole, self.gates = whole, gates

    def forward(self, images_BCHW: Tensor, targets: Tensor, void: int, way: float) -> tuple[tuple[Tensor, ...], Tensor]:
        """Logits of every exit, and what the gates add to the loss."""
        draw = self.gates.draw(len(images_BCHW))
        exits: tuple[Tensor, ...] = self.whole(images_BCHW, self.gates.by_edge(draw))
        each_B = sum((losses_of(logits.float(), targets, void) for logits in exits), torch.zeros(()))
        return exits, self.gates.loss(draw, each_B, way)


class _Gated:
    """Edges are kept or not, image by image, and the gates learn which to keep."""

    def __init__(self, fabric: Fabric, recipe: Recipe, whole: nn.Module, total: Total, void: int, image: Size) -> None:
        self.recipe, self.total = recipe, total
        self.void = void
        self.own: nn.Module = Gates(fabric.graph, recipe, image)
        self.model: nn.Module = _Behind(whole, self.gates)

    @property
    def gates(self) -> Gates:
        """The gates."""
        assert isinstance(self.own, Gates)
        return self.own

    def loss(self, model: nn.Module, images: Tensor, targets: Tensor, teacher: Tensor | None, turn: Turn) -> Tensor:
        exits, of_gates = model(images, targets, self.void, turn.way)
        loss: Tensor = self.total(exits, targets, self.recipe, teacher=teacher) + of_gates
        return loss

    def scored_graph(self) -> Graph:
        return self.gates.chosen()
