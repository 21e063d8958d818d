"""Training of networks that are no fabrics, by the same recipe, batches, augmentation and losses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet
from convfabric.fabric.module import Fabric
from convfabric.training.loop import Run
from convfabric.training.losses import loss
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave


def train_plain(
    network: nn.Module,
    data: ImageSet,
    recipe: Recipe,
    teacher: nn.Module | None = None,
    after: Callable[[], object] = lambda: None,
) -> nn.Module:
    """The network, trained in place in float32; with a teacher its answers are followed as a fabric's would be.

    ``after`` is called once gradients are there.
    """
    run = _run(data, recipe)
    network = network.to(memory_format=torch.channels_last).train()
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    step = 0
    for epoch in range(recipe.epochs):
        for [images], [targets] in run.batches(epoch, 0):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step, run.steps)
            with torch.inference_mode():
                taught = teacher.eval()(images) if teacher else None
            with strides_taken_first(network):
                found = loss(network(images), targets, recipe, data.void, taught)
            optimiser.zero_grad()
            torch.autograd.backward(found)
            after()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimiser.step()
            step += 1
    return network.eval()


@contextmanager
def strides_taken_first(network: nn.Module) -> Iterator[None]:
    """Lets 1×1 convolutions with a stride read every second pixel instead, as our own do in training.

    Of few channels torch's gradients overwrite memory or are wrong (oneDNN#6035), which pruned networks would suffer
    from.
    """
    strided = [
        m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1)
    ]
    before = [conv.stride for conv in strided]

    def thinned(stride: tuple[int, ...]) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        return lambda _, read: (read[0][..., :: stride[0], :: stride[1]],)

    hooks = [conv.register_forward_pre_hook(thinned(stride)) for conv, stride in zip(strided, before, strict=True)]
    for conv in strided:
        conv.stride = (1, 1)
    try:
        yield
    finally:
        for conv, stride, hook in zip(strided, before, hooks, strict=True):
            conv.stride = stride
            hook.remove()


def some_batches(data: ImageSet, recipe: Recipe) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images (B, C, H, W) and targets of one epoch, changed as in training."""
    return [(images, targets) for [images], [targets] in _run(data, recipe).batches(0, 0)]


def _run(data: ImageSet, recipe: Recipe) -> Run:
    """A run of the smallest fabric for the data, whose batches are what is wanted."""
    read = data.preprocessing
    purpose: Any = {"size": read.size, "image_channels": read.channels, "classes": len(data.classes), "task": data.task}
    return Run(Fabric(weave(channels=2, **purpose)), data, recipe, device="cpu")
