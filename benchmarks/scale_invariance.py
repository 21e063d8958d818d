"""Whether weights that every scale shares answer better for images of sizes that they were not trained at.

    python benchmarks/scale_invariance.py --data-dir DIR --seeds 0 1 2

A trellis is trained on MNIST at 32×32 pixels, nothing enlarged or shrunk, and answers images at other sizes: with
weights of each edge's own, and with those of a layer that move alike shared along the scales; of as many channels at
every scale, or (--doubling) of twice as many at each coarser one, whose parts then share them.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch

from cifar import fewer
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph.costs import costs
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import SIZE, timed_fabric

SIDES = (16, 22, 28, 32, 40, 48, 64)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-dir", required=True, help="folder that holds MNIST/raw")
    words.add_argument("--images", type=int, default=10_000, help="of training; 0 for all")
    words.add_argument("--epochs", type=int, default=4)
    words.add_argument("--channels", type=int, default=16)
    words.add_argument("--doubling", action="store_true")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--work", type=Path, default=Path("runs/scale-invariance"))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(1)
    data = fewer(open_data("mnist", DataOptions(data_dir=said.data_dir, size=SIZE, fitting="stretch")), said.images)
    rows: list[dict[str, object]] = []
    for shared in (False, True):
        shape = {"layers": 4, "scales": 5, "channels": said.channels, "head": "all", "doubling": said.doubling}
        graph = weave("trellis", size=SIZE, image_channels=1, shared=shared, **shape)
        errors: dict[int, list[float]] = {side: [] for side in SIDES}
        for seed in said.seeds:
            recipe = Recipe(epochs=said.epochs, lr=0.1, seed=seed, shift=0.1, zoom=0.0, rotate=0.0)
            fabric, _ = timed_fabric(graph, data, recipe, said.work / f"{shared}-{said.doubling}-{seed}", "cpu")
            for side in SIDES:
                errors[side].append(100 * (1 - score(fabric, data.at((side, side)), "test").accuracy))
        found = {f"{side}×{side}": f"{mean(known):.2f}" + _spread(known) for side, known in errors.items()}
        name = "shared along the scales" if shared else "of each edge's own"
        rows.append({"weights": name, "parameters": costs(graph, SIZE).parameters, **found})
        print(rows[-1], flush=True)
    told = [
        f"MNIST, {len(data.splits['train']):,} training images at 32×32, {said.epochs} epochs, seeds {said.seeds}: "
        "errors in percent of 10,000 test images, mean and standard deviation, by the size they are brought to. "
        f"Trellis of 4 layers × 5 scales × {said.channels} channels{' at the finest, doubling' * said.doubling}, every "
        "scale of the last layer read.",
    ]
    name = f"scale-invariance-mnist{'-doubling' * said.doubling}"
    print(write_record(name, told, rows, said.results))


def _spread(known: list[float]) -> str:
    return f" ± {stdev(known):.2f}" if len(known) > 1 else ""


if __name__ == "__main__":
    main()
