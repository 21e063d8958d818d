"""Boxes on defects of steel: our fabric, a pretrained network cut to milliseconds, and SSDLite from scratch.

    python benchmarks/boxes.py --json F --data DATA/steel/boxes-train.json --weights FILE.pth --budgets 2 5 --minutes 8

Every network trains for as many minutes of one core. SSDLite320 (MobileNetV3-Large) is torchvision's, with its loss,
anchors and augmentation; rates are chosen on validation images, for which it is not charged. Milliseconds are of one
image under ONNX Runtime, one thread, in turns, without non-maximum suppression, which is timed by itself. The test
split is read once a network. Resumable: what a row says is kept in F.
"""

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.transforms import v2

from convfabric.boxes.answers import Found, boxes_and_odds, found_boxes
from convfabric.boxes.average_precision import precision
from convfabric.data.imageset import ImageSet, in_order
from convfabric.data.opening import open_data
from convfabric.fabric.archive import load_fabric
from convfabric.latency.devices import measure
from convfabric.latency.drafts import drafted
from records import write_record

NETWORK = "timm:tf_efficientnet_lite0"
RATES, TRIED = (0.01, 0.03), 0.15
"""For batches of 24, torchvision's 0.15 is for 8 times as many; the share of the minutes that each is tried for."""
BATCH, TURNS = 24, 5
Row = dict[str, Any]


class Ssdlite:
    """Torchvision's SSDLite320 for images of some pixels."""

    def __init__(self, classes: int, side: int) -> None:
        torch.manual_seed(0)
        self.network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1)
        self.network.transform.fixed_size = (side, side)
        self.side = side

    def train(self, data: ImageSet, seconds: float, lr: float) -> None:
        """By torchvision's recipe for SSD: crops by overlap, mirrored images, SGD, a cosine; seconds of this core."""
        changes = v2.Compose([v2.RandomIoUCrop(), v2.RandomHorizontalFlip(), v2.SanitizeBoundingBoxes()])
        optimiser = torch.optim.SGD(self.network.parameters(), lr=lr, momentum=0.9, weight_decay=4e-5)
        began, dice, split = time.process_time(), torch.Generator().manual_seed(0), data.splits["train"]
        self.network.train()
        while (spent := time.process_time() - began) < seconds:
            order = torch.randperm(len(split), generator=dice).tolist()
            for start in range(0, len(split) - BATCH, BATCH):
                spent = time.process_time() - began
                way = min(1.0, spent / seconds)
                warm = min(1.0, spent / (0.02 * seconds))
                optimiser.param_groups[0]["lr"] = warm * lr * (1 + torch.cos(torch.tensor(torch.pi * way)).item()) / 2
                images, targets = next(split.batches([order[start : start + BATCH]]))
                pairs = [changed(*one, changes) for one in zip(images, targets, strict=True)]
                losses = self.network([image for image, _ in pairs], [target for _, target in pairs])
                loss = sum(losses.values())
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
                optimiser.step()
                if spent > seconds:
                    break

    def found(self, images: Tensor) -> list[Found]:
        """Boxes in images."""
        self.network.eval()
        with torch.inference_mode():
            answers = self.network(list(images.expand(-1, 3, -1, -1).float() / 255))
        return [Found(one["boxes"], one["labels"] - 1, one["scores"]) for one in answers]

    def file(self) -> bytes:
        """What runs before non-maximum suppression, as an ONNX file."""
        return drafted(Body(copy.deepcopy(self.network).eval()), torch.zeros(1, 3, self.side, self.side))


class Body(nn.Module):
    """The trunk and the heads of a detector."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.trunk, self.head = network.backbone, network.head

    def forward(self, images: Tensor) -> Tensor:
        """Offsets and logits of every anchor, side by side."""
        said = self.head(list(self.trunk(images).values()))
        return torch.cat([said["bbox_regression"], said["cls_logits"].softmax(-1)], -1)


def changed(image: Tensor, target: Tensor, changes: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and its boxes, augmented, as torchvision's detectors take them; as they were where nothing is left."""
    there = target[target[:, 0] >= 0]
    size = (image.shape[1], image.shape[2])
    boxes = tv_tensors.BoundingBoxes(there[:, 1:], format="XYXY", canvas_size=size)
    given = {"image": tv_tensors.Image(image.expand(3, -1, -1)), "boxes": boxes, "labels": there[:, 0].long() + 1}
    found = changes(given)
    found = found if len(found["labels"]) else given
    return found["image"].float() / 255, {"boxes": found["boxes"].as_subclass(Tensor), "labels": found["labels"]}


def scored(data: ImageSet, split: str, finds: Any) -> tuple[Any, float]:
    """The average precision on a split, and the median milliseconds of what ``finds`` does after the network."""
    found, there, times = [], [], []
    for images, targets in data.splits[split].batches(in_order(len(data.splits[split]), 32)):
        boxes, took = finds(images)
        found += boxes
        there += list(targets)
        times += took
    return precision(found, there, len(data.classes)), statistics.median(times) if times else 0.0


