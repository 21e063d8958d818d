"""How well a network answers on a split: accuracy, mean intersection over union, or average precision.

Legend of the suffixes: B images, H height, W width, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.boxes.answers import found_in
from convfabric.boxes.average_precision import precision, recalled
from convfabric.boxes.multibox import box_losses
from convfabric.data.imageset import ImageSet
from convfabric.evaluation.answers import answers, at_once
from convfabric.graph import Task

HEADLINES: Mapping[Task, str] = MappingProxyType(
    {"classification": "accuracy", "segmentation": "mIoU", "detection": "AP50"}
)
"""What networks for each task are compared by."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of a network on a split; shares run from 0 to 1."""

    images: int
    """That were answered."""
    loss: float
    """Cross-entropy in nats, mean over images (classification) or counted pixels (segmentation); of boxes see
    :func:`convfabric.boxes.multibox.box_loss`."""
    accuracy: float
    """Share of images, or of counted pixels, answered right; of boxes, share surely found, see
    :func:`convfabric.boxes.average_precision.recalled`."""
    miou: float | None
    """Mean over the classes that occur of intersection over union; None but for segmentation."""
    class_iou: tuple[float | None, ...]
    """The same of each class; None where it does not occur. Empty but for segmentation."""
    recall: tuple[float | None, ...] = ()
    """The accuracy of each class; None where it does not occur. Empty in old records."""
    largest: float = 0.0
    """Share of the most frequent class."""
    ap50: float | None = None
    """Average precision of boxes that overlap by half, see :class:`convfabric.boxes.average_precision.Precision`; None
    but for detection."""
    ap: float | None = None
    """The same over overlaps from 0.50 to 0.95."""
    class_ap: tuple[float | None, ...] = ()
    """The latter of each class; None where it does not occur."""

    def __post_init__(self) -> None:
        """Raises ValueError for a share that is none."""
        means = self.accuracy, self.miou, self.largest, self.ap50, self.ap
        for share in (*means, *self.class_iou, *self.recall, *self.class_ap):
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{share} is no share from 0 to 1")

    @property
    def headline(self) -> float:
        """The figure a network is judged by: accuracy for classification, mIoU for segmentation, AP50 for detection."""
        return next(figure for figure in (self.ap50, self.miou, self.accuracy) if figure is not None)

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean recall of the classes that occur; None in old records."""
        occurring = [share for share in self.recall if share is not None]
        return sum(occurring) / len(occurring) if occurring else None

    @property
    def standard_error(self) -> float | None:
        """Of the accuracy, images drawn alone; None but for classification.

        With two more images right and two more wrong (Agresti and Coull, 1998), so that none wrong is not taken for
        certainty: sqrt(p (1 - p) / n), p = (right + 2) / n, n = images + 4.
        """
        if self.miou is not None or self.ap50 is not None or not self.images:
            return None
        count = self.images + 4
        right = (self.accuracy * self.images + 2) / count
        return sqrt(right * (1 - right) / count)

    def surely_below(self, other: "Score") -> bool:
        """Whether the headline is below another's by more than the standard error of their difference.

        Images count as drawn alone: sqrt(2 p (1 - p) / images), p the mean of both.
        """
        mean = (self.headline + other.headline) / 2
        return other.headline - self.headline > sqrt(2 * mean * (1 - mean) / min(self.images, other.images))


def score(network: nn.Module, data: ImageSet, split: str, batch: int | None = None) -> Score:
    """How a network answers on a split of the data.

    ``network`` takes normalised images and gives logits (B, K) or (B, K, H, W), or for boxes (B, K + 9, N).
    Raises IndexError for a target that is no class; the cross-entropy finds it, so that the count need not look again.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.fabric.module import Fabric
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("fabric-tiny", size=(8, 8), image_channels=1))
    >>> score(fabric, open_data("digits"), "test").images
    269
    """
    if data.task == "detection":
        return _of_boxes(network, data, split, batch or at_once(data))
    classes = len(data.classes)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    loss, counted = 0.0, 0
    for logits, targets in answers(network, data, data.splits[split], batch or at_once(data)):
        loss += F.cross_entropy(logits, targets, ignore_index=data.void, reduction="sum").item()
        counted += int((targets != data.void).sum())
        confusion += _confusion(logits.argmax(1), targets, targets != data.void, classes).cpu()
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


def _of_boxes(network: nn.Module, data: ImageSet, split: str, batch: int) -> Score:
    classes, found, there = len(data.classes), [], []
    right, every = torch.zeros(2, classes, dtype=torch.int64)
    loss, counted = 0.0, 0
    for answer, targets in answers(network, data, data.splits[split], batch):
        sums, counts = box_losses(answer, targets)
        loss, counted = loss + float(sums.sum()), counted + int(counts.sum())
        for one, target in zip(found_in(answer, data.preprocessing.size), targets, strict=True):
            seen, of = recalled(one, target, classes)
            right, every = right + seen.cpu(), every + of.cpu()
            found.append(one)
            there.append(target)
    counted_so = precision(found, there, classes)
    return Score(
        images=len(there),
        loss=loss / max(counted, 1),
        accuracy=int(right.sum()) / max(int(every.sum()), 1),
        miou=None,
        class_iou=(),
        recall=_shares(right, every),
        largest=int(every.max()) / max(int(every.sum()), 1),
        ap50=counted_so.at_50,
        ap=counted_so.mean,
        class_ap=counted_so.of_class,
    )


def _confusion(told: Tensor, wanted: Tensor, counted: Tensor, classes: int) -> Tensor:
    """How often each class, a row, was answered as each, a column."""
    pairs = classes * wanted[counted] + told[counted]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def _class_iou(confusion_KK: Tensor) -> tuple[float | None, ...]:
    right = confusion_KK.diagonal()
    union = confusion_KK.sum(0) + confusion_KK.sum(1) - right
    return _shares(right, union)


def _shares(right_K: Tensor, of_K: Tensor) -> tuple[float | None, ...]:
    return tuple(float(r / n) if n else None for r, n in zip(right_K.double(), of_K.tolist(), strict=True))
