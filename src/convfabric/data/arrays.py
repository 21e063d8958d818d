"""Data sets from Python, and arrays in memory, held to what files are held to."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from convfabric.data.checking import check_not_constant, picture_digest
from convfabric.data.faults import refuse
from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing, Split
from convfabric.data.layouts import Item, Listing, check_classes
from convfabric.data.options import DataOptions, Fitting
from convfabric.data.reading import Pixels, fitted_array, flattened, scaled, upright_ways, usual_bounds
from convfabric.data.splits import check_copies
from convfabric.errors import DataError
from convfabric.graph import Task
from convfabric.operators import Size

STATISTICS_FROM = 10_000
PLAIN = ("L", "RGB", "I", "F", "I;16")
"""Modes of Pillow's images whose numbers are taken as they are."""
IMAGES = ("image", "img", "pixel_values")
ANSWERS = ("label", "labels", "mask", "annotation", "fine_label", "target")
"""Names of the image and of its answer in samples that are dictionaries, the first that is there."""
Arrays = Mapping[str, tuple[Pixels, NDArray[Any]]]
"""Of each split images (N, H, W, C), and labels (N,) or masks (N, H, W)."""


def held(images: Pixels, answers: NDArray[Any]) -> HeldSplit:
    """A split in memory, of images (N, H, W, C) and labels (N,) or masks (N, H, W).

    >>> len(held(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1])))
    2
    """
    return HeldSplit(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(answers))


def preprocessing(train: Split, size: Size, channels: int, fitting: Fitting | str) -> Preprocessing:
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


def from_datasets(datasets: Mapping[str, "Dataset[Any]"], options: DataOptions) -> ImageSet:
    """The data of map-style data sets that give (image, label or mask), or dictionaries of them.

    Images are Pillow's, arrays (H, W) or (H, W, C), or tensors (C, H, W): uint8, other integers, whose range is
    measured, or floats from 0 to 1. Labels are whole numbers from 0, masks (H, W) hold such. Raises DataError that
    names position and value.
    """
    if not {"train", "val"} <= set(datasets) <= {"train", "val", "test"}:
        raise DataError(f"data sets for {', '.join(datasets)}: train and val are needed, and test where there is one.")
    named = {split: _class_names(one) for split, one in datasets.items()}
    classes = named["train"]
    if odd := [split for split, names in named.items() if names and names != classes]:
        raise DataError(
            f"{odd[0]}: classes {', '.join(named[odd[0]])}; train has {', '.join(classes) or 'none named'}."
        )
    if options.read_as:
        raise DataError(f"read_as={options.read_as}: of files only; data sets from Python give channels as they are.")
    read = {split: _read(split, datasets[split]) for split in ("train", "val", "test") if split in datasets}
    kinds = {answer.ndim for _, answers in read.values() for answer in answers}
    if len(kinds) > 1:
        raise DataError("data sets: some answers are labels and some are masks.")
    images, notes = _as_pixels({split: found for split, (found, _) in read.items()})
    binary = options.binary_masks
    arrays = {s: (images[s], _answers(s, answers, images[s], binary)) for s, (_, answers) in read.items()}
    return from_arrays("datasets", arrays, classes, options, notes)


def from_arrays(
    name: str, arrays: Arrays, classes: tuple[str, ...], options: DataOptions, notes: Sequence[str]
) -> ImageSet:
    """The data in arrays, brought to one size and checked."""
    first, answers = arrays["train"]
    task: Task = "classification" if answers.ndim == 1 else "segmentation"
    size = options.size or (first.shape[1], first.shape[2])
    fitting: Fitting = options.fitting or ("cover" if task == "classification" else "stretch")
    classes = classes or _counted(arrays, options.ignore if task == "segmentation" else None)
    digest, splits, told = hashlib.sha256(), dict[str, Split](), list(notes)
    pictures = list[bytes | None]()
    for split, (images, labels) in arrays.items():
        _check_answers(split, labels, len(classes), options.ignore if task == "segmentation" else None)
        given = images.shape[1], images.shape[2]
        if size != given and task == "segmentation":
            raise DataError(
                f"{split} of {name}: {given[0]}×{given[1]} pixels; masks given from Python keep their size, "
                f"so resize both to {size[0]}×{size[1]} beforehand."
            )
        if size != given:
            told.append(f"{split}: images of {given[0]}×{given[1]} pixels brought to {size[0]}×{size[1]}")
        fitted = np.stack([fitted_array(image, size, fitting) for image in images])
        splits[split] = held(fitted, labels)
        pictures += [picture_digest(image) for image in fitted]
        digest.update(fitted.tobytes() + labels.tobytes())
    listing = Listing(task=task, classes=classes, splits={split: _items(split, a) for split, (_, a) in arrays.items()})
    if task == "classification":
        check_classes(listing, name)
    elif len(classes) < 2:
        raise DataError(f"{name}: one class only; at least two are needed.")
    check_not_constant(name, pictures, [item.label for items in listing.splits.values() for item in items], classes)
    return ImageSet(
        name=name,
        task=task,
        classes=classes,
        preprocessing=preprocessing(splits["train"], size, first.shape[3], fitting),
        splits=splits,
        counts=listing.counts("train"),
        ignore=options.ignore,
        digest=digest.hexdigest()[:16],
        notes=(*told, *check_copies(listing, pictures, options.copies == "keep" or name != "datasets")),
    )


