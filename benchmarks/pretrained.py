"""A pretrained network, cut to milliseconds on a few images: by us, by hand after a block, by Torch-Pruning; ours anew.

python benchmarks/pretrained.py --json F --data DATA/steel --size 112 --weights FILE.pth --budgets 0.4 0.7 1.2 2.0
python benchmarks/pretrained.py --json F --data DATA/ants-bees --size 224 --weights FILE.pth --images 20 --seeds 0 1 2
python benchmarks/pretrained.py --json F --data DATA/CamVid --size 240x180 --weights FILE.pth --budgets 3 8 --epochs 20

Every contestant trains for as many seconds of one core as ours does for all budgets together. Rates of the others are
chosen on validation images, for which they are not charged, as ours is not for its search; the test split is read once
a network. DATA has train, test
and perhaps val folders of classes; where there is no test, val is it and a fifth of train becomes val. Of images with
masks (void is 11) ENet from scratch is the other contestant, at its usual rate, as wide as is quick enough.
"""

import argparse
import copy
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.fabric.module import Fabric
from convfabric.importing.sources import original
from convfabric.latency.devices import measure
from convfabric.latency.drafts import drafted
from convfabric.pipeline.inputs import prepared_for
from convfabric.runs.record import read_record
from convfabric.setting_values import parsed_size
from convfabric.training.estimate import estimate
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from plain import train_plain
from records import write_record

NETWORK = "timm:tf_efficientnet_lite0"
RATES = (0.01, 0.03, 0.1)
"""Tried for each of the others."""
TRIED = 0.25
"""Share of the seconds that a rate is tried for."""
TURNS = 5
WHOLE = 0.5
"""Share of the seconds in which Torch-Pruning's whole network is trained; the rest is fine-tuning."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """What is contested."""

    said: argparse.Namespace
    seed: int
    data: ImageSet
    table: Path
    work: Path
    budgets: Sequence[float]
    seconds: float = 0.0
    """Of training, for all budgets together."""

    def network(self) -> nn.Module:
        """The pretrained network, a copy."""
        return copy.deepcopy(original(NETWORK, weights=str(self.said.weights), weights_in_order=True).module)

    def milliseconds(self, network: nn.Module) -> float:
        """The median time of an image, one thread."""
        image = (3, *self.data.preprocessing.size)
        return measure(drafted(copy.deepcopy(network).eval(), torch.zeros(1, *image)), image).median_ms

    def row(self, name: str, budget: float, network: nn.Module, seconds: float, **more: object) -> Row:
        """What is recorded of a network, its file kept; the test split is read."""
        found, file = score(network.eval(), self.data, "test"), self.work / f"{name}-{self.seed}-{budget:g}.onnx"
        file.write_bytes(drafted(copy.deepcopy(network), torch.zeros(1, 3, *self.data.preprocessing.size)))
        return _row(self, name, budget, file, found, seconds) | more


def _row(contest: Contest, name: str, budget: float, file: Path, found: Any, seconds: float) -> Row:
    return {
        "network": name,
        "budget ms": budget,
        "seed": contest.seed,
        "file": str(file),
        "test %": round(100 * found.headline, 2),
        "balanced %": round(100 * found.balanced_accuracy, 2),
        "most frequent %": round(100 * found.largest, 2),
        "seconds": round(seconds),
    }


def table_of(said: argparse.Namespace, seed: int, file: Path) -> Path:
    """The images as a table with their splits; ``--images`` of each class are left in train. With masks the folder."""
    if has_masks(said.data):
        return Path(said.data).resolve()
    dice, rows = random.Random(seed), []
    has_test = (said.data / "test").is_dir()
    for folder in sorted(path for path in (said.data / "train").iterdir() if path.is_dir()):
        train = sorted(folder.iterdir())
        dice.shuffle(train)
        apart = [] if has_test else train[: len(train) // 5]
        train = [path for path in train if path not in apart]
        val = sorted((said.data / "val" / folder.name).iterdir())
        parts = {
            "train": train[: said.images or len(train)],
            "val": val if has_test else apart,
            "test": sorted((said.data / "test" / folder.name).iterdir()) if has_test else val,
        }
        rows += [(path.resolve(), folder.name, split) for split, paths in parts.items() for path in paths]
    with file.open("w", newline="") as text:
        csv.writer(text).writerows([("path", "label", "split"), *rows])
    return file


def has_masks(data: Path) -> bool:
    """Whether images have masks in folders of their own, as CamVid's do."""
    return (data / "trainannot").is_dir()


