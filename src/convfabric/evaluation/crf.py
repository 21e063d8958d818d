"""Segmentations refined by a conditional random field: neighbours of like colour ought to have one class.

Mean-field inference of a Potts model (Krähenbühl & Koltun 2011) whose pairs reach a square window, by torch operations.

Legend of the suffixes: B images, K classes, C channels, H height, W width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.data.imageset import ImageSet, drawn
from convfabric.evaluation.scoring import score
from convfabric.operators.field_kinds import misfits

STRENGTHS, COLOURS, STEPS = (2.0, 6.0), (0.15, 0.4), (1, 3)
"""Numbers that are tried on validation images."""
Offset = tuple[int, int]
"""Pixels down and to the right."""
MOST_TO_CHOOSE = 16
"""Validation images by which they are chosen."""


@dataclass(frozen=True, kw_only=True)
class FieldNumbers:
    """The numbers of a field."""

    strength: float = 3.0
    """Logits that a class gains where all neighbours have it."""
    colour: float = 0.25
    """Spread of colours that count as alike, in standard deviations of the training images."""
    reach: int = 3
    """Neighbours in each direction."""
    step: int = 1
    """Pixels between them."""
    iterations: int = 5

    def __post_init__(self) -> None:
        if wrong := list(misfits(self)):
            raise ValueError("; ".join(wrong))
        if not (self.strength >= 0 and self.colour > 0 and min(self.reach, self.step, self.iterations) >= 1):
            raise ValueError(f"{self}: strength from 0, colour above 0, the others from 1.")


def refined(logits_BKHW: Tensor, images_BCHW: Tensor, numbers: FieldNumbers) -> Tensor:
    """Logits after mean-field inference, for normalised images of their size.

    Each pixel's logits gain ``strength`` times the mean of its neighbours' probabilities, weighted by how near and how
    like in colour they are; with the probabilities that follow this is done again. What a runtime has for a convolution
    is not used: 48 neighbours and five iterations take hundreds of milliseconds for an image of 240×180.

    >>> images = torch.zeros(1, 1, 5, 5)
    >>> logits = torch.zeros(1, 2, 5, 5)
    >>> logits[:, 0] = 1.0
    >>> logits[0, :, 2, 2] = torch.tensor([0.0, 0.5])
    >>> refined(logits, images, FieldNumbers()).argmax(1).sum()
    tensor(0)
    """
    near = {offset: _likeness(images_BCHW, offset, numbers) for offset in _offsets(numbers)}
    total = torch.stack(list(near.values())).sum(0).clamp_min(1e-6)
    found = logits_BKHW
    for _ in range(numbers.iterations):
        odds = found.softmax(1)
        agreeing = torch.stack([weight * _shifted(odds, offset) for offset, weight in near.items()]).sum(0)
        found = logits_BKHW + numbers.strength * agreeing / total
    return found


def _likeness(images_BCHW: Tensor, offset: Offset, numbers: FieldNumbers) -> Tensor:
    """How near the pixel at an offset is to each, and how like in colour, (B, 1, H, W); zero beyond the border."""
    apart = (_shifted(images_BCHW, offset) - images_BCHW).square().sum(1, keepdim=True)
    far = (offset[0] ** 2 + offset[1] ** 2) / (numbers.reach * numbers.step / 2) ** 2
    inside = _shifted(torch.ones_like(apart), offset)
    return inside * torch.exp(-apart / (2 * numbers.colour**2) - far / 2)


def _offsets(numbers: FieldNumbers) -> Iterator[Offset]:
    steps = range(-numbers.reach * numbers.step, numbers.reach * numbers.step + 1, numbers.step)
    yield from ((y, x) for y, x in product(steps, steps) if (y, x) != (0, 0))


def _shifted(x_BCHW: Tensor, offset: Offset) -> Tensor:
    """The value at an offset of each pixel, zero beyond the border."""
    (down, across), (height, width) = offset, x_BCHW.shape[-2:]
    framed = F.pad(x_BCHW, (max(0, -across), max(0, across), max(0, -down), max(0, down)))
    top, left = max(0, down), max(0, across)
    return framed[..., top : top + height, left : left + width]


class Refined(nn.Module):
    """A network for segmentation, and a field behind it."""

    def __init__(self, network: nn.Module, numbers: FieldNumbers) -> None:
        super().__init__()
        self.network, self.numbers = network, numbers

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits of normalised images; of several exits those of the last."""
        found = self.network(images_BCHW)
        logits = found[-1] if isinstance(found, tuple) else found
        return refined(logits, images_BCHW, self.numbers)


def chosen_field(network: nn.Module, data: ImageSet) -> FieldNumbers:
    """The numbers of the best mIoU on at most 16 validation images."""
    val = data.splits["val"]
    few = replace(data, splits={"val": drawn(val, min(len(val), MOST_TO_CHOOSE))})
    tried = (
        FieldNumbers(strength=strength, colour=colour, step=step)
        for strength, colour, step in product(STRENGTHS, COLOURS, STEPS)
    )
    return max(tried, key=lambda numbers: score(Refined(network, numbers), few, "val").headline)
