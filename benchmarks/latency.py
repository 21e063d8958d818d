"""Predicted against measured milliseconds of random sub-networks, and budgets kept.

    python benchmarks/latency.py                         30 held-out sub-networks of four fabrics, 1 and 2 threads
    python benchmarks/latency.py --budgets 10            and as many ceilings for each, met as measured or not
    python benchmarks/latency.py --only fabric-small     of one fabric

Run it on a machine that does nothing else: a neighbour's work on the same cores is measured too.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy.stats import spearmanr

from convfabric.choice import Budget
from convfabric.cutting.cutter import Cutter
from convfabric.cutting.strategies import Material, exactly
from convfabric.data.imageset import ImageSet, Preprocessing
from convfabric.execution.folding import folded
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.devices import measure
from convfabric.latency.drafts import drafted
from convfabric.latency.measurement import Latency
from convfabric.latency.survey import Survey, survey
from convfabric.latency.target import Target
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record

FABRICS: Mapping[str, Mapping[str, Any]] = {
    "fabric-small": {},
    "fabric-small, six layers": {"layers": 6},
    "fabric-small, six layers from 1/2": {"layers": 6, "finest": 1, "channels": 32},
    "fabric-small, six layers, block": {"layers": 6, "operators": "block"},
}
NARROWEST, ROUNDS = 0.25, 5
SIZE = (32, 32)
NO_DATA = ImageSet(
    name="none",
    task="classification",
    classes=tuple("0123456789"),
    preprocessing=Preprocessing(size=SIZE, channels=3, fitting="stretch", mean=(0.5,) * 3, std=(0.25,) * 3),
    splits={},
)
"""Worths are given, so no image is looked at."""
Row = dict[str, Any]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--held-out", type=int, default=30)
    words.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    words.add_argument("--budgets", type=int, default=0, help="ceilings of milliseconds for each fabric")
    words.add_argument("--only", nargs="*", choices=list(FABRICS), default=list(FABRICS))
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    rows = [row(name, threads, said) for threads in said.threads for name in said.only]
    sentences = [
        f"{said.held_out} random sub-networks that no fit has seen, at 3×32×32, edges and widths drawn; ONNX Runtime, "
        f"batch 1, each measured {ROUNDS} times in turns. Measured is the median of the quickest block of runs, as for "
        "the prediction; again: how far this is apart in two halves of the turns. Usual: the median of all turns, "
        "which a neighbour's work on the same processor is part of.",
        "Met: ceilings over the range, each with the network that the program cuts for it (integer program, random "
        "worths) and measured for itself, measured again in turns afterwards, undisturbed and as usual.",
    ]
    print(write_record("latency-prediction", sentences, rows, said.results))


def row(name: str, threads: int, said: argparse.Namespace) -> Row:
    """Errors of one fabric's prediction under so many threads."""
    papers = papers_of(weave("fabric-small", **FABRICS[name]))
    found = survey(papers, Target(threads=threads), NARROWEST, print)
    dice = random.Random(99)
    held_out = [found.sampler.draw(dice) for _ in range(said.held_out)]
    times = in_turns(papers, held_out, threads)
    measured = [min(took.fastest_block_ms for took in each) for each in times]
    usual = [median(took.median_ms for took in each) for each in times]
    predicted = [found.prediction.milliseconds(graph) for graph in held_out]
    errors = apart(predicted, measured)
    again = [[min(took.fastest_block_ms for took in each[first::2]) for each in times] for first in (0, 1)]
    result: Row = {
        "fabric": name,
        "threads": threads,
        "ms, least to most": f"{min(measured):.3f} to {max(measured):.3f}",
        "median error %": round(100 * median(errors), 1),
        "largest error %": round(100 * max(errors), 1),
        "rank correlation": round(float(spearmanr(predicted, measured).statistic), 3),
        "again, median %": round(100 * median(apart(*again)), 1),
        "usual, median error %": round(100 * median(apart(predicted, usual)), 1),
        "usual, rank": round(float(spearmanr(predicted, usual).statistic), 3),
        "stated by the program %": round(100 * found.prediction.median_error, 1),
    }
    if said.budgets:
        result |= met(papers, found, threads, said.budgets)
    print(result, flush=True)
    return result


def met(papers: Passport, found: Survey, threads: int, count: int) -> Row:
    """How many of so many ceilings are met by what the program cuts for them, measured once more afterwards."""
    graph = found.sampler.graph
    least, most = (found.measured(part).median_ms for part in (found.sampler.smallest, graph))
    ceilings = [1.5 * least * (0.9 * most / (1.5 * least)) ** (i / max(1, count - 1)) for i in range(count)]
    dice = random.Random(7)
    worth = {edge.name: dice.random() for edge in graph.edges}
    material = Material(fabric=Fabric(graph), data=NO_DATA, recipe=Recipe(), survey=found, worth=worth, channels={})
    cutter = Cutter(material, exactly)
    cut = [cutter.cut(Budget(latency_ms=ceiling)).network.graph for ceiling in ceilings]
    turns = in_turns(papers, cut, threads)
    undisturbed = [min(took.fastest_block_ms for took in each) for each in turns]
    usual = [median(took.median_ms for took in each) for each in turns]

    def under(times: list[float]) -> str:
        return f"{sum(taken <= most for taken, most in zip(times, ceilings, strict=True))} of {count}"

    return {"met": under(undisturbed), "met as usual": under(usual)}


def papers_of(graph: Graph) -> Passport:
    """A passport for images that are normalised as usual."""
    return Passport(graph=graph, classes=NO_DATA.classes, preprocessing=NO_DATA.preprocessing)


def apart(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """How far numbers lie from others, as shares of those."""
    return [abs(one / other - 1) for one, other in zip(some, others, strict=True)]


def in_turns(papers: Passport, graphs: list[Graph], threads: int) -> list[list[Latency]]:
    """What each graph takes in each turn."""
    models = [drafted(Deployable(folded(Fabric(g).eval()), papers), torch.zeros(1, 3, *SIZE)) for g in graphs]
    turns = [[measure(m, (3, *SIZE), Target(threads=threads), seconds=0.1) for m in models] for _ in range(ROUNDS)]
    return [list(times) for times in zip(*turns, strict=True)]


if __name__ == "__main__":
    main()
