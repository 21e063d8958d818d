"""Classes that are rare: what counting each class more, and each image less, does to a fabric's answers.

    python benchmarks/imbalance.py                                    digits, 3, 6 or 15 of most classes
    python benchmarks/imbalance.py --data DATA/steel --size 96 --few 15 --epochs 60 --seeds 10

The first class keeps all its training images. Accuracy is given over the classes as they are in the test split, which
is read once a network, and as frequent as they are in the training that was made.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

import torch
from torch import Tensor

from convfabric.data.imageset import HeldSplit, ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.baseline import is_chance
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.setting_values import parsed_size
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import write_record

Row = dict[str, object]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", default="digits")
    words.add_argument("--size", help="pixels on a side")
    words.add_argument("--few", type=int, nargs="+", default=[3, 6, 15], help="images of every class but the first")
    words.add_argument("--balances", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    words.add_argument("--network", default="fabric-small")
    words.add_argument("--epochs", type=int, default=40)
    words.add_argument("--batch", type=int, default=16)
    words.add_argument("--lr", type=float, default=0.1)
    words.add_argument("--seeds", type=int, default=4)
    said = words.parse_args()
    torch.set_num_threads(1)
    data = open_data(said.data, DataOptions(size=parsed_size(said.size) if said.size else None))
    rows = []
    for few in said.few:
        made = with_one_frequent(data, few)
        for balance in said.balances:
            rows.append({"few": few, "balance": balance, **figures(list(answers(said, made, balance)))})
            print(rows[-1], flush=True)
    how = f"{said.epochs} epochs, batch {said.batch}, rate {said.lr}, {said.seeds} seeds"
    sentences = [
        f"{data.name}, {said.network}, sub-networks in each step, {how}: mean and standard deviation over seeds.",
        "One class has all its training images, every other one the number that is named; the test split is as it is.",
        "As trained: accuracy were classes as frequent as in training. No better than chance: so many of the networks.",
    ]
    print(write_record(f"imbalance-{data.name.lower()}", sentences, rows))


def with_one_frequent(data: ImageSet, few: int) -> ImageSet:
    """The data with all training images of the first class and a few of each other."""
    batches = list(data.splits["train"].batches([list(range(len(data.splits["train"])))]))
    images, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    kept = [torch.nonzero(targets == one)[: None if one == 0 else few, 0] for one in range(len(data.classes))]
    chosen = torch.cat(kept)
    splits = {**data.splits, "train": HeldSplit(images[chosen], targets[chosen])}
    return replace(data, splits=splits, counts=tuple(map(len, kept)))


def answers(said: argparse.Namespace, data: ImageSet, balance: float) -> Iterator[tuple[float, float, float, bool]]:
    """Of each seed accuracy, balanced accuracy, accuracy at the frequencies of train, and whether it is chance."""
    shares_K: Tensor = torch.tensor(data.counts) / sum(data.counts)
    purpose: Any = {"size": data.preprocessing.size, "image_channels": data.preprocessing.channels}
    for seed in range(said.seeds):
        torch.manual_seed(seed)
        fabric = Fabric(weave(said.network, classes=len(data.classes), **purpose))
        recipe = Recipe(epochs=said.epochs, batch=said.batch, lr=said.lr, subnetworks=1, seed=seed)
        train(fabric, data, recipe.changed(balance=balance, give_up=0.0), device="cpu")
        found = score(fabric, data, "test")
        as_trained = float((shares_K * torch.tensor([share or 0.0 for share in found.recall])).sum())
        yield found.accuracy, found.balanced_accuracy or 0.0, as_trained, is_chance(found)


def figures(found: list[tuple[float, float, float, bool]]) -> Row:
    """Percent, over seeds."""
    accuracy, balanced, as_trained, chance = zip(*found, strict=True)
    kinds = {"test %": accuracy, "balanced %": balanced, "as trained %": as_trained}
    said: Row = {name: f"{100 * fmean(values):.1f} ± {100 * pstdev(values):.1f}" for name, values in kinds.items()}
    return said | {"no better than chance": sum(chance)}


if __name__ == "__main__":
    main()
