"""Maxout, DropConnect, dropout and local response norms, each trained once beside the plain network.

    python benchmarks/regularisers.py --data-dir DIR --seeds 0 1 2

A chain of three convolutions and a hidden layer on MNIST, all else alike; what the lectures name, at a size that a
processor trains in a minute.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch

from cifar import fewer
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph import NORM_AND_RELU, POINT, Graph, Place
from convfabric.graph.costs import costs
from convfabric.operators import (
    Chain,
    Conv,
    Dropout,
    FullyConnected,
    Identity,
    LocalResponseNorm,
    Maxout,
    Norm,
    Operator,
    Relu,
)
from convfabric.training.recipe import Recipe
from convfabric.weavers import Draft, Purpose
from records import RESULTS, write_record
from timed import SIZE, timed_fabric

KINDS = ("plain", "maxout of 2", "DropConnect 0.5", "dropout 0.5", "response norms, no batch norms")
CHANNELS, HIDDEN = (16, 32, 64), 128


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-dir", required=True, help="folder that holds MNIST/raw")
    words.add_argument("--images", type=int, default=5_000, help="of training; 0 for all")
    words.add_argument("--epochs", type=int, default=8)
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--work", type=Path, default=Path("runs/regularisers"))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(1)
    data = fewer(open_data("mnist", DataOptions(data_dir=said.data_dir, size=SIZE, fitting="pad")), said.images)
    rows: list[dict[str, object]] = []
    for kind in KINDS:
        graph, errors, minutes = chain(kind), [], 0.0
        for seed in said.seeds:
            recipe = Recipe(epochs=said.epochs, lr=0.05, seed=seed)
            fabric, spent = timed_fabric(graph, data, recipe, said.work / f"{kind}-{seed}", "cpu")
            errors.append(100 * (1 - score(fabric, data, "test").accuracy))
            minutes += spent[0] / len(said.seeds)
        found = costs(graph, SIZE)
        rows.append(
            {
                "network": kind,
                "parameters": found.parameters,
                "M MACs (1×32×32)": round(found.macs / 1e6, 2),
                "test error %": round(mean(errors), 2),
                "standard deviation": round(stdev(errors), 2) if len(errors) > 1 else "",
                "CPU minutes": round(minutes, 1),
            }
        )
        print(rows[-1], flush=True)
    told = [
        f"MNIST, {len(data.splits['train']):,} training images, {said.epochs} epochs, seeds {said.seeds}; 10,000 test "
        "images read once a network. No rate was chosen for any of them, so this shows that each trains, not which is "
        "best.",
    ]
    print(write_record("regularisers-mnist", told, rows, said.results))


def chain(kind: str) -> Graph:
    """Three convolutions, each but the first of stride 2, a hidden layer, and a linear one."""
    draft = Draft(kind, Purpose(image_channels=1, size=SIZE))
    maxout = kind.startswith("maxout")
    then: Operator = Chain((Relu(), LocalResponseNorm())) if kind.startswith("response") else NORM_AND_RELU

    def put(place: Place, channels: int, source: Place | None, conv: Conv) -> Place:
        """A node behind a convolution; of maxout one of twice the channels, and what is left of them."""
        wide, norm = (2 * channels, Norm()) if maxout else (channels, then)
        if source is None:
            found = draft.enter(place, conv, wide, then=norm)
        else:
            found = draft.put(place, wide, (source, conv), then=norm)
        return (
            draft.put(place._replace(lane=1), channels, (found, Maxout(pieces=2)), then=Identity()) if maxout else found
        )

    place = put(Place(0, 1), CHANNELS[0], None, Conv(kernel=5, stride=2))
    for layer, channels in enumerate(CHANNELS[1:], 1):
        place = put(Place(layer, layer + 1), channels, place, Conv(stride=2))
    whole = FullyConnected(size=(4, 4), drop=0.5 if kind.startswith("DropConnect") else 0.0)
    thinned = Chain((Relu(), Dropout(p=0.5))) if kind.startswith("dropout") else Relu()
    draft.answer(draft.put(Place(3, POINT), HIDDEN, (place, whole), then=thinned))
    return draft.finished()


if __name__ == "__main__":
    main()
