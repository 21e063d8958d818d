"""Whether the accuracy that sub-networks inherit says which will be best after fine-tuning.

    python benchmarks/inherited.py                       digits, 14 sub-networks over the range, and 8 of one cost
    python benchmarks/inherited.py --data mnist --data-dir DIR --network fabric-small --epochs 3

Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from scipy.stats import spearmanr

from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract, ranked
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.execution.allocation import keep_memory
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import timed_fabric

DRAWN, BAND = 400, 0.1
Row = dict[str, Any]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", default="digits")
    words.add_argument("--data-dir")
    words.add_argument("--network", default="fabric-tiny")
    words.add_argument("--epochs", type=int, default=20)
    words.add_argument("--finetune", type=float, default=0.5, help="share of the epochs")
    words.add_argument("--spread", type=int, default=14, help="sub-networks over the range of costs")
    words.add_argument("--narrow", type=int, default=8, help="sub-networks of nearly one cost")
    words.add_argument("--work", type=Path, default=Path("runs/inherited"))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    keep_memory()
    data = open_data(said.data, DataOptions(data_dir=said.data_dir))
    rows, sentences = list[Row](), list[str]()
    for subnetworks in (1, 0):
        found = study(said, data, subnetworks)
        rows += found
        sentences += summary(found, subnetworks)
    first = (
        f"{said.data}, {said.network} with operators=residual, {said.epochs} epochs, seed 0; each sub-network is "
        f"fine-tuned {said.finetune:g} times as long, with the fabric as teacher. Accuracies are of validation images."
    )
    print(write_record(f"inherited-{said.data}", [first, *sentences], rows, said.results))


def study(said: argparse.Namespace, data: ImageSet, subnetworks: int) -> list[Row]:
    """Inherited and fine-tuned accuracy of sub-networks of one fabric."""
    image = data.preprocessing.size
    graph = weave(said.network, size=image, image_channels=data.preprocessing.channels, operators="residual")
    recipe = Recipe(epochs=said.epochs, lr=0.1, subnetworks=subnetworks)
    fabric, _ = timed_fabric(graph, data, recipe, said.work / f"fabric-{subnetworks}", "cpu")
    sampler = Sampler.of(graph, recipe.narrowest, image)
    source = fabric if subnetworks else ranked(fabric)
    tuning = recipe.changed(epochs=round(said.epochs * said.finetune), subnetworks=0, lr=recipe.lr * 0.4, seed=1)
    rows = []
    for set_, graphs in chosen(sampler, said, image).items():
        for number, part in enumerate(graphs):
            file = said.work / f"{subnetworks}-{set_}-{number}.json"
            if not file.is_file():
                file.write_text(json.dumps(tuned(fabric, source, part, data, tuning)))
            facts = {"subnetworks in training": subnetworks, "set": set_, "M MACs": costs(part, image).macs / 1e6}
            rows.append(facts | json.loads(file.read_text()))
            print(rows[-1], flush=True)
    return rows


def chosen(sampler: Sampler, said: argparse.Namespace, image: tuple[int, int]) -> dict[str, list[Graph]]:
    """Sub-networks evenly over the range of MACs, by ratio, and some within a tenth of the middle one's."""
    dice = random.Random(5)
    drawn = sorted({sampler.draw(dice) for _ in range(DRAWN)}, key=lambda graph: (costs(graph, image).macs, graph.name))
    least, most = (costs(graph, image).macs for graph in (drawn[0], drawn[-1]))
    wanted = [least * (most / least) ** (i / (said.spread - 1)) for i in range(said.spread)]
    spread = [min(drawn, key=lambda graph: abs(costs(graph, image).macs / want - 1)) for want in wanted]
    middle = costs(drawn[len(drawn) // 2], image).macs
    near = [graph for graph in drawn if abs(costs(graph, image).macs / middle - 1) < BAND]
    return {"spread": list(dict.fromkeys(spread)), "one cost": near[: said.narrow]}


def tuned(fabric: Fabric, source: Fabric, part: Graph, data: ImageSet, tuning: Recipe) -> Row:
    """One sub-network just cut, refreshed and fine-tuned."""
    torch.manual_seed(0)
    network = extract(source, part)
    cut = score(network, data, "val").accuracy
    refreshed = score(refresh(network, data), data, "val").accuracy
    train(network, data, tuning, teacher=fabric, device="cpu")
    found = {"just cut %": cut, "refreshed %": refreshed, "fine-tuned %": score(network, data, "val").accuracy}
    return {name: round(100 * value, 2) for name, value in found.items()}


def summary(rows: list[Row], subnetworks: int) -> list[str]:
    """Rank correlations, and how far the networks of one cost lie apart."""
    lines = []
    for set_ in ("spread", "one cost"):
        own = [row for row in rows if row["set"] == set_]
        before, after = [row["refreshed %"] for row in own], [row["fine-tuned %"] for row in own]
        rank = float(spearmanr(before, after).statistic)
        lines.append(
            f"subnetworks={subnetworks}, {set_}: {len(own)} sub-networks, Spearman's correlation of refreshed and "
            f"fine-tuned {rank:.2f}; refreshed {fmean(before):.2f} ± {pstdev(before):.2f} %, fine-tuned "
            f"{fmean(after):.2f} ± {pstdev(after):.2f} %."
        )
    return lines


if __name__ == "__main__":
    main()
