"""Every file read once before the first step: what can be mended is, and said; what cannot is refused, by name."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from convfabric.data.boxes import Boxes
from convfabric.data.faults import MOST_FAULTS_SAID, refuse
from convfabric.data.layouts import Item
from convfabric.data.masks import MOST_COLOURS, Coding
from convfabric.data.outlines import Outlines
from convfabric.data.reading import (
    Bounds,
    Look,
    Pixels,
    fitted_array,
    fitted_mask,
    is_turned,
    look,
    no_warnings,
    read_picture,
)
from convfabric.errors import DataError
from convfabric.operators import Size

LARGEST_INFERRED = 224
THREADS = 4
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the files of a data set are read."""

    size: Size
    channels: int
    fitting: str
    ignore: int
    classes: int | None
    """Number of classes that masks may name, where it is known beforehand."""
    coding: Coding
    """What the pixels of masks mean."""
    names: tuple[str, ...]
    """Of classes, where the coding says them."""
    bounds: Bounds
    """The values, of pixels of more than 8 bits or floats, that become black and white."""
    boxes: int = 0
    """Most boxes in an image."""

    def read(self, item: Item) -> tuple[Pixels, Pixels | NDArray[np.float32] | int, list[str]]:
        """An image (height, width, channels), its answer, and the rules applied; DataError names the file."""
        picture, rules = read_picture(item.image, self.channels, self.bounds)
        fitted = fitted_array(picture, self.size, self.fitting)
        if item.mask is None and item.boxes is None:
            return fitted, item.label, rules
        self._check_turn(item, picture.shape, any(rule.startswith("EXIF orientation") for rule in rules))
        if item.boxes:
            return fitted, item.boxes.fitted(picture.shape[:2], self.size, self.fitting, self.boxes), rules
        assert item.mask is not None
        mask = self._mask(item.mask, picture.shape)
        if mask.shape != picture.shape[:2]:
            found, wanted = mask.shape, picture.shape
            raise DataError(
                f"{item.mask}: {found[1]}×{found[0]} pixels, its image {item.image.name} has {wanted[1]}×{wanted[0]}."
            )
        return fitted, fitted_mask(mask, self.size, self.fitting, self.ignore), rules

    @staticmethod
    def _check_turn(item: Item, shape: tuple[int, ...], turned: bool) -> None:
        """DataError where an image was turned, its mask or boxes were not, and sizes do not tell that they fit so."""
        sideways, drawn = False, item.boxes or item.mask
        if isinstance(drawn, Outlines | Boxes):
            if None not in drawn.size and drawn.size != shape[:2]:
                (height, width), kind = drawn.size, "boxes" if item.boxes else "outlines"
                raise DataError(
                    f"{drawn}: {kind} for {width}×{height} pixels, the image has {shape[1]}×{shape[0]}"
                    f"{' as its EXIF turns it; save it upright' * turned}."
                )
            sideways = None not in drawn.size and drawn.size[0] != drawn.size[1]
        elif turned and drawn and not is_turned(drawn):
            sideways = is_turned(item.image, (2, 4, 5, 6)) and shape[0] != shape[1]
        else:
            return
        if turned and not (sideways and is_turned(item.image, (2, 4, 5, 6))):
            what = "its boxes are" if item.boxes else "its mask is"
            raise DataError(f"{item.image}: turned by its EXIF, and {what} not; save both upright.")

    def _mask(self, found: Path | Outlines, shape: tuple[int, ...]) -> Pixels:
        mask = found.drawn(shape[0], shape[1]) if isinstance(found, Outlines) else self.coding.read(found)
        if self.classes is not None:
            outside = [v for v in np.unique(mask).tolist() if v >= self.classes and v != self.ignore]
            if outside:
                raise DataError(
                    f"{found}: mask value {outside[0]}; there are {self.classes} classes, 0 to {self.classes - 1}, and "
                    f"{self.ignore} is ignored. Set ignore={outside[0]} if that is void, or name more in classes.txt."
                )
        return mask


Met = Mapping[int, Path | Outlines | None]
"""Values in masks, and of each the first mask that holds it."""


def survey(items: Sequence[Item]) -> list[Look]:
    """A look at every image, or DataError with what is wrong in which files, what only decoding finds included."""
    images = [item.image for item in items]
    try:
        return _each(images, look)
    except DataError:
        _each(images, lambda path: look(path) and read_picture(path, 3)[1])
        raise


