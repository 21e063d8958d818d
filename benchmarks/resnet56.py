"""A trained ResNet-56, cut to half and to a quarter of its milliseconds: by us, by Torch-Pruning, by FastNAS.

    python benchmarks/resnet56.py --data DATA/cifar10-jpeg --work WORK --json F          resumable, network by network

The network is trained once and exported; all begin with its weights, keep its classifier and are fine-tuned for as many
epochs at the same rate. Ours and Torch-Pruning with sparse training have as many epochs more before they are cut. The
test split is read once a network. Milliseconds are measured in turns at the end, one thread.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import nn

from convfabric.data.imageset import ImageSet, drawn
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.latency.devices import measure
from convfabric.latency.drafts import drafted
from convfabric.runs.record import read_record
from convfabric.training.recipe import Recipe
from plain import some_batches, train_plain
from pretrained import TURNS, convfabric, time_all
from records import write_record
from rivals import SIZE, PlainResnet, searched

IMAGE = (3, *SIZE)
SHARES = (0.5, 0.25)
"""Of the milliseconds that stay."""
REGULARISATION = 1e-4
"""Of sparse training, as Torch-Pruning's own recipe for CIFAR has it."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """What is contested."""

    said: argparse.Namespace
    data: ImageSet
    work: Path
    whole: nn.Module
    """The trained network."""
    ms: float
    """That it takes."""

    def recipe(self, epochs: int, rate: float) -> Recipe:
        """The one recipe of all but the first training."""
        return Recipe(epochs=epochs, lr=rate, seed=self.said.seed + 1)

    def row(self, name: str, share: float, network: nn.Module, before: float) -> Row:
        """What is recorded of a fine-tuned network, its file kept; ``before`` is the accuracy it had as it was cut."""
        file = self.work / f"{name}-{share:g}.onnx".replace(" ", "-")
        file.write_bytes(drafted(copy.deepcopy(network), torch.zeros(1, *IMAGE)))
        found = score(network.eval(), self.data, "test")
        return row_of(name, share, file, before, found.accuracy)


def row_of(name: str, share: float, file: Path, before: float, accuracy: float) -> Row:
    return {
        "network": name,
        "share": share,
        "file": str(file),
        "as cut, val %": round(100 * before, 2),
        "test %": round(100 * accuracy, 2),
    }


def milliseconds(network: nn.Module) -> float:
    """The median time of an image, one thread."""
    return measure(drafted(copy.deepcopy(network).eval(), torch.zeros(1, *IMAGE)), IMAGE).median_ms


def trained_whole(said: argparse.Namespace, data: ImageSet, file: Path) -> nn.Module:
    """ResNet-56, trained once, and its program in a file."""
    torch.manual_seed(said.seed)
    network = PlainResnet(16, 9)
    if file.with_suffix(".pt").is_file():
        network.load_state_dict(torch.load(file.with_suffix(".pt"), weights_only=True))
        return network.eval()
    train_plain(network, data, Recipe(epochs=said.epochs, lr=0.1, seed=said.seed))
    torch.save(network.state_dict(), file.with_suffix(".pt"))
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()
    torch.export.save(torch.export.export(plain, (torch.zeros(2, *IMAGE),)), file)
    return network.eval()


def by_us(contest: Contest) -> Iterator[Row]:
    """The fabric that the network is, trained on with sub-networks, cut twice."""
    said, run = contest.said, contest.work / "ours"
    words = ["--network", f"file:{contest.work / 'whole.pt2'}", "--epochs", said.more, "--seed", said.seed]
    changes = {
        "classifier": "kept",
        "lr": said.rate,
        "finetune": said.tuning / said.more,
        "finetune_most": 1,
        "finetune_lr": 1,
    }
    settings = [part for name, value in changes.items() for part in ("--set", f"{name}={value}")]
    going_on = ["--resume"] if run.is_dir() else [*words, *settings]
    convfabric("train", said.data, "--out", run, *going_on)
    convfabric("curve", run, "--latency-ms", ",".join(f"{share * contest.ms:.4g}" for share in SHARES))
    for share in SHARES:
        folder = run / "curve" / f"latency_ms-{float(f'{share * contest.ms:.4g}'):g}"
        record = read_record(folder).done("network", "tuning")
        assert record.network is not None
        assert record.tuning is not None
        before = record.tuning.after_recalibration.accuracy
        yield row_of("ours", share, folder / "model.onnx", before, record.network.score.accuracy)


def by_torch_pruning(contest: Contest) -> Iterator[Row]:
    """The weakest groups of all layers taken out."""
    yield from _pruned(contest, "Torch-Pruning", copy.deepcopy(contest.whole))


def by_sparse_training(contest: Contest) -> Iterator[Row]:
    """The same after epochs in which weak groups are drawn to zero."""
    network = copy.deepcopy(contest.whole).to(memory_format=torch.contiguous_format)
    pruner = _pruner(network, torch_pruning.pruner.GroupNormPruner, reg=REGULARISATION)
    recipe = contest.recipe(contest.said.more, contest.said.rate)
    train_plain(network, contest.data, recipe, after=lambda: pruner.regularize(network))
    yield from _pruned(contest, "Torch-Pruning, sparse", network)


