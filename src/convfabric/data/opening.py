"""Data as users name them, opened: a folder, a table, a name, or data sets from Python."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from convfabric.data import checking, layouts, named
from convfabric.data.checking import Pixels, Reading
from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing, Split, StreamedSplit
from convfabric.data.layouts import Item, Listing
from convfabric.data.options import DataOptions, Fitting
from convfabric.data.reading import fitted_array
from convfabric.errors import DataError
from convfabric.graph import Task
from convfabric.operators import Size

STATISTICS_FROM = 10_000


def open_data(
    source: str | Path | Mapping[str, "Dataset[Any]"], options: DataOptions | None = None, draw: bool = True
) -> ImageSet:
    """Checked data from a folder, a CSV table, a name of :data:`convfabric.data.named.NAMES`, or data sets by split.

    Files without a split of their own are drawn into train, val and test; without ``draw`` they are one split, all.

    Raises DataError that names the file and the value for everything that cannot be used.

    >>> digits = open_data("digits")
    >>> len(digits.splits["train"]), digits.preprocessing.size
    (1259, (8, 8))
    """
    options = options or DataOptions()
    if isinstance(source, Mapping):
        return _from_arrays("datasets", _arrays_of(source), _class_names_of(source), options, [])
    if not isinstance(source, str | Path):
        raise DataError(f"{type(source).__name__}: give data sets by split, {{'train': ..., 'val': ...}}.")
    if str(source) in named.NAMES and not Path(source).exists():
        folder = Path(options.data_dir) if options.data_dir else None
        arrays, classes = named.read_named(str(source), folder, options.download, options.split_seed)
        notes = ["val drawn from train" if str(source) != "digits" else "test and val drawn"]
        found = _from_arrays(str(source), arrays, classes, options, [f"{notes[0]} with seed {options.split_seed}"])
        return replace(found, written=str(source) in named.WRITTEN)
    return _from_files(Path(source), options, draw)


def _from_files(root: Path, options: DataOptions, draw: bool) -> ImageSet:
    files = layouts.find_listing(root)
    notes: list[str] = []
    if draw:
        files, notes = layouts.with_splits(files, options.split_seed)
    looks = checking.survey(files)
    if not looks:
        raise DataError(f"{root}: no images. {layouts.ACCEPTED}")
    channels, said = (
        (1 if options.read_as == "grey" else 3, []) if options.read_as else checking.inferred_channels(looks)
    )
    notes += said
    size, said = (options.size, []) if options.size else checking.inferred_size(looks, files.task)
    notes += said
    reading = Reading(
        size=size,
        channels=channels,
        fitting=options.fitting or ("cover" if files.task == "classification" else "stretch"),
        ignore=options.ignore,
        binary_masks=options.binary_masks,
        classes=len(files.classes) or None if files.task == "segmentation" else None,
    )
    held = len(looks) * size[0] * size[1] * (channels + (files.task == "segmentation")) <= options.hold_mb * 1e6
    splits, rules, met, digest = _read_splits(root, files, reading, held, options.workers)
    classes = files.classes
    if files.task == "segmentation" and not classes:
        classes = tuple(f"class {i}" for i in range(checking.mask_classes(met, options.ignore, root)))
    return ImageSet(
        name=root.name,
        task=files.task,
        classes=classes,
        preprocessing=_preprocessing(next(iter(splits.values())), size, channels, reading.fitting),
        splits=splits,
        ignore=options.ignore,
        digest=digest,
        notes=(*notes, *checking.said_rules(rules), "held in memory" if held else "read from disk as needed"),
        files={name: tuple(str(item.image) for item in items) for name, items in files.splits.items()},
    )


def _read_splits(
    root: Path, files: Listing, reading: Reading, held: bool, workers: int
) -> tuple[dict[str, Split], list[str], checking.Met, str]:
    """The splits, the rules applied, mask values and a digest; DataError with what is wrong in any of the files."""
    splits: dict[str, Split] = {}
    if empty := [name for name, items in files.splits.items() if not items]:
        raise DataError(f"{empty[0]}: no images.")
    every, digest, first = [item for items in files.splits.values() for item in items], hashlib.sha256(), 0
    if held:
        images, answers, rules = checking.read_all(every, reading)
        met = checking.values_met(every, answers) if files.task == "segmentation" and not files.classes else {}
    else:
        rules, met, digests = checking.check_all(every, reading)
    for name, items in files.splits.items():
        here = slice(first, first + len(items))
        first += len(items)
        if held:
            splits[name] = _held(images[here], answers[here])
            digest.update(images[here].tobytes() + answers[here].tobytes())
        else:
            splits[name] = StreamedSplit(_Files(items, reading), len(items), workers)
            digest.update(b"".join(digests[here]))
    return splits, rules, met, digest.hexdigest()[:16]


class _Files(Dataset[tuple[Tensor, Tensor]]):
    """Items read when asked for."""

    def __init__(self, items: Sequence[Item], reading: Reading) -> None:
        self.items, self.reading = items, reading

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        image, answer, _ = self.reading.read(self.items[position])
        return torch.from_numpy(image.copy()).permute(2, 0, 1), torch.as_tensor(answer)


def _held(images: Pixels, answers: NDArray[Any]) -> HeldSplit:
    return HeldSplit(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(answers))


def _preprocessing(train: Split, size: Size, channels: int, fitting: Fitting | str) -> Preprocessing:
    """Mean and spread of each channel over at most so many training images, evenly taken."""
    stride = max(1, len(train) // STATISTICS_FROM)
    chosen = list(range(0, len(train), stride))
    count, total, squares = 0, torch.zeros(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    for images, _ in train.batches([chosen[i : i + 256] for i in range(0, len(chosen), 256)]):
        pixels = images.double() / 255
        count += pixels.numel() // channels
        total += pixels.sum((0, 2, 3))
        squares += pixels.square().sum((0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=1e-6).sqrt()
    rounded = [tuple(round(v, 6) for v in values.tolist()) for values in (mean, std)]
    return Preprocessing(size=size, channels=channels, fitting=fitting, mean=rounded[0], std=rounded[1])  # type: ignore[arg-type]


def _from_arrays(
    name: str,
    arrays: Mapping[str, tuple[Pixels, NDArray[Any]]],
    classes: tuple[str, ...],
    options: DataOptions,
    notes: list[str],
) -> ImageSet:
    first, answers = arrays["train"]
    task: Task = "classification" if answers.ndim == 1 else "segmentation"
    size = options.size or (first.shape[1], first.shape[2])
    fitting: Fitting = options.fitting or ("cover" if task == "classification" else "stretch")
    digest, splits = hashlib.sha256(), {}
    for split, (images, labels) in arrays.items():
        given = images.shape[1], images.shape[2]
        if size != given and task == "segmentation":
            raise DataError(
                f"{split} of {name}: {given[0]}×{given[1]} pixels; masks given from Python keep their size, "
                f"so resize both to {size[0]}×{size[1]} beforehand."
            )
        if size != given:
            notes = [*notes, f"{split}: images of {given[0]}×{given[1]} pixels brought to {size[0]}×{size[1]}"]
        fitted = np.stack([fitted_array(image, size, fitting) for image in images])
        splits[split] = _held(fitted, labels)
        digest.update(fitted.tobytes() + labels.tobytes())
    if not classes:
        met = set(np.unique(answers).tolist()) - ({options.ignore} if task == "segmentation" else set())
        classes = tuple(f"class {i}" for i in range(max(met) + 1))
    if len(classes) < 2:
        raise DataError(f"{name}: one class only; at least two are needed.")
    return ImageSet(
        name=name,
        task=task,
        classes=classes,
        preprocessing=_preprocessing(splits["train"], size, first.shape[3], fitting),
        splits=splits,
        ignore=options.ignore,
        digest=digest.hexdigest()[:16],
        notes=tuple(notes),
    )


def _arrays_of(datasets: Mapping[str, "Dataset[Any]"]) -> dict[str, tuple[Pixels, NDArray[Any]]]:
    """Images (N, H, W, C) and answers of map-style data sets that give (image, label or mask)."""
    if not {"train", "val"} <= set(datasets) <= {"train", "val", "test"}:
        raise DataError(f"data sets for {', '.join(datasets)}: train and val are needed, and test where there is one.")
    return {name: _array_of(name, dataset) for name, dataset in datasets.items()}


def _array_of(name: str, dataset: Any) -> tuple[Pixels, NDArray[Any]]:
    images, answers = [], []
    for position in range(len(dataset)):
        image, answer = dataset[position]
        images.append(_pixels(image, f"{name}[{position}]"))
        answers.append(np.asarray(answer))
    if len({image.shape for image in images}) != 1:
        raise DataError(f"{name}: images of {len({image.shape for image in images})} shapes; give one, or a folder.")
    stacked = np.stack(answers)
    return np.stack(images), stacked.astype(np.int64 if stacked.ndim == 1 else np.uint8)


def _pixels(image: Any, where: str) -> Pixels:
    """uint8 (H, W, C) of a Pillow image, an array (H, W) or (H, W, C), or a tensor (C, H, W)."""
    array = image.permute(1, 2, 0).numpy() if isinstance(image, Tensor) else np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim != 3:
        raise DataError(f"{where}: {array.dtype} of shape {array.shape}; uint8, or floats from 0 to 1, are read.")
    return array


def _class_names_of(datasets: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in getattr(datasets["train"], "classes", ())) if "train" in datasets else ()
