"""What `fit` cuts against random sub-networks of equal cost from the same fabric, all fine-tuned alike.

    python benchmarks/chance.py                          digits, 20 random sub-networks, three seeds
    python benchmarks/chance.py --set operators=residual --set subnetworks=1
    python benchmarks/chance.py --data mnist --data-dir DIR --epochs 2 --seeds 1

Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch

from convfabric.choice.evolution import Evolution
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract, ranked
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.execution.allocation import keep_memory
from convfabric.fabric.archive import load_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.pipeline.fit import fit
from convfabric.progress import Listener
from convfabric.runs.job import Job, job_from, parsed_setting
from convfabric.runs.record import read_record
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from records import RESULTS, write_record

Row = dict[str, Any]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", default="digits")
    words.add_argument("--data-dir")
    words.add_argument("--network", default="fabric-tiny")
    words.add_argument("--epochs", type=int, default=0, help="0: as many as fit takes by itself")
    words.add_argument("--share", type=float, default=0.2, help="of the fabric's MACs")
    words.add_argument("--random", type=int, default=20, help="sub-networks")
    words.add_argument("--seeds", type=int, default=3)
    words.add_argument("--set", action="append", default=[], dest="changes", metavar="NAME=VALUE", help="as for fit")
    words.add_argument("--work", type=Path, default=Path("runs/chance"))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    keep_memory()
    data = open_data(said.data, DataOptions(data_dir=said.data_dir))
    rows = [row for seed in range(said.seeds) for row in contested(said, data, seed)]
    name = " ".join([said.network, *said.changes])
    epochs = Recipe(epochs=said.epochs).fitted(len(data.splits["train"]), data.task).epochs
    first = (
        f"{Path(said.data).name}, {name}, trained {epochs} epochs; networks of at most {said.share:.0%} of its MACs, "
        f"fine-tuned as fit does. {len(data.splits['val']):,} validation and {len(data.splits['test']):,} test images."
    )
    sentences = [first, *(summary([row for row in rows if row["seed"] == seed]) for seed in range(said.seeds))]
    record = "-".join(["chance", Path(said.data).name, f"{epochs}-epochs", *sorted(said.changes)])
    print(write_record(record, sentences, rows, said.results))


def contested(said: argparse.Namespace, data: ImageSet, seed: int) -> list[Row]:
    """What fit came to, and each random sub-network."""
    changes = dict(map(parsed_setting, said.changes))
    told = [Path(said.data).name, f"{said.epochs}-epochs", *sorted(said.changes), str(seed)]
    image, folder = data.preprocessing.size, said.work / "-".join(told)
    settings = {"network": said.network, "epochs": said.epochs, "macs": f"{said.share:.0%}", "seed": seed} | changes
    settings |= {"data_dir": said.data_dir} if said.data_dir else {}
    if not (folder / "report.html").is_file():
        fit(said.data, folder, resume=(folder / "config.yaml").is_file(), listener=Listener(say=print), **settings)
    fabric, _ = load_fabric(folder / "fabric")
    job = job_from({"data": said.data, **settings})
    most = said.share * costs(fabric.graph, image).macs
    source = fabric if job.recipe.subnetworks else ranked(fabric)
    sampler = Sampler.of(fabric.graph, job.recipe.narrowest, image)
    evolution = Evolution(
        sampler=sampler, fits=lambda graph: costs(graph, image).macs <= most, fitness=lambda graphs: [0.0] * len(graphs)
    )
    dice, rows = random.Random(seed), [_row("fit", seed, load_fabric(folder)[0], data)]
    network = read_record(folder).network
    assert network is not None
    assert network.score.accuracy * 100 - rows[0]["test %"] < 0.01, "what fit itself noted"
    for number in range(said.random):
        graph = evolution.grown(evolution.repaired(evolution.sampler.draw(dice), dice), dice)
        file = folder / f"random-{number}.json"
        if not file.is_file():
            tuned = finetuned(source, fabric, graph, data, job)
            file.write_text(json.dumps(_row(f"random {number}", seed, tuned, data)))
        rows.append(json.loads(file.read_text()))
        print(rows[-1], flush=True)
    return rows


def finetuned(source: Fabric, fabric: Fabric, graph: Graph, data: ImageSet, job: Job) -> Fabric:
    """A sub-network, its statistics refreshed, trained on as fit does."""
    torch.manual_seed(job.recipe.seed)
    network = refresh(extract(source, graph), data, job.recipe)
    tuning = job.tuning(len(data.splits["train"]), data.task)
    train(network, data, tuning, teacher=fabric if tuning.distil else None, device="cpu")
    return network


def _row(name: str, seed: int, network: Fabric, data: ImageSet) -> Row:
    found = {split: round(100 * score(network, data, split).accuracy, 2) for split in ("val", "test")}
    macs = costs(network.graph, data.preprocessing.size).macs
    return {"network": name, "seed": seed, "M MACs": round(macs / 1e6, 3)} | {f"{k} %": v for k, v in found.items()}


def summary(rows: list[Row]) -> str:
    """How fit stands among the random ones of one seed."""
    ours, *others = rows
    tests = [row["test %"] for row in others]
    picked = max(others, key=lambda row: row["val %"])
    return (
        f"Seed {ours['seed']}: fit {ours['test %']:.2f} % test; {len(others)} random {fmean(tests):.2f} ± "
        f"{pstdev(tests):.2f} %, the best of them on val {picked['test %']:.2f} %, the best on test {max(tests):.2f} %."
    )


if __name__ == "__main__":
    main()
