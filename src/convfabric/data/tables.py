"""A data set in a table: a CSV file that names images and their classes or masks, however it was written."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convfabric.data.faults import refuse
from convfabric.data.folders import named_file, plainly
from convfabric.data.layouts import (
    ACCEPTED,
    SPLIT_NAMES,
    Item,
    Listing,
    check_classes,
    class_names,
    in_order,
)
from convfabric.data.texts import text_of
from convfabric.errors import DataError

TABLES = (".csv", ".tsv")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": (
        "path",
        "filepath",
        "file_path",
        "filename",
        "file_name",
        "file",
        "image",
        "image_path",
        "img",
        "image_id",
    ),
    "label": ("label", "class", "target", "category", "class_name", "label_name", "labels"),
    "mask": ("mask", "mask_path", "segmentation", "mask_file"),
    "split": ("split", "set", "subset", "partition", "dataset", "data_set", "phase", "usage"),
    "val": ("is_valid", "is_val", "is_validation"),
    "group": ("group", "patient", "patient_id", "subject", "group_id"),
}
"""What is read, and the names that its column may have, in any case, the first that is there."""
EMPTY = "nan", "none", "null", "n/a", "na", "?", "-"
"""What stands for a label that is not known, and may be one."""
TRUE = ("true", "1", "1.0", "yes", "t")
FALSE = ("false", "0", "0.0", "no", "f", "")
"""What a column that says yes or no may hold."""
DELIMITERS = ",;\t|"
BEYOND = "\0"
"""Where the fields of a row are kept that the header has no name for; no column is named so."""
Row = dict[str, str]


@dataclass(frozen=True)
class _Table:
    file: Path
    rows: list[tuple[int, Row]]
    """Each with the number of its line, by the columns that are read."""
    notes: tuple[str, ...]


def from_table(file: Path) -> Listing:
    """The images that a table names; DataError with every line that cannot be used."""
    table = _read(file)
    kind = "mask" if "mask" in table.rows[0][1] else "label"
    names = in_order(row[kind] for _, row in table.rows) if kind == "label" else class_names(file.parent)
    splits, faults, told = dict[str, list[Item]](), list[str](), dict[Path, tuple[int, Row]]()
    repeated = 0
    for number, row in table.rows:
        split = _split(row)
        if not (split and row["path"] and row[kind]):
            said = ", ".join(f"{name}={value}" for name, value in row.items())
            wrong = "split is one of train, val, test" if row["path"] and row[kind] else "a field is empty"
            faults.append(f"{file}, line {number}: {said}; {wrong}.")
            continue
        image, drawn = (named_file([file.parent], row[name]) if row.get(name) else None for name in ("path", "mask"))
        if image is None or (kind == "mask" and drawn is None):
            missing = row["path" if image is None else "mask"]
            faults.append(f"{file}, line {number}: {missing}: no such file beside the table.")
            continue
        first, before = told.setdefault(image.resolve(), (number, row))
        if first != number:
            repeated += 1
            faults += _contradictions(f"{file}, line {number}: {row['path']}", row, before, first, kind)
            continue
        label = names.index(row[kind]) if kind == "label" else -1
        item = Item(image=image, label=label, mask=drawn if kind == "mask" else None, group=row.get("group", ""))
        splits.setdefault(split, []).append(item)
    faults += _alike(names if kind == "label" else (), file)
    if "all" in splits and len(splits) > 1:
        faults.append(f"{file}: some rows name a split and some do not.")
    refuse(faults)
    several = _several(names if kind == "label" else ())
    notes = (
        *table.notes,
        *several,
        *((f"{repeated} rows name an image that an earlier row names: read once",) * (repeated > 0)),
    )
    listing = Listing(
        task="classification" if kind == "label" else "segmentation",
        classes=names,
        splits={name: tuple(items) for name, items in splits.items()},
        notes=notes,
    )
    _check_groups(listing, file)
    if kind == "label":
        check_classes(listing, file)
    return listing


def _alike(names: Sequence[str], file: Path) -> list[str]:
    """Labels that are one number written in two ways, or differ in capitals, spaces or hidden signs alone."""
    known: dict[str, str] = {}
    for name in names:
        number = re.fullmatch(r"-?[0-9]+(\.[0-9]*)?", name)
        first = known.setdefault(str(float(name)) if number else plainly(name), name)
        if first != name:
            shown = [one if one.isascii() else ascii(one) for one in (first, name)]
            return [f"{file}: labels {shown[0]} and {shown[1]} would be two classes; write them alike."]
    return []


def _several(names: Sequence[str]) -> list[str]:
    """What has to be told of labels that are made of others."""
    made = [name for name in names if len(parts := re.split(r"[\s,;|]+", name)) > 1 and set(parts) <= set(names)]
    empty = [f"table: {name!r} is a class of its own" for name in names if name.lower() in EMPTY]
    several = [f"table: {name!r} is a class of its own; several labels for one image are not read" for name in made[:1]]
    return [*empty, *several]


def _split(row: Row) -> str:
    if "val" in row and "split" not in row:
        said = row["val"].lower()
        return "val" if said in TRUE else "train" if said in FALSE else ""
    said = row.get("split") or "all"
    return SPLIT_NAMES.get(said.lower(), "all" if said == "all" else "")


def _contradictions(where: str, row: Row, before: Row, first: int, kind: str) -> list[str]:
    """What one row says of an image and an earlier one otherwise."""
    return [
        f"{where} is in {before.get(name) or 'no split'} by line {first}, here in {row.get(name) or 'none'}."
        if name == "split"
        else f"{where} is {before[name]} by line {first}, here {row[name]}."
        for name in ("split", kind)
        if row.get(name) != before.get(name)
    ]


def _check_groups(listing: Listing, file: Path) -> None:
    """DataError where the images of one group are in two splits."""
    where: dict[str, set[str]] = {}
    for split, items in listing.splits.items():
        for item in items:
            where.setdefault(item.group, set()).add(split)
    refuse(
        [
            f"{file}: group {group} is in {' and '.join(sorted(splits))}; a group belongs into one."
            for group, splits in where.items()
            if group and len(splits) > 1
        ]
    )


def _read(file: Path) -> _Table:
    text, notes = _text(file)
    if "\0" in text:
        raise DataError(f"{file}: holds zero bytes; save it as UTF-8, or as UTF-16 with its mark.")
    text = re.sub(r"^sep=.\s*\n", "", text.lstrip("\r\n "))
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    try:
        reader = csv.DictReader(
            io.StringIO(text, newline=""), restkey=BEYOND, restval="", delimiter=delimiter, strict=True
        )
        names = [(name or "").strip() for name in reader.fieldnames or ()]
        kept, said = _columns(names)
        read = [(reader.line_num, {(k or "").strip(): v for k, v in row.items()}) for row in reader]
    except csv.Error as fault:
        raise DataError(f"{file}: cannot be read as CSV ({fault}); a quote may not be closed.") from None
    refuse([f"{file}, line {number}: {said}" for number, row in read for said in _misread(row, names, delimiter)])
    rows = [(number, {kind: (row[column] or "").strip() for kind, column in kept.items()}) for number, row in read]
    if not rows:
        raise DataError(f"{file}: no rows. {ACCEPTED}")
    if missing := [name for name in ("path", "label") if name not in kept and not (name == "label" and "mask" in kept)]:
        wanted = " or mask".join(missing) if missing == ["label"] else " and no ".join(missing)
        marks = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}.get(delimiter, delimiter)
        raise DataError(
            f"{file}: no column {wanted}; found {', '.join(names)}, parted by {marks}. The column of paths may be "
            f"{', '.join(COLUMNS['path'])}; that of classes {', '.join(COLUMNS['label'])}. {ACCEPTED}"
        )
    if twice := [name for name, count in Counter(kept.values()).items() if count > 1 or names.count(name) > 1]:
        raise DataError(f"{file}: two columns are named {twice[0]}.")
    return _Table(file, rows, (*notes, *said))


def _misread(row: Mapping[str, Any], names: Sequence[str], delimiter: str) -> Iterator[str]:
    """What shows that a row was parted otherwise than it was meant."""
    beyond = row.get(BEYOND) or []
    if any(field.strip() for field in beyond):
        said = f"{len(names) + len(beyond)} fields, the header has {len(names)}"
        yield f"{said}; a field that holds {delimiter!r} has to stand in quotes."
    for name in names:
        inner = (row.get(name) or "").strip().splitlines()
        like_rows = any(line.count(delimiter) >= len(names) - 1 for line in inner)
        if len(inner) > 1 and (like_rows or name in _columns(names)[0].values()):
            yield f"its {name} goes over {len(inner)} lines, from {inner[0][:40]!r}; is a quote not closed?"


def _columns(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The column of each kind, and what has to be said of those that are named otherwise."""
    lower = {name.lower().replace(" ", "_"): name for name in reversed(names)}
    kept = {
        kind: lower[next(word for word in words if word in lower)]
        for kind, words in COLUMNS.items()
        if any(word in lower for word in words)
    }
    if "split" in kept:
        kept.pop("val", None)
    other = [f"{column} as {kind}" for kind, column in kept.items() if column.lower() != kind]
    read = {*kept.values()} - ({kept["label"]} if {"label", "mask"} <= set(kept) else set())
    unread = [name for name in names if name and name not in read]
    told = [f"table: column {', '.join(other)}"] if other else []
    return kept, [*told, f"table: not read: {', '.join(unread[:10])}"] if unread else told