def convfabric(*words: object) -> None:
    """The command line, as a user would type it."""
    subprocess.run([sys.executable, "-m", "convfabric", *map(str, words)], check=True)


def cut_by_us(contest: Contest, name: str, *words: object) -> Iterator[Row]:
    """One training, and a network of each budget cut from it."""
    run, said = contest.work / f"{name}-{contest.seed}", contest.said
    words = (*words, *(("--set", "ignore=11") if has_masks(said.data) else ()))
    shared = ("--seed", contest.seed, "--out", run, *(["--resume"] if run.is_dir() else ["--size", said.size, *words]))
    convfabric("train", contest.table, *shared)
    convfabric("curve", run, "--latency-ms", ",".join(f"{budget:g}" for budget in contest.budgets))
    for budget in contest.budgets:
        folder = run / "curve" / f"latency_ms-{budget:g}"
        record = read_record(folder).done("fabric", "network")
        assert record.fabric is not None
        assert record.network is not None
        spent = record.fabric.seconds / len(contest.budgets) + record.network.seconds
        yield _row(contest, name, budget, folder / "model.onnx", record.network.score, spent)


def by_us(contest: Contest) -> Iterator[Row]:
    """The imported network."""
    weights = ("--weights", contest.said.weights, "--weights-in-order", "--epochs", contest.said.epochs)
    return cut_by_us(contest, "imported", "--network", NETWORK, *weights)


def anew(contest: Contest) -> Iterator[Row]:
    """Our default fabric, from random weights, for as many seconds."""
    trial = contest.work / f"trial-{contest.seed}"
    if not (trial / "fabric").is_dir():
        convfabric("train", contest.table, "--out", trial, "--size", contest.said.size, "--epochs", 3, "--force")
    fabric = read_record(trial).fabric
    assert fabric is not None
    epochs = max(3, round(3 * contest.seconds / fabric.seconds / (1 + 0.5 * len(contest.budgets) / 2)))
    return cut_by_us(contest, "from scratch", "--epochs", epochs)


def enet(contest: Contest) -> Iterator[Row]:
    """ENet from scratch, each for its share of the seconds."""
    size, share = contest.data.preprocessing.size, contest.seconds / len(contest.budgets)
    purpose: Any = {"size": size, "task": "segmentation", "classes": len(contest.data.classes)}
    sizes = {channels: Fabric(weave("enet", channels=channels, **purpose)) for channels in range(4, 34, 2)}
    times = {channels: contest.milliseconds(network) for channels, network in sizes.items()}
    for budget in contest.budgets:
        channels = max((one for one, took in times.items() if took <= budget), default=min(times))
        torch.manual_seed(contest.seed)
        network = Fabric(weave("enet", channels=channels, **purpose))
        once = Recipe(epochs=1, lr=0.1, seed=contest.seed)
        epochs = max(1, round(share / 60 / estimate(network, contest.data, once, device="cpu").minutes))
        began = time.monotonic()
        train(network, contest.data, once.changed(epochs=epochs), device="cpu")
        yield contest.row("ENet", budget, network, time.monotonic() - began, channels=channels, epochs=epochs)


