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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch import nn

from cifar import fewer
from contest import MEGA, Contest, kept, rate_of
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.execution.allocation import keep_memory
from convfabric.setting_values import parsed_size
from ours import as_quick, from_fabric
from plain import some_batches, train_plain
from records import RESULTS
from rivals import macs_of, mobilenet_of, pruned, resnet_to_prune, searched
from standings import Row, earlier, is_ours, key_of, outlines, record, seeds_of
from timed import timed_fabric

MOST_CHANNELS = 200


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
    models = outlines({key_of(row) for row in known}, numbers, said.results)
    for seed in said.seeds or numbers["seeds"] if not said.record else ():
        for name in said.only or [name for name in numbers["contestants"] if seed in seeds_of(name, numbers)]:
            here = {"work": said.work / f"seed-{seed}", "seed": seed, "now": said.budgets}
            contest = Contest(data=data, numbers=numbers, known=known, models=models, **here)
            contestant_of(name, numbers)(contest)
    record(said.work, numbers, data, said.results)


def contestant_of(name: str, numbers: Mapping[str, Any]) -> Callable[[Contest], None]:
    """What trains a contestant's networks: by name, or by what the configuration says of it."""
    if name in CONTESTANTS:
        return CONTESTANTS[name]
    if is_ours(name, numbers):
        return as_quick(name) if "as_quick_as" in numbers[name] else from_fabric(name, name)
    return widest(name)


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

    ``family`` may say how many ``times`` the cost it has, and whose ``rate`` it takes.
    """
    cost, middle = family.get("times", 1) * contest.numbers["tera_macs"], contest.middle
    tried = family.get("rate", name)

    def on_val(rate: float, cost: float) -> float:
        return score(trained(middle, rate, cost)[0], contest.data, "val").headline

    rate = rate_of(contest, tried, on_val)

    def made(budget: float) -> tuple[nn.Module, Row]:
        network, facts = trained(budget, rate, cost)
        return network, facts | {"rate": rate}

    for budget in contest.wanted(name):
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
    for budget in contest.wanted(name):
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


CONTESTANTS: Mapping[str, Callable[[Contest], None]] = {
    "random": from_fabric("random", search=False),
    "mobilenetv2": mobilenets("mobilenetv2", 2),
    "mobilenetv4": mobilenets("mobilenetv4", 4),
    "pruned": torch_pruned("pruned"),
    "pruned-8": torch_pruned("pruned-8"),
    "fastnas": fastnas,
}


if __name__ == "__main__":
    main()