def inferred_channels(looks: Sequence[Look]) -> tuple[int, list[str]]:
    """1 where every image is grey, else 3; and what has to be said.

    >>> inferred_channels([Look(width=8, height=8, grey=True), Look(width=8, height=8, grey=False)])
    (3, ['mixed: 1 grey images among 2, read as colour'])
    """
    grey = sum(found.grey for found in looks)
    if grey in (0, len(looks)):
        return (1 if grey else 3), []
    return 3, [f"mixed: {grey} grey images among {len(looks)}, read as colour"]


def inferred_size(looks: Sequence[Look], task: str) -> tuple[Size, list[str]]:
    """The common size of the images; where they differ or are large, one that fits most; and what has to be said.

    >>> inferred_size([Look(width=8, height=6, grey=True)] * 3, "classification")
    ((6, 8), [])
    """
    sizes = {(found.height, found.width) for found in looks}
    height = int(median(found.height for found in looks))
    width = int(median(found.width for found in looks))
    if len(sizes) == 1 and (task != "classification" or max(height, width) <= LARGEST_INFERRED):
        return (height, width), []
    if task != "classification":
        shrink = min(1.0, 2 * LARGEST_INFERRED / max(height, width))
        size = (_to_multiple(height * shrink), _to_multiple(width * shrink))
    else:
        size = (_to_multiple(min(height, width, LARGEST_INFERRED)),) * 2
    found = f"{len(sizes)} different image sizes" if len(sizes) > 1 else f"images of {width}×{height} pixels"
    return size, [f"{found}, brought to {size[1]}×{size[0]} pixels; --size sets another"]


