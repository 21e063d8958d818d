"""Which shape of a fabric learns most for its cost: graphs on the same grid, trained whole by one recipe.

    python benchmarks/shapes.py --data cifar10-jpeg --tera 10 --work WORK         resumable, network by network

Each has the same multiply-accumulates, forward × images × 3; the more of them an image takes, the fewer epochs.
They are judged on validation images; the test split is not read.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
import yaml

from cifar import fewer
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.execution.allocation import keep_memory
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.setting_values import parsed_size
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import write_record
from timed import timed_fabric

WAY_DOWN = {"layers": 2, "delay": 2, "scales": 4, "head": "all", "doubling": True}
SHAPES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "every scale in every layer": ("fabric-small", {}),
    "the same, half as fine": ("fabric-small", {"finest": 1, "channels": 32}),
    "band": ("trellis", {**WAY_DOWN, "delay": 1, "channels": 16, "operators": "shortcut"}),
    "way down": ("trellis", {**WAY_DOWN, "channels": 16, "operators": "shortcut"}),
    "way down, wider": ("trellis", {**WAY_DOWN, "channels": 20, "operators": "shortcut"}),
    "way down, pooled": ("trellis", {**WAY_DOWN, "channels": 12, "operators": "shortcut", "down": "pooled"}),
    "way down, pooled, wider": ("trellis", {**WAY_DOWN, "channels": 16, "operators": "shortcut", "down": "pooled"}),
    "way down, no shortcuts": ("trellis", {**WAY_DOWN, "channels": 16, "operators": "plain"}),
    "way down, two in a branch": ("trellis", {**WAY_DOWN, "channels": 14, "operators": "residual"}),
    "ResNet-20": ("resnet", {"blocks": (3, 3, 3), "channels": 12}),
    "ResNet, four stages of a block": ("resnet", {"blocks": (1, 1, 1, 1), "channels": 16}),
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", required=True, help="folder of images by split and class")
    words.add_argument("--size", help="pixels on a side, where images differ")
    words.add_argument("--images", type=int, default=0, help="of training; 0: all")
    words.add_argument("--tera", type=float, default=10.0, help="10^12 multiply-accumulates for each network")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--rate", type=float, default=0.2)
    words.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="of the recipe, such as outside=black"
    )
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--work", type=Path, default=Path("runs/shapes"))
    words.add_argument("--only", nargs="*", default=list(SHAPES))
    said = words.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    data = fewer(open_data(said.data, DataOptions(size=parsed_size(said.size) if said.size else None)), said.images)
    rows = []
    for name in said.only:
        network, numbers = SHAPES[name]
        size, channels = data.preprocessing.size, data.preprocessing.channels
        graph = weave(network, size=size, classes=len(data.classes), image_channels=channels, **numbers)
        rows.append({"shape": name, "network": network} | trained(said, data, graph, name))
        print(rows[-1], flush=True)
    images = f"{len(data.splits['train']):,} training images of {data.preprocessing.size[0]} pixels"
    told = " ".join([*said.set, "seeds", ", ".join(map(str, said.seeds))])
    how = f"{said.tera:g} T each, batch {said.batch}, rate {said.rate}, {told}"
    sentences = [
        f"{data.name}, {images}; the whole network alone, {how}; bfloat16 where it is fast, one thread.",
        "Mean over seeds of the accuracy on validation images, and their standard deviation where there are several.",
    ]
    named = "-".join([data.name.lower().replace(" ", "-"), str(said.images or "whole"), *said.set]).replace(".", "")
    print(write_record(f"shapes-{named}", sentences, rows))


def trained(said: argparse.Namespace, data: ImageSet, graph: Graph, name: str) -> dict[str, object]:
    """What a graph has after the cost, over seeds."""
    macs = costs(graph, data.preprocessing.size).macs
    epochs = max(1, round(said.tera * 1e12 / (3 * macs * len(data.splits["train"]))))
    found, minutes = [], 0.0
    for seed in said.seeds:
        recipe = Recipe(epochs=epochs, batch=said.batch, lr=said.rate, label_smoothing=0.1, give_up=0.0, seed=seed)
        recipe = recipe.changed(
            **{name: yaml.safe_load(value) for name, value in (word.split("=") for word in said.set)}
        )
        folder = said.work / "-".join([name.replace(" ", "-").replace(",", ""), *said.set, str(seed)])
        fabric, (cpu, _) = timed_fabric(graph, fewer(data, 500, "val"), recipe, folder, "cpu")
        found.append(score(fabric, data, "val"))
        minutes += cpu / len(said.seeds)
    accuracy = [100 * one.accuracy for one in found]
    spread = f" ± {pstdev(accuracy):.2f}" if len(accuracy) > 1 else ""
    return {
        "M MACs": round(macs / 1e6, 1),
        "epochs": epochs,
        "val %": f"{fmean(accuracy):.2f}{spread}",
        "balanced %": f"{100 * fmean(one.balanced_accuracy or 0.0 for one in found):.2f}",
        "CPU minutes": round(minutes, 1),
    }


if __name__ == "__main__":
    main()