def ours(said: argparse.Namespace, name: str, budget: float, *words: object) -> Row:
    """A run of the command line, and what its network finds."""
    run = said.work / f"{name}-{budget:g}-{said.seed}"
    if not (run / "report.html").is_file():
        more = ["--resume"] if (run / "config.yaml").is_file() else []
        given = ["--latency-ms", budget, "--minutes", said.minutes, "--seed", said.seed, "--out", run, *words, *more]
        line = [sys.executable, "-m", "convfabric", "fit", said.data, *given, "--set", "accelerator=cpu"]
        subprocess.run(list(map(str, line)), check=True)
    network, papers = load_fabric(run)
    data = open_data(said.data).at(papers.preprocessing.size)
    prepared, size = papers.preprocessing.normalised, papers.preprocessing.size

    def finds(images: Tensor) -> tuple[list[Found], list[float]]:
        times, found = [], []
        with torch.inference_mode():
            answers = boxes_and_odds(network(prepared(images)), size)
        for answer in answers:
            began = time.perf_counter()
            found.append(found_boxes(answer[:, :4], answer[:, 4:]))
            times.append(1000 * (time.perf_counter() - began))
        return found, times

    counted, after = scored(data, "test", finds)
    return _row(name, budget, said.seed, counted, f"{size[1]}×{size[0]}", said.minutes, after, run / "model.onnx")


def theirs(said: argparse.Namespace, side: int) -> Row:
    """SSDLite at a size, at the rate that is best on validation images."""
    data, file = open_data(said.data), said.work / f"ssdlite-{side}-{said.seed}.onnx"
    seconds, best = 60 * said.minutes, (-1.0, RATES[0])
    for lr in RATES:
        tried = Ssdlite(len(data.classes), side)
        tried.train(data, TRIED * seconds, lr)
        best = max(best, (scored(data, "val", lambda images, one=tried: (one.found(images), []))[0].at_50, lr))
    network = Ssdlite(len(data.classes), side)
    network.train(data, seconds, best[1])
    counted, _ = scored(data, "test", lambda images: (network.found(images), []))
    file.write_bytes(network.file())
    return _row(f"SSDLite, rate {best[1]:g}", 0.0, said.seed, counted, f"{side}×{side}", said.minutes, 0.0, file)


def _row(name: str, budget: float, seed: int, counted: Any, size: str, minutes: float, after: float, file: Path) -> Row:
    return {
        "network": name,
        "budget ms": budget or "",
        "seed": seed,
        "images": size,
        "AP50 %": round(100 * counted.at_50, 2),
        "AP %": round(100 * counted.mean, 2),
        "minutes of training": minutes,
        "suppression ms": round(after, 2) or "",
        "file": str(file),
    }


def rows_of(said: argparse.Namespace) -> Iterator[Row]:
    """Every contestant's row, taken from the file where it is there."""
    known = json.loads(said.json.read_text()) if said.json.is_file() else []
    contestants: list[tuple[str, float, Callable[[], Row]]] = [
        ("SSDLite", side, partial(theirs, said, side)) for side in (320, 160)
    ]
    for budget in said.budgets:
        words = ["--network", NETWORK, "--weights", said.weights, "--weights-in-order", "--size", said.size]
        contestants.append(("ours, a fabric", budget, partial(ours, said, "fabric", budget, "--size", said.size)))
        contestants.append(("ours, ImageNet's", budget, partial(ours, said, "pretrained", budget, *words)))
    for name, number, made in contestants:
        key = f"{name} {number} {said.seed}"
        row = next((row for row in known if row["key"] == key), None) or made() | {"key": key}
        yield row


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="a COCO file of boxes")
    words.add_argument("--weights", type=Path, required=True)
    words.add_argument("--budgets", type=float, nargs="+", default=[2.0, 5.0])
    words.add_argument("--minutes", type=float, default=8.0)
    words.add_argument("--size", default="128x128")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--work", type=Path, default=Path("runs/boxes"))
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--record", action="store_true")
    said = words.parse_args()
    torch.set_num_threads(1)
    said.work.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for row in rows_of(said):
        rows.append(row)
        said.json.write_text(json.dumps(rows, indent=1))
        print(row, flush=True)
    times: dict[str, list[float]] = {row["key"]: [] for row in rows}
    for _ in range(TURNS):
        for row in rows:
            width, height = map(int, row["images"].split("×"))
            channels = 3 if row["network"].startswith("SSD") else 1
            times[row["key"]].append(measure(Path(row["file"]).read_bytes(), (channels, height, width)).median_ms)
    for row in rows:
        row["ms"] = round(statistics.median(times[row["key"]]), 2)
    print(json.dumps(rows, indent=1))
    if said.record:
        told = [__doc__.split("\n\n")[2].replace("\n", " ")]
        shown = [{name: value for name, value in row.items() if name not in ("file", "key")} for row in rows]
        print(write_record(f"boxes-{said.data.parent.name}-{said.size}", told, shown))


if __name__ == "__main__":
    main()