def _items(split: str, answers: NDArray[Any]) -> tuple[Item, ...]:
    """Items that stand for positions of a data set."""
    labels = answers.tolist() if answers.ndim == 1 else [-1] * len(answers)
    return tuple(Item(image=Path(f"{split}[{at}]"), label=label) for at, label in enumerate(labels))


def _counted(arrays: Arrays, ignore: int | None) -> tuple[str, ...]:
    """Names of classes that are counted, as many as answers name."""
    met = {int(value) for _, answers in arrays.values() for value in np.unique(answers)} - {ignore}
    return tuple(f"class {i}" for i in range(max(met, default=-1) + 1))


def _check_answers(split: str, answers: NDArray[Any], classes: int, ignore: int | None) -> None:
    """DataError for a label, or a value in a mask, that is no class."""
    odd = (answers < 0) | (answers >= classes)
    odd &= np.ones_like(odd) if ignore is None else answers != ignore
    positions = np.flatnonzero(odd.reshape(len(odd), -1).any(1))
    refuse(
        [
            f"{split}[{at}]: {'label' if ignore is None else 'mask value'} {np.asarray(answers[at])[odd[at]].flat[0]}; "
            f"there are {classes} classes, 0 to {classes - 1}."
            for at in positions.tolist()
        ]
    )