def _text(file: Path) -> tuple[str, list[str]]:
    """The text of a file in UTF-8, UTF-16 with its mark, or else Windows-1252, which is said."""
    with suppress(DataError):
        return text_of(file), []
    try:
        return file.read_bytes().decode("cp1252"), ["table: not in UTF-8, read as Windows-1252"]
    except UnicodeDecodeError as fault:
        raise DataError(f"{file}: cannot be read as text in UTF-8, UTF-16 or Windows-1252 ({fault}).") from None


def with_classes(listing: Listing, order: Sequence[str]) -> Listing:
    """The listing with its classes counted in another order; as it is where they are others."""
    if listing.task == "segmentation" or set(order) != set(listing.classes) or tuple(order) == listing.classes:
        return listing
    place = [list(order).index(name) for name in listing.classes]
    splits = {split: tuple(_counted_so(item, place) for item in items) for split, items in listing.splits.items()}
    return replace(listing, classes=tuple(order), splits=splits)


def _counted_so(item: Item, place: Sequence[int]) -> Item:
    """An item whose classes have other numbers."""
    if item.boxes is None:
        return replace(item, label=place[item.label])
    rows = tuple((place[int(row[0])], *row[1:]) for row in item.boxes.rows)
    return replace(item, boxes=replace(item.boxes, rows=rows))
