"""Masks as people have them: class indices, palettes, or colours that stand for classes."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convfabric.data.faults import refuse
from convfabric.data.folders import plainly
from convfabric.data.layouts import Colour
from convfabric.data.reading import Pixels, loaded, named_faults, opened
from convfabric.data.texts import text_of
from convfabric.errors import DataError

MOST_COLOURS = 64
"""So many colours in all masks may be classes without a table."""
INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")
TABLES = (
    "colours.txt",
    "colors.txt",
    "colours.csv",
    "colors.csv",
    "class_dict.csv",
    "label_colors.txt",
    "labelmap.txt",
)
VOID = frozenset(("void", "ignore", "ignored", "unlabelled", "unlabeled"))


@dataclass(frozen=True)
class Coding:
    """What the pixels of masks mean: class indices as they stand, or colours that stand for them."""

    colours: Mapping[Colour, int] = field(default_factory=dict)
    """Of each colour its class, or the value that is ignored; none for indices."""
    binary: bool = False
    """Whether values above 0 mean class 1."""

    def read(self, path: Path) -> Pixels:
        """The class of each pixel, uint8 (height, width); DataError names a file or value that cannot be one."""
        image = opened_mask(path)
        if not self.colours:
            return self._indices(path, _values(path, image))
        packed = _packed(np.asarray(image.convert("RGB")))
        known = np.array([_packed(np.array(colour)) for colour in self.colours])
        order = known.argsort()
        at = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
        if (odd := known[order][at] != packed).any():
            value = int(packed[odd][0])
            said = ", ".join(_said(colour) for colour in list(self.colours)[:10])
            raise DataError(f"{path}: colour {_said(_unpacked(value))} in {int(odd.sum())} pixels; classes are {said}.")
        classes: Pixels = np.array(list(self.colours.values()), np.uint8)[order][at]
        return classes

    def _indices(self, path: Path, values: NDArray[Any]) -> Pixels:
        if not self.binary:
            return values.astype(np.uint8)
        if odd := sorted(set(np.unique(values).tolist()) - {0, 1, 255}):
            raise DataError(f"{path}: mask value {odd[0]}; binary masks hold 0 and 255 (or 1).")
        return (values > 0).astype(np.uint8)


def opened_mask(path: Path) -> Any:
    """A mask as a Pillow image; DataError for a file whose format changes values."""
    with named_faults(path):
        image, _ = loaded(path)
    webp = image.format == "WEBP" and b"VP8L" not in path.read_bytes()
    if webp or image.format in LOSSY or image.info.get("compression") == "jpeg":
        kind = "TIFF with JPEG" if image.format == "TIFF" else image.format
        raise DataError(f"{path}: {kind}, which changes values; masks are read from PNG, BMP, GIF or TIFF.")
    return image


def _values(path: Path, image: Any) -> NDArray[Any]:
    """Indices of a mask of one channel, or of three that are equal."""
    values = np.asarray(image)
    if image.mode in ("RGB", "RGBA") and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    elif image.mode not in INDEX_MODES:
        raise DataError(f"{path}: a mask of mode {image.mode}; one channel that holds the class index is read.")
    if values.min() < 0 or values.max() > 255:
        odd = values.min() if values.min() < 0 else values.max()
        raise DataError(f"{path}: mask value {odd}; class indices from 0 to 255 are read.")
    return values


def coding_of(
    masks: Sequence[Path], table: Path | None, ignore: int, binary: bool
) -> tuple[Coding, tuple[str, ...], list[str]]:
    """What the masks of a data set mean, the names of classes where that says them, and what has to be told.

    Colours come from a table, or from masks that hold few; palettes are indices, unless two of them have different
    colours for one. Raises DataError where colours are too many to be classes.
    """
    if binary:
        return Coding(binary=True), (), []
    seen = [_seen(path) for path in masks]
    in_colours = [one for one in seen if any(len(set(colour)) > 1 for colour in one.colours)]
    differ = _palettes_differ(seen)
    if table and not in_colours:
        return Coding(), read_colours(table, ignore)[1], [f"masks: names of classes by {table.name}"]
    if not (differ or in_colours):
        grey = any(one.colours for one in seen)
        return Coding(), (), ["masks: grey in three channels, read as class indices"] * grey
    if plain := [one.path for one in seen if not (one.palette or one.colours)]:
        one, many = sorted((plain, [one.path for one in seen if one.path not in set(plain)]), key=len)
        kinds = "class indices", "colours"
        here, there = kinds if one is plain else kinds[::-1]
        refuse([f"{path}: holds {here}, {len(many)} other masks hold {there}." for path in one])
    if table:
        colours, names = read_colours(table, ignore)
        return Coding(colours), names, [f"masks: colours by {table.name}"]
    found = dict.fromkeys(colour for one in seen for _, colour in sorted(one.palette.items()))
    found |= dict.fromkeys(sorted({colour for one in seen for colour in one.colours}))
    if len(found) > MOST_COLOURS:
        raise DataError(
            f"{seen[-1].path.parent}: masks hold {len(found)} colours, too many to be classes. "
            "Give a table of them with --set colours=FILE, a line for each class: red, green, blue, name."
        )
    names = tuple(_said(colour) for colour in found)
    why = f"palettes differ ({differ}), so colours" if differ else "colours"
    coding = Coding({colour: at for at, colour in enumerate(found)})
    return coding, names, [f"masks: {why} are classes {', '.join(names)}"]


@dataclass(frozen=True)
class _Seen:
    """What colours a mask has."""

    path: Path
    palette: Mapping[int, Colour] = field(default_factory=dict)
    """Of each index that is used."""
    colours: frozenset[Colour] = frozenset()
    """Of a mask without palette; of one with class indices none."""


def _seen(path: Path) -> _Seen:
    with named_faults(path), opened(path) as image:
        plain = image.mode in INDEX_MODES and image.mode != "P"
    if plain:
        return _Seen(path)
    found = opened_mask(path)
    if found.mode == "P":
        table = np.asarray(found.getpalette("RGB")).reshape(-1, 3).tolist()
        used = np.unique(np.asarray(found)).tolist()
        return _Seen(path, palette={index: tuple(table[index]) for index in used if index < len(table)})
    packed = np.unique(_packed(np.asarray(found.convert("RGB")))).tolist()
    return _Seen(path, colours=frozenset(_unpacked(value) for value in packed))


def _palettes_differ(seen: Iterable[_Seen]) -> str:
    """The first index for which two palettes have different colours, and where; nothing where none has."""
    known: dict[int, tuple[Colour, Path]] = {}
    for one in seen:
        for index, colour in one.palette.items():
            first, where = known.setdefault(index, (colour, one.path))
            if first != colour:
                return f"{index} is {_said(first)} in {where.name} and {_said(colour)} in {one.path.name}"
    return ""


def found_table(root: Path, said: str | None) -> Path | None:
    """The table of colours that is named, or that lies in the folder of the data; DataError where it is not there."""
    folder = root if root.is_dir() else root.parent
    if said is None:
        return next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if not Path(said).is_file():
        raise DataError(
            f"{said}: no such file; colours names a table with a line for each class: red, green, blue, name."
        )
    return Path(said)


def read_colours(table: Path, ignore: int) -> tuple[dict[Colour, int], tuple[str, ...]]:
    """The class of each colour in a table, and their names; three numbers and a name a line, in either order.

    A class named void or ignore gets the value that is ignored. Raises DataError for a line that is neither.
    """
    colours: dict[Colour, int] = {}
    names: list[str] = []
    order = (0, 1, 2)
    for number, line in enumerate(text_of(table).splitlines(), 1):
        [fields] = csv.reader([re.sub(r"[\s,;:]+", ",", line.strip(" ,;:\t"))]) if line.strip() else [[]]
        numbers, words = _parted(fields)
        if not fields or line.startswith("#") or (number == 1 and not numbers):
            order = _order(words, table) if fields and not line.startswith("#") else order
            continue
        numbers = [numbers[at] for at in order] if len(numbers) == 3 else numbers
        if len(numbers) != 3 or max(numbers) > 255 or (numbers[0], numbers[1], numbers[2]) in colours:
            raise DataError(
                f"{table}, line {number}: {line!r}; three numbers from 0 to 255, each colour once, and a name."
            )
        name = " ".join(words) or _said((numbers[0], numbers[1], numbers[2]))
        void = name.lower() in VOID
        if plainly(name) in map(plainly, names):
            raise DataError(f"{table}, line {number}: a second class is named {name}.")
        colours[numbers[0], numbers[1], numbers[2]] = ignore if void else len(names)
        names += [] if void else [name]
    if len(names) < 2:
        raise DataError(f"{table}: colours of {len(names)} classes; at least two are needed.")
    return colours, tuple(names)


def _order(header: Sequence[str], table: Path) -> tuple[int, int, int]:
    """Where a header says that red, green and blue stand among the numbers; DataError where it says but two of them.

    >>> _order(["name", "b", "g", "r"], Path("table.csv")), _order(["name", "colour"], Path("table.csv"))
    ((2, 1, 0), (0, 1, 2))
    """
    said = [word.lower()[:1] for word in header if word.lower() in ("r", "g", "b", "red", "green", "blue")]
    if not said:
        return 0, 1, 2
    if sorted(said) != ["b", "g", "r"]:
        raise DataError(f"{table}: a header of {', '.join(header)}; red, green and blue are wanted.")
    return said.index("r"), said.index("g"), said.index("b")


def _parted(fields: Sequence[str]) -> tuple[list[int], list[str]]:
    """The three numbers of a line, which stand first or last, and the words of the name.

    >>> _parted(["Lane", "2", "10", "20", "30"])
    ([10, 20, 30], ['Lane', '2'])
    """
    plain = [part.isascii() and part.isdecimal() for part in fields]
    if plain[:3] == [True] * 3 and not any(plain[3:4]):  # a fourth number would be an index, before or behind
        return [int(part) for part in fields[:3]], list(fields[3:])
    if plain[-3:] == [True] * 3 and not all(plain):
        return [int(part) for part in fields[-3:]], list(fields[:-3])
    return [], list(fields)


def _packed(colours: NDArray[Any]) -> NDArray[np.int64]:
    wide = colours.astype(np.int64)
    packed: NDArray[np.int64] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def _unpacked(value: int) -> Colour:
    return value >> 16, (value >> 8) & 255, value & 255


def _said(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
