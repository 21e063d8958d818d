"""What the kernels gain in a training step of segmentation: candidates take turns in one process.

    python benchmarks/pixels.py            about a minute on one thread

Images and targets are random, so no data is needed.
"""

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

from convfabric.execution.allocation import keep_memory
from convfabric.execution.plans import Execution, plan_for
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.training.objectives import Turn, objective_of
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from speed import Call, row_of, taking_turns

SIZE, CLASSES, BATCH, IGNORE = (180, 240), 11, 8, 11
NUMBERS: Mapping[str, int] = {"layers": 2, "scales": 4, "finest": 1, "channels": 8}
"""Of the fabric of the contest on CamVid."""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--rounds", type=int, default=11)
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(said.threads)
    keep_memory()
    purpose = {"size": SIZE, "classes": CLASSES, "task": "segmentation"}
    fabric, unet = weave("fabric-small", **NUMBERS, **purpose), weave("unet", channels=4, **purpose)  # type: ignore[arg-type]
    rows = []
    for name, graph, subnetworks, taught in (
        ("fabric and one sub-network", fabric, 1, False),
        ("fabric, taught", fabric, 0, True),
        ("U-Net", unet, 0, False),
    ):
        kinds: tuple[Execution, ...] = ("readable", "auto")
        times = taking_turns({kind: step(graph, kind, subnetworks, taught) for kind in kinds}, said.rounds)
        rows += [row_of(name, kind, taken, BATCH, median(times["readable"])) for kind, taken in times.items()]
        print(*rows[-2:], sep="\n", flush=True)
    sentences = [
        f"A step forwards, backwards and of SGD with {BATCH} images of 3×{SIZE[0]}×{SIZE[1]}, {CLASSES} classes, in "
        f"float32, {said.threads} thread(s); medians of {said.rounds} rounds in which the candidates take turns, the "
        "first two rounds left out. readable: every edge by itself and torch's losses; auto: this package's kernels. A "
        "teacher's own answers are not in the time. One sub-network is the same in every step.",
        f"Fabric: fabric-small with {', '.join(f'{k}={value}' for k, value in NUMBERS.items())}; U-Net: 4 channels.",
    ]
    print(write_record("speed-segmentation", sentences, rows, said.results))


def step(graph: Graph, execution: Execution, subnetworks: int, taught: bool) -> Call:
    """A step of training on one batch of random images."""
    torch.manual_seed(0)
    fabric = Fabric(graph).to(memory_format=torch.channels_last)
    recipe = Recipe(subnetworks=subnetworks, execution=execution)
    plan = plan_for(graph, training=True, execution=execution, precision="float32")
    objective = objective_of(fabric.train(), recipe, plan, IGNORE, SIZE)
    optimiser = torch.optim.SGD(fabric.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images = torch.randn(BATCH, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES + 1, (BATCH, *SIZE))
    teacher = torch.randn(BATCH, CLASSES, *SIZE).contiguous(memory_format=torch.channels_last) if taught else None

    def go() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(objective.loss(objective.model, images, targets, teacher, Turn(random.Random(0), 0.0)))
        optimiser.step()

    return go


if __name__ == "__main__":
    main()
