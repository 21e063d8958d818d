"""Masks that are drawn from outlines: polygons, or lengths of runs down the columns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convfabric.errors import DataError

Shape = tuple[int, tuple[Any, ...]]
"""The class, and what it covers: polygons (x0, y0, x1, y1, ...), or (rows, columns, length of each run)."""


@dataclass(frozen=True)
class Outlines:
    """What covers one image, by a file of outlines; class 0 is what nothing covers."""

    file: Path
    image: str
    shapes: tuple[Shape, ...]
    size: tuple[int | None, int | None] = (None, None)
    """Height and width of the image, by the file."""

    def __str__(self) -> str:
        return f"{self.file}, {self.image}"

    def drawn(self, height: int, width: int) -> NDArray[np.uint8]:
        """The mask, uint8 (height, width); of what overlaps the smaller lies above.

        >>> square = Outlines(Path("a.json"), "a.png", ((1, ((0, 0, 2, 0, 2, 1, 0, 1),)),))
        >>> square.drawn(2, 4).tolist()
        [[1, 1, 0, 0], [0, 0, 0, 0]]
        """
        layers = [(label, self._covered(parts, height, width)) for label, parts in self.shapes]
        mask = np.zeros((height, width), np.uint8)
        for label, covered in sorted(layers, key=lambda layer: -int(layer[1].sum())):
            mask[covered] = label
        return mask

    def _covered(self, parts: tuple[Any, ...], height: int, width: int) -> NDArray[np.bool_]:
        if isinstance(parts[0], int):
            rows, columns, runs = parts
            if (rows, columns) != (height, width) or sum(runs) != rows * columns:
                raise DataError(f"{self}: runs for {columns}×{rows} pixels, the image has {width}×{height}.")
            values = np.arange(len(runs)) % 2 == 1
            covered: NDArray[np.bool_] = np.repeat(values, runs).reshape(columns, rows).T
            return covered
        across, along = ([n for polygon in parts for n in polygon[start::2]] for start in (0, 1))
        if max(across) <= 0 or max(along) <= 0 or min(across) >= width or min(along) >= height:
            raise DataError(f"{self}: an outline beside its image of {width}×{height} pixels, at {parts[0][:2]}.")
        return _inside(parts, height, width)


def _inside(polygons: tuple[tuple[float, ...], ...], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels (height, width) whose centres lie in one of some polygons."""
    covered = np.zeros((height, width), bool)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    for polygon in polygons:
        own = np.zeros_like(covered)
        across, along = np.array(polygon[::2]), np.array(polygon[1::2])
        for x, y, u, v in zip(across, along, np.roll(across, -1), np.roll(along, -1), strict=True):
            crossed = np.flatnonzero((rows > y) != (rows > v))
            if len(crossed):
                at = x + (rows[crossed] - y) * (u - x) / (v - y)
                own[crossed] ^= columns[None] > at[:, None]
        covered |= own
    return covered
