"""The contest: accuracy per millisecond, of networks cut from one fabric and of others trained at the same total cost.

    pip install timm torch-pruning nvidia-modelopt requests "torchprofile<0.1"
    python benchmarks/accuracy_per_ms.py --data cifar10-jpeg               what accuracy_per_ms.yaml says
    python benchmarks/accuracy_per_ms.py --data cifar10-jpeg --only fabric resnet-20
    python benchmarks/accuracy_per_ms.py --data CamVid --config benchmarks/accuracy_per_ms_camvid.yaml

Every contestant gets the same cost for each budget; the fabric is trained with the sum of all, less what fine-tuning
takes. Resumable: each finished network is kept in --work, families of ours go on within a training, and what the last
record in --results holds, of the same configuration, is not trained again. Milliseconds are measured at the end, in
turns.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import nn

from cifar import fewer
from convfabric.archive import load_fabric, passport, save_fabric
from convfabric.choice.evolution import Evolution
from convfabric.costs import costs
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.execution.allocation import keep_memory
from convfabric.execution.folding import folded
from convfabric.extraction.inherited import Judge
from convfabric.extraction.statistics import refresh
from convfabric.extraction.surgery import extract
from convfabric.fabric import Fabric
from convfabric.graph import Graph
from convfabric.latency.drafts import drafted
from convfabric.operators import Size
from convfabric.sampling import Sampler
from convfabric.scores import score
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.values import parsed_size
from convfabric.weavers import weave
from plain import some_batches, train_plain
from records import RESULTS
from rivals import macs_of, mobilenet_of, pruned, resnet_to_prune, searched
from standings import Row, earlier, key_of, record
from timed import timed_fabric

TERA, MEGA = 1e12, 1e6
MOST_CHANNELS = 200


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
        budgets: list[float] = self.numbers["budgets"]
        return budgets[len(budgets) // 2]

    def wanted(self, budgets: Sequence[float]) -> list[float]:
        """Those of some budgets that networks are trained for now."""
        return [budget for budget in budgets if not self.now or budget in self.now]

    def has(self, name: str, budgets: Sequence[float]) -> bool:
        """Whether the last record holds a contestant's networks of this seed."""
        return {(name, float(budget), self.seed) for budget in budgets} <= {key_of(row) for row in self.known}

    def recipe(self, epochs: int, rate: float, **more: Any) -> Recipe:
        """The recipe that all contestants share."""
        return Recipe(epochs=epochs, lr=rate, seed=self.seed, **self.numbers["recipe"], **more)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", required=True, help="folder with train/CLASS and test/CLASS")
    words.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
    words.add_argument("--seeds", nargs="*", type=int, help="instead of the configuration's")
    words.add_argument("--work", type=Path, default=Path("runs/contest"))
    words.add_argument("--only", nargs="*", help="contestants")
    words.add_argument("--budgets", nargs="*", type=float, default=[], help="M MACs; for those that train separately")
    words.add_argument("--results", type=Path, default=RESULTS)
    words.add_argument("--record", action="store_true", help="only measure and write down what is there")
    said = words.parse_args()
    keep_memory()
    numbers = yaml.safe_load(said.config.read_text())
    options = {name: numbers[name] for name in ("size", "ignore") if name in numbers}
    options |= {"size": parsed_size(options["size"])} if "size" in options else {}
    data = fewer(open_data(said.data, DataOptions(**options)), numbers["images"])
    known = earlier(numbers, said.results)
    for seed in said.seeds or numbers["seeds"] if not said.record else ():
        for name in said.only or numbers["contestants"]:
            here = {"work": said.work / f"seed-{seed}", "seed": seed, "now": said.budgets}
            contest = Contest(data=data, numbers=numbers, known=known, **here)
            CONTESTANTS.get(name, widest(name))(contest)
    record(said.work, numbers, data, said.results)


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


def widest(name: str) -> Callable[[Contest], None]:
    """Networks of a family that the configuration describes, as wide as each budget lets them be."""

    def contestant(contest: Contest) -> None:
        family = contest.numbers["plain"][name]

        def trained(budget: float, rate: float, cost: float) -> tuple[nn.Module, Row]:
            fitting = [contest.woven(family["network"], family.get("numbers", {}) | {"channels": 1})]
            for channels in range(2, MOST_CHANNELS):
                wider = contest.woven(family["network"], family.get("numbers", {}) | {"channels": channels})
                if contest.macs(wider) > budget * MEGA:
                    break
                fitting.append(wider)
            epochs = contest.epochs(cost, 3 * contest.macs(fitting[-1]))
            folder = contest.work / "trainings" / f"{name}-{budget:g}-{rate:g}-{epochs}"
            recipe = contest.recipe(epochs, rate)
            fabric, (cpu, _) = timed_fabric(fitting[-1], contest.watched, recipe, folder, "cpu")
            return fabric, {"CPU minutes": round(cpu, 1)}

        _separately(contest, name, trained, family)

    return contestant


