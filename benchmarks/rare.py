"""Masks whose foreground is rare: the boxes of one kind of defect among six, ten seeds, by what the loss counts.

    python benchmarks/rare.py --data DIR/steel --json F --record

Of 1,080 grey images of steel those boxes are drawn as masks in the sixth that shows the defect; networks are trained
with every pixel counted alike, with classes balanced by half, and with half of the loss Dice. A network whose
foreground overlaps the true one by less than a twentieth has collapsed.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

from convfabric.data.imageset import HeldSplit, ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph.costs import costs
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import timed_fabric

SIZE, COLLAPSED = (96, 96), 0.05
ARMS: Mapping[str, Mapping[str, Any]] = {
    "every pixel alike": {"balance": 0.0},
    "balance 0.5": {"balance": 0.5},
    "balance 0, dice 0.5": {"balance": 0.0, "dice": 0.5},
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="folder with boxes-train.json and its fellows")
    words.add_argument("--defect", default="scratches")
    words.add_argument("--network", default="fabric-small")
    words.add_argument("--images", type=int, default=360, help="of training, all kinds alike")
    words.add_argument("--epochs", type=int, default=16)
    words.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--work", type=Path, default=Path("runs/rare"))
    words.add_argument("--record", action="store_true")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(1)
    data = masked(said.data, said.defect, said.images)
    graph = weave(said.network, size=SIZE, classes=2, task="segmentation", image_channels=1)
    done: dict[str, list[float]] = json.loads(said.json.read_text()) if said.json.is_file() else {}
    for seed in said.seeds:
        for name, changes in ARMS.items():
            if f"{name}, seed {seed}" not in done:
                recipe = Recipe(epochs=said.epochs, lr=0.1, seed=seed, **changes)
                work = said.work / f"{name}-{seed}".replace(" ", "-")
                fabric, minutes = timed_fabric(graph, data, recipe, work, "cpu")
                overlap = score(fabric, data, "test").class_iou[1] or 0.0
                done[f"{name}, seed {seed}"] = [overlap, minutes[0]]
                said.json.write_text(json.dumps(done, indent=1))
                print(name, seed, done[f"{name}, seed {seed}"], flush=True)
    if said.record:
        share = float((data.splits["train"].targets == 1).float().mean())  # type: ignore[attr-defined]
        sentences = [
            f"Steel at {SIZE[1]}×{SIZE[0]}, grey, {said.images} training images; foreground is what lies in boxes of "
            f"{said.defect}, {share:.1%} of the training pixels. {said.network}, "
            f"{costs(graph, SIZE).macs / 1e6:.0f} M MACs, {said.epochs} epochs, whole, seeds {said.seeds}; "
            f"{len(data.splits['test'])} test images read once a network. Collapsed: overlap below {COLLAPSED:g}."
        ]
        print(write_record(f"rare-steel-{said.defect}", sentences, rows(done), said.results))


def masked(folder: Path, defect: str, images: int) -> ImageSet:
    """The images with masks, 1 where a box of the defect lies; the first of training in a drawn order."""
    options = DataOptions(size=SIZE, fitting="stretch", task="detection", read_as="grey")
    found: dict[str, HeldSplit] = {}
    data = open_data(folder / "boxes-train.json", options)
    for split in data.splits:
        whole = data.splits[split]
        pixels, boxes = next(whole.batches([list(range(len(whole)))]))
        found[split] = HeldSplit(pixels, torch.stack([drawn(one, data.classes.index(defect)) for one in boxes]))
    order = torch.randperm(len(found["train"]), generator=torch.Generator().manual_seed(0))[:images]
    found["train"] = HeldSplit(found["train"].images_BCHW[order], found["train"].targets[order])
    return replace(data, task="segmentation", classes=("elsewhere", defect), splits=found, counts=())


def drawn(boxes_M5: Tensor, kind: int) -> Tensor:
    """uint8 (H, W), 1 inside the boxes of a kind."""
    mask_HW = torch.zeros(SIZE, dtype=torch.uint8)
    for _, left, top, right, bottom in boxes_M5[boxes_M5[:, 0] == kind].round().long().tolist():
        mask_HW[top:bottom, left:right] = 1
    return mask_HW


def rows(done: Mapping[str, list[float]]) -> list[dict[str, object]]:
    """One for each loss, over its seeds."""
    found: list[dict[str, object]] = []
    for name in ARMS:
        overlaps = [one[0] for key, one in done.items() if key.rpartition(", seed ")[0] == name]
        if overlaps:
            found.append(
                {
                    "loss": name,
                    "seeds": len(overlaps),
                    "foreground IoU %": round(100 * mean(overlaps), 2),
                    "standard deviation": round(100 * stdev(overlaps), 2) if len(overlaps) > 1 else "",
                    "least %": round(100 * min(overlaps), 2),
                    "collapsed": sum(overlap < COLLAPSED for overlap in overlaps),
                }
            )
    return found


if __name__ == "__main__":
    main()
