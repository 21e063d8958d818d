"""Boxes around things in an image, as a file names them, and as they lie when the image is brought to another size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from convfabric.boxes.moving import clipped
from convfabric.data.reading import placement
from convfabric.operators import Size

Row = tuple[float, float, float, float, float]
"""Class, left, top, right and bottom in pixels."""


@dataclass(frozen=True)
class Boxes:
    """Boxes in one image, by a file of them."""

    file: Path
    image: str
    rows: tuple[Row, ...]
    size: tuple[int | None, int | None] = (None, None)
    """Height and width of the image, by the file."""

    def __str__(self) -> str:
        return f"{self.file}, {self.image}"

    def fitted(self, given: Size, size: Size, fitting: str, most: int) -> NDArray[np.float32]:
        """Class, left, top, right and bottom of each, (most, 5), in an image of a given size brought to another.

        Rows without a box have class -1. See :func:`convfabric.data.reading.fitted_array`.

        >>> Boxes(Path("a.json"), "a.png", ((1, 2, 0, 4, 8),)).fitted((8, 8), (4, 4), "stretch", 2).tolist()
        [[1.0, 1.0, 0.0, 2.0, 4.0], [-1.0, 0.0, 0.0, 0.0, 0.0]]
        """
        found = np.zeros((most, 5), np.float32)
        found[:, 0] = -1
        if self.rows:
            times, shift = placement(given, size, fitting)
            rows = np.array(self.rows, np.float32)
            rows[:, 1:] = rows[:, 1:] * np.float32(times) + np.float32(shift)
            found[: len(rows)] = clipped(torch.from_numpy(rows), size).numpy()
        return found
