"""COCO files: which images they name, and the outlines that cover each, or the boxes around what is in it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite
from pathlib import Path
from typing import Any

from convfabric.data.boxes import Boxes, Row
from convfabric.data.faults import refuse
from convfabric.data.folders import named_file
from convfabric.data.layouts import SPLIT_NAMES, Item, Listing, split_folders
from convfabric.data.outlines import Outlines
from convfabric.errors import DataError
from convfabric.graph import Task

OF_ROBOFLOW = "_annotations.coco.json"
"""The COCO file that lies among the images of a split."""
NO_COCO = (KeyError, TypeError, AttributeError, ValueError, OverflowError, OSError)
"""Faults of a file that is something else."""


def from_coco(file: Path, task: Task | None = None) -> Listing:
    """The images of a COCO file, and of those beside it that are named alike for other splits.

    They are for segmentation where there are outlines, else for detection, unless the task is said.
    Raises DataError for a file that is none, and where two files have different categories.
    """
    if file.name == OF_ROBOFLOW and file.parent.name.lower() in SPLIT_NAMES:
        return from_coco_files(coco_files(split_folders(file.parent.parent)), task)
    word = _split_in(file)
    if not word:
        return from_coco_files({"all": file}, task)
    begin, end = file.name[: word.start(1)].lower(), file.name[word.end(1) :].lower()
    beside = {other.name.lower(): other for other in file.parent.iterdir()}
    named = ((split, beside.get(f"{begin}{name}{end}")) for name, split in SPLIT_NAMES.items())
    return from_coco_files({split: other for split, other in named if other}, task)


def split_of(file: Path) -> str | None:
    """The split that a COCO file is of, by its name or its folder's.

    >>> split_of(Path("instances_val2017.json")), split_of(Path("valid/_annotations.coco.json"))
    ('val', 'val')
    """
    word = _split_in(file)
    name = file.parent.name if file.name == OF_ROBOFLOW else word.group(1) if word else ""
    return SPLIT_NAMES.get(name.lower())


def _split_in(file: Path) -> re.Match[str] | None:
    names = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
    return re.search(f"(?:^|[_.-])({names})$", file.stem, re.IGNORECASE)


def coco_files(splits: Mapping[str, Path]) -> dict[str, Path]:
    """The COCO file among the images of each split, for folders that hold one.

    >>> coco_files({"train": Path("no/such/folder")})
    {}
    """
    files = {split: folder / OF_ROBOFLOW for split, folder in splits.items()}
    return {split: file for split, file in files.items() if file.is_file()}


def from_coco_files(files: Mapping[str, Path], task: Task | None = None) -> Listing:
    """As :func:`from_coco`, with the file of each split."""
    if task == "classification":
        raise DataError(f"{next(iter(files.values()))}: COCO files are for segmentation and detection, not {task}.")
    documents = {split: _document(file) for split, file in files.items()}
    if task is None:
        drawn = any(one.get("segmentation") for each in documents.values() for one in each["annotations"])
        task = "segmentation" if drawn else "detection"
    read: Callable[[Path, Any], tuple[Mapping[Path, Outlines | Boxes], tuple[str, ...]]]
    read = outlines if task == "segmentation" else boxes
    found = {split: read(file, documents[split]) for split, file in files.items()}
    found, notes = _with_boxes(files, documents, found) if task == "detection" else (found, [])
    (_, classes), *others = found.values()
    if odd := [known for _, known in others if known != classes]:
        differ = ", ".join(sorted(set(odd[0]) ^ set(classes))) or "their order"
        raise DataError(f"{' and '.join(map(str, files.values()))}: their categories differ, in {differ}.")
    splits = {
        split: tuple(_item(image, known[image]) for image in sorted(known)) for split, (known, _) in found.items()
    }
    return Listing(task=task, classes=classes, splits=splits, notes=tuple(notes))


def _with_boxes(files: Mapping[str, Path], documents: Mapping[str, Any], found: Any) -> tuple[Any, list[str]]:
    """What was read of each split, its classes those with a box in any of them; and what has to be told.

    Raises DataError where train or val, or a file alone, has no box; a test split without one is left out.
    """
    notes, full = list[str](), dict[str, Any]()
    for split, (known, names) in found.items():
        if any(one.rows for one in known.values()):
            full[split] = known, names
        elif split == "test":
            notes.append(f"{files[split]}: no annotation with a box, left out")
        else:
            without = "; without this file, validation images are drawn from the others" if split == "val" else ""
            raise DataError(f"{files[split]}: no annotation with a box, so there is nothing to find{without}.")
    if not full:
        raise DataError(f"{files['test']}: no annotation with a box, so there is nothing to find.")
    every = list(dict.fromkeys(name for _, names in full.values() for name in names))
    used = {names[int(row[0])] for known, names in full.values() for one in known.values() for row in one.rows}
    classes = tuple(name for name in every if name in used)
    counted = {
        split: ({image: _renamed(one, names, classes) for image, one in known.items()}, classes)
        for split, (known, names) in full.items()
    }
    many = {split: sum(len(one.rows) for one in known.values()) for split, (known, _) in counted.items()}
    notes.append(f"boxes: {', '.join(f'{count:,} {split}' for split, count in many.items())}")
    if spare := sum(not _counts(one) for split in full for one in documents[split]["annotations"]):
        notes.append(f"left out of them: {spare} around crowds, or without an area")
    if empty := [name for name in every if name not in used]:
        notes.append(f"no box of {', '.join(empty)}, left out of the classes")
    return counted, notes


def _renamed(one: Boxes, names: Sequence[str], classes: Sequence[str]) -> Boxes:
    """The boxes with their classes counted among others."""
    return replace(one, rows=tuple((classes.index(names[int(row[0])]), *row[1:]) for row in one.rows))


def _item(image: Path, answer: Outlines | Boxes) -> Item:
    return Item(image=image, boxes=answer) if isinstance(answer, Boxes) else Item(image=image, mask=answer)


def _counts(annotation: Mapping[str, Any]) -> bool:
    """Whether a box is around one thing, and has an area."""
    return not annotation.get("iscrowd") and min(annotation["bbox"][2:]) > 0


def _document(file: Path) -> Any:
    """A COCO file as it stands; DataError for one that is none."""
    try:
        document = json.loads(file.read_bytes())
        document.setdefault("annotations", [])
        _ = document["images"], document["categories"], [one.get("segmentation") for one in document["annotations"]]
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as fault:
        raise DataError(f"{file}: not JSON ({fault}).") from None
    except KeyError as missing:
        raise DataError(f"{file}: not a COCO file, as it has no {missing}; it has images and categories.") from None
    except NO_COCO as fault:
        raise DataError(f"{file}: not a COCO file ({fault!r}); it has images, categories and annotations.") from None
    return document


def outlines(file: Path, document: Any = None) -> tuple[dict[Path, Outlines], tuple[str, ...]]:
    """The outlines of each image of a COCO file, and the classes: what nothing covers, then its categories by number.

    Raises DataError for a file that is none, or holds boxes alone.
    """
    document = document or _document(file)
    try:
        numbers = _categories(document["categories"], str(file))
        images, covering = _by_image(file, document, numbers, _shape)
        found: dict[Path, Outlines] = {}
        for known, one in images.items():
            path, size = _image_file(file, str(one["file_name"])), (one.get("height"), one.get("width"))
            before = found[path].shapes if path in found else ()
            found[path] = Outlines(file, str(one["file_name"]), (*before, *covering[known]), size)
    except DataError:
        raise
    except NO_COCO as fault:
        raise DataError(f"{file}: not a COCO file ({fault!r}); it has images, categories and annotations.") from None
    if not any(one.shapes for one in found.values()):
        raise DataError(f"{file}: no annotation, so every pixel would be background.")
    names = {number: str(one["name"]) for one in document["categories"] if (number := numbers[one["id"]])}
    return found, ("background", *(names[number] for number in sorted(names)))


def boxes(file: Path, document: Any = None) -> tuple[dict[Path, Boxes], tuple[str, ...]]:
    """The boxes in each image of a COCO file, and the classes, which are its categories by number.

    Boxes around crowds, and those without an area, are left out. Raises DataError for a file that is none.
    """
    document = document or _document(file)
    try:
        ids, names = _told_apart(sorted(document["categories"], key=lambda one: one["id"]), str(file))
        numbers = {known: at for at, known in enumerate(ids)}
        images, covering = _by_image(file, document, numbers, _box)
        found: dict[Path, Boxes] = {}
        for known, one in images.items():
            path, size = _image_file(file, str(one["file_name"])), (one.get("height"), one.get("width"))
            rows: tuple[Row, ...] = tuple((label, *sides) for label, sides in covering[known] if sides)
            before = found[path].rows if path in found else ()
            found[path] = Boxes(file, str(one["file_name"]), (*before, *rows), size)
    except DataError:
        raise
    except NO_COCO as fault:
        raise DataError(f"{file}: not a COCO file ({fault!r}); it has images, categories and annotations.") from None
    return found, tuple(names)


def _by_image(
    file: Path, document: Any, numbers: Mapping[Any, int], read: Callable[[Mapping[str, Any], str, Any], Any]
) -> tuple[dict[Any, Mapping[str, Any]], dict[Any, list[Any]]]:
    """The images of a file by their ids, and of each the class and what is read of its annotations.

    Raises DataError with what is wrong in which annotations.
    """
    images, faults = _by_id(document["images"], str(file)), list[str]()
    faults += _twice(document["annotations"], str(file))
    found: dict[Any, list[Any]] = {known: [] for known in images}
    for position, one in enumerate(document["annotations"]):
        where = f"{file}, annotation {position}"
        if one["image_id"] not in images or one["category_id"] not in numbers:
            odd = "image_id" if one["image_id"] not in images else "category_id"
            faults.append(f"{where}: {odd} {one[odd]!r} is not among those that the file names.")
            continue
        try:
            found[one["image_id"]].append((numbers[one["category_id"]], read(one, where, images[one["image_id"]])))
        except DataError as fault:
            faults.append(str(fault))
    refuse(faults)
    return images, found


def _twice(annotations: Sequence[Mapping[str, Any]], file: str) -> Iterator[str]:
    """Annotations that are those of before, with the same id."""
    seen: dict[Any, Mapping[str, Any]] = {}
    for position, one in enumerate(annotations):
        if "id" in one and seen.setdefault(one["id"], one) is not one and seen[one["id"]] == one:
            yield f"{file}, annotation {position}: stands there twice, with the id {one['id']!r}."


def _box(annotation: Mapping[str, Any], where: str, image: Mapping[str, Any]) -> tuple[float, ...]:
    """Left, top, right and bottom; nothing for a box that does not count."""
    found: Any = annotation.get("bbox")
    numbers = isinstance(found, list) and all(type(side) in (int, float) and isfinite(side) for side in found)
    if not numbers or len(found) != 4 or min(found[2:]) < 0:
        raise DataError(f"{where}: bbox {found!r}; left, top, width and height in pixels are read.")
    if not _counts(annotation):
        return ()
    left, top, wide, high = map(float, found)
    width, height = image.get("width") or inf, image.get("height") or inf
    if min(left, top) >= 0 and max(left + wide, top + high) <= 1 < min(width, height) and (wide, high) != (1, 1):
        raise DataError(f"{where}: bbox {found} within one pixel; sides are read in pixels, not as shares.")
    if left < -1 or top < -1 or left + wide > width + 1 or top + high > height + 1:
        raise DataError(f"{where}: bbox {found} beyond the image of {width}×{height} pixels.")
    return left, top, left + wide, top + high


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
    ids, names = _told_apart(categories, file)
    if len(ids) > 254:
        raise DataError(f"{file}: {len(ids)} categories; masks hold at most 254.")
    counted = sorted((known, name) for known, name in zip(ids, names, strict=True) if name.lower() != "background")
    places = {known: at for at, (known, _) in enumerate(counted, 1)}
    return {known: places.get(known, 0) for known in ids}


def _told_apart(categories: Sequence[Mapping[str, Any]], file: str) -> tuple[list[Any], list[str]]:
    """The ids and the names of categories; DataError where two are alike."""
    ids, names = [one["id"] for one in categories], [str(one["name"]) for one in categories]
    for kind, known in (("id", ids), ("name", names)):
        if twice := [one for one in known if known.count(one) > 1]:
            raise DataError(f"{file}: two categories have the {kind} {twice[0]!r}.")
    return ids, names


def _shape(annotation: Mapping[str, Any], where: str, image: Mapping[str, Any]) -> tuple[Any, ...]:
    found = annotation.get("segmentation")
    if not found:
        raise DataError(
            f"{where}: an annotation without a segmentation, and others have one; --task detection reads their boxes."
        )
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
