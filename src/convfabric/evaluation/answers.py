"""Answers of a network on a split of images, batch by batch."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet, Split, as_targets, in_order
from convfabric.execution.runners import for_inference
from convfabric.fabric.module import Fabric


def at_once(data: ImageSet) -> int:
    """How many images are answered at once, by what is asked of them.

    >>> from convfabric.data.opening import open_data
    >>> at_once(open_data("digits"))
    256
    """
    return {"classification": 256, "segmentation": 8, "detection": 32}[data.task]


def answers(network: nn.Module, data: ImageSet, split: Split, batch: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
    """float32 logits and targets, int64 or float32, of a split in order, by batches, in evaluation mode.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> digits, fabric = open_data("digits"), Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> next(answers(fabric, digits, digits.splits["test"]))[0].shape
    torch.Size([256, 10])
    """
    for exits, targets in each_answer(network, data, split, batch):
        yield exits[-1], targets


def each_answer(
    network: nn.Module, data: ImageSet, split: Split, batch: int = 256
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """The same of every exit, for a fabric, or for another network that gives one answer or several.

    A fabric is run after the plan for inference, so that norms are folded and sparse layers are kernels.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> digits, fabric = open_data("digits"), Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> len(next(each_answer(fabric, digits, digits.splits["test"]))[0])
    1
    """
    network = for_inference(network) if isinstance(network, Fabric) else network
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    try:
        for images, targets in split.batches(in_order(len(split), batch)):
            prepared = data.preprocessing.normalised(images.to(device)).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                found = network(prepared)
            exits = found if isinstance(found, tuple) else (found,)
            yield tuple(logits.float() for logits in exits), as_targets(targets.to(device))
    finally:
        network.train(was_training)