def _pruner(network: nn.Module, kind: Callable[..., Any], **more: object) -> Any:
    return kind(
        network.eval(),
        torch.zeros(1, *IMAGE),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.9,
        iterative_steps=60,
        ignored_layers=[network.get_submodule("head")],
        **more,
    )


def _pruned(contest: Contest, name: str, network: nn.Module) -> Iterator[Row]:
    """Copies that meet each share, fine-tuned."""
    small = network.to(memory_format=torch.contiguous_format)
    pruner = _pruner(small, torch_pruning.pruner.MagnitudePruner)
    for share in SHARES:
        while milliseconds(small) > share * contest.ms and pruner.current_step < pruner.iterative_steps:
            pruner.step()
        yield _tuned(contest, name, share, copy.deepcopy(small))


def by_fastnas(contest: Contest) -> Iterator[Row]:
    """Searched under a ceiling of MACs that comes down until the milliseconds are met; needs torchprofile below 0.1.

    It judges sub-networks some hundreds of times before its first search, so by a quarter of the validation images. Of
    its networks milliseconds come down slower than MACs, so the first ceiling is the square of the share.
    """
    few = replace(contest.data, splits={"val": drawn(contest.data.splits["val"], len(contest.data.splits["val"]) // 4)})
    batches = some_batches(contest.data, contest.recipe(1, contest.said.rate))[:20]
    whole = torch_pruning.utils.count_ops_and_params(copy.deepcopy(contest.whole), torch.zeros(1, *IMAGE))[0]
    for share in SHARES:
        allowed = share**2
        while True:
            judge = lambda network: score(network.eval(), few, "val").accuracy  # noqa: E731
            small = searched(contest.whole, allowed * whole, batches, judge, contest.work / "fastnas.pth")
            if (took := milliseconds(small)) <= share * contest.ms:
                break
            print(f"FastNAS: {took:.3g} ms at {allowed:.1%} of the MACs, {share * contest.ms:.3g} allowed", flush=True)
            allowed *= min(0.8, share * contest.ms / took)
        yield _tuned(contest, "FastNAS", share, small)


def _tuned(contest: Contest, name: str, share: float, network: nn.Module) -> Row:
    before = score(network.eval(), contest.data, "val").accuracy
    train_plain(network, contest.data, contest.recipe(contest.said.tuning, contest.said.rate))
    return contest.row(name, share, network, before)


CONTESTANTS: dict[str, Callable[[Contest], Iterator[Row]]] = {
    "ours": by_us,
    "Torch-Pruning": by_torch_pruning,
    "Torch-Pruning, sparse": by_sparse_training,
    "FastNAS": by_fastnas,
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="folder with train/CLASS and test/CLASS")
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--work", type=Path, required=True)
    words.add_argument("--epochs", type=int, default=30, help="of the whole network")
    words.add_argument("--more", type=int, default=10, help="before the cut, for ours and for sparse training")
    words.add_argument("--tuning", type=int, default=10, help="after the cut, for all")
    words.add_argument("--rate", type=float, default=0.02, help="of both")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--only", nargs="*", default=list(CONTESTANTS))
    words.add_argument("--record", action="store_true", help="write down what is there")
    said = words.parse_args()
    torch.set_num_threads(1)
    said.work.mkdir(parents=True, exist_ok=True)
    data = open_data(str(said.data), DataOptions(size=SIZE))
    whole = trained_whole(said, data, said.work / "whole.pt2")
    contest = Contest(said, data, said.work, whole, milliseconds(whole))
    rows: list[Row] = json.loads(said.json.read_text()) if said.json.is_file() else []
    if not rows:
        rows.append(contest.row("whole", 1.0, whole, score(whole, data, "val").accuracy))
    for name in said.only:
        if any(row["network"] == name for row in rows):
            continue
        began = time.monotonic()
        rows += [row | {"minutes": round((time.monotonic() - began) / 60, 1)} for row in CONTESTANTS[name](contest)]
        said.json.write_text(json.dumps(rows, indent=1))
    time_all(rows, IMAGE)
    print(*rows, sep="\n")
    said.json.write_text(json.dumps(rows, indent=1))
    if said.record:
        print(write_record("resnet56", list(sentences(said, data, contest.ms)), [without_file(row) for row in rows]))


def sentences(said: argparse.Namespace, data: ImageSet, whole_ms: float) -> Iterator[str]:
    """How the figures came to be."""
    train, test = (f"{len(data.splits[name]):,}" for name in ("train", "test"))
    yield f"{data.name}, {train} images of training, {test} of test; ResNet-56 of 16 channels, {said.epochs} epochs."
    yield f"It took {whole_ms:.3g} ms as it was cut: ONNX Runtime, one thread, batch 1."
    yield (
        f"Ours and Torch-Pruning with sparse training have {said.more} epochs more before they are cut; all are "
        f"fine-tuned for {said.tuning} epochs at a rate of {said.rate}, seed {said.seed}."
    )
    yield f"The column ms: the median of {TURNS} turns through all networks afterwards."


def without_file(row: Row) -> Row:
    """A row as it is written down; the columns of all are the same."""
    return {name: value for name, value in row.items() if name != "file"} | {"minutes": row.get("minutes", "")}


if __name__ == "__main__":
    main()
