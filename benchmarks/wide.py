"""Sparse fabrics of more and more channels, up to a thousand and beyond: what they cost and what they answer.

    python benchmarks/wide.py --data-dir DIR --seeds 0 1

Channels read their neighbours, and with --distances those far away too, so that weights grow as the channels do.
"""

import argparse
import resource
from pathlib import Path
from statistics import mean

import torch

from cifar import fewer
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import SIZE, timed_fabric

LAYERS, SCALES = 4, 5


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-dir", required=True, help="folder that holds MNIST/raw")
    words.add_argument("--images", type=int, default=2_000, help="of training; 0 for all")
    words.add_argument("--tested", type=int, default=2_000, help="images of the test split; 0 for all")
    words.add_argument("--epochs", type=int, default=4)
    words.add_argument("--channels", type=int, nargs="+", default=[32, 128, 512, 1024])
    words.add_argument("--distances", type=int, nargs="*", default=[8, 64])
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--work", type=Path, default=Path("runs/wide"))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(1)
    whole = open_data("mnist", DataOptions(data_dir=said.data_dir, size=SIZE, fitting="pad"))
    data = fewer(fewer(fewer(whole, said.images), said.images, "val"), said.tested, "test")
    rows: list[dict[str, object]] = []
    for channels in said.channels:
        for far in dict.fromkeys(((), tuple(distance for distance in said.distances if distance < channels))):
            shape = {"layers": LAYERS, "scales": SCALES, "channels": channels, "distances": far}
            graph = weave("trellis", size=SIZE, image_channels=1, operators="banded", **shape)
            errors, minutes = [], 0.0
            for seed in said.seeds:
                folder = said.work / f"{channels}-{len(far)}-{seed}"
                fabric, spent = timed_fabric(graph, data, Recipe(epochs=said.epochs, seed=seed), folder, "cpu")
                errors.append(100 * (1 - score(fabric, data, "test").accuracy))
                minutes += spent[0] / len(said.seeds)
            found = costs(graph, SIZE)
            rows.append(
                {
                    "channels": channels,
                    "reads also": ", ".join(f"±{distance}" for distance in far),
                    "parameters": found.parameters,
                    "parameters if dense": costs(dense(channels), SIZE).parameters,
                    "M MACs (1×32×32)": round(found.macs / 1e6, 1),
                    "test error %": round(mean(errors), 2),
                    "of each seed %": ", ".join(f"{error:.2f}" for error in errors),
                    "CPU minutes": round(minutes, 2),
                    "most memory so far, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                }
            )
            print(rows[-1], flush=True)
    told = [
        f"MNIST, {len(data.splits['train']):,} training images, {said.epochs} epochs, seeds {said.seeds}; "
        f"{len(data.splits['test']):,} test images read once a network. Trellis of {LAYERS} layers × {SCALES} scales, "
        "banded; CPU minutes are processor time of a training. No rate was chosen for any width.",
    ]
    print(write_record("wide-mnist", told, rows, said.results))


def dense(channels: int) -> Graph:
    """The same trellis in which every channel reads all others."""
    return weave("trellis", size=SIZE, image_channels=1, layers=LAYERS, scales=SCALES, channels=channels)


if __name__ == "__main__":
    main()
