"""MNIST with the paper's sparse fabric, beside the dense one of the same shape.

    python benchmarks/sparse.py --data-dir DIR            16 layers × 6 scales × 32 channels

Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
from pathlib import Path

from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph.costs import costs
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import SIZE, timed_fabric

KINDS = {"sparse": "banded", "dense": "plain"}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-dir", required=True, help="folder that holds MNIST/raw")
    words.add_argument("--work", type=Path, default=Path("runs/sparse"))
    words.add_argument("--layers", type=int, default=16)
    words.add_argument("--channels", type=int, default=32)
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--device", default="auto")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    data = open_data("mnist", DataOptions(data_dir=said.data_dir, size=SIZE, fitting="pad"))
    recipe = Recipe(epochs=said.epochs, lr=0.1, seed=said.seed)
    rows = []
    for name, operators in KINDS.items():
        shape = {"layers": said.layers, "channels": said.channels, "operators": operators}
        graph = weave("paper-mnist-sparse", size=SIZE, **shape)
        fabric, minutes = timed_fabric(graph, data, recipe, said.work / name, said.device)
        found = costs(graph, SIZE)
        rows.append(
            {
                "fabric": f"{name} {said.layers} × 6 × {said.channels}",
                "parameters": found.parameters,
                "M MACs (1×32×32)": round(found.macs / 1e6, 1),
                "val error %": round(100 * (1 - score(fabric, data, "val").accuracy), 2),
                "test error %": round(100 * (1 - score(fabric, data, "test").accuracy), 2),
                "CPU minutes": round(minutes[0], 1),
                "wall minutes": round(minutes[1], 1),
            }
        )
        print(rows[-1], flush=True)
    sentences = [
        f"Seed {said.seed}; errors in percent of 10,000 test images, read once for each row; 5,001 training images "
        "held out. The paper's: sparse 0.48 % (16 × 32), dense 0.33 % (8 × 64).",
        f"Recipe: {recipe}.",
        "CPU minutes are processor time of training, all cores added.",
    ]
    print(write_record(f"mnist-sparse-seed{said.seed}", sentences, rows, said.results))


if __name__ == "__main__":
    main()
