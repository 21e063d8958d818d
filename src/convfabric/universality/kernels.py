"""Kernels of linear operators, read off from what they make of single pixels.

Legend of the suffixes: O output channels, I input channels, H height, W width.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.operators import Operator, Size

CLOSE = 1e-9
"""Largest difference, as a share of the largest value, between an operator and the kernel read off from it."""
SPREADS = (1e-2, 1.0, 1e4)
"""Of the random maps that both have to make the same of: some operators bend far from zero alone."""
AT_ONCE = 64
"""Input channels that are read off together."""
Offset = tuple[int, int]
"""Pixels down and to the right of the one that is written."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A linear map that does the same at every pixel, zeros beyond the borders."""

    weight_OIHW: Tensor
    """float64, its sides odd and equal: the tap of offset (y, x) stands ``reach`` rows and columns further."""
    constant_O: Tensor
    """float64, added to each output channel."""
    move: int = 0
    """Scales moved: 1 writes every second pixel, 2 every fourth; -1 reads a map with zeros between its pixels."""

    @property
    def reach(self) -> int:
        """The furthest offset whose tap is not zero."""
        return max((max(abs(y), abs(x)) for y, x in self.offsets), default=0)

    @property
    def offsets(self) -> list[Offset]:
        """The offsets of all taps that are not zero."""
        middle = self.weight_OIHW.shape[-1] // 2
        found: list[list[int]] = self.weight_OIHW.abs().sum((0, 1)).nonzero().tolist()
        return [(y - middle, x - middle) for y, x in found]

    def tap(self, offset: Offset) -> Tensor:
        """The weights (O, I) of an offset."""
        middle = self.weight_OIHW.shape[-1] // 2
        return self.weight_OIHW[:, :, middle + offset[0], middle + offset[1]]

    @property
    def is_pointwise(self) -> bool:
        """Whether each pixel is made from the one at its place alone."""
        return self.move == 0 and self.reach == 0

    def __call__(self, x_BCHW: Tensor, size: Size) -> Tensor:
        """What it makes of a map: one of a size, as far as that is given for maps that grow."""
        if self.move < 0:
            doubled = x_BCHW.new_zeros(*x_BCHW.shape[:2], *(2 * side for side in x_BCHW.shape[-2:]))
            doubled[..., ::2, ::2] = x_BCHW
            x_BCHW = doubled[..., : size[0], : size[1]]
        stride = 2 ** max(0, self.move)
        padding = self.weight_OIHW.shape[-1] // 2
        return F.conv2d(x_BCHW, self.weight_OIHW, self.constant_O, stride, padding)


def centred(weight_OI: Tensor, move: int = 0, offset: Offset = (0, 0)) -> Kernel:
    """A 3×3 kernel with one tap, by default the middle one.

    >>> centred(torch.eye(2)).is_pointwise, centred(torch.eye(2), offset=(0, 1)).offsets
    (True, [(0, 1)])
    """
    weight = torch.zeros(*weight_OI.shape, 3, 3, dtype=torch.float64)
    weight[:, :, 1 + offset[0], 1 + offset[1]] = weight_OI.double()
    return Kernel(weight, torch.zeros(len(weight_OI), dtype=torch.float64), move)


def kernel_of(operator: Operator, module: nn.Module, channels_in: int, size: Size) -> Kernel | None:
    """The kernel of an operator whose layer, in float64 and evaluation mode, is ``module``; None where it is not one.

    Each input channel is lit at one pixel (at several, where only some are read), and what answers is its kernel.
    Random maps of the size in use then have to come out alike, borders included, of small and of large values.

    >>> from convfabric.fabric.layers import layer
    >>> from convfabric.operators import Conv, Relu
    >>> strided = Conv(kernel=5, stride=2)
    >>> found = kernel_of(strided, layer(strided, 2, 3).double(), 2, (8, 8))
    >>> found.reach, found.move, found.weight_OIHW.shape[:2]
    (2, 1, torch.Size([3, 2]))
    >>> kernel_of(Relu(), layer(Relu(), 2, 2), 2, (8, 8)) is None
    True
    """
    move = math.log2(operator.stride) if 0 < operator.stride < math.inf else math.inf
    if math.isinf(max(operator.halo)) or move not in (-1, 0, 1, 2, 3, 4):
        return None
    reach, period = math.ceil(max(operator.halo)), 2 ** max(0, int(move))
    first = (reach // period + 1) * period
    side = 2 * first + 2 * period
    if operator.size_after((side, side)) != ((2 * side if move < 0 else side // period),) * 2:
        return None
    try:
        with torch.no_grad():
            found = _read_off(operator, module, channels_in, int(move), (reach, first, side))
            same = _answers_alike(operator, module, channels_in, found, size)
    except ValueError:  # the operator is for maps of one size
        return None
    return found if same else None


def _read_off(
    operator: Operator, module: nn.Module, channels_in: int, move: int, where: tuple[int, int, int]
) -> Kernel:
    reach, first, side = where
    size = operator.size_after((side, side))
    dark = module(torch.zeros(1, channels_in, side, side, dtype=torch.float64), size)
    middle = size[0] // 2
    constant = dark[0, :, middle, middle].detach()
    weight = torch.zeros(len(constant), channels_in, 2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    for y, x in _phases(move):
        for start in range(0, channels_in, AT_ONCE):
            lit = torch.zeros(min(AT_ONCE, channels_in - start), channels_in, side, side, dtype=torch.float64)
            for i in range(len(lit)):
                lit[i, start + i, first + y, first + x] = 1
            answers = (module(lit, size) - dark).detach()
            for dy, row in _answering(first + y, reach, move):
                for dx, column in _answering(first + x, reach, move):
                    weight[:, start : start + len(lit), reach + dy, reach + dx] = answers[:, :, row, column].T
    return Kernel(weight, constant, move)


def _phases(move: int) -> Iterator[Offset]:
    """The pixels of a cell that each are read by other taps."""
    period = 2 ** max(0, move)
    yield from ((y, x) for y in range(period) for x in range(period))


def _answering(lit: int, reach: int, move: int) -> Iterator[tuple[int, int]]:
    """Offsets whose tap answers to a lit row, each with the row that it writes; columns alike."""
    period = 2 ** max(0, move)
    for offset in range(-reach, reach + 1):
        written = 2 * lit - offset if move < 0 else lit - offset
        if written % period == 0:
            yield offset, written // period


def _answers_alike(operator: Operator, module: nn.Module, channels: int, kernel: Kernel, size: Size) -> bool:
    dice = torch.Generator().manual_seed(0)
    after = operator.size_after(size)
    for spread in SPREADS:
        example = spread * torch.randn(1, channels, *size, dtype=torch.float64, generator=dice)
        wanted, found = module(example, after), kernel(example, after)
        if wanted.shape != found.shape or bool((wanted - found).abs().max() > CLOSE * wanted.abs().max()):
            return False
    return True