def _to_multiple(side: float, of: int = 16) -> int:
    return max(of, round(side / of) * of)


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What is kept of every item that was read."""

    rules: list[str]
    """Applied to each."""
    met: Met
    values: list[frozenset[int]]
    """In the mask of each; none for labels."""
    digests: list[bytes]
    """Of each, its image and its answer."""
    pictures: list[bytes | None]
    """Digests of the images alone; None for one whose pixels are all the same."""


def read_all(items: Sequence[Item], reading: Reading) -> tuple[Pixels, NDArray[Any], Glance]:
    """Every item decoded: images (N, H, W, C), and labels (N,), masks (N, H, W) or boxes (N, M, 5)."""
    results = _each(items, reading.read)
    images = np.stack([image for image, _, _ in results])
    answers = [answer for _, answer, _ in results]
    stacked = np.stack([np.asarray(answer) for answer in answers])
    glance = Glance(
        rules=[rule for _, _, rules in results for rule in rules],
        met=values_met(items, stacked) if items[0].mask else {},
        values=[_values(answer) for answer in answers],
        digests=[],
        pictures=[picture_digest(image) for image in images],
    )
    return images, stacked, glance


def check_all(items: Sequence[Item], reading: Reading) -> Glance:
    """As :func:`read_all`, keeping no pixels."""

    def glance(item: Item) -> tuple[list[str], frozenset[int], bytes, bytes | None]:
        image, answer, rules = reading.read(item)
        digest = hashlib.sha256(image.tobytes() + np.asarray(answer).tobytes()).digest()
        return rules, _values(answer), digest, picture_digest(image)

    results = _each(items, glance)
    met: dict[int, Path | Outlines | None] = {}
    for item, (_, values, _, _) in zip(items, results, strict=True):
        met |= dict.fromkeys(values - met.keys(), item.mask)
    return Glance(
        rules=[rule for rules, _, _, _ in results for rule in rules],
        met=met,
        values=[values for _, values, _, _ in results],
        digests=[digest for _, _, digest, _ in results],
        pictures=[picture for _, _, _, picture in results],
    )


def _values(answer: Pixels | NDArray[np.float32] | int) -> frozenset[int]:
    """The classes in a mask, or of boxes; nothing for a label."""
    if isinstance(answer, int):
        return frozenset()
    return frozenset(
        int(value) for value in np.unique(answer if answer.dtype == np.uint8 else answer[:, 0]) if value >= 0
    )


def said_absent(split: str, values: Iterable[frozenset[int]], classes: Sequence[str], what: str = "pixel") -> list[str]:
    """Classes that no mask or box of a split shows, so that nothing is said of them by its score.

    >>> said_absent("val", [frozenset({0}), frozenset({0, 255})], ("road", "car"))
    ['val: no pixel of car']
    """
    absent = [name for at, name in enumerate(classes) if at not in frozenset().union(*values)]
    return [f"{split}: no {what} of {', '.join(absent)}"] if absent else []


def picture_digest(image: Pixels) -> bytes | None:
    """A digest of the pixels of an image (H, W, C), by which copies are known; None where all are the same.

    >>> picture_digest(np.zeros((4, 4, 3), np.uint8)) is None
    True
    """
    return None if (image == image[:1, :1]).all() else hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def check_not_constant(
    name: str, pictures: Sequence[bytes | None], labels: Sequence[int], classes: Sequence[str]
) -> None:
    """DataError where no image of a set, or of a class, has pixels that differ.

    >>> check_not_constant("photos", [b"a", None, b"b"], [0, 0, 1], ("cat", "dog"))
    """
    if not any(pictures):
        raise DataError(f"{name}: every image is of one colour as it is read, so there is nothing to learn from.")
    living = {label for label, picture in zip(labels, pictures, strict=True) if picture}
    if dead := sorted(set(labels) - living):
        raise DataError(
            f"{name}: every image of class {classes[dead[0]]} is of one colour as it is read. Look at its files: "
            "are they damaged, or is their range of values another than that of the rest?"
        )


def values_met(items: Sequence[Item], masks: NDArray[Any]) -> Met:
    """The values in masks (N, H, W), of these items.

    >>> items = [Item(image=Path("a.png"), mask=Path("a.png")), Item(image=Path("b.png"), mask=Path("b.png"))]
    >>> [(value, file.name) for value, file in values_met(items, np.array([[[0]], [[1]]])).items()]
    [(0, 'a.png'), (1, 'b.png')]
    """
    firsts = {int(value): int((masks == value).any((1, 2)).argmax()) for value in np.unique(masks)}
    return {value: items[first].mask for value, first in firsts.items()}


def mask_classes(met: Met, ignore: int, where: Path) -> tuple[int, list[str]]:
    """The number of classes in masks that hold these values, and what has to be told of them.

    Raises DataError where only one class is left, and for masks drawn in black and white.

    >>> mask_classes({0: None, 1: None, 255: None}, 255, Path("masks"))
    (2, [])
    """
    values = set(met)
    used = values - {ignore}
    if len(used) > MOST_COLOURS:
        raise DataError(
            f"{where}: masks hold {len(used)} values, too many to be classes without their names in classes.txt. Soft "
            "edges of masks in black and white? Make them 0 and 255, and set binary_masks=true."
        )
    if 255 in values and used <= {0}:
        raise DataError(
            f"{where}: masks hold only {sorted(values)}. Set binary_masks=true if 255 means class 1; it is ignored now."
        )
    if len(used) > 1 and max(used) + 1 > 2 * len(used):
        far = sorted(value for value in used if value >= len(used))
        slips = "; ".join(f"{met[value]}: mask value {value}" for value in far[:MOST_FAULTS_SAID])
        void = f"set ignore={far[0]} if that is void everywhere, " if len(far) == 1 else ""
        raise DataError(
            f"{slips}; all masks of {where} hold {sorted(used)}, and classes count from 0. "
            f"Mend masks where it is a slip, {void}or name the classes in classes.txt."
        )
    if len(used) < 2:
        raise DataError(f"{where}: one class only, masks hold {sorted(values)} and {ignore} is ignored.")
    unused = sorted(set(range(max(used))) - used)
    told = f"no mask has class {', '.join(map(str, unused))}" + ("; are they counted from 1?" if 0 in unused else "")
    return max(used) + 1, [f"masks hold {sorted(used)}: {told}"] if unused else []


def said_rules(rules: Sequence[str]) -> list[str]:
    """One line for each rule that was applied, with how often.

    >>> said_rules(["alpha: laid on white"] * 2)
    ['2 images, alpha: laid on white']
    """
    return [f"{count} image{'s' * (count > 1)}, {rule}" for rule, count in sorted(Counter(rules).items())]


S = TypeVar("S")


def _each(things: Sequence[S], do: Callable[[S], T]) -> list[T]:
    """The results of all, or one DataError with the faults of all."""
    faults: list[str] = []

    def attempt(thing: S) -> T | None:
        try:
            return do(thing)
        except DataError as fault:
            faults.append(str(fault))
            return None

    with no_warnings(), ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(attempt, things))
    refuse(faults)
    return [result for result in results if result is not None]
