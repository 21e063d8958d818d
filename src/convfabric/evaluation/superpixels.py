"""Accuracy over superpixels, as Part Labels is scored: each has the class of the largest mean probability.

Legend of the suffixes: B images, K classes, H height, W width, N superpixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.data.imageset import ImageSet
from convfabric.errors import DataError
from convfabric.evaluation.answers import answers

SuperpixelsOf = Callable[[Path], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""From an image file to the superpixel of each pixel (H, W) and the class of each superpixel (N)."""


@dataclass(frozen=True, kw_only=True)
class SuperpixelScore:
    """Right answers over all superpixels of a split."""

    superpixels: int
    right: int

    @property
    def accuracy(self) -> float:
        """The share that is right."""
        return self.right / self.superpixels


def superpixel_classes(logits_KHW: Tensor, labels_HW: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The class of each superpixel (N): the largest mean of its pixels' probabilities (Saxena & Verbeek 2016).

    Logits of a map of another size are enlarged or made smaller first, linearly. A superpixel without pixels is of the
    first class.

    >>> logits, labels = torch.tensor([[[0.0, 3.0]], [[1.0, 0.0]]]), np.array([[0, 0]])
    >>> superpixel_classes(logits, labels, 1)
    array([0])
    """
    if logits_KHW.shape[1:] != labels_HW.shape:
        logits_KHW = F.interpolate(logits_KHW[None], size=labels_HW.shape, mode="bilinear", align_corners=False)[0]
    odds_KP, where = logits_KHW.softmax(0).flatten(1), torch.from_numpy(labels_HW.ravel())
    sums_KN = torch.zeros(len(odds_KP), count).index_add_(1, where, odds_KP)
    return np.asarray((sums_KN / torch.bincount(where, minlength=count).clamp_min(1)).argmax(0).numpy())


def superpixel_score(network: nn.Module, data: ImageSet, split: str, superpixels_of: SuperpixelsOf) -> SuperpixelScore:
    """How many superpixels of a split a network gets right.

    Raises DataError where images were brought to size otherwise than by stretching.
    """
    height, width = data.preprocessing.size
    right, total = 0, 0
    for logits, file in zip(_each(network, data, split), (data.files or {})[split], strict=True):
        labels, classes = superpixels_of(Path(file))
        if data.preprocessing.fitting != "stretch" and labels.shape != (height, width):
            raise DataError(f"{file}: superpixels are scored where images are stretched to size (fitting=stretch).")
        right += int((superpixel_classes(logits, labels, len(classes)) == classes).sum())
        total += len(classes)
    return SuperpixelScore(superpixels=total, right=right)


def _each(network: nn.Module, data: ImageSet, split: str) -> Iterator[Tensor]:
    """The logits (K, H, W) of each image."""
    for logits, _ in answers(network, data, data.splits[split], batch=8):
        yield from logits.cpu()