def _read(split: str, dataset: Any) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Every image and answer of a data set as arrays; DataError names the positions of those that are neither."""
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        lacks = "length" if hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") else "items by position"
        raise DataError(f"{split}: {type(dataset).__name__} has no {lacks}; map-style data sets are read.")
    if len(dataset) == 0:
        raise DataError(f"{split}: no images.")
    images, answers, faults = list[NDArray[Any]](), list[NDArray[Any]](), list[str]()
    for position in range(len(dataset)):
        where = f"{split}[{position}]"
        try:
            image, answer = _pair(dataset[position])
        except Exception as fault:  # the data set is the user's, and may raise anything
            faults.append(f"{where}: gives no image and answer ({type(fault).__name__}: {fault}).")
            continue
        try:
            images.append(_image(image, where))
            answers.append(_answer(answer, where))
        except DataError as fault:
            faults.append(str(fault))
    refuse(faults)
    return images, answers


def _pair(sample: Any) -> tuple[Any, Any]:
    """Image and answer of a sample, which is a pair or has them by name, as Hugging Face's data sets do."""
    if not isinstance(sample, Mapping):
        image, answer = sample
        return image, answer
    kept = [next((name for name in names if name in sample), None) for names in (IMAGES, ANSWERS)]
    if None in kept:
        raise ValueError(f"has {', '.join(map(str, sample))}; read are {', '.join(IMAGES)} and {', '.join(ANSWERS)}")
    return sample[kept[0]], sample[kept[1]]


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Names of the classes of a data set, as torchvision's or Hugging Face's say them; none where it does not."""
    features = getattr(dataset, "features", None) or {}
    said = [getattr(features[name], "names", None) for name in ANSWERS if name in features]
    return tuple(map(str, getattr(dataset, "classes", None) or next(iter(said), None) or ()))


def _image(image: Any, where: str) -> NDArray[Any]:
    """An image as (H, W, C), of whatever numbers it has."""
    if isinstance(image, Image.Image):
        for way in upright_ways(image):
            image = image.transpose(way)
        array = np.asarray(image if image.mode in PLAIN else flattened(image, []))
    else:
        array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
        if array.ndim == 3 and isinstance(image, Tensor):
            if array.shape[0] > 4 and array.shape[2] in (1, 3, 4):
                shape = tuple(array.shape)
                raise DataError(f"{where}: a tensor of shape {shape}; tensors are read as (C, H, W): permute(2, 0, 1).")
            array = array.transpose(1, 2, 0)
    array = array[..., None] if array.ndim == 2 else array
    said = f"{where}: {array.dtype} of shape {array.shape}; "
    if array.ndim != 3 or array.dtype.kind not in "uif" or array.size == 0:
        raise DataError(f"{said}uint8 (H, W) or (H, W, C), tensors (C, H, W), other integers, or floats from 0 to 1.")
    if array.shape[2] > 4 and array.shape[0] in (1, 3, 4) and array.shape[0] < array.shape[1]:
        raise DataError(f"{said}the channels are {array.shape[2]}? Arrays are read as (H, W, C), tensors as (C, H, W).")
    if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(
            f"{said}uint8, or floats from 0 to 1, are read; these are {array.min():g} to {array.max():g}. "
            "Leave out what normalises them: the network does it by itself."
        )
    return array


def _answer(answer: Any, where: str) -> NDArray[Any]:
    """A label as an array without axes, or a mask (H, W); of a label (1,) or a mask (1, H, W) the first axis goes."""
    array = answer.detach().cpu().numpy() if isinstance(answer, Tensor) else np.asarray(answer)
    array = array[0] if array.ndim in (1, 3) and len(array) == 1 else array
    if array.dtype.kind not in "uib" or array.ndim not in (0, 2):
        said = repr(answer) if array.ndim == 0 else f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{where}: answer {said}; a whole number that is a class, or a mask (H, W) of such.")
    if array.ndim == 2 and (array.min() < 0 or array.max() > 255):
        raise DataError(f"{where}: mask values {array.min()} to {array.max()}; class indices from 0 to 255 are read.")
    return np.asarray(array)


def _as_pixels(read: Mapping[str, Sequence[NDArray[Any]]]) -> tuple[dict[str, Pixels], list[str]]:
    """The images of each split as uint8 (N, H, W, C), and what was done to their numbers."""
    notes = []
    for split, images in read.items():
        if len({image.shape for image in images}) != 1:
            told = sorted({f"{'×'.join(map(str, image.shape))}" for image in images})
            raise DataError(f"{split}: images of {len(told)} shapes ({', '.join(told[:3])}); give one, or a folder.")
    if len({images[0].shape[2] for images in read.values()}) != 1:
        raise DataError(
            f"images of {', '.join(f'{images[0].shape[2]} channels in {s}' for s, images in read.items())}."
        )
    every = [image for images in read.values() for image in images]
    wide = [(float(i.min()), float(i.max())) for i in every if i.dtype.kind in "ui" and i.dtype != np.uint8]
    bounds = usual_bounds(wide) if wide else (0.0, 255.0)
    if wide:
        notes.append(f"integers of more than 8 bits: {bounds[0]:g} to {bounds[1]:g} became 0 to 255")
    if any(image.dtype.kind == "f" for image in every):
        notes.append("floats from 0 to 1 became 0 to 255, which the exported file wants too")

    def brought(image: NDArray[Any]) -> Any:
        if image.dtype == np.uint8:
            return image
        return (image * 255).round().astype(np.uint8) if image.dtype.kind == "f" else scaled(image, bounds)

    return {split: np.stack([brought(image) for image in images]) for split, images in read.items()}, notes


def _answers(split: str, answers: Sequence[NDArray[Any]], images: Pixels, binary: bool) -> NDArray[Any]:
    """Labels int64 (N,) or masks uint8 (N, H, W); DataError for a mask that is not as large as its image."""
    size = images.shape[1:3]
    refuse(
        [
            f"{split}[{at}]: a mask of {answer.shape[0]}×{answer.shape[1]}, its image has {size[0]}×{size[1]}."
            for at, answer in enumerate(answers)
            if answer.ndim == 2 and answer.shape != size
        ]
    )
    stacked = np.stack(answers)
    if binary and stacked.ndim == 3:
        if odd := sorted(set(np.unique(stacked).tolist()) - {0, 1, 255}):
            raise DataError(f"{split}: mask value {odd[0]}; binary masks hold 0 and 255 (or 1).")
        stacked = stacked > 0
    return stacked.astype(np.int64 if stacked.ndim == 1 else np.uint8)
