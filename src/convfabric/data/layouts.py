"""Which files a data set is made of: class folders, images with masks, or a CSV table."""

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from convfabric.data.faults import refuse
from convfabric.data.reading import ENDINGS
from convfabric.errors import DataError
from convfabric.graph import Task

T = TypeVar("T")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
VAL_SHARE, TEST_SHARE = 0.15, 0.15

ACCEPTED = (
    "Accepted are: train/, val/ and test/ that hold one folder per class; one folder per class; "
    "images/ and masks/ (with or without train/, val/, test/ inside); train/ beside trainannot/; "
    "a CSV file with the columns path,label,split or path,mask,split."
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image file with its class index or its mask file."""

    image: Path
    label: int = -1
    mask: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a data set, by split; classes may be unnamed (empty) for masks."""

    task: Task
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Item, ...]]


def find_listing(root: Path) -> Listing:
    """The files under a folder or in a CSV table, in whichever accepted layout they lie.

    Raises DataError that says what was found and what is accepted, of everything that is wrong at once.
    """
    if root.is_file() and root.suffix.lower() == ".csv":
        return _from_table(root)
    if not root.is_dir():
        found = "neither a folder nor a CSV file" if root.exists() else "no such folder or CSV file"
        raise DataError(f"{root}: {found}.")
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _from_images_and_masks(root)
    splits = _split_folders(root)
    if "train" in splits and (root / f"{splits['train'].name}annot").is_dir():
        return _from_mask_pairs(root, {name: (d, root / f"{d.name}annot") for name, d in splits.items()})
    if "train" in splits or (splits and len(splits) == len(_folders(root))):
        return _from_class_folders(root, splits)
    if len(_folders(root)) > 0:
        return _from_class_folders(root, {"all": root})
    found = ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"
    raise DataError(f"{root}: found {found}. {ACCEPTED}")


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders that are named for a split, in any case; DataError where two are of the same."""
    splits: dict[str, Path] = {}
    for folder in _folders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in splits:
            raise DataError(f"{root}: {splits[split].name}/ and {folder.name}/ would both be {split}; keep one.")
        splits |= {split: folder} if split else {}
    return splits


def _files(folder: Path, faults: list[str]) -> list[Path]:
    """Every file that is an image by its ending; one of any other kind is a fault, not skipped."""
    images = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.exists():
            faults.append(f"{path}: a link to a file that is not there.")
        elif path.is_file() and path.suffix.lower() in ENDINGS and not path.name.startswith("."):
            images.append(path)
        elif path.is_file() and not path.name.startswith(".") and path.name != "Thumbs.db":
            faults.append(f"{path}: not an image by its ending; read are {', '.join(ENDINGS)}. Move it away.")
    return images


def _from_class_folders(root: Path, splits: Mapping[str, Path]) -> Listing:
    names = sorted({folder.name for split in splits.values() for folder in _folders(split)})
    faults: list[str] = []
    items: dict[str, tuple[Item, ...]] = {}
    for split, folder in splits.items():
        if loose := sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in ENDINGS):
            more = f", and {len(loose) - 1} more there" if len(loose) > 1 else ""
            faults.append(f"{loose[0]}: an image outside the class folders{more}. {ACCEPTED}")
        files = {name: _files(folder / name, faults) for name in names if (folder / name).is_dir()}
        for name, images in files.items():
            if not images:
                faults.append(f"{folder / name}: class {name} is empty. Add images to it or remove the folder.")
        items[split] = tuple(Item(image=f, label=i) for i, name in enumerate(names) for f in files.get(name, ()))
    refuse(faults)
    return _checked_classes(Listing(task="classification", classes=tuple(names), splits=items), root)


def _checked_classes(listing: Listing, root: Path) -> Listing:
    if len(listing.classes) < 2:
        raise DataError(f"{root}: one class only ({', '.join(listing.classes)}); at least two are needed. {ACCEPTED}")
    missing = [
        f"{root}: class {name} has no image in {split}; every split needs every class."
        for split, items in listing.splits.items()
        for name in sorted(set(listing.classes) - {listing.classes[item.label] for item in items})
    ]
    refuse(missing)
    return listing


def _from_images_and_masks(root: Path) -> Listing:
    pairs = {split: (d, root / "masks" / d.name) for split, d in _split_folders(root / "images").items()}
    return _from_mask_pairs(root, pairs or {"all": (root / "images", root / "masks")})


def _from_mask_pairs(root: Path, pairs: Mapping[str, tuple[Path, Path]]) -> Listing:
    splits, faults = {}, list[str]()
    for split, (images, masks) in pairs.items():
        by_name = _by_name(_files(images, faults), faults)
        masked = _by_name(_files(masks, faults), faults) if masks.is_dir() else {}
        faults += [f"{by_name[name]}: no mask {name}.* in {masks}." for name in by_name.keys() - masked.keys()]
        faults += [f"{masked[name]}: a mask without an image in {images}." for name in masked.keys() - by_name.keys()]
        splits[split] = tuple(Item(image=image, mask=masked.get(name)) for name, image in by_name.items())
    refuse(faults)
    return Listing(task="segmentation", classes=_class_names(root), splits=splits)


def _by_name(files: Iterable[Path], faults: list[str]) -> dict[str, Path]:
    """Files by their names without ending, by which images and masks find each other; two of one name are a fault."""
    named: dict[str, Path] = {}
    for file in files:
        if file.stem in named:
            faults.append(f"{file}: a second file named {file.stem}, after {named[file.stem]}.")
        named.setdefault(file.stem, file)
    return named


def _class_names(root: Path) -> tuple[str, ...]:
    file = root / "classes.txt"
    try:
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    except UnicodeDecodeError as fault:
        raise DataError(f"{file}: not in UTF-8 ({fault}).") from None
    return tuple(line.strip() for line in lines if line.strip())


def _from_table(table: Path) -> Listing:
    rows = _rows(table)
    columns = set(rows[0][1])
    kind = "mask" if "mask" in columns else "label"
    if missing := {"path", kind} - columns:
        raise DataError(f"{table}: no column {', '.join(sorted(missing))}. {ACCEPTED}")
    classes = tuple(sorted({row[kind] for _, row in rows})) if kind == "label" else _class_names(table.parent)
    splits, faults, told = dict[str, list[Item]](), list[str](), dict[str, str]()
    for number, row in rows:
        said = row.get("split") or "all"
        split = SPLIT_NAMES.get(said.lower(), "all" if said == "all" else "")
        if not (split and row["path"] and row[kind]):
            found = ", ".join(f"{name}={value}" for name, value in row.items())
            faults.append(f"{table}, line {number}: {found}; split is one of train, val, test, and no field is empty.")
            continue
        if told.setdefault(row["path"], split) != split:
            faults.append(f"{table}, line {number}: {row['path']} is in {told[row['path']]} already, here in {split}.")
        answer = {"label": classes.index(row[kind])} if kind == "label" else {"mask": table.parent / row[kind]}
        splits.setdefault(split, []).append(Item(image=table.parent / row["path"], **answer))
    if "all" in splits and len(splits) > 1:
        faults.append(f"{table}: some rows name a split and some do not.")
    refuse(faults)
    task: Task = "classification" if kind == "label" else "segmentation"
    listing = Listing(task=task, classes=classes, splits={name: tuple(items) for name, items in splits.items()})
    return _checked_classes(listing, table) if kind == "label" else listing


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each with the number of its line, blanks around fields taken away."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restval="")
            rows = [(reader.line_num, {k.strip(): v.strip() for k, v in row.items() if k}) for row in reader]
    except (UnicodeDecodeError, csv.Error) as fault:
        raise DataError(f"{table}: cannot be read as CSV in UTF-8 ({fault}).") from None
    if not rows:
        raise DataError(f"{table}: no rows. {ACCEPTED}")
    return rows


def with_splits(listing: Listing, seed: int) -> tuple[Listing, list[str]]:
    """The listing with train and val, and test where everything lay in one folder; and what was split off.

    The draw is seeded and takes the same share of every class.

    >>> items = tuple(Item(image=Path(f"{i}.png"), label=i % 2) for i in range(20))
    >>> listing = Listing(task="classification", classes=("a", "b"), splits={"all": items})
    >>> {name: len(items) for name, items in with_splits(listing, 0)[0].splits.items()}
    {'train': 14, 'val': 2, 'test': 4}
    """
    splits: dict[str, tuple[Item, ...]] = dict(listing.splits)
    notes: list[str] = []
    if "all" in splits:
        everything = splits.pop("all")
        splits["test"], rest = drawn(everything, TEST_SHARE, seed, [item.label for item in everything])
        splits["val"], splits["train"] = drawn(rest, VAL_SHARE / (1 - TEST_SHARE), seed, [item.label for item in rest])
        notes.append(f"one folder: {TEST_SHARE:.0%} drawn for test and {VAL_SHARE:.0%} for val with seed {seed}")
    elif "train" not in splits:
        raise DataError(f"{' and '.join(splits)} are there, and no train to learn from. {ACCEPTED}")
    elif "val" not in splits:
        train = splits["train"]
        splits["val"], splits["train"] = drawn(train, VAL_SHARE, seed, [item.label for item in train])
        notes.append(f"no val: {VAL_SHARE:.0%} of train drawn for it with seed {seed}")
    order = {"train": 0, "val": 1, "test": 2}
    if empty := [name for name, items in splits.items() if not items]:
        count = sum(len(items) for items in splits.values())
        raise DataError(f"{count} images are too few to draw {', '.join(empty)} from: give at least 3 a class.")
    ordered = dict(sorted(splits.items(), key=lambda split: order[split[0]]))
    return replace(listing, splits=ordered), notes


def drawn(items: Sequence[T], share: float, seed: int, labels: Iterable[int]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """A seeded share of every label's items (at least one where there are two), and the rest, both in order.

    >>> taken, rest = drawn("aabb", 0.5, 0, labels=[0, 0, 1, 1])
    >>> len(taken), len(rest)
    (2, 2)
    """
    by_label: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        by_label.setdefault(label, []).append(position)
    dice, taken = random.Random(seed), set()
    for _, positions in sorted(by_label.items()):
        count = max(1, round(share * len(positions))) if len(positions) > 1 else 0
        taken |= set(dice.sample(positions, count))
    return (
        tuple(item for i, item in enumerate(items) if i in taken),
        tuple(item for i, item in enumerate(items) if i not in taken),
    )
