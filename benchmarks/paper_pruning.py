"""The paper's experiments: its wiring trained on MNIST or CIFAR-10 (JPEG), 67 % of the connections cut, and tuned.

    python benchmarks/paper_pruning.py --data mnist --data-dir DIR --network paper-mnist-dense --epochs 1
    python benchmarks/paper_pruning.py --data cifar10-jpeg --network paper-cifar10-dense --channels 16 --seeds 0 1 2

Connections are cut by their mean squared weights, as in the paper, and beside that at random (--random times).
Resumable: started again with the same --work folder it goes on where it stopped. Pictures of the kept connections
and of every image that is answered wrong lie in that folder.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from cifar import fewer
from convfabric.choice import Budget, choose
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract
from convfabric.cutting.worth import Worths, mean_squared_weight, random_worth
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.report.drawing import draw
from convfabric.report.gallery import figures, gallery
from convfabric.report.run_page import wrong_pictures
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import SIZE, Minutes, timed_fabric, timed_training

Row = dict[str, object]


def main() -> None:
    said = _said()
    data = fewer(open_data(said.data, DataOptions(data_dir=said.data_dir, size=SIZE, fitting="pad")), said.images)
    numbers = {"channels": said.channels} if said.channels else {}
    channels, classes = data.preprocessing.channels, len(data.classes)
    graph = weave(said.network, size=SIZE, image_channels=channels, classes=classes, **numbers)
    rows = [row for seed in said.seeds for row in experiment(said, data, graph, seed)]
    name = "-".join([said.network, *([str(said.channels)] if said.channels else []), f"{said.epochs}-epochs"])
    print(write_record(name, sentences(said, data, rows), rows, said.results))


def _said() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", required=True, help="mnist, or a folder with train/CLASS and test/CLASS")
    words.add_argument("--data-dir", help="for mnist, the folder that holds MNIST/raw")
    words.add_argument("--network", default="paper-mnist-dense")
    words.add_argument("--channels", type=int, default=0, help="0: the paper's")
    words.add_argument("--images", type=int, default=0, help="of training; 0: all")
    words.add_argument("--epochs", type=int, default=5)
    words.add_argument("--lr", type=float, default=0.1)
    words.add_argument("--finetune-epochs", type=int, default=2)
    words.add_argument("--cut", type=float, default=0.67, help="share of the connections; 0: the fabric alone")
    words.add_argument("--random", type=int, default=3, help="networks cut at random beside")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--work", type=Path, default=Path("runs/paper"))
    words.add_argument("--device", default="auto")
    words.add_argument("--results", type=Path, default=RESULTS)
    return words.parse_args()


def experiment(said: argparse.Namespace, data: ImageSet, graph: Graph, seed: int) -> Iterator[Row]:
    """Rows of one seed: the fabric, the network cut by strength, and those cut at random, each tuned alike."""
    recipe, work = Recipe(epochs=said.epochs, lr=said.lr, seed=seed), said.work / f"seed-{seed}"
    fabric, minutes = timed_fabric(graph, data, recipe, work / "fabric", said.device)
    yield shown(row("fabric", seed, fabric, data, minutes))
    _pictured(work / "fabric.html", fabric, data, graph, mean_squared_weight(fabric, data))
    ways = {"by mean squared weight": mean_squared_weight}
    ways |= {f"at random {draw}": partial(random_worth, seed=draw) for draw in range(said.random)}
    for name, worth in ways.items() if said.cut else ():
        worths = worth(fabric, data)
        kept = round(len(graph.edges) * (1 - said.cut))
        small = extract(fabric, choose(graph, worths, Budget(edges=kept), SIZE))
        errors = {"error as cut %": _error(small, data)}
        errors |= {"error statistics renewed %": _error(refresh(small, data), data)}
        tuning = recipe.changed(epochs=said.finetune_epochs, lr=said.lr / 3)
        folder = work / name.replace(" ", "-")
        tuned, minutes = timed_training(small, data, tuning, folder, said.device)
        yield shown(row(f"cut {name}", seed, tuned, data, minutes) | errors)
        _pictured(folder.with_suffix(".html"), tuned, data, graph, worths)


def row(name: str, seed: int, fabric: Fabric, data: ImageSet, minutes: Minutes) -> Row:
    """Costs and errors of a trained network; errors before it was tuned are those after, until they are known."""
    found, test = costs(fabric.graph, SIZE), score(fabric, data, "test")
    return {
        "network": name,
        "seed": seed,
        "connections": len(fabric.graph.edges),
        "of them up": sum(edge.source.scale > edge.target.scale for edge in fabric.graph.edges),
        "parameters": found.parameters,
        "M MACs (32×32)": round(found.macs / 1e6, 1),
        "error as cut %": "",
        "error statistics renewed %": "",
        "error %": round(100 * (1 - test.accuracy), 2),
        "balanced accuracy %": round(100 * (test.balanced_accuracy or 0.0), 2),
        "CPU minutes": round(minutes[0], 1),
    }


def shown(row: Row) -> Row:
    print(row, flush=True)
    return row


def _error(network: Fabric, data: ImageSet) -> float:
    return round(100 * (1 - score(network, data, "test").accuracy), 2)


def _pictured(file: Path, network: Fabric, data: ImageSet, whole: Graph, worths: Worths) -> None:
    """The connections that are kept, as wide as their worth ranks, and every test image answered wrong."""
    wrong = list(wrong_pictures(network, data))
    activated = "Connections", f"{len(network.graph.edges)} of {len(whole.edges)}", draw(whole, network.graph, worths)
    errors = "Errors", f"{len(wrong):,} test images: answer (truth)", figures(wrong)
    file.write_text(gallery([activated, errors], network.graph.name), "utf-8")


def sentences(said: argparse.Namespace, data: ImageSet, rows: list[Row]) -> list[str]:
    """What was done, and means over seeds."""
    splits = {name: len(split) for name, split in data.splits.items()}
    return [
        f"{data.name}: {splits['train']:,} training images, {splits['val']:,} held out, {splits['test']:,} test "
        f"images read once a column, brought to {SIZE[0]}×{SIZE[1]}. Errors in percent of test images.",
        f"The fabric: {said.epochs} epochs, highest rate {said.lr}; each cut network {said.finetune_epochs} more at a "
        "third of the rate, without the fabric as teacher.",
        *(said_mean(name, rows) for name in ("fabric", "cut by mean squared weight", "cut at random")),
        "CPU minutes are processor time of training.",
    ]


def said_mean(name: str, rows: list[Row]) -> str:
    """Mean and spread of the errors of the rows whose names begin so."""
    errors = [float(str(row["error %"])) for row in rows if str(row["network"]).startswith(name)]
    if not errors:
        return f"{name}: not run."
    spread = f", standard deviation {stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{name}: {mean(errors):.2f} % error in the mean of {len(errors)}{spread}."


if __name__ == "__main__":
    main()
