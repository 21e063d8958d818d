"""Part Labels (Kae et al. 2013): faces of LFW in hair, skin and background, and the superpixels they are scored by.

The folder holds, as they are published,

- lfw_funneled/NAME/NAME_0001.jpg and parts_lfw_funneled_gt_images/NAME_0001.ppm, of pure red, green and blue;
- parts_train.txt, parts_validation.txt and parts_test.txt, a name and a number on each line;
- for the score parts_lfw_funneled_superpixels_mat/NAME/NAME_0001.dat, the superpixel of each pixel, and
  parts_lfw_funneled_gt/NAME/NAME_0001.dat, how many there are and the class of each.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from convfabric.data.faults import refuse
from convfabric.data.layouts import Colour, Item, Listing
from convfabric.data.reading import named_faults, opened
from convfabric.data.texts import text_of
from convfabric.errors import DataError

CLASSES = ("hair", "skin", "background")
COLOURS: Mapping[Colour, int] = MappingProxyType({(255, 0, 0): 0, (0, 255, 0): 1, (0, 0, 255): 2})
LISTS = {"train": "parts_train.txt", "val": "parts_validation.txt", "test": "parts_test.txt"}
IMAGES, MASKS = "lfw_funneled", "parts_lfw_funneled_gt_images"
MOST_DIGITS = 10
"""Of a number; superpixels are a few hundred."""
SUPERPIXELS, OF_SUPERPIXELS = "parts_lfw_funneled_superpixels_mat", "parts_lfw_funneled_gt"


def is_part_labels(root: Path) -> bool:
    """Whether a folder holds the set in its published form.

    >>> is_part_labels(Path("nowhere"))
    False
    """
    return (root / LISTS["train"]).is_file() and (root / MASKS).is_dir()


def has_superpixels(root: Path) -> bool:
    """Whether the superpixels of the set are there as well.

    >>> has_superpixels(Path("nowhere"))
    False
    """
    return is_part_labels(root) and (root / SUPERPIXELS).is_dir()


def from_part_labels(root: Path) -> Listing:
    """The images and masks of every list that is there; all images of a person are a group.

    Raises DataError for every line that names no image or no mask, or one that another line named.
    """
    faults, splits, seen = list[str](), dict[str, tuple[Item, ...]](), dict[Path, str]()
    for split, name in LISTS.items():
        items = []
        for number, line in enumerate(_lines(root / name), 1):
            if not line.strip():
                continue
            where = f"{root / name}, line {number}"
            words = line.split()
            if len(words) != 2 or not (words[1].isascii() and words[1].isdigit()):
                faults.append(f"{where}: {line!r}; a name and a number are read, such as Aaron_Eckhart 1.")
                continue
            item = _item(root, words[0], int(words[1]))
            faults += [f"{where}: {path} is not there." for path in (item.image, item.mask) if not _is_file(path)]
            if item.image in seen:
                faults.append(f"{where}: {line.strip()} stands in {seen[item.image]} already.")
            seen[item.image] = where
            items.append(item)
        if items:
            splits[split] = tuple(items)
    refuse(faults)
    return Listing(task="segmentation", classes=CLASSES, splits=splits, colours=COLOURS)


def _lines(file: Path) -> list[str]:
    return text_of(file).splitlines() if file.is_file() else []


def _is_file(path: object) -> bool:
    return isinstance(path, Path) and path.is_file()


def _item(root: Path, name: str, number: int) -> Item:
    stem = f"{name}_{number:04d}"
    return Item(image=root / IMAGES / name / f"{stem}.jpg", mask=root / MASKS / f"{stem}.ppm", group=name)


def superpixels_of(root: Path, image: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The superpixel of each pixel (H, W) of an image of the set, from 0, and the class of each superpixel.

    Raises DataError for files that are not there, hold no whole numbers, or do not fit together.
    """
    pixels, file = (root / folder / image.parent.name / f"{image.stem}.dat" for folder in (SUPERPIXELS, OF_SUPERPIXELS))
    labels_HW, (count, *classes) = _numbers(pixels, image), _numbers(file, image).ravel()
    with named_faults(image), opened(image) as picture:
        wide, high = picture.size
    if labels_HW.shape != (high, wide):
        rows, columns = labels_HW.shape
        raise DataError(
            f"{pixels}: {rows} rows of {columns} superpixels; {image.name} has {high} rows of {wide} pixels."
        )
    if count != len(classes):
        raise DataError(f"{file}: promises {count} superpixels and has the classes of {len(classes)}.")
    if not classes:
        raise DataError(f"{file}: no superpixel; their number and the class of each are read.")
    if odd := sorted(set(classes) - set(range(len(CLASSES)))):
        raise DataError(f"{file}: class {odd[0]}; classes are 0 (hair), 1 (skin) and 2 (background).")
    if labels_HW.min() < 0 or labels_HW.max() >= count:
        met = f"{labels_HW.min()} to {labels_HW.max()}"
        raise DataError(f"{pixels}: superpixels {met}; there are the classes of 0 to {count - 1}.")
    return labels_HW, np.array(classes, np.int64)


def _numbers(file: Path, image: Path) -> NDArray[np.int64]:
    """The rows of whole numbers in a file; DataError for one that is not there, is empty, or holds something else."""
    if not file.is_file():
        raise DataError(f"{file} is not there: superpixels of {image.name} are scored by it.")
    rows = [(number, line.split()) for number, line in enumerate(_lines(file), 1) if line.strip()]
    if not rows:
        raise DataError(f"{file}: empty; rows of whole numbers are read.")
    for number, words in rows:
        if odd := [word for word in words if not (word.isascii() and word.isdigit() and len(word) < MOST_DIGITS)]:
            raise DataError(f"{file}, line {number}: {odd[0][:40]!r}; whole numbers from 0 are read.")
        if len(words) != len(rows[0][1]):
            raise DataError(f"{file}, line {number}: {len(words)} numbers; the first row has {len(rows[0][1])}.")
    return np.array([words for _, words in rows], np.int64)
