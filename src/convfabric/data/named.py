"""Data sets by name: scikit-learn's digits, always there, and torchvision's, from a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from convfabric.data.splits import TEST_SHARE, VAL_SHARE, drawn
from convfabric.errors import DataError

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images (N, H, W, C) and labels (N,)."""

TORCHVISION: Mapping[str, str] = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
NAMES = ("digits", *TORCHVISION)
WRITTEN = frozenset({"digits", "mnist"})
"""Sets of written signs."""


def read_named(name: str, folder: Path | None, download: bool, seed: int) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """The splits train, val and test of a named set, and its classes.

    val is drawn from train with the seed, the same share of each class; digits, which come as one
    set, are drawn thrice. Raises DataError where the files are missing and no download was asked for.

    >>> splits, classes = read_named("digits", None, download=False, seed=0)
    >>> splits["test"][0].shape, classes[:3]
    ((269, 8, 8, 1), ('0', '1', '2'))
    """
    if name == "digits":
        whole = _digits()
        test, rest = _drawn(whole, TEST_SHARE, seed)
        val, train = _drawn(rest, VAL_SHARE / (1 - TEST_SHARE), seed)
        return {"train": train, "val": val, "test": test}, tuple("0123456789")
    if folder is None:
        raise DataError(f"{name}: say with --data-dir where it lies.")
    train, classes = _from_torchvision(name, folder, True, download)
    test, _ = _from_torchvision(name, folder, False, download)
    val, train = _drawn(train, 1 / 12 if "mnist" in name else 0.1, seed)
    return {"train": train, "val": val, "test": test}, classes


def _digits() -> Arrays:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)
    return pixels[..., None], found.target.astype(np.int64)


def _from_torchvision(name: str, folder: Path, train: bool, download: bool) -> tuple[Arrays, tuple[str, ...]]:
    from torchvision import datasets

    kind: Any = getattr(datasets, TORCHVISION[name])
    try:
        found = kind(root=str(folder), train=train, download=download)
    except RuntimeError as fault:
        raise DataError(f"{folder}: {name} is not there ({fault}) --download fetches it.") from None
    images = np.asarray(found.data, dtype=np.uint8)
    labels = torch.as_tensor(found.targets).numpy().astype(np.int64)
    classes = tuple(str(c).split(" - ")[0] for c in found.classes)
    return (images[..., None] if images.ndim == 3 else images, labels), classes


def _drawn(arrays: Arrays, share: float, seed: int) -> tuple[Arrays, Arrays]:
    images, labels = arrays
    taken, rest = drawn(range(len(labels)), share, seed, labels.tolist())
    return (images[list(taken)], labels[list(taken)]), (images[list(rest)], labels[list(rest)])
