"""Data as users name them, opened: a folder, a table, a name, or data sets from Python."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from convfabric.data import arrays, checking, coco, layouts, named, part_labels
from convfabric.data.checking import Reading
from convfabric.data.imageset import ImageSet, Split, StreamedSplit
from convfabric.data.layouts import Item, Listing
from convfabric.data.masks import Coding, coding_of, found_table
from convfabric.data.options import DataOptions
from convfabric.data.reading import SIXTEEN_BITS, Bounds, Look, usual_bounds
from convfabric.data.splits import check_copies, with_splits
from convfabric.data.tables import TABLES, from_table, with_classes
from convfabric.errors import DataError
from convfabric.graph import Task
from convfabric.operators import Size

Like = tuple[tuple[str, ...], Bounds | None]
"""The order of classes, and the bounds of pixels of more than 8 bits where they are not to be measured."""


def open_data(
    source: str | Path | Mapping[str, "Dataset[Any]"],
    options: DataOptions | None = None,
    draw: bool = True,
    like: Like | None = None,
) -> ImageSet:
    """Checked data from a folder, a CSV table, a name of :data:`convfabric.data.named.NAMES`, or data sets by split.

    Files without a split of their own are drawn into train, val and test; without ``draw`` they are one split, all.
    ``like`` gives the order of classes, where they are the same ones, and the bounds of pixels of more than 8 bits,
    for a network that was trained already.

    Raises DataError that names the file and the value for everything that cannot be used.

    >>> digits = open_data("digits")
    >>> len(digits.splits["train"]), digits.preprocessing.size
    (1259, (8, 8))
    """
    options = options or DataOptions()
    reopened = cache(lambda size: _opened(source, replace(options, size=size), draw, like))
    return replace(_opened(source, options, draw, like), reopened=reopened)


def _opened(
    source: str | Path | Mapping[str, "Dataset[Any]"], options: DataOptions, draw: bool, like: Like | None
) -> ImageSet:
    if isinstance(source, Mapping):
        return arrays.from_datasets(source, options)
    if not isinstance(source, str | Path):
        raise DataError(f"{type(source).__name__}: give data sets by split, {{'train': ..., 'val': ...}}.")
    if str(source) in named.NAMES and not Path(source).exists():
        folder = Path(options.data_dir) if options.data_dir else None
        splits, classes = named.read_named(str(source), folder, options.download, options.split_seed)
        notes = ["val drawn from train" if str(source) != "digits" else "test and val drawn"]
        notes = [f"{notes[0]} with seed {options.split_seed}"]
        found = arrays.from_arrays(str(source), splits, classes, options, notes)
        return replace(found, written=str(source) in named.WRITTEN)
    try:
        return _from_files(Path(source), options, draw, like)
    except DataError:
        raise
    except (OSError, ValueError) as fault:
        raise DataError(f"{str(source)[:200]}: cannot be read ({str(fault)[:200]}).") from None


def task_of(source: str, options: DataOptions | None = None) -> Task:
    """What images in a folder, a table or a named set are for, as their files say; nothing of them is read.

    >>> task_of("digits")
    'classification'
    """
    if source in named.NAMES and not Path(source).exists():
        return "classification"
    return find_listing(Path(source), options.task if options else None).task


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What images are, before they are read."""

    task: Task
    size: Size
    """That they are brought to unless told otherwise."""
    channels: int
    classes: int | None
    """None where only the pixels of masks would say it."""


def outlook(source: str, options: DataOptions) -> Outlook:
    """What images in a folder, a table or a named set are, as the heads of their files say.

    Raises DataError for what no images are.

    >>> outlook("digits", DataOptions())
    Outlook(task='classification', size=(8, 8), channels=1, classes=10)
    """
    if source in named.NAMES and not Path(source).exists():
        return seen_in(open_data(source, options))
    files = find_listing(Path(source), options.task)
    looks = checking.survey([item for items in files.splits.values() for item in items])
    reading = _reading(Path(source), files, looks, options, None)[0]
    classes = len(files.classes or reading.names) or None
    return Outlook(task=files.task, size=reading.size, channels=reading.channels, classes=classes)


def seen_in(data: ImageSet) -> Outlook:
    """The same of data that are open."""
    seen, classes = data.preprocessing, len(data.classes)
    return Outlook(task=data.task, size=seen.size, channels=seen.channels, classes=classes)


def find_listing(root: Path, task: Task | None = None) -> Listing:
    """The files of a data set: under a folder, in a table, or in a COCO file.

    Raises DataError that says what was found and what is accepted, of everything that is wrong at once, and where they
    are for another task than the one that is said.
    """
    found = _found_listing(root, task)
    if task and found.task != task:
        raise DataError(
            f"{root}: its files are for {found.task}, not for {task}; boxes are read from COCO .json files."
        )
    return found


