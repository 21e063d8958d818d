"""CamVid: GridNet and U-Net beside the trellis, each as wide as its MACs allow, trained for the same minutes.

    python benchmarks/camvid_families.py --data CamVid            the record, 240×180

Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
from pathlib import Path
from typing import Any

from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.evaluation.scoring import score
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.setting_values import parsed_size
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import epochs_for, timed_fabric

VOID = 11
TRELLIS: dict[str, Any] = {"layers": 6, "finest": 2, "scales": 4, "channels": 16}
MOST_CHANNELS = 64


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", required=True, help="folder with train, trainannot, val, valannot, test, testannot")
    words.add_argument("--size", default="240x180")
    words.add_argument("--minutes", type=float, default=8.0, help="of processor time for each network and seed")
    words.add_argument("--seeds", type=int, default=1)
    words.add_argument("--work", type=Path, default=Path("runs/camvid-families"))
    words.add_argument("--device", default="auto")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    data = open_data(said.data, DataOptions(size=parsed_size(said.size), ignore=VOID))
    rows: list[dict[str, object]] = []
    for name, graph in networks(data).items():
        for seed in range(said.seeds):
            recipe = Recipe(lr=0.1, seed=seed)
            recipe = recipe.changed(epochs=epochs_for(graph, data, recipe, said.minutes, said.device))
            fabric, minutes = timed_fabric(graph, data, recipe, said.work / f"{name}-{seed}", said.device)
            found, spent = score(fabric, data, "test"), costs(graph, data.preprocessing.size)
            assert found.miou is not None
            rows.append(
                {
                    "network": name,
                    "seed": seed,
                    "channels, finest": graph.nodes[0].channels,
                    "edges": len(graph.edges),
                    "parameters": spent.parameters,
                    "M MACs": round(spent.macs / 1e6, 1),
                    "epochs": recipe.epochs,
                    "CPU minutes": round(minutes[0], 1),
                    "wall minutes": round(minutes[1], 1),
                    "test mIoU %": round(100 * found.miou, 2),
                    "pixel accuracy %": round(100 * found.accuracy, 2),
                }
            )
            print(rows[-1], flush=True)
    sentences = [
        f"CamVid at {said.size}, 11 classes, void ignored, masks scaled with the images; mIoU over the 233 test "
        "images, read once for each row. The trellis is fabric-small with "
        + ", ".join(f"{key}={value}" for key, value in TRELLIS.items())
        + "; the others are their family's defaults with the most channels that take no more MACs.",
        f"Epochs were chosen so that each takes {said.minutes:g} minutes of processor time; scoring on val after each "
        "epoch comes on top. One schedule: " + f"{Recipe(lr=0.1)}.",
    ]
    print(write_record(f"camvid-families-{said.size}", sentences, rows, said.results))


def networks(data: ImageSet) -> dict[str, Graph]:
    """The trellis, and the widest GridNet and U-Net of no more MACs."""
    size = data.preprocessing.size
    purpose: dict[str, Any] = {"classes": len(data.classes), "task": data.task}
    trellis = weave("fabric-small", size=size, **purpose, **TRELLIS)
    found = {"trellis": trellis}
    for family in ("gridnet", "unet"):
        for channels in range(2, MOST_CHANNELS):
            graph = weave(family, size=size, channels=channels, **purpose)
            if costs(graph, size).macs > costs(trellis, size).macs:
                break
            found[family] = graph
    return found


if __name__ == "__main__":
    main()
