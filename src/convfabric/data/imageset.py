"""Images and their answers, split by split, as uint8 tensors: held in memory or read as they are asked for.

Legend of the suffixes: B images, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convfabric.data.options import Fitting
from convfabric.data.reading import SIXTEEN_BITS
from convfabric.environment import cores
from convfabric.graph import Task
from convfabric.operators import Size

MOST_SIDE = 16_384


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Preparation of an image for a network; written into every archive and exported file."""

    size: Size
    """Height and width in pixels."""
    channels: int
    fitting: Fitting
    """How an image of another size is brought to it: see :func:`convfabric.data.reading.fitted_array`."""
    mean: tuple[float, ...]
    """Of each channel, for pixels scaled to 0..1."""
    std: tuple[float, ...]
    bounds: tuple[float, float] = SIXTEEN_BITS
    """The values, of pixels of more than 8 bits or floats in files, that become black and white."""

    def __post_init__(self) -> None:
        """Raises ValueError for a size, a mean or a spread that no images have."""
        if not all(1 <= side <= MOST_SIDE for side in self.size):
            raise ValueError(f"size {self.size[0]}×{self.size[1]}: from 1 to {MOST_SIDE} pixels a side")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} spreads of {self.channels} channels")
        if not all(map(isfinite, (*self.mean, *self.std, *self.bounds))) or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean}, std {self.std}: finite numbers, and spreads above 0")
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"bounds {self.bounds}: the lower first")

    def normalised(self, images_BCHW: Tensor) -> Tensor:
        """uint8 pixels as floats of about zero mean and unit spread."""
        shape = (1, self.channels, 1, 1)
        mean = torch.tensor(self.mean, device=images_BCHW.device).view(shape)
        std = torch.tensor(self.std, device=images_BCHW.device).view(shape)
        return (images_BCHW.float() / 255 - mean) / std


class Split(Protocol):
    """Images with their answers: uint8 (C, H, W) with an int64 label, a uint8 (H, W) mask, or float32 (M, 5) boxes."""

    def __len__(self) -> int: ...

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 (B, C, H, W) with int64 (B,), uint8 (B, H, W) or float32 (B, M, 5), one for each list of positions."""
        ...


@dataclass(frozen=True, eq=False)
class HeldSplit:
    """A split whose images are all in memory, decoded."""

    images_BCHW: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, by plain indexing."""
        for positions in order:
            chosen = torch.as_tensor(positions)
            yield self.images_BCHW[chosen], self.targets[chosen]


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """A split that is read from its map-style data set batch by batch, by worker processes."""

    dataset: "Dataset[tuple[Tensor, Tensor]]"
    count: int
    workers: int

    def __len__(self) -> int:
        return self.count

    def batches(self, order: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, prefetched."""
        yield from DataLoader(
            self.dataset,
            batch_sampler=[list(positions) for positions in order],
            num_workers=min(self.workers, cores()),
            pin_memory=torch.cuda.is_available(),
        )


COUNTED_MASKS = 256
NO_CLASS = -100
"""A target that no image has."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet:
    """Checked data, ready for training."""

    name: str
    task: Task
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    splits: Mapping[str, Split]
    """train, val, and test where there is one."""
    counts: tuple[int, ...] = ()
    """Training images of each class, for classification."""
    ignore: int = 255
    """Mask value that is neither trained nor counted."""
    digest: str = ""
    """Sixteen hexadecimal digits of the SHA-256 of what was read."""
    notes: tuple[str, ...] = ()
    """Notes on what was inferred, drawn and converted."""
    files: Mapping[str, tuple[str, ...]] | None = None
    """The image files of each split, where they are files."""
    written: bool = False
    """Whether images show written signs, which are never mirrored; known of sets by name alone."""
    reopened: Callable[[Size], "ImageSet"] | None = None
    """Opens the same images once more, brought to another height and width."""

    def at(self, size: Size) -> "ImageSet":
        """The same images at a size, read from where they come from; ValueError where nothing says how.

        >>> from convfabric.data.opening import open_data
        >>> open_data("digits").at((6, 6)).splits["val"].batches([[0]]).__next__()[0].shape
        torch.Size([1, 1, 6, 6])
        """
        if size == self.preprocessing.size:
            return self
        if self.reopened is None:
            raise ValueError(f"{self.name}: open at {self.preprocessing.size} alone, {size} was asked for")
        return replace(self.reopened(size), preprocessing=replace(self.preprocessing, size=size))

    @property
    def void(self) -> int:
        """The target that is neither trained nor counted: of masks ``ignore``; every class of an image counts."""
        return self.ignore if self.task == "segmentation" else NO_CLASS

    @property
    def scored_split(self) -> str:
        """The split that final figures are taken on: test, or val where there is no test."""
        return "test" if "test" in self.splits else "val"

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class; of masks the pixels of each in 256 of them, or all; empty for boxes.

        >>> from convfabric.data.opening import open_data
        >>> sum(open_data("digits").class_counts) == len(open_data("digits").splits["train"])
        True
        """
        if self.task != "segmentation":
            return self.counts
        masks_BHW = drawn(self.splits["train"], COUNTED_MASKS).targets
        pixels = torch.bincount(masks_BHW.flatten().long(), minlength=len(self.classes)).tolist()
        return tuple(0 if value == self.ignore else count for value, count in enumerate(pixels[: len(self.classes)]))

    @property
    def photographs(self) -> bool:
        """Whether mirrored images are to be expected: colour images that are not written signs."""
        return self.preprocessing.channels == 3 and not self.written


def drawn(split: Split, count: int, after: int = 0) -> HeldSplit:
    """So many images of a split, or as many as there are, in a shuffled order, held in memory.

    ``after`` leaves out those that a call for so many would give.

    >>> split = HeldSplit(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5))
    >>> len(drawn(split, 3)), len(drawn(split, 3, after=3))
    (3, 2)
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = sorted(order[after : after + count])
    batches = list(split.batches([[chosen[i] for i in part] for part in in_order(len(chosen), 64)]))
    return HeldSplit(torch.cat([images for images, _ in batches]), torch.cat([targets for _, targets in batches]))


def as_targets(targets: Tensor) -> Tensor:
    """Labels and masks as int64; boxes, which are float32, as they are.

    >>> as_targets(torch.zeros(2, dtype=torch.uint8)).dtype, as_targets(torch.zeros(2, 3, 5)).dtype
    (torch.int64, torch.float32)
    """
    return targets if targets.is_floating_point() else targets.long()


def in_order(count: int, batch: int) -> list[list[int]]:
    """Positions 0 to count - 1 in batches.

    >>> in_order(5, 2)
    [[0, 1], [2, 3], [4]]
    """
    return [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]
