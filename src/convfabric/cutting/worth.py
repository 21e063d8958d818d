"""Worth of edges, measured on a trained fabric. Never sees a budget."""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.data.imageset import ImageSet, in_order
from convfabric.fabric.module import Fabric, evaluating

WEIGHING_IMAGES = 1024
Worths = dict[str, float]


def mean_squared_weight(fabric: Fabric, data: ImageSet) -> Worths:
    """Mean of the squared kernel weights of each edge: the strength by which the paper prunes.

    Norms and biases do not count; an edge without kernels is worth nothing by this measure.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> min(mean_squared_weight(fabric, open_data("digits")).values())
    0.0
    """
    worths = {}
    for edge in fabric.graph.edges:
        kernels = [p.detach().flatten() for p in fabric.edges[edge.weights].parameters() if p.ndim > 1]
        worths[edge.name] = float(torch.cat(kernels).square().mean()) if kernels else 0.0
    return worths


def loss_change(fabric: Fabric, data: ImageSet) -> Worths:
    """Mean over training images of the squared first-order change of the loss when an edge is cut.

    A gate of one on each edge's result: its gradient, times the step from one to zero, is that change
    (Molchanov et al. 2017, for a whole edge). Taken in evaluation mode, image by image.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> set(loss_change(fabric, open_data("digits"))) == fabric.graph.edge_names
    True
    """
    device = next(fabric.parameters()).device
    split, batch = data.splits["train"], 64 if data.task == "classification" else 4
    count = min(len(split), WEIGHING_IMAGES if data.task == "classification" else WEIGHING_IMAGES // 8)
    stride = len(split) // count
    totals = dict.fromkeys(fabric.graph.edge_names, 0.0)
    chosen = [[position * stride for position in positions] for positions in in_order(count, batch)]
    for images, targets in split.batches(chosen):
        prepared = data.preprocessing.normalised(images.to(device))
        with evaluating(fabric):
            changes = _gate_gradients(fabric, prepared, targets.to(device).long(), data.void)
        for name, change in changes.items():
            totals[name] += float(change.square().sum())
    return {name: total / count for name, total in totals.items()}


def _gate_gradients(fabric: Fabric, images: Tensor, targets: Tensor, void: int) -> dict[str, Tensor]:
    """The gradient of each image's loss by a gate on each edge: one (B,) tensor for each edge."""
    names = [edge.name for edge in fabric.graph.edges]
    gates = {name: torch.ones(len(images), 1, 1, 1, device=images.device, requires_grad=True) for name in names}
    total = images.new_zeros(())
    for logits in fabric.forward_exits(images, gates=gates):
        each = F.cross_entropy(logits, targets, ignore_index=void, reduction="none")
        total = total + (each if each.ndim == 1 else each.mean((1, 2))).sum()
    gradients = torch.autograd.grad(total, list(gates.values()))
    return {name: gradient.flatten() for name, gradient in zip(gates, gradients, strict=True)}


def random_worth(fabric: Fabric, data: ImageSet, seed: int = 0) -> Worths:
    """Seeded numbers from 0 to 1: what every other measure has to beat.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> all(0 <= worth <= 1 for worth in random_worth(fabric, open_data("digits")).values())
    True
    """
    dice = random.Random(seed)
    return {edge.name: dice.random() for edge in fabric.graph.edges}


WORTHS: Mapping[str, Callable[[Fabric, ImageSet], Worths]] = MappingProxyType(
    {"loss-change": loss_change, "mean-squared-weight": mean_squared_weight, "random": random_worth}
)
"""The measures by name."""
