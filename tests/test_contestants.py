"""Networks that are no fabrics train for the benchmarks by our recipe, whatever the data."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from convfabric.data.opening import open_data
from convfabric.training.recipe import Recipe
from folders import class_folders, mask_folders
from plain import train_plain


@pytest.mark.parametrize("data", ["digits", "two classes of photographs", "masks"])
def test_a_plain_network_is_trained_on_any_data(data: str, tmp_path: Path) -> None:
    made = {"two classes of photographs": class_folders, "masks": mask_folders}
    images = open_data(made[data](tmp_path) if data in made else data)
    channels, classes = images.preprocessing.channels, len(images.classes)
    ends = [] if images.task == "segmentation" else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(nn.Conv2d(channels, classes, 3, padding=1), *ends)
    before = network[0].weight.detach().clone()
    train_plain(network, images, Recipe(epochs=1, batch=2, lr=0.1))
    assert not torch.equal(network[0].weight, before)


@pytest.mark.parametrize(
    "script", sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py")), ids=lambda f: f.stem
)
def test_every_benchmark_can_be_read_by_python_as_the_package_is_now(script: Path) -> None:
    try:
        spec = importlib.util.spec_from_file_location(f"_{script.stem}", script)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except ModuleNotFoundError as lacking:
        if lacking.name and not lacking.name.startswith("convfabric"):
            pytest.skip(f"{script.name} needs {lacking.name}, which benchmarks alone use")
        raise
