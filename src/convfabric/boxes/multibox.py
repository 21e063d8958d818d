"""The loss of SSD (Liu et al. 2016, section 2.2): anchors are given boxes, and learn classes and offsets."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.boxes.answers import Parts, encoded, parted
from convfabric.errors import SettingError

ALIKE = 0.5
"""Intersection over union from which on an anchor stands for a box."""
NEGATIVES, LEAST_NEGATIVES = 3, 3
"""Anchors without a box that count, the hardest ones: so many for each with one, and at least so many an image."""


class Given(NamedTuple):
    """Which anchors stand for boxes."""

    labels_BN: Tensor
    """The class; as many as there are classes for none of them."""
    boxes_B4N: Tensor
    """Of anchors with a box, that box."""
    stands_BN: Tensor
    """Whether there is one."""


def box_loss(
    answer_BVN: Tensor,
    targets_BM5: Tensor,
    smoothing: float = 0.0,
    teacher_BVN: Tensor | None = None,
    distil: float = 0.0,
    heat: float = 1.0,
) -> Tensor:
    """Cross-entropy and the distance of offsets, by anchors that stand for a box, mean over those of the batch.

    A teacher is followed in what it says of the same anchors.

    >>> from convfabric.boxes.answers import laid_out
    >>> answer = laid_out(torch.zeros(1, 48, 2, 2), (32, 32))
    >>> loss = box_loss(answer, torch.tensor([[[1.0, 2, 2, 22, 25], [-1, 0, 0, 0, 0]]]))
    >>> bool(loss > 4 * torch.tensor(4.0).log())
    True
    """
    sums_B, counts_B = box_losses(answer_BVN, targets_BM5, smoothing, teacher_BVN, distil, heat)
    return sums_B.sum() / counts_B.sum().clamp(min=1)


def box_losses(
    answer_BVN: Tensor,
    targets_BM5: Tensor,
    smoothing: float = 0.0,
    teacher_BVN: Tensor | None = None,
    distil: float = 0.0,
    heat: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Of each image (B,) the losses of :func:`box_loss`, summed, and how many anchors stand for a box.

    >>> from convfabric.boxes.answers import laid_out
    >>> sums, counts = box_losses(laid_out(torch.zeros(1, 48, 2, 2), (32, 32)), -torch.ones(1, 2, 5))
    >>> counts.tolist(), round(float(sums), 3)
    ([0], 4.159)
    """
    said = parted(answer_BVN)
    given = _given(said, targets_BM5)
    wanted_B4N = encoded(given.boxes_B4N, said.anchors_4N)
    each_BN = F.cross_entropy(said.logits_BKN, given.labels_BN, label_smoothing=smoothing, reduction="none")
    counts_BN = given.stands_BN | _hardest(each_BN.detach(), given.stands_BN)
    apart_BN = F.smooth_l1_loss(said.offsets_B4N, wanted_B4N, reduction="none").sum(1)
    labelled_BN = each_BN * counts_BN + torch.where(given.stands_BN, apart_BN, 0)
    if teacher_BVN is None:
        return labelled_BN.sum(1), given.stands_BN.sum(1)
    taught = parted(_aligned(teacher_BVN, answer_BVN))
    student, teacher = (F.log_softmax(part.logits_BKN / heat, 1) for part in (said, taught))
    unlike_BN = heat**2 * F.kl_div(student, teacher, log_target=True, reduction="none").sum(1)
    off_BN = F.smooth_l1_loss(said.offsets_B4N, taught.offsets_B4N, reduction="none").sum(1)
    followed_BN = unlike_BN * counts_BN + torch.where(given.stands_BN, off_BN, 0)
    return ((1 - distil) * labelled_BN + distil * followed_BN).sum(1), given.stands_BN.sum(1)


def _given(said: Parts, targets_BM5: Tensor) -> Given:
    """Each box to every anchor that is alike, and to the one that is most alike; an anchor has its most alike one."""
    there_BM, boxes_BM4 = targets_BM5[..., 0] >= 0, targets_BM5[..., 1:]
    alike_BMN = _overlap(boxes_BM4, said.anchors_4N).masked_fill(~there_BM[..., None], -1)
    most_BN, box_BN = alike_BMN.max(1)
    best_BM = alike_BMN.max(2).indices
    number_BM = torch.arange(best_BM.shape[1], device=best_BM.device).expand_as(best_BM)
    # Rows without a box write nothing: they are sent to a column beyond the last.
    sent_BM = torch.where(there_BM, best_BM, most_BN.shape[1])
    box_BN = F.pad(box_BN, (0, 1)).scatter(1, sent_BM, number_BM)[:, :-1]
    forced_BN = F.pad(torch.zeros_like(most_BN), (0, 1)).scatter(1, sent_BM, 1.0)[:, :-1] > 0
    stands_BN = (most_BN >= ALIKE) | forced_BN
    none = said.logits_BKN.shape[1] - 1
    labels_BN = torch.where(stands_BN, targets_BM5[..., 0].long().gather(1, box_BN), none)
    boxes_BN4 = boxes_BM4.gather(1, box_BN[..., None].expand(-1, -1, 4))
    return Given(labels_BN, boxes_BN4.transpose(1, 2), stands_BN)


def _overlap(boxes_BM4: Tensor, anchors_4N: Tensor) -> Tensor:
    """Intersection over union (B, M, N) of boxes with anchors."""
    x, y, wide, high = anchors_4N
    left, top, right, bottom = (side[..., None] for side in boxes_BM4.unbind(-1))
    across = (torch.minimum(right, x + wide / 2) - torch.maximum(left, x - wide / 2)).clamp(min=0)
    along = (torch.minimum(bottom, y + high / 2) - torch.maximum(top, y - high / 2)).clamp(min=0)
    shared = across * along
    union = (right - left) * (bottom - top) + wide * high - shared
    overlap: Tensor = shared / union.clamp(min=1e-6)
    return overlap


def _hardest(each_BN: Tensor, stands_BN: Tensor) -> Tensor:
    """Of the anchors without a box those with the largest loss."""
    losses_BN = each_BN.masked_fill(stands_BN, -1)
    most_B1 = (NEGATIVES * stands_BN.sum(1, keepdim=True)).clamp(min=LEAST_NEGATIVES)
    rank_BN = losses_BN.argsort(1, descending=True).argsort(1)
    return (rank_BN < most_B1) & ~stands_BN


def _aligned(teacher_BVN: Tensor, answer_BVN: Tensor) -> Tensor:
    """What a teacher says of the anchors of an answer, which may be a part of its own; SettingError for others."""
    theirs_4N, ours_4N = parted(teacher_BVN).anchors_4N, parted(answer_BVN).anchors_4N
    if theirs_4N.shape == ours_4N.shape and torch.equal(theirs_4N, ours_4N):
        return teacher_BVN
    wanted_N = _key(ours_4N)
    known_N = torch.isin(_key(theirs_4N), wanted_N)
    if int(known_N.sum()) != len(wanted_N):
        raise SettingError("the teacher looks for boxes of other shapes, or at other places, than the network.")
    return teacher_BVN[..., known_N]


def _key(anchors_4N: Tensor) -> Tensor:
    """A number for each anchor, by which it is known again."""
    places = torch.tensor([[1.0], [1e4], [1e8], [1e12]], dtype=torch.double, device=anchors_4N.device)
    return (anchors_4N.double() * places).sum(0)
