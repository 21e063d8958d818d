"""Mean average precision, as COCO's own code counts it."""

from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from convfabric.boxes.answers import MOST_FOUND, Found
from convfabric.boxes.multibox import ALIKE
from convfabric.errors import SettingError

Row = dict[str, Any]
SURE = 0.5
"""Probability from which on a box counts as found."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Average precisions, from 0 to 1."""

    at_50: float
    """Mean over classes, a box being found by one that overlaps it by half: AP50."""
    mean: float
    """The same, over overlaps of 0.50, 0.55 and so on to 0.95: COCO's AP."""
    of_class: tuple[float | None, ...]
    """The latter of each class; None of one that no image shows."""


def recalled(found: Found, targets_M5: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Of each class (K,) how many boxes of an image are found as it and surely, and how many there are.

    >>> right = Found(torch.tensor([[2.0, 2.0, 8.0, 9.0]]), torch.tensor([1]), torch.tensor([0.9]))
    >>> [part.tolist() for part in recalled(right, torch.tensor([[1.0, 2, 2, 8, 9], [0, 0, 0, 4, 4]]), 2)]
    [[0, 1], [1, 1]]
    """
    from torchvision.ops import box_iou  # takes seconds, and only boxes need it

    there_M5 = targets_M5[targets_M5[:, 0] >= 0]
    labels_M, sure = there_M5[:, 0].long(), found.odds_M >= SURE
    alike = box_iou(there_M5[:, 1:], found.boxes_M4[sure]) >= ALIKE
    seen_M = (alike & (labels_M[:, None] == found.labels_M[sure])).any(1)
    return torch.bincount(labels_M[seen_M], minlength=classes), torch.bincount(labels_M, minlength=classes)


def precision(found: Iterable[Found], targets_BM5: Iterable[Tensor], classes: int) -> Precision:
    """The average precision of boxes found in images; those that are there are (M, 5) of each.

    Raises SettingError where COCO's code, pycocotools, is not installed.

    >>> boxes = torch.tensor([[2.0, 2.0, 8.0, 9.0]])
    >>> right = Found(boxes, torch.tensor([1]), torch.tensor([0.9]))
    >>> precision([right], [torch.tensor([[1.0, 2, 2, 8, 9]])], 3)
    Precision(at_50=1.0, mean=1.0, of_class=(None, 1.0, None))
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError:
        raise SettingError("detection counts by COCO's code: pip install convfabric[detection].") from None
    categories = [{"id": at} for at in range(classes)]
    there, guesses, images = list[Row](), list[Row](), list[Row]()
    for image, (one, target_M5) in enumerate(zip(found, targets_BM5, strict=True)):
        images.append({"id": image})
        rows = target_M5[target_M5[:, 0] >= 0].cpu()
        there += _rows(image, rows[:, 1:], rows[:, 0].long())
        guesses += _rows(image, one.boxes_M4.cpu(), one.labels_M.cpu(), one.odds_M.cpu())
    with redirect_stdout(StringIO()):
        known, answered = COCO(), COCO()
        for index, each in ((known, there), (answered, guesses)):
            numbered = [row | {"id": number} for number, row in enumerate(each, 1)]  # 0 stands for no box there
            index.dataset = {"images": images, "categories": categories, "annotations": numbered}
            index.createIndex()
        counting = COCOeval(known, answered, "bbox")
        counting.params.areaRng, counting.params.areaRngLbl = [[0, 1e10]], ["all"]
        counting.params.maxDets = [MOST_FOUND]
        counting.evaluate()
        counting.accumulate()
    each_TK = torch.from_numpy(counting.eval["precision"][:, :, :, 0, 0]).mean(1).round(decimals=9)
    occurs_K = each_TK[0] >= 0
    means = each_TK[:, occurs_K].mean(1) if bool(occurs_K.any()) else torch.zeros(1)
    of_class = zip(each_TK.mean(0).tolist(), occurs_K.tolist(), strict=True)
    return Precision(
        at_50=float(means[0]), mean=float(means.mean()), of_class=tuple(ap if there else None for ap, there in of_class)
    )


def _rows(image: int, boxes_M4: Tensor, labels_M: Tensor, odds_M: Tensor | None = None) -> list[Row]:
    """Boxes as COCO's code takes them."""
    sizes_M2 = boxes_M4[:, 2:] - boxes_M4[:, :2]
    areas = sizes_M2.prod(1).tolist()
    sides = torch.cat([boxes_M4[:, :2], sizes_M2], 1).tolist()
    odds = [None] * len(areas) if odds_M is None else odds_M.tolist()
    return [
        {"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
        | ({} if score is None else {"score": score})
        for label, box, area, score in zip(labels_M.tolist(), sides, areas, odds, strict=True)
    ]
