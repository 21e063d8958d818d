"""Budgeted Super Networks on MNIST: gates close until the cost is at its target, and the answers stay.

    python benchmarks/bsn.py --data-dir DIR              a 4 × 5 × 16 B-CNF, without gates and with both kinds

Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from cifar import fewer
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.training.gates import Gates
from convfabric.training.loop import Run, train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import SIZE, said_epoch

SURE = 0.05
Row = dict[str, object]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data-dir", required=True, help="folder that holds MNIST/raw")
    words.add_argument("--work", type=Path, default=Path("runs/bsn"))
    words.add_argument("--images", type=int, default=0, help="of training; 0 for all")
    words.add_argument("--epochs", type=int, default=4)
    words.add_argument("--target", type=float, default=0.4)
    words.add_argument("--weight", type=float, default=Recipe().gate_weight)
    words.add_argument("--gate-lr", type=float, default=Recipe().gate_lr)
    words.add_argument("--seeds", type=int, default=1)
    words.add_argument("--kinds", default="none,bernoulli,hard-concrete")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    data = fewer(open_data("mnist", DataOptions(data_dir=said.data_dir, size=SIZE, fitting="pad")), said.images)
    graph = weave("b-cnf", layers=4, scales=5, channels=16, image_channels=1)
    rows: list[Row] = []
    for seed in range(said.seeds):
        for kind in said.kinds.split(","):
            recipe = Recipe(
                epochs=said.epochs,
                seed=seed,
                lr=0.05,
                gates=kind,
                gate_target=said.target,
                gate_weight=said.weight,
                gate_lr=said.gate_lr,
            )
            rows.append(trained(graph, data, recipe, said.work / f"{kind}-{seed}"))
            print(rows[-1], flush=True)
    sentences = [
        f"MNIST, {len(data.splits['train']):,} training images, 32×32, B-CNF of 4 layers × 5 scales × 16 channels; "
        "10,000 test images read once for each row. Cost is the share of the ungated network's MACs on edges.",
        f"The chosen network keeps the edges whose gates are open with probability above 0.5; its statistics are "
        f"refreshed, nothing is fine-tuned. Sure gates are below {SURE} or above {1 - SURE}.",
        f"Recipe: {recipe}.",
    ]
    print(write_record("mnist-bsn", sentences, rows, said.results))


def trained(graph: Graph, data: ImageSet, recipe: Recipe, work: Path) -> Row:
    """One training, with or without gates, and what is left of the network."""
    known = work / "row.json"
    if known.is_file():
        found: Row = json.loads(known.read_text())
        return found
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    fabric, began = Fabric(graph), time.process_time()
    train(fabric, data, recipe, folder=work, resume=True, device="cpu", watch=said_epoch)
    fabric, minutes = fabric.cpu(), (time.process_time() - began) / 60
    network, gates = fabric, None
    if recipe.gates != "none":
        gates = gates_of(graph, data, recipe, work)
        network = refresh(extract(fabric, gates.chosen()), data)
    row = _row(network, data, recipe, gates) | {"CPU minutes": round(minutes, 1)}
    known.write_text(json.dumps(row))
    return row


def gates_of(graph: Graph, data: ImageSet, recipe: Recipe, work: Path) -> Gates:
    """The gates of a finished run, from its state."""
    run = Run(Fabric(graph), data, recipe, folder=work, device="cpu")
    run.resume()
    assert isinstance(run.objective.own, Gates)
    return run.objective.own


def _row(network: Fabric, data: ImageSet, recipe: Recipe, gates: Gates | None) -> Row:
    row: Row = {
        "gates": recipe.gates,
        "seed": recipe.seed,
        "test error %": round(100 * (1 - score(network, data, "test").accuracy), 2),
        "edges": len(network.graph.edges),
        "M MACs (1×32×32)": round(costs(network.graph, SIZE).macs / 1e6, 2),
        "target": "",
        "cost": 1.0,
        "off target %": "",
        "sure gates": "",
    }
    if gates is None:
        return row
    likely = torch.tensor([value for name, value in gates.probabilities().items() if name in gates.column])
    kept = torch.tensor([[float(name in network.graph.edge_names) for name in gates.names]])
    cost = float(gates.cost(kept))
    sure = int(((likely < SURE) | (likely > 1 - SURE)).sum())
    return row | {
        "target": recipe.gate_target,
        "cost": round(cost, 3),
        "off target %": round(100 * (cost / recipe.gate_target - 1), 1),
        "sure gates": f"{sure} of {len(likely)}",
    }


if __name__ == "__main__":
    main()
