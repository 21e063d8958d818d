"""What is contested, and the networks that are finished: for accuracy_per_ms.py."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cifar import fewer
from convfabric.data.imageset import ImageSet
from convfabric.evaluation.scoring import score
from convfabric.execution.folding import folded
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.latency.drafts import drafted
from convfabric.operators import Size
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from rivals import macs_of
from standings import Key, Row, budgets_of, finished, given_up, key_of, middle_of

TERA, MEGA = 1e12, 1e6


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What is contested, and where networks are kept."""

    data: ImageSet
    numbers: Mapping[str, Any]
    """Of the configuration."""
    work: Path
    seed: int
    known: Sequence[Row]
    """Rows of the last record."""
    models: Mapping[Key, bytes]
    """Networks of the last record as ONNX, without their weights."""
    now: Sequence[float] = ()
    """Budgets of which networks that share no training are trained now; all if none is said."""

    @property
    def watched(self) -> ImageSet:
        """The data with fewer validation images, for a look after each epoch that decides nothing."""
        return fewer(self.data, self.numbers.get("watched", 0), "val")

    @property
    def images(self) -> int:
        """Of training."""
        return len(self.data.splits["train"])

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.data.preprocessing.size

    def macs(self, network: nn.Module | Graph) -> int:
        """Multiply-accumulates for one image."""
        graph = network.graph if isinstance(network, Fabric) else network
        return costs(graph, self.size).macs if isinstance(graph, Graph) else macs_of(graph)

    def woven(self, name: str, numbers: Mapping[str, Any]) -> Graph:
        """A network for the data."""
        purpose: dict[str, Any] = {"task": self.data.task, "classes": len(self.data.classes)}
        return weave(name, size=self.size, image_channels=self.data.preprocessing.channels, **purpose, **numbers)

    def epochs(self, tera_macs: float, macs_an_image: float) -> int:
        """Passes over the training images that a cost pays for."""
        return max(1, round(tera_macs * TERA / (macs_an_image * self.images)))

    @property
    def middle(self) -> float:
        """Of the budgets, where rates are tried."""
        return middle_of(self.numbers)

    def wanted(self, name: str) -> Iterator[float]:
        """Budgets that this call trains a contestant's networks for; the middle one says whether there are more."""
        for budget in sorted(budgets_of(name, self.numbers), key=lambda budget: budget != self.middle):
            if name in given_up(finished(self.work.parent, self.known).values(), self.numbers):
                print(name, "is too far behind and not trained further", flush=True)
                return
            if not self.now or budget in self.now:
                yield budget

    def has(self, name: str, budgets: Sequence[float]) -> bool:
        """Whether the last record holds a contestant's networks of this seed."""
        return {(name, float(budget), self.seed) for budget in budgets} <= {key_of(row) for row in self.known}

    def recipe(self, epochs: int, rate: float, **more: Any) -> Recipe:
        """The recipe that all contestants share."""
        return Recipe(epochs=epochs, lr=rate, seed=self.seed, **self.numbers["recipe"], **more)


def kept(contest: Contest, name: str, budget: float, make: Callable[[], tuple[nn.Module, Row]]) -> None:
    """A finished network's row and timed model, made if they are not there. The test set is read once."""
    folder = contest.work / f"{name}-{budget:g}"
    if (folder / "row.json").is_file() or contest.has(name, [budget]):
        return
    began = time.process_time()
    network, facts = make()
    network = network.eval().to(memory_format=torch.channels_last)
    found, on_val = (score(network, contest.data, split) for split in ("test", "val"))
    folder.mkdir(parents=True, exist_ok=True)
    exported = folded(network) if isinstance(network, Fabric) else network
    (folder / "timed.onnx").write_bytes(drafted(exported, torch.zeros(1, 3, *contest.size)))
    row = {
        "network": name,
        "budget M MACs": budget,
        "seed": contest.seed,
        "M MACs": round(contest.macs(network) / MEGA, 2),
        "test %": round(100 * found.headline, 2),
        "val %": round(100 * on_val.headline, 2),
        "CPU minutes": round((time.process_time() - began) / 60, 1),
        **facts,
    }
    (folder / "row.json").write_text(json.dumps(row))
    print(row, flush=True)


def rate_of(contest: Contest, name: str, tried: Callable[[float, float], float]) -> float:
    """The rate that is best on val after an eighth of the cost, at the middle budget; ``tried`` takes rate and cost."""
    recorded = [row["rate"] for row in contest.known if row["network"] == name]
    if recorded:
        return float(recorded[0])
    file = contest.work.parent / f"rate-{name}.json"
    if not file.is_file():
        found = {rate: tried(rate, contest.numbers["tera_macs"] / 8) for rate in contest.numbers["rates"]}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
        print(name, found, flush=True)
    known = {float(rate): value for rate, value in json.loads(file.read_text()).items()}
    return max(known, key=lambda rate: known[rate])


def model_of(contest: Contest, name: str, budget: float) -> bytes:
    """A contestant's finished network of a budget as ONNX, of whichever seed."""
    for file in sorted(contest.work.parent.glob(f"seed-*/{name}-{budget:g}/timed.onnx")):
        return file.read_bytes()
    there = [model for (network, of, _), model in contest.models.items() if (network, of) == (name, float(budget))]
    if not there:
        raise SystemExit(f"{name} at {budget:g} M is not trained yet, so its milliseconds are not known.")
    return there[0]
