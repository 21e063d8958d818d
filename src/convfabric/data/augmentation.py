"""Random changes of a batch that leave its answers true.

Legend of the suffixes: B images, C channels, H height, W width.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from convfabric.boxes.moving import moved, scaled
from convfabric.data.imageset import ImageSet, Split, drawn
from convfabric.errors import SettingError
from convfabric.operators import Size

READ_LARGER = 2.0
"""Times that images are read larger for crops, at most: what is further shrunk again would lose its fine pixels."""
PADDING = {"black": "zeros", "mirrored": "reflection"}
"""As torch names them."""
MEASURED = 256
"""Training images that principal components of colours are taken from."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far images are changed; every change is drawn evenly and by image."""

    shift: float = 0.0
    """Share of the side by which images move, either way."""
    crop: float = 1.0
    """Least share of the sides that images are cut to, anywhere, and brought back to size."""
    zoom: float = 0.0
    """Share by which images grow or shrink."""
    rotate: float = 0.0
    """Degrees, either way."""
    flip: bool = False
    """Whether every other image is mirrored left to right."""
    light: float = 0.0
    """Share by which brightness and contrast change."""
    colour: float = 0.0
    """Spread by which colours move along their principal components, as a share of those."""
    outside: Literal["black", "mirrored"] = "black"
    """What moves in from outside: black, or the image again, mirrored at its border. Masks and boxes stop there."""
    components: tuple[tuple[float, ...], ...] = ()
    """Of red, green and blue in the images, 0 to 255: a row for each colour, each column as long as its spread."""


def fit_for(data: ImageSet, **said: Any) -> Augmentation:
    """The augmentation given, completed by the usual one for such data: written signs are never mirrored.

    Raises SettingError for colours of images that are not of three channels, and for crops of no or more than all.

    >>> from convfabric.data.opening import open_data
    >>> fit_for(open_data("digits")).flip, fit_for(open_data("digits"), rotate=3).rotate
    (False, 3)
    """
    found = replace(_usual(data), **said)
    if not 0 < found.crop <= 1:
        raise SettingError(f"crop={found.crop}: give a share of the sides above 0, up to 1.")
    if not found.colour:
        return found
    if data.preprocessing.channels != 3:
        raise SettingError(f"colour={found.colour}: images have {data.preprocessing.channels} channels, not three.")
    return replace(found, components=principal_components(drawn(data.splits["train"], MEASURED).images_BCHW))


def cropped_from(data: ImageSet, how: Augmentation) -> Split:
    """The training images as crops are taken from them: larger, where they are cropped and come from files.

    >>> from convfabric.data.opening import open_data
    >>> digits = open_data("digits")
    >>> cropped_from(digits, Augmentation(crop=0.8)).batches([[0]]).__next__()[0].shape
    torch.Size([1, 1, 10, 10])
    """
    if how.crop == 1 or data.reopened is None:
        return data.splits["train"]
    height, width = (round(side * min(READ_LARGER, 1 / how.crop)) for side in data.preprocessing.size)
    return data.at((height, width)).splits["train"]


def principal_components(images_BCHW: Tensor) -> tuple[tuple[float, ...], ...]:
    """The principal components of the pixels of images, columns as long as their spread (Krizhevsky et al. 2012).

    >>> grey = torch.tensor([0, 200], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 4, 4)
    >>> [round(abs(row[-1])) for row in principal_components(grey)]
    [102, 102, 102]
    """
    pixels_CN = images_BCHW.transpose(0, 1).flatten(1).double()
    values, vectors_CC = torch.linalg.eigh(torch.cov(pixels_CN))
    return tuple(tuple(row) for row in (vectors_CC * values.clamp(min=0).sqrt()).tolist())


