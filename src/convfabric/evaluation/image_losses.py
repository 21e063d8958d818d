"""The loss of each image, for any task."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.boxes.multibox import box_losses
from convfabric.data.imageset import ImageSet
from convfabric.evaluation.answers import answers, at_once


def losses_of(logits: Tensor, targets: Tensor, void: int) -> Tensor:
    """The loss of each image of a batch in nats, (B,): its cross-entropy, of masks the mean over counted pixels.

    Of boxes it is that of :func:`convfabric.boxes.multibox.box_loss`; targets of the value ``void`` do not count.

    >>> losses_of(torch.zeros(2, 4), torch.tensor([0, 3]), -100)
    tensor([1.3863, 1.3863])
    """
    if targets.is_floating_point():
        sums_B, counts_B = box_losses(logits, targets)
        return sums_B / counts_B.clamp(min=1)
    each = F.cross_entropy(logits, targets, ignore_index=void, reduction="none")
    if each.ndim == 1:
        return each
    return each.flatten(1).sum(1) / (targets != void).flatten(1).sum(1).clamp(min=1)


def image_losses(network: nn.Module, data: ImageSet, split: str) -> Tensor:
    """The loss of each image of a split in nats, (N,), see :func:`losses_of`.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.fabric.module import Fabric
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> image_losses(fabric, open_data("digits"), "test").shape
    torch.Size([269])
    """
    given = answers(network, data, data.splits[split], at_once(data))
    return torch.cat([losses_of(logits, targets, data.void).cpu() for logits, targets in given])


def surely_less(one_N: Tensor, other_N: Tensor) -> bool:
    """Whether losses of the same images are less in the mean, by more than the standard error of their difference.

    >>> surely_less(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.4, 3.6]))
    True
    >>> surely_less(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 1.4, 3.6]))
    False
    """
    less_N = other_N - one_N
    return bool(less_N.mean() > less_N.std() / len(less_N) ** 0.5)
