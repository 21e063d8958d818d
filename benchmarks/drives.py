"""What parts of a network for masks and of its training gain on a drive that nothing was trained on: CamVid.

    python benchmarks/drives.py --data CamVid --tera-macs 2 --seeds 0 1 --json F --record

Drive 0006R0 is taken from the training images and the usual validation images, of a drive that is also trained on, are
put in its place: as many images. Each network has as many channels as its budget of multiply-accumulates lets it, and
as many epochs as the cost allows. The test split is not read. Networks that are done are in F, and are not made again.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from convfabric.data.imageset import HeldSplit, ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.setting_values import parsed_size
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import timed_fabric

AWAY, VOID, WATCHED = "0006R0", 11, 8
TERA, MEGA = 1e12, 1e6


@dataclass(frozen=True)
class Arm:
    """A network and how it is trained, apart from what all have."""

    network: str = "context"
    numbers: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)


FABRIC = {"operators": "residual", "layers": 2, "scales": 4, "finest": 1, "doubling": True}
ARMS = {
    "trellis": Arm("fabric-small", FABRIC),
    "trellis, balance 0.5": Arm("fabric-small", FABRIC, {"balance": 0.5}),
    "trellis, dice 0.5": Arm("fabric-small", FABRIC, {"dice": 0.5}),
    "trellis, hardest third": Arm("fabric-small", FABRIC, {"hardest": 0.33}),
    "trellis, zoom 0.5": Arm("fabric-small", FABRIC, {"zoom": 0.5}),
    "trellis, growing 0.5": Arm("fabric-small", FABRIC, {"growing": 0.5}),
    "trellis, crop 0.5": Arm("fabric-small", FABRIC, {"crop": 0.5}),
    "context": Arm(),
    "context, balance 0.5": Arm(recipe={"balance": 0.5}),
    "context, dice 0.5": Arm(recipe={"dice": 0.5}),
    "context, prelu": Arm(numbers={"activation": "prelu"}),
    "context, factorised": Arm(numbers={"block": "factorised"}),
    "context, depthwise": Arm(numbers={"block": "depthwise"}),
    "context, no dilation": Arm(numbers={"dilations": (1,) * 7}),
    "context, no detail": Arm(numbers={"detail": False}),
    "context, surround": Arm(numbers={"surround": True}),
    "context, no dropout": Arm(numbers={"dropout": 0.0}),
    "enet": Arm("enet", {"activation": "relu"}),
}
ALIKE: Mapping[str, Any] = {"lr": 0.2, "balance": 0.0, "give_up": 0.0}
"""Of every training, unless its arm says otherwise."""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", required=True, help="folder with train, trainannot, val, valannot, test, testannot")
    words.add_argument("--size", default="240x180")
    words.add_argument("--macs", type=float, default=60e6, help="of a network, forward")
    words.add_argument("--tera-macs", type=float, default=2.0, help="of a training: forward × images × 3")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS))
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--work", type=Path, default=Path("runs/drives"))
    words.add_argument("--record", action="store_true")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(1)
    data = with_a_drive_away(open_data(said.data, DataOptions(size=parsed_size(said.size), ignore=VOID)))
    done: dict[str, dict[str, Any]] = json.loads(said.json.read_text()) if said.json.is_file() else {}
    for seed in said.seeds:
        for name in said.only:
            key = f"{name}, seed {seed}"
            if key not in done:
                done[key] = trained(ARMS[name], data, said, seed, said.work / key.replace(" ", "-"))
                said.json.write_text(json.dumps(done, indent=1))
                print(key, done[key], flush=True)
    if said.record:
        print(write_record(f"drives-camvid-{said.size}", [_told(said, data)], rows(done, said.only), said.results))


def with_a_drive_away(data: ImageSet) -> ImageSet:
    """One drive as the split "away", the other training images and those of validation to be trained on."""
    assert data.files is not None
    whole = {split: next(data.splits[split].batches([range(len(data.splits[split]))])) for split in ("train", "val")}
    away = torch.tensor([AWAY in file for file in data.files["train"]])
    (images, masks), (others, of_others) = whole["train"], whole["val"]
    splits = {
        "train": HeldSplit(torch.cat([images[~away], others]), torch.cat([masks[~away], of_others])),
        "val": HeldSplit(others[:WATCHED], of_others[:WATCHED]),
        "away": HeldSplit(images[away], masks[away]),
    }
    return replace(data, splits=splits)


def trained(arm: Arm, data: ImageSet, said: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """What a network answers of the drive that was away, and what it cost."""
    graph = widest(arm, data, said.macs)
    macs, images = costs(graph, data.preprocessing.size).macs, len(data.splits["train"])
    recipe = Recipe(**{**ALIKE, **arm.recipe, "seed": seed})
    epochs = max(1, round(said.tera_macs * TERA / 3 / macs / images / recipe.mean_area))
    fabric, minutes = timed_fabric(graph, data, recipe.changed(epochs=epochs), folder, "cpu")
    found = score(fabric, data, "away")
    assert found.miou is not None
    return {
        "channels": graph.nodes[0].channels,
        "macs": macs,
        "parameters": costs(graph, data.preprocessing.size).parameters,
        "epochs": epochs,
        "minutes": minutes[0],
        "miou": found.miou,
        "accuracy": found.accuracy,
    }


def widest(arm: Arm, data: ImageSet, most: float) -> Graph:
    """The network of an arm with the most channels that takes no more multiply-accumulates."""
    size, found = data.preprocessing.size, None
    purpose: dict[str, Any] = {"size": size, "classes": len(data.classes), "task": data.task}
    for channels in range(2, 64):
        graph = weave(arm.network, channels=channels, **purpose, **arm.numbers)
        if costs(graph, size).macs > most:
            break
        found = graph
    if found is None:
        raise SystemExit(f"{arm.network}: not even 2 channels take {most / MEGA:.0f} M MACs or fewer.")
    return found


def rows(done: Mapping[str, Mapping[str, Any]], names: list[str]) -> list[dict[str, object]]:
    """One for each arm, the mean over its seeds."""
    found: list[dict[str, object]] = []
    for name in names:
        of_arm = [row for key, row in done.items() if key.rpartition(", seed ")[0] == name]
        if of_arm:
            shares = [100 * row["miou"] for row in of_arm]
            found.append(
                {
                    "network": name,
                    "channels": of_arm[0]["channels"],
                    "M MACs": round(of_arm[0]["macs"] / MEGA, 1),
                    "parameters": of_arm[0]["parameters"],
                    "epochs": of_arm[0]["epochs"],
                    "seeds": len(of_arm),
                    "mIoU % of the drive away": round(mean(shares), 2),
                    "standard deviation": round(stdev(shares), 2) if len(shares) > 1 else "",
                    "pixel accuracy %": round(100 * mean(row["accuracy"] for row in of_arm), 2),
                    "CPU minutes": round(mean(row["minutes"] for row in of_arm), 1),
                }
            )
    return found


def _told(said: argparse.Namespace, data: ImageSet) -> str:
    counts = f"{len(data.splits['train'])} training images, drive {AWAY} ({len(data.splits['away'])} images) held out"
    return (
        f"CamVid at {said.size}, 11 classes, void ignored; {counts} and read once each; the test split was not read. "
        f"Each network has the most channels that take at most {said.macs / MEGA:g} M MACs, 3×{said.size}, and has "
        f"{said.tera_macs:g} T multiply-accumulates of training. All alike: {dict(ALIKE)}; what differs is in the name."
    )


if __name__ == "__main__":
    main()
