"""Where the time of a search goes: an evolution of 64 trials on a large graph, in and outside the network's own passes.

python benchmarks/search.py                a trellis of some 500 edges, CIFAR-sized images, about 10 minutes
python benchmarks/search.py --trials 8     sooner
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch

from convfabric.choice import Budget, ceiling, fits, measures
from convfabric.choice.evolution import Evolution
from convfabric.cutting import fitness
from convfabric.cutting.fitness import Judge
from convfabric.cutting.norm_statistics import refresh
from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing
from convfabric.evaluation.scoring import score
from convfabric.execution.allocation import keep_imports, keep_memory
from convfabric.fabric.module import Fabric
from convfabric.graph.subnetworks import Sampler
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave

SIZE = (32, 32)


def noise(images: int) -> HeldSplit:
    """Images that mean nothing: how long they take does not hang on what they show."""
    dice = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, *SIZE), dtype=torch.uint8, generator=dice)
    return HeldSplit(pixels, torch.arange(images) % 10)


class Clock:
    """Seconds spent in functions that are wrapped."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time added up."""

        def timed(*words: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*words, **named)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--trials", type=int, default=64)
    words.add_argument("--layers", type=int, default=29)
    said = words.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    keep_imports()
    torch.manual_seed(0)
    graph = weave("fabric-medium", layers=said.layers, scales=4, channels=8)
    pixels = Preprocessing(size=SIZE, channels=3, fitting="cover", mean=(0.5,) * 3, std=(0.25,) * 3)
    classes = tuple("0123456789")
    splits = {"train": noise(1024), "val": noise(2048)}
    data = ImageSet(name="noise", task="classification", classes=classes, preprocessing=pixels, splits=splits)
    judge, passes = Judge.of(Fabric(graph).eval(), data, Recipe()), Clock()
    setattr(fitness, "refresh", passes.timing(refresh))  # noqa: B010
    setattr(fitness, "score", passes.timing(score))  # noqa: B010
    began = time.perf_counter()
    sampler, asked = Sampler.of(graph, 0.25, SIZE), {"macs": measures(SIZE)["macs"]}
    budget = Budget(macs="25%").resolved({"macs": asked["macs"](graph)})
    limits = [(asked["macs"], ceiling(budget, "macs"))]
    evolution = Evolution(
        sampler=sampler,
        fits=lambda part: fits(part, budget, asked),
        fitness=judge.all,
        limits=limits,  # type: ignore[arg-type]
    )
    evolution.run([], said.trials)
    total = time.perf_counter() - began
    outside = total - passes.seconds
    print(
        f"{len(graph.edges)} edges, {said.trials} trials: {total:.1f} s, of which {outside:.1f} s "
        f"({outside / total:.1%}) outside the passes that recalibrate and score"
    )


if __name__ == "__main__":
    main()
