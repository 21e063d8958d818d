"""COCO files: which images they name, and the outlines that cover each."""

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from convfabric.data.folders import named_file
from convfabric.data.layouts import SPLIT_NAMES, Item, Listing
from convfabric.data.outlines import Outlines, Shape
from convfabric.errors import DataError

OF_ROBOFLOW = "_annotations.coco.json"
"""The COCO file that lies among the images of a split."""


def from_coco(file: Path) -> Listing:
    """The images of a COCO file, and of those beside it that are named alike for other splits.

    Raises DataError for a file that is none, for boxes alone, and where two files have different categories.
    """
    names = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
    word = re.search(f"(?:^|[_.-])({names})$", file.stem)
    if not word:
        return _listing({"all": file})
    begin, end = file.name[: word.start(1)], file.name[word.end(1) :]
    there = ((split, file.with_name(f"{begin}{name}{end}")) for name, split in SPLIT_NAMES.items())
    return _listing({split: other for split, other in there if other.is_file()})


def coco_files(splits: Mapping[str, Path]) -> dict[str, Path]:
    """The COCO file among the images of each split, for folders that hold one.

    >>> coco_files({"train": Path("no/such/folder")})
    {}
    """
    files = {split: folder / OF_ROBOFLOW for split, folder in splits.items()}
    return {split: file for split, file in files.items() if file.is_file()}


def from_coco_files(files: Mapping[str, Path]) -> Listing:
    """As :func:`from_coco`, with the file of each split."""
    return _listing(files)


def _listing(files: Mapping[str, Path]) -> Listing:
    found = {split: outlines(file) for split, file in files.items()}
    classes = {known for _, known in found.values()}
    if len(classes) > 1:
        raise DataError(f"{' and '.join(map(str, files.values()))}: their categories differ.")
    splits = {
        split: tuple(Item(image=image, mask=drawn) for image, drawn in sorted(known.items()))
        for split, (known, _) in found.items()
    }
    return Listing(task="segmentation", classes=classes.pop(), splits=splits)


def outlines(file: Path) -> tuple[dict[Path, Outlines], tuple[str, ...]]:
    """The outlines of each image of a COCO file, and the classes: what nothing covers, then its categories by number.

    Raises DataError for a file that is none, or holds boxes alone.
    """
    try:
        document = json.loads(file.read_bytes())
        numbers = _categories(document["categories"], str(file))
        images = _by_id(document["images"], str(file))
        covering: dict[Any, list[Shape]] = {known: [] for known in images}
        for position, one in enumerate(document["annotations"]):
            where = f"{file}, annotation {position}"
            if one["image_id"] not in images or one["category_id"] not in numbers:
                odd = "image_id" if one["image_id"] not in images else "category_id"
                raise DataError(f"{where}: {odd} {one[odd]!r} is not among those that the file names.")
            shape = _shape(one, where, images[one["image_id"]])
            covering[one["image_id"]].append((numbers[one["category_id"]], shape))
        found: dict[Path, Outlines] = {}
        for known, one in images.items():
            path, size = _image_file(file, str(one["file_name"])), (one.get("height"), one.get("width"))
            before = found[path].shapes if path in found else ()
            found[path] = Outlines(file, str(one["file_name"]), (*before, *covering[known]), size)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as fault:
        raise DataError(f"{file}: not JSON ({fault}).") from None
    except DataError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError) as fault:
        raise DataError(f"{file}: not a COCO file ({fault!r}); it has images, categories and annotations.") from None
    if not any(one.shapes for one in found.values()):
        raise DataError(f"{file}: no annotation, so every pixel would be background.")
    names = {number: str(one["name"]) for one in document["categories"] if (number := numbers[one["id"]])}
    return found, ("background", *(names[number] for number in sorted(names)))


def _by_id(images: Sequence[Mapping[str, Any]], file: str) -> dict[Any, Mapping[str, Any]]:
    """The images by their ids; DataError where two have one."""
    found: dict[Any, Mapping[str, Any]] = {}
    for position, one in enumerate(images):
        if missing := [key for key in ("id", "file_name") if key not in one]:
            raise DataError(f"{file}, image {position}: no {missing[0]}.")
        if found.setdefault(one["id"], one) is not one:
            before = found[one["id"]]["file_name"]
            raise DataError(f"{file}: images {before} and {one['file_name']} have the same id {one['id']!r}.")
    return found


def _categories(categories: Sequence[Mapping[str, Any]], file: str) -> dict[Any, int]:
    """The class of each category, by number; one that is named background is what nothing covers."""
    ids, names = [one["id"] for one in categories], [str(one["name"]) for one in categories]
    for kind, known in (("id", ids), ("name", names)):
        if twice := [one for one in known if known.count(one) > 1]:
            raise DataError(f"{file}: two categories have the {kind} {twice[0]!r}.")
    if len(ids) > 254:
        raise DataError(f"{file}: {len(ids)} categories; masks hold at most 254.")
    counted = sorted((known, name) for known, name in zip(ids, names, strict=True) if name.lower() != "background")
    places = {known: at for at, (known, _) in enumerate(counted, 1)}
    return {known: places.get(known, 0) for known in ids}


def _shape(annotation: Mapping[str, Any], where: str, image: Mapping[str, Any]) -> tuple[Any, ...]:
    found = annotation.get("segmentation")
    if not found:
        raise DataError(f"{where}: an annotation without a segmentation; boxes alone are not read.")
    if isinstance(found, Mapping):
        rows, columns = (int(side) for side in found["size"])
        counts = found["counts"]
        runs = _runs(counts) if isinstance(counts, str) else [int(run) for run in counts]
        if any(run < 0 for run in runs) or sum(runs) != rows * columns:
            raise DataError(f"{where}: runs of {sum(runs)} pixels in all, none below 0; {rows * columns} are needed.")
        return rows, columns, tuple(runs)
    if not all(isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in found):
        raise DataError(f"{where}: a list of polygons is read, each of at least three points of two numbers.")
    polygons = tuple(tuple(float(number) for number in polygon) for polygon in found)
    across, along = ([n for polygon in polygons for n in polygon[start::2]] for start in (0, 1))
    width, height = (image.get(side) or max(ends) + 1 for side, ends in (("width", across), ("height", along)))
    if not all(map(isfinite, (*across, *along))) or max(*across, *along) <= 1 < min(width, height):
        raise DataError(f"{where}: points that are no pixels of an image of {width}×{height}, such as {found[0][:2]}.")
    return polygons


def _runs(text: str) -> list[int]:
    """Lengths of runs from COCO's compressed form: 5 bits a letter, from the third on beside the one two before.

    >>> _runs("521")
    [5, 2, 1]
    """
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        bits = ord(letter) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs


def _image_file(file: Path, name: str) -> Path:
    """Where an image of a COCO file lies: beside it, or in a folder of images or of the file's split."""
    split = file.stem.rpartition("_")[2]
    near = [file.parent, *(base / inner for base in (file.parent, file.parent.parent) for inner in ("images", split))]
    near += [file.parent.parent, file.parent.parent / "images" / split]
    return named_file(near, name) or file.parent / name
