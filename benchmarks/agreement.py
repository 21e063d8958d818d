"""Whether random graphs of every family, woven, cut and exported, answer as the network they were cut from.

python benchmarks/agreement.py --graphs 330     about half an hour on one core
"""

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path

import torch

from convfabric import Fabric, weave
from convfabric.cutting.surgery import extract, ranked
from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing
from convfabric.errors import ConvfabricError
from convfabric.execution.runners import for_inference
from convfabric.exporting.exporter import export
from convfabric.exporting.formats import FORMATS
from convfabric.fabric.archive import Passport, load_fabric, save_fabric
from convfabric.graph import Graph, Task
from convfabric.graph.costs import costs
from convfabric.graph.json_format import graph_from_json, graph_to_json
from convfabric.graph.subnetworks import Sampler
from convfabric.weavers import FAMILIES

CLASSES = ("a", "b", "c")
TASKS: tuple[Task, ...] = ("classification", "segmentation")
CLOSE = 1e-3
"""Largest difference of logits, as a share of the largest logit."""


def random_graph(dice: random.Random) -> tuple[Graph, tuple[int, int]]:
    """A small graph of any family for images of 32 to 44 pixels a side, and the size."""
    name, task = dice.choice(sorted(FAMILIES)), dice.choice(TASKS)
    size = dice.randint(32, 44), dice.randint(32, 44)
    numbers = dict(FAMILIES[name].specimen)
    if isinstance(numbers.get("channels"), int):
        numbers["channels"] *= dice.choice((1, 2, 3))
    return weave(name, size=size, image_channels=3, classes=len(CLASSES), task=task, **numbers), size


def lively(graph: Graph, seed: int) -> Fabric:
    """A fabric whose weights and statistics are all drawn, so that nothing cancels."""
    torch.manual_seed(seed)
    fabric = Fabric(graph)
    for name, tensor in fabric.state_dict().items():
        if tensor.dtype.is_floating_point:
            drawn = torch.rand_like(tensor) + 0.5 if "var" in name or tensor.dim() == 1 else torch.randn_like(tensor)
            tensor.copy_(drawn / max(1, tensor[0].numel()) ** 0.5 if tensor.dim() > 1 else drawn)
    return fabric.eval()


def disagreements(seed: int) -> list[str]:
    """What answered otherwise, in words, for the random graph of a seed."""
    dice = random.Random(seed)
    graph, size = random_graph(dice)
    part = Sampler.of(graph, 0.25, size).draw(dice)
    whole = lively(graph, seed)
    dots = torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    pixels = Preprocessing(size=size, channels=3, fitting="cover", mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    images, found = pixels.normalised(dots), list[str]()

    def agree(what: str, one: torch.Tensor, other: torch.Tensor) -> None:
        if not (worst := float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))) < CLOSE:
            found.append(f"{what}: {worst:.1e}")

    with torch.inference_mode():
        answers = whole(images)
        agree("channels in order of rank", ranked(whole)(images), answers)
        cut = extract(whole, part).eval()
        wanted = whole(images, part)
        agree("cut", cut(images), wanted)
        agree("folded", for_inference(cut)(images)[-1], wanted)
    if sum(value.numel() for value in cut.parameters()) != costs(part, size).parameters:
        found.append("parameters counted")
    if graph_from_json(graph_to_json(part)) != part:
        found.append("graph.json")
    labels = torch.zeros(4, dtype=torch.int64) if graph.head.task == "classification" else dots[:, 0] % len(CLASSES)
    data = ImageSet(
        name="noise",
        task=graph.head.task,
        classes=CLASSES,
        preprocessing=pixels,
        splits={"val": HeldSplit(dots, labels)},
    )
    papers = Passport(graph=part, classes=CLASSES, preprocessing=pixels)
    with tempfile.TemporaryDirectory() as folder:
        save_fabric(Path(folder), cut, papers)
        with torch.inference_mode():
            agree("saved", load_fabric(Path(folder))[0].eval()(images), wanted)
        try:
            # ONNX of every graph; reading torch's own file back takes as long again, so of every fifth.
            export(cut, papers, data, Path(folder), formats=FORMATS[: 1 + (seed % 5 == 0)])
        except ConvfabricError as fault:
            found.append(f"exported: {fault}")
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--graphs", type=int, default=330)
    words.add_argument("--first", type=int, default=0, help="seed of the first graph")
    said = words.parse_args()
    torch.set_num_threads(1)
    met, wrong = Counter[str](), 0
    for seed in range(said.first, said.first + said.graphs):
        graph = random_graph(random.Random(seed))[0]
        met[graph.name] += 1
        for what in disagreements(seed):
            wrong += 1
            print(f"seed {seed}: {graph.name} for {graph.head.task}: {what}", flush=True)
    print(f"{met.total()} graphs of {len(met)} families, woven, cut and exported: {wrong} disagreements")


if __name__ == "__main__":
    main()
