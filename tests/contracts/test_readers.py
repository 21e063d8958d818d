"""What every layout of data keeps to once it is opened: folders, tables, names, and data sets from Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from folders import class_folders, mask_folders, picture


def table(root: Path, kind: str) -> Path:
    """A CSV file beside its images."""
    rows = [f"path,{kind},split"]
    for i in range(12):
        picture(root / f"{i}.png", colour=(200, 30, 30) if i % 2 else (30, 30, 200), seed=i)
        Image.fromarray(np.full((12, 16), i % 2, np.uint8)).save(root / f"m{i}.png")
        answer = ("red" if i % 2 else "blue") if kind == "label" else f"m{i}.png"
        rows.append(f"{i}.png,{answer},{'train' if i < 8 else 'val'}")
    (root / "table.csv").write_text("\n".join(rows))
    return root / "table.csv"


def from_python(root: Path) -> dict[str, Any]:
    dice = np.random.default_rng(0)
    return {
        name: [(dice.integers(0, 256, (12, 16, 3), np.uint8), i % 2) for i in range(8)] for name in ("train", "val")
    }


LAYOUTS: dict[str, Callable[[Path], Any]] = {
    "folders by split": class_folders,
    "one folder a class": lambda root: class_folders(root, splits=()),
    "images and masks": mask_folders,
    "a table of labels": lambda root: table(root, "label"),
    "a table of masks": lambda root: table(root, "mask"),
    "a name": lambda root: "digits",
    "data sets from Python": from_python,
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def whole(data: ImageSet, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    [batch] = data.splits[split].batches([list(range(len(data.splits[split])))])
    return batch


@every_layout
def test_images_and_answers_are_as_training_needs_them(layout: str, tmp_path: Path) -> None:
    data = open_data(LAYOUTS[layout](tmp_path))
    height, width = data.preprocessing.size
    assert {"train", "val"} <= set(data.splits)
    assert len(data.classes) >= 2
    for split in data.splits:
        images, targets = whole(data, split)
        assert images.dtype == torch.uint8
        assert images.shape == (len(data.splits[split]), data.preprocessing.channels, height, width)
        labels = data.task == "classification"
        assert targets.dtype == (torch.int64 if labels else torch.uint8)
        assert targets.shape == (images.shape[:1] if labels else (len(images), height, width))
        assert set(targets.unique().tolist()) - {data.void} <= set(range(len(data.classes)))
    train = data.preprocessing.normalised(whole(data, "train")[0])
    assert train.mean().abs() < 0.1
    assert abs(float(train.std()) - 1) < 0.2


@every_layout
def test_the_same_data_have_the_same_digest_and_any_order_of_batches(layout: str, tmp_path: Path) -> None:
    source = LAYOUTS[layout](tmp_path)
    data = open_data(source)
    assert open_data(source).digest == data.digest
    images, targets = whole(data, "train")
    [(one, answer)] = data.splits["train"].batches([[3, 1]])
    assert torch.equal(one, images[[3, 1]])
    assert torch.equal(answer, targets[[3, 1]])


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "name" not in name and "Python" not in name])
def test_what_is_read_as_needed_is_what_would_be_held(layout: str, tmp_path: Path) -> None:
    source = LAYOUTS[layout](tmp_path)
    held, read = open_data(source), open_data(source, DataOptions(hold_mb=0, workers=0))
    for split in held.splits:
        assert all(map(torch.equal, whole(held, split), whole(read, split)))
