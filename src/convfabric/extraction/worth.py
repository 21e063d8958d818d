"""What an edge contributes, measured on a trained fabric. Never sees a budget."""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.data.imageset import ImageSet, in_order
from convfabric.fabric import Fabric

WEIGHING_IMAGES = 1024
Worths = dict[str, float]


def mean_squared_weight(fabric: Fabric, data: ImageSet) -> Worths:
    """Mean of the squared kernel weights of each edge: the strength by which the paper prunes.

    Norms and biases do not count; an edge without kernels is worth nothing by this measure.
    """
    worths = {}
    for name, module in fabric.edges.items():
        kernels = [p.detach().flatten() for p in module.parameters() if p.ndim > 1]
        worths[name] = float(torch.cat(kernels).square().mean()) if kernels else 0.0
    return worths


def loss_change(fabric: Fabric, data: ImageSet) -> Worths:
    """Mean over training images of the squared first-order change of the loss when an edge is cut.

    A gate of one on each edge's result: its gradient, times the step from one to zero, is that change
    (Molchanov et al. 2017, for a whole edge). Taken in evaluation mode, image by image.
    """
    device = next(fabric.parameters()).device
    split, batch = data.splits["train"], 64 if data.task == "classification" else 4
    count = min(len(split), WEIGHING_IMAGES if data.task == "classification" else WEIGHING_IMAGES // 8)
    stride = len(split) // count
    totals = dict.fromkeys(fabric.edges, 0.0)
    was_training = fabric.training
    fabric.eval()
    chosen = [[position * stride for position in positions] for positions in in_order(count, batch)]
    for images, targets in split.batches(chosen):
        prepared = data.preprocessing.normalised(images.to(device))
        for name, change in _gate_gradients(fabric, prepared, targets.to(device).long(), data.ignore).items():
            totals[name] += float(change.square().sum())
    fabric.train(was_training)
    return {name: total / count for name, total in totals.items()}


def _gate_gradients(fabric: Fabric, images: Tensor, targets: Tensor, ignore: int) -> dict[str, Tensor]:
    """The gradient of each image's loss by a gate on each edge: one (B,) tensor for each edge."""
    gates = {name: torch.ones(len(images), 1, 1, 1, device=images.device, requires_grad=True) for name in fabric.edges}

    def gated(gate: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
        return lambda module, inputs, response: response * gate

    handles = [module.register_forward_hook(gated(gates[name])) for name, module in fabric.edges.items()]
    try:
        logits = fabric(images)
    finally:
        for handle in handles:
            handle.remove()
    each = F.cross_entropy(logits, targets, ignore_index=ignore if logits.ndim == 4 else -100, reduction="none")
    per_image = each if each.ndim == 1 else each.mean((1, 2))
    gradients = torch.autograd.grad(per_image.sum(), list(gates.values()))
    return {name: gradient.flatten() for name, gradient in zip(gates, gradients, strict=True)}


def random_worth(fabric: Fabric, data: ImageSet, seed: int = 0) -> Worths:
    """Seeded numbers from 0 to 1: what every other measure has to beat."""
    dice = random.Random(seed)
    return {name: dice.random() for name in fabric.edges}


WORTHS: Mapping[str, Callable[[Fabric, ImageSet], Worths]] = MappingProxyType(
    {"loss-change": loss_change, "mean-squared-weight": mean_squared_weight, "random": random_worth}
)
"""The measures by name."""
