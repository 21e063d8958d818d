"""Largest values, and maps read as a whole, by 3×3 kernels and rectifiers."""

from collections.abc import Iterator

import torch
from torch import Tensor

from convfabric.errors import EmbeddingError
from convfabric.operators import Pool, Size, halved
from convfabric.universality.kernels import Kernel, Offset, centred
from convfabric.universality.wiring import Pending, Value, Wiring, pending, side_by_side


def pool_of_largest(wiring: Wiring, pool: Pool, value: Value, size: Size) -> Value:
    """A max pool: for each row and column of its window but one a layer, and one more for each time it halves the map.

    Raises EmbeddingError where a window reaches beyond the map of a response that may be below zero: zeros are there,
    which would count.
    """
    before, after = int(pool.halo[0]), int(pool.halo[1])
    ends = [(count - 1) * pool.stride + after for count in pool.size_after(size)]
    if not value.is_positive and (before or any(end >= side for end, side in zip(ends, size, strict=True))):
        raise EmbeddingError(f"{pool}: windows reach beyond a map whose values may be below zero.")
    for offset in ((0, 1), (1, 0)):
        for sign in [1] * after + [-1] * before:
            value = _larger(wiring, value, (sign * offset[0], sign * offset[1]))
    for _ in range(pool.stride.bit_length() - 1):
        value = wiring.picked(value, 1)
    return value


def _larger(wiring: Wiring, value: Value, offset: Offset) -> Value:
    """At each pixel the larger of its value b and that at an offset, a, as relu(a - b) + relu(b) - relu(-b).

    The paper's (a + b) / 2 + relu((a - b) / 2) + relu((b - a) / 2) holds for what is not below zero alone, for which
    two of the three terms are enough here.
    """
    eye = torch.eye(value.channels, dtype=torch.float64)
    step = centred(eye, offset=offset)
    apart = Kernel(step.weight_OIHW - centred(eye).weight_OIHW, step.constant_O)
    above = wiring.convolved(value, apart)
    here = pending(value)
    signs = [here] if value.is_positive else [here, here.mixed(-eye, here.constant_O)]
    together = wiring.settled(side_by_side([above, *signs]), rectified=True)
    return together.mixed(torch.cat([eye, eye] if value.is_positive else [eye, eye, -eye], 1))


def largest_of_all(wiring: Wiring, value: Value, size: Size) -> Value:
    """The largest pixel of a map. Raises EmbeddingError as :func:`pool_of_largest` does."""
    for _, height_width in _down_to_a_pixel(size):
        value = pool_of_largest(wiring, Pool(), value, height_width)
    return value


def sum_of_all(wiring: Wiring, value: Value, size: Size) -> Value:
    """The sum of a map's pixels, by squares of four.

    >>> from convfabric.universality.wiring import Signal
    >>> image = Signal(-1, 0, (), torch.zeros(1, dtype=torch.float64))
    >>> seen = Value(0, ((image, torch.eye(1, dtype=torch.float64)),))
    >>> sum_of_all(Wiring(image), seen, (5, 3)).scale
    3
    """
    eye = torch.eye(value.channels, dtype=torch.float64)
    square = sum(centred(eye, offset=offset).weight_OIHW for offset in _SQUARE)
    assert isinstance(square, Tensor)
    for _ in _down_to_a_pixel(size):
        summed = wiring.convolved(value, Kernel(square, 0 * eye[0], move=1))
        value = wiring.settled(summed, rectified=value.is_positive)
    return value


def flattened(wiring: Wiring, value: Value, size: Size, weight_OIHW: Tensor, constant_O: Tensor) -> Pending:
    """A fully connected layer over a map: each halving puts the pixels of a square side by side as channels."""
    spread: list[tuple[int, int, int]] = [(channel, 0, 0) for channel in range(value.channels)]
    for level, _ in _down_to_a_pixel(size):
        eye = torch.eye(value.channels, dtype=torch.float64)
        maps = [wiring.convolved(value, centred(eye, move=1, offset=offset)) for offset in _SQUARE]
        value = wiring.settled(side_by_side(maps), rectified=value.is_positive)
        spread = [(c, y + (dy << level), x + (dx << level)) for dy, dx in _SQUARE for c, y, x in spread]
    weight = torch.zeros(len(weight_OIHW), len(spread), dtype=torch.float64)
    for i, (channel, y, x) in enumerate(spread):
        if y < size[0] and x < size[1]:
            weight[:, i] = weight_OIHW[:, channel, y, x]
    return pending(value.mixed(weight)).mixed(torch.eye(len(weight), dtype=torch.float64), constant_O)


_SQUARE: tuple[Offset, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


def _down_to_a_pixel(size: Size) -> Iterator[tuple[int, Size]]:
    """The sizes of a map that is halved until one pixel is left, but for that; with how often it was halved."""
    level = 0
    while max(size) > 1:
        yield level, size
        level, size = level + 1, halved(size)