def _usual(data: ImageSet) -> Augmentation:
    if data.task != "classification":
        return Augmentation(shift=0.1, zoom=0.25, flip=data.photographs, light=0.2)
    if data.written:
        return Augmentation(shift=0.1, zoom=0.1, rotate=10)
    if min(data.preprocessing.size) <= 48:
        return Augmentation(shift=0.0625, flip=data.photographs, outside="mirrored")
    return Augmentation(shift=0.1, zoom=0.2, rotate=5, flip=data.photographs, light=0.2, outside="mirrored")


def augmented(
    images_BCHW: Tensor, targets: Tensor, how: Augmentation, dice: torch.Generator, ignore: int, size: Size
) -> tuple[Tensor, Tensor]:
    """The batch changed: uint8 to float32 pixels 0..255 (B, C, H, W) of a size, its labels, masks or boxes with it.

    These are (B,), (B, H, W), and float32 (B, M, 5), see :mod:`convfabric.boxes`. What moves in from outside is
    ``ignore`` in masks.

    >>> images, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    >>> changed, _ = augmented(images, labels, Augmentation(shift=0.5), torch.Generator().manual_seed(0), 255, (4, 4))
    >>> changed.dtype, tuple(changed.shape)
    (torch.float32, (2, 1, 4, 4))
    """
    images = images_BCHW.float()
    if how.shift or how.crop < 1 or how.zoom or how.rotate or how.flip:
        ways = _movements(len(images), how, dice, size)
        grid = F.affine_grid(ways, [len(images), 1, *size], align_corners=False)
        grid = grid.to(images.device)
        if targets.is_floating_point():
            targets = moved(scaled(targets, (images.shape[2], images.shape[3]), size), ways, size)
        images = F.grid_sample(images, grid, padding_mode=PADDING[how.outside], align_corners=False)
        if targets.ndim == 3 and not targets.is_floating_point():
            masks = F.grid_sample(targets[:, None].float() - ignore, grid, mode="nearest", align_corners=False)
            targets = (masks[:, 0] + ignore).round().to(targets.dtype)
    if how.colour:
        along_B3 = how.colour * torch.randn(len(images), 3, generator=dice)
        images = (images + (along_B3 @ torch.tensor(how.components).T).to(images.device)[..., None, None]).clamp(0, 255)
    if how.light:
        images = _lit(images, how.light, dice)
    return images, targets


def _movements(count: int, how: Augmentation, dice: torch.Generator, size: Size) -> Tensor:
    """An affine map (B, 2, 3) from output to input coordinates for each image."""
    even = torch.rand(4, count, generator=dice) * 2 - 1
    mirror = 1 - 2 * torch.randint(0, 2, (count,), generator=dice) * float(how.flip)
    angle, scale = even[0] * how.rotate * (torch.pi / 180), 1 + even[1] * how.zoom
    whole = not (how.zoom or how.rotate or how.crop < 1)
    across, along = (
        (2 * _pixels(side, how.shift, draw, whole)) / side for draw, side in zip(even[2:], size[::-1], strict=True)
    )
    if how.crop < 1:
        shown = how.crop + (1 - how.crop) * torch.rand(count, generator=dice)
        across, along = (moves + (1 - shown) * (2 * torch.rand(count, generator=dice) - 1) for moves in (across, along))
        scale = scale / shown
    aspect = size[0] / size[1]
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [mirror * cos, -sin * aspect, across, mirror * sin / aspect, cos, along]
    return torch.stack(rows, 1).view(count, 2, 3)


def _pixels(side: int, shift: float, draw: Tensor, whole: bool) -> Tensor:
    """Pixels to move by; whole ones where nothing else asks for interpolation, so that images stay sharp."""
    return (draw * (shift * side + 0.5 * whole)).round() if whole else draw * shift * side


def _lit(images: Tensor, light: float, dice: torch.Generator) -> Tensor:
    even = (torch.rand(2, len(images), 1, 1, 1, generator=dice) * 2 - 1).to(images.device)
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * (1 + even[0] * light) + mean * (1 + even[1] * light)).clamp(0, 255)
