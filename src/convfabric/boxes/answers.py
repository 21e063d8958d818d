"""Answers of a network for detection: laid out, taken apart, and made boxes."""

from typing import NamedTuple

import torch
from torch import Tensor

from convfabric.boxes.anchors import anchors
from convfabric.graph.parts import SHAPES
from convfabric.operators import Size

SPREADS = (0.1, 0.1, 0.2, 0.2)
"""What an offset of 1 moves a centre by, in sides of its anchor, and a logarithm of sides by (Liu et al.'s code)."""
LARGEST = 4.0
"""Of the logarithm of how much larger than its anchor a box is."""
LEAST_ODDS, MOST_OVERLAP, CONSIDERED, MOST_FOUND = 0.01, 0.45, 400, 100
"""Of boxes that are kept: probability, overlap with a better one, and how many before and after that."""


LIKELY = 0.3
"""Probability from which on a box is told and drawn."""


class Parts(NamedTuple):
    """An answer, taken apart."""

    logits_BKN: Tensor
    """Of every class, and at the end of none of them."""
    offsets_B4N: Tensor
    anchors_4N: Tensor
    """Centre x, centre y, width and height in pixels."""


def laid_out(maps_BVHW: Tensor, image: Size) -> Tensor:
    """What a head says of each pixel of a map as an answer (B, K + 9, N).

    >>> laid_out(torch.zeros(2, 48, 4, 4), (32, 32)).shape
    torch.Size([2, 12, 96])
    """
    count, channels, height, width = maps_BVHW.shape
    values_BSVHW = maps_BVHW.reshape(count, SHAPES, channels // SHAPES, height, width)
    values_BVN = values_BSVHW.transpose(1, 2).flatten(2)
    around_4N = anchors((height, width), image, maps_BVHW)
    wide = torch.promote_types(values_BVN.dtype, around_4N.dtype)
    return torch.cat([values_BVN.to(wide), around_4N.expand(count, -1, -1)], 1)


def parted(answer_BVN: Tensor) -> Parts:
    """The parts of an answer.

    >>> parted(laid_out(torch.zeros(2, 48, 4, 4), (32, 32))).logits_BKN.shape
    torch.Size([2, 4, 96])
    """
    return Parts(answer_BVN[:, :-8], answer_BVN[:, -8:-4], answer_BVN[0, -4:])


def encoded(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets (..., 4, N) that make boxes (..., 4, N), left, top, right and bottom, of anchors (4, N).

    >>> encoded(torch.tensor([[0.0], [0.0], [4.0], [8.0]]), torch.tensor([[2.0], [2.0], [4.0], [4.0]])).flatten()
    tensor([0.0000, 5.0000, 0.0000, 3.4657])
    """
    left, top, right, bottom = boxes.unbind(-2)
    x, y, width, height = anchors
    wide, high = (right - left).clamp(min=1e-3), (bottom - top).clamp(min=1e-3)
    moved = [((left + right) / 2 - x) / width, ((top + bottom) / 2 - y) / height]
    larger = [(wide / width).log(), (high / height).log()]
    return torch.stack([part / spread for part, spread in zip([*moved, *larger], SPREADS, strict=True)], -2)


def decoded(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (..., 4, N), left, top, right and bottom, from offsets (..., 4, N) and anchors (4, N).

    >>> around = torch.tensor([[2.0], [2.0], [4.0], [4.0]])
    >>> decoded(encoded(torch.tensor([[0.0], [0.0], [4.0], [8.0]]), around), around).flatten()
    tensor([0., 0., 4., 8.])
    """
    x, y, wide, high = anchors
    across, along, wider, higher = (part * spread for part, spread in zip(offsets.unbind(-2), SPREADS, strict=True))
    middle_x, middle_y = x + across * wide, y + along * high
    half_x, half_y = (half * log.clamp(max=LARGEST).exp() for half, log in ((wide / 2, wider), (high / 2, higher)))
    return torch.stack([middle_x - half_x, middle_y - half_y, middle_x + half_x, middle_y + half_y], -2)


def boxes_and_odds(answer_BVN: Tensor, image: Size) -> Tensor:
    """For every anchor left, top, right and bottom, inside the image, and the probability of each class, (B, N, 4 + K).

    >>> boxes_and_odds(laid_out(torch.zeros(2, 48, 4, 4), (32, 32)), (32, 32)).shape
    torch.Size([2, 96, 7])
    """
    logits_BKN, offsets_B4N, anchors_4N = parted(answer_BVN)
    boxes_B4N, (height, width) = decoded(offsets_B4N, anchors_4N), image
    most = torch.tensor([width, height, width, height], dtype=boxes_B4N.dtype, device=boxes_B4N.device)[:, None]
    inside_B4N = torch.minimum(boxes_B4N.clamp(min=0), most)
    return torch.cat([inside_B4N, logits_BKN.softmax(1)[:, :-1]], 1).transpose(1, 2)


class Found(NamedTuple):
    """Boxes that were found in an image, the surest first."""

    boxes_M4: Tensor
    """Left, top, right and bottom in pixels."""
    labels_M: Tensor
    """The class of each, int64."""
    odds_M: Tensor
    """The probability of that class."""


def found_boxes(boxes_N4: Tensor, odds_NK: Tensor) -> Found:
    """The boxes of an image that remain when, for each class, those go that overlap a surer one.

    >>> boxes = torch.tensor([[0.0, 0, 8, 8], [1, 0, 8, 8], [20, 20, 30, 30]])
    >>> found_boxes(boxes, torch.tensor([[0.9], [0.8], [0.5]])).odds_M
    tensor([0.9000, 0.5000])
    """
    from torchvision.ops import batched_nms  # takes seconds, and only boxes need it

    likely = (odds_NK > LEAST_ODDS).nonzero()
    odds = odds_NK[likely[:, 0], likely[:, 1]]
    odds, best = odds.topk(min(CONSIDERED, len(odds)))
    at, labels = likely[best, 0], likely[best, 1]
    kept = batched_nms(boxes_N4[at], odds, labels, MOST_OVERLAP)[:MOST_FOUND]
    return Found(boxes_N4[at][kept], labels[kept], odds[kept])


def found_in(answer_BVN: Tensor, image: Size) -> list[Found]:
    """The boxes that are found in each image of a batch.

    >>> [len(found.odds_M) > 3 for found in found_in(laid_out(torch.zeros(2, 48, 4, 4), (32, 32)), (32, 32))]
    [True, True]
    """
    return [found_boxes(both_NV[:, :4], both_NV[:, 4:]) for both_NV in boxes_and_odds(answer_BVN, image)]