def _found_listing(root: Path, task: Task | None) -> Listing:
    if root.is_file() and root.suffix.lower() in TABLES:
        return from_table(root)
    if root.is_file() and root.suffix.lower() == ".json":
        return coco.from_coco(root, task)
    if not root.is_dir():
        found = (
            "neither a folder nor a table (.csv, .tsv, COCO .json)" if root.exists() else "no such folder or CSV file"
        )
        raise DataError(f"{root}: {found}.")
    if part_labels.is_part_labels(root):
        return part_labels.from_part_labels(root)
    splits = layouts.split_folders(root)
    if files := coco.coco_files(splits):
        if without := sorted(set(splits) - set(files)):
            raise DataError(f"{splits[without[0]]}: no {coco.OF_ROBOFLOW}, which other splits have.")
        return coco.from_coco_files(files, task)
    return layouts.listed(root)


def _from_files(root: Path, options: DataOptions, draw: bool, like: Like | None) -> ImageSet:
    files = find_listing(root, options.task)
    files = with_classes(files, like[0]) if like else files
    every = [item for items in files.splits.values() for item in items]
    if not every:
        raise DataError(f"{root}: no images. {layouts.ACCEPTED}")
    if draw:
        with_splits(files, options.split_seed)
    looks = checking.survey(every)
    reading, notes = _reading(root, files, looks, options, like[1] if like else None)
    held = (
        len(every) * reading.size[0] * reading.size[1] * (reading.channels + (files.task == "segmentation"))
        <= options.hold_mb * 1e6
    )
    images, answers, glance = (
        checking.read_all(every, reading) if held else (None, None, checking.check_all(every, reading))
    )
    classes = files.classes or reading.names
    if files.task == "segmentation" and not classes:
        count, said = checking.mask_classes(glance.met, options.ignore, root)
        classes, notes = tuple(f"class {i}" for i in range(count)), [*notes, *said]
    if glance.met.get(options.ignore):
        notes.append(f"mask value {options.ignore} is ignored, as in {glance.met[options.ignore]}")
    checking.check_not_constant(root.name, glance.pictures, [item.label for item in every], classes)
    drawn: list[str] = []
    if draw:
        files, drawn = with_splits(files, options.split_seed, glance.pictures)
    place = {item: at for at, item in enumerate(every)}
    order = {split: [place[item] for item in items] for split, items in files.splits.items()}
    pictures = [glance.pictures[at] for here in order.values() for at in here]
    copies = check_copies(files, pictures, options.copies == "keep")
    digest, splits = hashlib.sha256(), dict[str, Split]()
    for split, here in order.items():
        if files.task != "classification":
            what = "pixel" if files.task == "segmentation" else "box"
            notes += checking.said_absent(split, [glance.values[at] for at in here], classes, what)
        if images is not None and answers is not None:
            splits[split] = arrays.held(images[here], answers[here])
            digest.update(images[here].tobytes() + answers[here].tobytes())
        else:
            splits[split] = StreamedSplit(_Files(files.splits[split], reading), len(here), options.workers)
            digest.update(b"".join(glance.digests[at] for at in here))
    statistics = arrays.preprocessing(next(iter(splits.values())), reading.size, reading.channels, reading.fitting)
    return ImageSet(
        name=root.name,
        task=files.task,
        classes=classes,
        preprocessing=replace(statistics, bounds=reading.bounds),
        splits=splits,
        counts=files.counts("train"),
        ignore=options.ignore,
        digest=digest.hexdigest()[:16],
        notes=(
            *files.notes,
            *drawn,
            *notes,
            *copies,
            *checking.said_rules(glance.rules),
            "held in memory" if held else "read from disk as needed",
        ),
        files={name: tuple(str(item.image) for item in items) for name, items in files.splits.items()},
    )


def _reading(
    root: Path, files: Listing, looks: Sequence[Look], options: DataOptions, bounds: Bounds | None
) -> tuple[Reading, list[str]]:
    """How the files are read, as far as it is not said by what the images are, and what has to be told."""
    channels, notes = (1 if options.read_as == "grey" else 3), list[str]()
    if not options.read_as:
        channels, notes = checking.inferred_channels(looks)
    size, said = (options.size, []) if options.size else checking.inferred_size(looks, files.task)
    spans = [look.span for look in looks if look.span]
    bounds = bounds or (usual_bounds(spans) if spans else SIXTEEN_BITS)
    masks = [item.mask for items in files.splits.values() for item in items if isinstance(item.mask, Path)]
    coding, names, told = Coding(), tuple[str, ...](), list[str]()
    if files.colours:
        coding = Coding(files.colours)
    elif masks:
        coding, names, told = coding_of(masks, found_table(root, options.colours), options.ignore, options.binary_masks)
    known = files.classes or names
    reading = Reading(
        size=size,
        channels=channels,
        fitting=options.fitting or ("cover" if files.task == "classification" else "stretch"),
        ignore=options.ignore,
        classes=len(known) or None if files.task == "segmentation" else None,
        coding=coding,
        names=names,
        bounds=bounds,
        boxes=max((len(item.boxes.rows) for items in files.splits.values() for item in items if item.boxes), default=0),
    )
    return reading, [*notes, *said, *told]


class _Files(Dataset[tuple[Tensor, Tensor]]):
    """Items read when asked for."""

    def __init__(self, items: Sequence[Item], reading: Reading) -> None:
        self.items, self.reading = items, reading

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, answer, _ = self.reading.read(self.items[position])
        return torch.from_numpy(image.copy()).permute(2, 0, 1), torch.as_tensor(answer)