def mobilenets(name: str, version: int) -> Callable[[Contest], None]:
    """MobileNets of one version, as wide as each budget lets them be."""

    def contestant(contest: Contest) -> None:
        def trained(budget: float, rate: float, cost: float) -> tuple[nn.Module, Row]:
            torch.manual_seed(contest.seed)
            network = mobilenet_of(version, budget * MEGA)
            epochs = contest.epochs(cost, 3 * macs_of(network))
            return train_plain(network, contest.watched, contest.recipe(epochs, rate)), {}

        _separately(contest, name, trained)

    return contestant


def _separately(
    contest: Contest,
    name: str,
    trained: Callable[[float, float, float], tuple[nn.Module, Row]],
    family: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """One training for each budget; ``trained`` takes budget, rate and cost, and says what it knows better of its row.

    ``family`` may name other ``budgets``, how many ``times`` the cost it has, and whose ``rate`` it takes.
    """
    cost, middle = family.get("times", 1) * contest.numbers["tera_macs"], contest.middle
    tried = family.get("rate", name)

    def on_val(rate: float, cost: float) -> float:
        return score(trained(middle, rate, cost)[0], contest.data, "val").headline

    rate = rate_of(contest, tried, on_val)

    def made(budget: float) -> tuple[nn.Module, Row]:
        network, facts = trained(budget, rate, cost)
        return network, facts | {"rate": rate}

    for budget in contest.wanted(family.get("budgets", contest.numbers["budgets"])):
        kept(contest, name, budget, partial(made, budget))


def cut_resnet(contest: Contest, name: str, source: str, cut: Callable[[nn.Module, float], nn.Module]) -> None:
    """A larger ResNet, cut by another's program, fine-tuned with the whole as teacher; ``source`` describes it."""
    described = contest.numbers[source]
    cost, share, times = contest.numbers["tera_macs"], described["finetune"], described["times"]

    def whole(budget: float, rate: float, cost: float) -> nn.Module:
        torch.manual_seed(contest.seed)
        network = resnet_to_prune(times * budget * MEGA, described["blocks"])
        epochs = contest.epochs(cost, 3 * macs_of(network))
        return train_plain(network, contest.watched, contest.recipe(epochs, rate))

    def made(budget: float, rate: float) -> tuple[nn.Module, Row]:
        teacher = whole(budget, rate, (1 - share) * cost)
        network = cut(teacher, budget * MEGA)
        epochs = contest.epochs(share * cost, 3 * macs_of(network) + macs_of(teacher))
        tuning = contest.recipe(epochs, rate * contest.numbers["fabric"]["finetune_lr"])
        return train_plain(network, contest.watched, tuning, teacher), {"rate": rate}

    middle = contest.middle
    rate = rate_of(contest, source, lambda rate, cost: score(whole(middle, rate, cost), contest.data, "val").headline)
    for budget in contest.wanted(contest.numbers["budgets"]):
        kept(contest, name, budget, partial(made, budget, rate))


def torch_pruned(name: str) -> Callable[[Contest], None]:
    """Cut by Torch-Pruning: the weakest channels are taken out."""
    return lambda contest: cut_resnet(contest, name, name, pruned)


def fastnas(contest: Contest) -> None:
    """Cut by ModelOpt's FastNAS, which scores sub-networks on the watched validation images."""
    batches = some_batches(contest.data, contest.recipe(1, 0.1))

    def judged(network: nn.Module) -> float:
        return score(network, contest.watched, "val").headline

    def cut(network: nn.Module, most_macs: float) -> nn.Module:
        return searched(network, most_macs, batches, judged)

    cut_resnet(contest, "fastnas", "pruned", cut)


def our_fabric(contest: Contest) -> tuple[Fabric, float]:
    """The trained fabric, and its rate."""
    numbers = contest.numbers["fabric"]
    graph = contest.woven(numbers["network"], numbers["numbers"])
    parts = {"subnetworks": numbers["subnetworks"], "narrowest": numbers["narrowest"]}
    sampler, dice = Sampler.of(graph, numbers["narrowest"], contest.size), random.Random(0)
    drawn = fmean(contest.macs(sampler.draw(dice)) for _ in range(100))
    an_image = 3 * (contest.macs(graph) + numbers["subnetworks"] * drawn)
    every = contest.numbers["tera_macs"] * len(contest.numbers["budgets"])

    def tried(rate: float, cost: float) -> float:
        torch.manual_seed(contest.seed)
        fabric = Fabric(graph)
        recipe = contest.recipe(contest.epochs(len(contest.numbers["budgets"]) * cost / 2, an_image), rate, **parts)
        train(fabric, contest.watched, recipe, device="cpu")
        return score(fabric, contest.data, "val").headline

    rate = rate_of(contest, "fabric", tried)
    recipe = contest.recipe(contest.epochs((1 - numbers["finetune"]) * every, an_image), rate, **parts)
    fabric, _ = timed_fabric(graph, contest.watched, recipe, contest.work / "whole", "cpu")
    print("fabric on val", score(fabric, contest.data, "val").headline, flush=True)
    return fabric, rate


def from_fabric(name: str, search: bool = True, alone: bool = False) -> Callable[[Contest], None]:
    """Networks cut from the fabric, found by evolution or drawn; where there is a teacher it is the next larger one.

    Where each is alone, it has the cost of all budgets together, as if there were no others, and the fabric as teacher.
    """

    def contestant(contest: Contest) -> None:
        every = contest.numbers["budgets"]
        budgets = contest.numbers["alone"] if alone else every
        if contest.has(name, budgets):
            return
        fabric, rate = our_fabric(contest)
        judge, teacher = Judge.of(fabric, contest.data, contest.recipe(1, rate)), fabric
        for budget in budgets:
            folder = contest.work / f"{name}-{budget:g}"

            def made(budget: float = budget, teacher: Fabric = teacher, folder: Path = folder) -> tuple[Fabric, Row]:
                graph = picked(contest, fabric, budget, judge if search else None)
                cost = contest.numbers["tera_macs"] * (len(every) if alone else 1)
                network, facts = tuned(contest, fabric, graph, teacher, rate, cost)
                save_fabric(folder, network, passport(network, contest.data))
                return network, facts

            kept(contest, name, budget, made)
            teacher = fabric if alone else load_fabric(folder)[0]

    return contestant


def picked(contest: Contest, fabric: Fabric, budget: float, judge: Judge | None) -> Graph:
    """The best sub-network that an evolution finds, from the best that are known; without a judge, one by chance."""
    numbers = contest.numbers["fabric"]
    sampler = Sampler.of(fabric.graph, numbers["narrowest"], contest.size)
    fits = partial(under, contest, budget)
    if judge is None:
        evolution, dice = Evolution(sampler=sampler, fits=fits, fitness=contest.macs), random.Random(contest.seed + 1)
        return evolution.grown(evolution.repaired(sampler.draw(dice), dice), dice)
    starts = sorted(judge.known, key=judge, reverse=True)[:4]
    evolution = Evolution(sampler=sampler, fits=fits, fitness=judge)
    return evolution.run(starts, numbers["trials"], contest.seed)[0].graph


def tuned(
    contest: Contest, fabric: Fabric, graph: Graph, teacher: Fabric, rate: float, cost: float
) -> tuple[Fabric, Row]:
    """A sub-network, trained on with its part of a cost."""
    numbers = contest.numbers["fabric"]
    network = refresh(extract(fabric, graph), contest.data, contest.recipe(1, rate))
    inherited = score(network, contest.data, "val").headline
    taking_after = numbers["finetune_distil"]
    taught = teacher if taking_after else None
    an_image = 3 * contest.macs(graph) + (contest.macs(taught) if taught else 0)
    epochs = contest.epochs(numbers["finetune"] * cost, an_image)
    tuning = contest.recipe(epochs, rate * numbers["finetune_lr"], distil=taking_after)
    train(network, contest.watched, tuning, teacher=taught, device="cpu")
    return network, {"rate": rate, "inherited val %": round(100 * inherited, 2)}


def under(contest: Contest, budget: float, graph: Graph) -> bool:
    """Whether a graph is under so many million multiply-accumulates."""
    return contest.macs(graph) <= budget * MEGA


CONTESTANTS: Mapping[str, Callable[[Contest], None]] = {
    "fabric": from_fabric("fabric"),
    "random": from_fabric("random", search=False),
    "fabric-alone": from_fabric("fabric-alone", alone=True),
    "mobilenetv2": mobilenets("mobilenetv2", 2),
    "mobilenetv4": mobilenets("mobilenetv4", 4),
    "pruned": torch_pruned("pruned"),
    "pruned-8": torch_pruned("pruned-8"),
    "fastnas": fastnas,
}


if __name__ == "__main__":
    main()
