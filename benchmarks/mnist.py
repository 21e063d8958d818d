"""MNIST with the paper's wiring: train the fabric, cut 67 % of its edges, fine-tune.

    python benchmarks/mnist.py --data-dir DIR            the record: 8 layers × 6 scales × 32 channels

Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
import time
from pathlib import Path

from convfabric.choice import Budget, choose
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract
from convfabric.cutting.worth import WORTHS
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.graph.costs import costs
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import SIZE, said_epoch, timed_fabric

KEPT_EDGES = 40


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-dir", required=True, help="folder that holds MNIST/raw")
    words.add_argument("--work", type=Path, default=Path("runs/mnist"))
    words.add_argument("--network", default="paper-mnist-narrow")
    words.add_argument("--epochs", type=int, default=6)
    words.add_argument("--finetune-epochs", type=int, default=2)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--device", default="auto")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    data = open_data("mnist", DataOptions(data_dir=said.data_dir, size=SIZE, fitting="pad"))
    recipe = Recipe(epochs=said.epochs, lr=0.1, seed=said.seed)
    graph = weave(said.network, size=SIZE)
    fabric, minutes = timed_fabric(graph, data, recipe, said.work, said.device)
    whole = score(fabric, data, "test").accuracy
    rows = [row("fabric", fabric, whole, whole, whole, minutes)]
    tuning = recipe.changed(epochs=said.finetune_epochs, lr=0.03)
    for worth in WORTHS:
        rows.append(cut_and_tuned(fabric, data, tuning, worth, said.work / worth, said.device))
        print(rows[-1], flush=True)
    sentences = [
        f"{said.network}, seed {said.seed}, test errors in percent of 10,000 images; 5,001 training images held out "
        "for validation, the test set read once for each row. Cut: 40 of 122 edges kept, chosen by the worth named.",
        f"Recipe: {recipe}.",
        f"Fine-tuning: {tuning.epochs} epochs at lr {tuning.lr} with the fabric as teacher, the same for every row.",
        "CPU minutes are processor time of the process (both cores added); wall minutes are of a machine "
        "on which other work ran beside.",
    ]
    print(write_record(f"mnist-{said.network}-seed{said.seed}", sentences, rows, said.results))


def cut_and_tuned(
    fabric: Fabric, data: ImageSet, recipe: Recipe, worth: str, work: Path, device: str
) -> dict[str, object]:
    """One row: the network cut by a worth, as cut, with statistics refreshed, and fine-tuned."""
    chosen = choose(fabric.graph, WORTHS[worth](fabric, data), Budget(edges=KEPT_EDGES), SIZE)
    small = extract(fabric, chosen)
    cut = score(small, data, "test").accuracy
    refreshed = score(refresh(small, data), data, "test").accuracy
    cpu, wall = time.process_time(), time.time()
    train(
        small, data, recipe, folder=work, stage="finetune", resume=True, teacher=fabric, device=device, watch=said_epoch
    )
    spent = (time.process_time() - cpu) / 60, (time.time() - wall) / 60
    return row(f"cut by {worth}", small, cut, refreshed, score(small, data, "test").accuracy, spent)


def row(
    name: str, fabric: Fabric, cut: float, refreshed: float, tuned: float, minutes: tuple[float, float]
) -> dict[str, object]:
    found = costs(fabric.graph, SIZE)
    return {
        "network": name,
        "edges": len(fabric.graph.edges),
        "up edges": sum(edge.source.scale > edge.target.scale for edge in fabric.graph.edges),
        "parameters": found.parameters,
        "M MACs (1×32×32)": round(found.macs / 1e6, 1),
        "error as cut %": round(100 * (1 - cut), 2),
        "error refreshed %": round(100 * (1 - refreshed), 2),
        "error fine-tuned %": round(100 * (1 - tuned), 2),
        "CPU minutes": round(minutes[0], 1),
        "wall minutes": round(minutes[1], 1),
    }


if __name__ == "__main__":
    main()
