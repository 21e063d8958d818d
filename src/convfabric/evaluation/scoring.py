"""How well a network answers on a split: accuracy, or mean intersection over union.

Legend of the suffixes: B images, H height, W width, K classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_confusion_matrix

from convfabric.data.imageset import ImageSet, Split, in_order
from convfabric.execution.runners import for_inference
from convfabric.fabric.module import Fabric


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of a network on a split; shares run from 0 to 1."""

    images: int
    loss: float
    """Cross-entropy in nats, mean over images (classification) or counted pixels (segmentation)."""
    accuracy: float
    """Share of images, or of counted pixels, answered right."""
    miou: float | None
    """Mean over the classes that occur of intersection over union; None for classification."""
    class_iou: tuple[float | None, ...]
    """The same of each class; None where it does not occur. Empty for classification."""
    recall: tuple[float | None, ...] = ()
    """Share of each class's images, or pixels, answered right; None where it does not occur. Empty in old records."""
    largest: float = 0.0
    """Share of the most frequent class."""

    def __post_init__(self) -> None:
        """Raises ValueError for a share that is none."""
        for share in (self.accuracy, self.miou, self.largest, *self.class_iou, *self.recall):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{share} is no share from 0 to 1")

    @property
    def headline(self) -> float:
        """The figure a network is judged by: accuracy for classification, mIoU for segmentation."""
        return self.accuracy if self.miou is None else self.miou

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean recall of the classes that occur; None in old records."""
        occurring = [share for share in self.recall if share is not None]
        return sum(occurring) / len(occurring) if occurring else None

    @property
    def standard_error(self) -> float | None:
        """Of the accuracy, images drawn alone: sqrt(p (1 - p) / images); None where pixels are counted."""
        return sqrt(self.accuracy * (1 - self.accuracy) / self.images) if self.miou is None and self.images else None

    def surely_below(self, other: "Score") -> bool:
        """Whether the headline is below another's by more than the standard error of their difference.

        Images count as drawn alone: sqrt(2 p (1 - p) / images), p the mean of both.
        """
        mean = (self.headline + other.headline) / 2
        return other.headline - self.headline > sqrt(2 * mean * (1 - mean) / min(self.images, other.images))


def answers(network: nn.Module, data: ImageSet, split: Split, batch: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
    """float32 logits and targets of a split in order, by batches, in evaluation mode.

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
            yield tuple(logits.float() for logits in exits), targets.to(device).long()
    finally:
        network.train(was_training)


def score(network: nn.Module, data: ImageSet, split: str, batch: int | None = None) -> Score:
    """How a network answers on a split of the data.

    ``network`` takes normalised images and gives logits (B, K) or (B, K, H, W). Raises IndexError for a
    target that is no class; the cross-entropy finds it, so that the count need not look again.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> score(fabric, open_data("digits"), "test").images
    269
    """
    classes = len(data.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    loss, counted = 0.0, 0
    batch = batch or (256 if data.task == "classification" else 8)
    for logits, targets in answers(network, data, data.splits[split], batch):
        loss += F.cross_entropy(logits, targets, ignore_index=data.void, reduction="sum").item()
        counted += int((targets != data.void).sum())
        confusion += multiclass_confusion_matrix(
            logits.argmax(1), targets, classes, ignore_index=data.void, validate_args=False
        ).cpu()
    iou = _class_iou(confusion) if data.task == "segmentation" else ()
    occurring = [value for value in iou if value is not None]
    return Score(
        images=len(data.splits[split]),
        loss=loss / max(counted, 1),
        accuracy=int(confusion.diagonal().sum()) / max(int(confusion.sum()), 1),
        miou=sum(occurring) / len(occurring) if occurring else None,
        class_iou=iou,
        recall=_shares(confusion.diagonal(), confusion.sum(1)),
        largest=int(confusion.sum(1).max()) / max(int(confusion.sum()), 1),
    )


def image_losses(network: nn.Module, data: ImageSet, split: str) -> Tensor:
    """The cross-entropy of each image of a split in nats, (N,), of masks the mean over its counted pixels.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> image_losses(fabric, open_data("digits"), "test").shape
    torch.Size([269])
    """
    found = []
    for logits, targets in answers(network, data, data.splits[split], 256 if data.task == "classification" else 8):
        each = F.cross_entropy(logits, targets, ignore_index=data.void, reduction="none")
        if each.ndim > 1:
            each = each.flatten(1).sum(1) / (targets != data.void).flatten(1).sum(1).clamp(min=1)
        found.append(each.cpu())
    return torch.cat(found)


def surely_less(one_N: Tensor, other_N: Tensor) -> bool:
    """Whether losses of the same images are less in the mean, by more than the standard error of their difference.

    >>> surely_less(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 2.4, 3.6]))
    True
    >>> surely_less(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5, 1.4, 3.6]))
    False
    """
    less_N = other_N - one_N
    return bool(less_N.mean() > less_N.std() / len(less_N) ** 0.5)


def _class_iou(confusion_KK: Tensor) -> tuple[float | None, ...]:
    right = confusion_KK.diagonal()
    union = confusion_KK.sum(0) + confusion_KK.sum(1) - right
    return _shares(right, union)


def _shares(right_K: Tensor, of_K: Tensor) -> tuple[float | None, ...]:
    return tuple(float(r / n) if n else None for r, n in zip(right_K.double(), of_K.tolist(), strict=True))
