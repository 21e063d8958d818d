"""CamVid: a fabric trained, cut and fine-tuned, beside a plain U-Net of the same MACs and the same minutes.

    python benchmarks/camvid.py --data CamVid            the record, 240×180

The record is written anew after each network, so a run that is stopped leaves what it had.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convfabric.choice import Budget, choose
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract
from convfabric.cutting.worth import WORTHS
from convfabric.data.augmentation import augmented, fit_for
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import Score, score
from convfabric.execution.plans import plan_for
from convfabric.fabric.module import Fabric
from convfabric.graph.costs import costs
from convfabric.progress import Moment
from convfabric.setting_values import parsed_size
from convfabric.training.loop import train
from convfabric.training.losses import loss
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record

VOID = 11
Row = dict[str, object]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", required=True, help="folder with train, trainannot, val, valannot, test, testannot")
    words.add_argument("--size", default="240x180")
    words.add_argument("--channels", type=int, default=16)
    words.add_argument("--scales", type=int, default=4)
    words.add_argument("--finest", type=int, default=1)
    words.add_argument("--epochs", type=int, default=30)
    words.add_argument("--finetune-epochs", type=int, default=15)
    words.add_argument("--share", default="40%", help="of the fabric's MACs that the cut network may take")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    data = open_data(said.data, DataOptions(size=parsed_size(said.size), ignore=VOID))
    recipe = Recipe(epochs=said.epochs, lr=0.1, seed=said.seed)
    tuning = recipe.changed(epochs=said.finetune_epochs, lr=0.04, seed=said.seed + 1)
    rows: list[Row] = []

    def record(*more: Row) -> None:
        rows.extend(more)
        sentences = [
            f"CamVid at {said.size}, 11 classes, void ignored, masks scaled with the images; seed {said.seed}. mIoU "
            "over the 233 test images, each network scored once on them. The fabric is fabric-small with layers=6, "
            f"finest={said.finest}, scales={said.scales}, channels={said.channels}; {said.share} of its MACs are kept.",
            f"Recipe: {recipe}. Fine-tuning: {tuning.epochs} epochs at lr {tuning.lr}, the fabric as teacher.",
            f"Augmentation of every row: {fit_for(data)}.",
            "Minutes are wall-clock of training alone, one after another on one core (OMP_NUM_THREADS).",
        ]
        print(
            write_record(
                f"camvid-{said.size}-{said.finest}-{said.scales}-{said.channels}-seed{said.seed}",
                sentences,
                rows,
                said.results,
            ),
            flush=True,
        )

    fabric, minutes = trained_fabric(data, recipe, said.finest, said.scales, said.channels)
    record(row("fabric", fabric, data, minutes))
    small, tuned_minutes = cut_rows(fabric, data, tuning, "loss-change", said.share, record)
    record(unet_row(small, data, recipe, (minutes + tuned_minutes) * 60))
    cut_rows(fabric, data, tuning, "random", said.share, record)


def trained_fabric(data: ImageSet, recipe: Recipe, finest: int, scales: int, channels: int) -> tuple[Fabric, float]:
    """The fabric, and the minutes that training took."""
    torch.manual_seed(recipe.seed)
    graph = weave(
        "fabric-small",
        size=data.preprocessing.size,
        classes=len(data.classes),
        task=data.task,
        layers=6,
        finest=finest,
        scales=scales,
        channels=channels,
    )
    fabric, began = Fabric(graph), time.monotonic()
    train(fabric, data, recipe, watch=said_epoch)
    return fabric, (time.monotonic() - began) / 60


def cut_rows(fabric, data, tuning, worth, share, record) -> tuple[Fabric, float]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Records the network cut by a worth, just cut and fine-tuned; returns it and the minutes."""
    began = time.monotonic()
    chosen = choose(fabric.graph, WORTHS[worth](fabric, data), Budget(macs=share), data.preprocessing.size)
    small = extract(fabric, chosen)
    record(row(f"just cut by {worth}", small, data, 0.0))
    refresh(small, data)
    record(row(f"cut by {worth}, refreshed", small, data, 0.0))
    train(small, data, tuning, stage="finetune", teacher=fabric, watch=said_epoch)
    minutes = (time.monotonic() - began) / 60
    record(row(f"cut by {worth}, fine-tuned", small, data, minutes))
    return small, minutes


