"""Worth of edges, measured on a trained fabric. Never sees a budget."""

import random
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet, as_targets, in_order
from convfabric.evaluation.image_losses import losses_of
from convfabric.fabric.module import NO_GATES, Fabric, evaluating
from convfabric.graph import Place

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
    totals = dict.fromkeys(fabric.graph.edge_names, 0.0)
    images, count = _weighed_on(data)
    for prepared, targets in images:
        device = next(fabric.parameters()).device
        gates = {name: torch.ones(len(prepared), 1, 1, 1, device=device, requires_grad=True) for name in totals}
        for name, change in _gradients(fabric, prepared.to(device), targets.to(device), data.void, gates).items():
            totals[name] += float(change.square().sum())
    return {name: total / count for name, total in totals.items()}


def channel_worth(fabric: Fabric, data: ImageSet) -> dict[Place, Tensor]:
    """For each place the worth of its channels, float (C,): as :func:`loss_change`, for a gate on each channel.

    Half the mean of the square is what the loss is expected to grow by (Theis et al. 2018, Fisher pruning).

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> set(channel_worth(fabric, open_data("digits"))) == {node.place for node in fabric.graph.nodes}
    True
    """
    gates: dict[str, Tensor] = {}

    def gating(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def gated(layer: nn.Module, read: Any, response_BCHW: Tensor) -> Tensor:
            gates[name] = response_BCHW.new_ones((*response_BCHW.shape[:2], 1, 1)).requires_grad_()
            return response_BCHW * gates[name]

        return gated

    hooks = [layer.register_forward_hook(gating(name)) for name, layer in fabric.nodes.items()]
    totals: dict[str, Tensor] = {}
    device = next(fabric.parameters()).device
    images, count = _weighed_on(data)
    try:
        for prepared, targets in images:
            gates.clear()
            changes = _gradients(fabric, prepared.to(device), targets.to(device), data.void, gates, named=False)
            for name, change in changes.items():
                totals[name] = totals.get(name, 0) + change[:, :, 0, 0].square().sum(0) / (2 * count)
    finally:
        for hook in hooks:
            hook.remove()
    return {node.place: totals[str(node.place)] for node in fabric.graph.nodes}


def _weighed_on(data: ImageSet) -> tuple[Iterator[tuple[Tensor, Tensor]], int]:
    """Training images, evenly taken, normalised (B, C, H, W), with int64 targets, and how many they are in all."""
    split, batch = data.splits["train"], 64 if data.task == "classification" else 4
    count = min(len(split), WEIGHING_IMAGES if data.task == "classification" else WEIGHING_IMAGES // 8)
    stride = len(split) // count
    chosen = [[position * stride for position in positions] for positions in in_order(count, batch)]
    return ((data.preprocessing.normalised(images), as_targets(t)) for images, t in split.batches(chosen)), count


def _gradients(
    fabric: Fabric, images: Tensor, targets: Tensor, void: int, gates: dict[str, Tensor], *, named: bool = True
) -> dict[str, Tensor]:
    """The gradient of each image's loss by its gates, of edges where they are named; in evaluation mode."""
    total = images.new_zeros(())
    with evaluating(fabric):
        for logits in fabric.forward_exits(images, gates=gates if named else NO_GATES):
            total = total + losses_of(logits, targets, void).sum()
    gradients = torch.autograd.grad(total, list(gates.values()))
    return dict(zip(gates, gradients, strict=True))


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