class Stages(nn.Module):
    """A network of timm as far as a block, with a linear classifier over the mean of what that makes."""

    def __init__(self, whole: Any, blocks: int, classes: int) -> None:
        super().__init__()
        every = [block for stage in whole.blocks for block in stage]
        self.body = nn.Sequential(whole.conv_stem, whole.bn1, *every[:blocks])
        with torch.no_grad():
            channels = self.body.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K)."""
        answer: Tensor = self.head(self.body(images).mean((2, 3)))
        return answer


def by_hand(contest: Contest) -> Iterator[Row]:
    """The deepest part that is quick enough, each trained alone for its share of the seconds."""
    whole: Any = contest.network()
    count = len([block for stage in whole.blocks for block in stage])

    def made(blocks: int) -> nn.Module:
        return Stages(contest.network(), blocks, len(contest.data.classes))

    times = [contest.milliseconds(made(blocks)) for blocks in range(1, count + 1)]
    for budget in contest.budgets:
        blocks = sum(took <= budget for took in times)
        network, spent, rate = trained(contest, partial(made, blocks), contest.seconds / len(contest.budgets))
        yield contest.row("by hand", budget, network, spent, rate=rate, blocks=blocks)


def by_torch_pruning(contest: Contest) -> Iterator[Row]:
    """The whole trained, then its weakest channels taken out until it is quick enough, then fine-tuned."""
    share = contest.seconds / len(contest.budgets)

    def whole() -> nn.Module:
        network: Any = contest.network()
        network.reset_classifier(len(contest.data.classes))
        return network  # type: ignore[no-any-return]

    torch.manual_seed(contest.seed)
    tuned, spent, rate = trained(contest, whole, WHOLE * contest.seconds)
    for budget, small in _pruned(contest, tuned).items():
        took = time.monotonic()
        train_seconds(contest, small, rate / 2, (1 - WHOLE) * share)
        each = spent / len(contest.budgets) + time.monotonic() - took
        yield contest.row("Torch-Pruning", budget, small, each, rate=rate)


def _pruned(contest: Contest, network: Any) -> dict[float, nn.Module]:
    """By the budgets that are met, copies of a network, pruned by the magnitude of groups over all layers."""
    import torch_pruning

    found: dict[float, nn.Module] = {}
    small = copy.deepcopy(network).eval().to(memory_format=torch.contiguous_format)
    pruner = torch_pruning.pruner.MagnitudePruner(
        small,
        torch.zeros(1, 3, *contest.data.preprocessing.size),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.9,
        iterative_steps=100,
        ignored_layers=[small.get_classifier()],
    )
    for budget in sorted(contest.budgets, reverse=True):
        while (took := contest.milliseconds(small)) > budget:
            if pruner.current_step >= pruner.iterative_steps:
                print(f"Torch-Pruning leaves {took:.3g} ms, above {budget:g}", flush=True)
                return found
            for _ in range(4 if took > 1.5 * budget else 1):
                pruner.step()
        found[budget] = copy.deepcopy(small)
    return found


def trained(contest: Contest, make: Callable[[], nn.Module], seconds: float) -> tuple[nn.Module, float, float]:
    """A network trained for some seconds at the best of a few rates, the seconds it took, and the rate."""
    by_rate: dict[float, float] = {}
    for rate in RATES:
        torch.manual_seed(contest.seed)
        network = make()
        train_seconds(contest, network, rate, TRIED * seconds)
        by_rate[rate] = score(network.eval(), contest.data, "val").accuracy
    best = max(by_rate, key=lambda rate: by_rate[rate])
    torch.manual_seed(contest.seed)
    network, began = make(), time.monotonic()
    train_seconds(contest, network, best, seconds)
    return network, time.monotonic() - began, best


def train_seconds(contest: Contest, network: nn.Module, rate: float, seconds: float) -> None:
    """Trains a network for so many epochs as fit into some seconds, by one that is timed on a copy."""
    recipe = Recipe(epochs=1, lr=rate, seed=contest.seed).fitted(len(contest.data.splits["train"]), contest.data.task)
    began = time.monotonic()
    train_plain(copy.deepcopy(network), contest.data, recipe.changed(epochs=1, lr=rate))
    epochs = max(1, round(seconds / (time.monotonic() - began)))
    train_plain(network, contest.data, recipe.changed(epochs=epochs, lr=rate))


MASKED = {"ENet": enet}
OTHERS: dict[str, Callable[[Contest], Iterator[Row]]] = {
    "by hand": by_hand,
    "Torch-Pruning": by_torch_pruning,
    "from scratch": anew,
}


def time_all(rows: Sequence[Row], image: tuple[int, int, int]) -> None:
    """The milliseconds of every network, measured in turns: the median of the turns. Some read grey images."""
    read = [onnx.load(row["file"]).graph.input[0].type.tensor_type.shape.dim[1].dim_value for row in rows]
    images = [(channels, *image[1:]) for channels in read]
    turns = [
        [measure(Path(r["file"]), one).median_ms for r, one in zip(rows, images, strict=True)] for _ in range(TURNS)
    ]
    for row, *took in zip(rows, *turns, strict=True):
        row["ms"] = round(statistics.median(took), 3)


def said_rows(rows: Sequence[Row]) -> Iterator[str]:
    """Means over seeds, a line for each network and budget."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["budget ms"], row["network"]].append(row)
    for (budget, name), members in sorted(groups.items()):
        accuracy, balanced, ms = (
            sum(row[key] for row in members) / len(members) for key in ("test %", "balanced %", "ms")
        )
        yield f"{budget:g} ms {name:14} {accuracy:.2f} % balanced {balanced:.2f} % in {ms:.3f} ms, {len(members)} seeds"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--weights", type=Path, required=True)
    words.add_argument("--size", default="224", help="pixels on a side, or WIDTHxHEIGHT")
    words.add_argument("--budgets", type=float, nargs="+", default=[1.0, 2.5, 5.0, 10.0])
    words.add_argument("--images", type=int, default=0, help="of each class in train; 0: all")
    words.add_argument("--epochs", type=int, default=16, help="of our training; all else follows from its seconds")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--only", nargs="*", default=None, help=f"of {', '.join([*OTHERS, 'ENet'])}")
    words.add_argument("--record", action="store_true", help="write a dated record into results")
    words.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "pretrained")
    said = words.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = json.loads(said.json.read_text()) if said.json.is_file() else []
    for seed in said.seeds:
        work = said.work / f"{said.data.name}-{said.images or 'all'}-{said.size}"
        work.mkdir(parents=True, exist_ok=True)
        table = table_of(said, seed, work / f"table-{seed}.csv")
        masks = has_masks(said.data)
        size = parsed_size(said.size if "x" in said.size else f"{said.size}x{said.size}")
        data = open_data(str(table), DataOptions(size=size, read_as="colour", ignore=11 if masks else 255))
        data = prepared_for(original(NETWORK, weights=str(said.weights), weights_in_order=True), data)
        contest = Contest(said, seed, data, table, work, said.budgets)
        known = MASKED if masks else OTHERS
        for name, make in {"imported": by_us, **{name: known[name] for name in said.only or known}}.items():
            if name != "imported":
                spent = sum(row["seconds"] for row in rows if (row["network"], row["seed"]) == ("imported", seed))
                contest = Contest(said, seed, data, table, work, said.budgets, spent)
            if any((row["network"], row["seed"]) == (name, seed) for row in rows):
                continue
            for row in list(make(contest)):
                rows.append(row)
                print(row, flush=True)
            said.json.write_text(json.dumps(rows, indent=1))
    time_all(rows, (3, *data.preprocessing.size))
    said.json.write_text(json.dumps(rows, indent=1))
    lines = list(said_rows(rows))
    print("\n".join(lines))
    if said.record:
        few = f"-{said.images}-a-class" if said.images else ""
        print(
            write_record(f"pretrained-{said.data.name.lower()}-{said.size}{few}", told(said, lines), table_rows(rows))
        )


def told(said: argparse.Namespace, lines: Sequence[str]) -> list[str]:
    """What a record says before its table."""
    return [
        f"{NETWORK} with ImageNet weights on {said.data.name}, images of {said.size} pixels"
        + (f", {said.images} of each class in train" if said.images else "")
        + ". One core. Every contestant has as many seconds of training for all budgets as ours: our training of "
        f"{said.epochs} epochs and its fine-tuning. Rates of the others are chosen of {', '.join(map(str, RATES))} on "
        "validation images, which is not charged to them; our search for what to cut is not charged to us. The test "
        "split is read once for a network. Milliseconds: ONNX Runtime, one thread, the median of "
        f"{TURNS} turns through all networks; each was cut to its budget by what it took at the time.",
        "",
        *lines,
    ]


def table_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows in order, all with the same columns and without where files lie."""
    names = dict.fromkeys(name for row in rows for name in row if name != "file")
    ordered = sorted(rows, key=lambda row: (row["budget ms"], row["network"], row["seed"]))
    return [{name: row.get(name, "") for name in names} for row in ordered]


if __name__ == "__main__":
    main()