def row(name: str, fabric: Fabric, data: ImageSet, minutes: float) -> Row:
    found = costs(fabric.graph, data.preprocessing.size)
    return finished(name, len(fabric.graph.edges), found.parameters, found.macs, score(fabric, data, "test"), minutes)


def finished(name: str, edges: int, parameters: int, macs: int, found: Score, minutes: float) -> Row:
    assert found.miou is not None
    return {
        "network": name,
        "edges": edges or "",
        "parameters": parameters,
        "M MACs": round(macs / 1e6, 1),
        "test mIoU %": round(100 * found.miou, 2),
        "pixel accuracy %": round(100 * found.accuracy, 2),
        "minutes": round(minutes, 1),
    }


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padding and batch normalisation: two 3×3 convolutions at each of five scales."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = [channels << i for i in range(5)]
        self.down = nn.ModuleList(_twice(before, after) for before, after in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.merge = nn.ModuleList(_twice(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2, ceil_mode=True) if i else x)
            seen.append(x)
        for up, merge, skip in zip(self.up, self.merge, seen[-2::-1], strict=True):
            x = merge(torch.cat([up(x)[..., : skip.shape[2], : skip.shape[3]], skip], 1))
        logits: torch.Tensor = self.head(x)
        return logits


def _twice(before: int, after: int) -> nn.Sequential:
    steps = [(nn.Conv2d(a, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()) for a in (before, after)]
    return nn.Sequential(*(step for group in steps for step in group))


def unet_of(macs: int, data: ImageSet) -> tuple[UNet, int]:
    """The widest U-Net of at most so many MACs, and its MACs."""
    best, spent = UNet(1, len(data.classes)), 0
    for channels in range(1, 129):
        network = UNet(channels, len(data.classes)).eval()
        with FlopCounterMode(display=False) as counted, torch.inference_mode():
            network(torch.zeros(1, 3, *data.preprocessing.size))
        if counted.get_total_flops() // 2 > macs:
            break
        best, spent = network, counted.get_total_flops() // 2
    return best, spent


def unet_row(like: Fabric, data: ImageSet, recipe: Recipe, seconds: float) -> Row:
    """A U-Net of a network's MACs, trained for so many seconds with the same recipe and augmentation."""
    torch.manual_seed(recipe.seed)
    network, macs = unet_of(costs(like.graph, data.preprocessing.size).macs, data)
    network = network.train().to(memory_format=torch.channels_last)
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    how, dice, half = (
        fit_for(data),
        torch.Generator().manual_seed(recipe.seed),
        plan_for(weave(), training=True).bfloat16,
    )
    batch, count = recipe.fitted(len(data.splits["train"]), data.task).batch, len(data.splits["train"])
    step, began, spent = 0, time.monotonic(), 0.0
    while spent < seconds:
        order = torch.randperm(count, generator=dice)[: count - count % batch].view(-1, batch).tolist()
        for images, targets in data.splits["train"].batches(order):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(round(1000 * spent / seconds), 1001)
            changed, targets = augmented(images, targets, how, dice, data.ignore, data.preprocessing.size)
            pixels = data.preprocessing.normalised(changed).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = network(pixels)
            optimiser.zero_grad()
            torch.autograd.backward(loss(logits.float(), targets.long(), recipe, data.void))
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
            optimiser.step()
            step, spent = step + 1, time.monotonic() - began
            if step % 200 == 0:
                print(f"U-Net step {step}, {spent / 60:.1f} of {seconds / 60:.1f} minutes", flush=True)
            if spent >= seconds:
                break
    parameters = sum(p.numel() for p in network.parameters())
    print(f"U-Net: {step * batch / count:.1f} epochs", flush=True)
    return finished("plain U-Net", 0, parameters, macs, score(network.eval(), data, "test"), spent / 60)


def said_epoch(moment: Moment) -> None:
    if moment.row:
        print(moment.row, f"{moment.seconds_left / 60:.1f} min left", flush=True)


if __name__ == "__main__":
    main()
