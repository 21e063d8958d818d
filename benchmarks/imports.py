"""Whether networks of others become graphs that answer alike, are cut to the bit and exported: torchvision's, timm's.

python benchmarks/imports.py --json imports.json                all of them; what a file holds already is not done again
python benchmarks/imports.py --json imports.json --only resnet --workers 2
python benchmarks/imports.py --json hybrids.json --names timm:mobilevit_s timm:coatnet_0_rw_224

Random weights and statistics, evaluation mode. Of each: the largest difference in double precision, MACs and
parameters beside torch's own counts, a random cut extracted and compared to the bit, its ONNX file within 1e-4.
"""

import argparse
import json
import multiprocessing
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convfabric.cutting.surgery import extract
from convfabric.data.imageset import Preprocessing
from convfabric.errors import ConvfabricError
from convfabric.exporting.formats import accept_close, run_onnx, write_onnx
from convfabric.exporting.program import program
from convfabric.fabric.archive import Passport
from convfabric.graph.costs import costs
from convfabric.graph.subnetworks import Sampler
from convfabric.importing.network import imported

TRANSFORMERS = ("vit", "swin", "maxvit")
LARGE = r"x32gf|128gf|regnet_._(16|32)gf|_b7|_v2_l|convnext_large|resnext101_64"
"""Imported on 64 pixels like any other, and exported not at all, for the sake of memory."""
SECONDS = 600
BETWEEN = torch.ops.aten.bmm
"""A product of two responses: torch counts it; we count what has weights, but all of parts that are kept."""
FAMILIES_LEFT_OUT = "|".join(
    (
        r"vit|swin|former|mixer|mlp|cait|deit|beit|eva|coat|pit_|tnt|xcit|twins|nest|levit|crossvit|convit|volo",
        r"clip|sam|dino|pvt|edgenext|efficientvit|mobilevit|hiera|naflex|gmlp|poolformer|visformer|sequencer",
        r"halo|lambda|botnet|sehalo|bat_|eca_bot|lamhalo|gcvit|davit|maxx|fastvit|repvit|tiny_vit|nextvit|starnet_none",
        r"aimv2|cpubone|csatv2|efficientvim|focalnet",
    )
)
"""Names of timm with attention or mixing over positions in them."""


def names(timm_count: int) -> list[str]:
    """All convolutional names of torchvision, and so many of timm, one after another from every architecture."""
    models = torchvision.models
    every = [*models.list_models(module=models), *models.list_models(module=models.segmentation)]
    found = [f"torchvision:{name}" for name in every if not name.startswith(TRANSFORMERS)]
    import timm

    by_kind: dict[str, list[str]] = {}
    for name in timm.list_models():
        if not re.search(FAMILIES_LEFT_OUT, name):
            by_kind.setdefault(re.split(r"\d|_", name.removeprefix("tf_"))[0], []).append(name)
    chosen: list[str] = []
    depth = 0
    while len(chosen) < timm_count and depth < 200:
        chosen += [kinds[depth] for kinds in by_kind.values() if depth < len(kinds)]
        depth += 1
    return [*found, *(f"timm:{name}" for name in chosen[:timm_count])]


def made(name: str) -> tuple[nn.Module, tuple[int, int]]:
    """A network with random weights and statistics, and the height and width of the images it is tried on."""
    source, _, short = name.partition(":")
    torch.manual_seed(0)
    if source == "timm":
        import timm

        module = timm.create_model(short, pretrained=False)
        size = 64 if "inception" not in short else 128
        if getattr(module, "pretrained_cfg", {}).get("fixed_input_size"):
            size = module.pretrained_cfg["input_size"][-1]
    else:
        words: dict[str, Any] = {"weights": None}
        if short in torchvision.models.list_models(module=torchvision.models.segmentation):
            words["weights_backbone"] = None
        if short in ("googlenet", "inception_v3"):
            words["init_weights"] = False
        module, size = torchvision.models.get_model(short, **words), 75 if short == "inception_v3" else 64
    for key, tensor in module.state_dict().items():
        if "running" in key:
            tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in key else torch.randn_like(tensor) / 10)
    return module.eval(), (size, size)


def tried(name: str) -> dict[str, Any]:
    """What became of one network."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    began = time.monotonic()
    try:
        found = _tried(name)
    except ConvfabricError as fault:
        found = {"refused": str(fault)[:300]}
    except BaseException as fault:
        found = {"broken": f"{type(fault).__name__}: {fault}"[:300]}
    signal.alarm(0)
    return {"name": name, **found, "seconds": round(time.monotonic() - began, 1)}


def _late(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _tried(name: str) -> dict[str, Any]:
    module, size = made(name)
    images = torch.rand(2, 3, *size)
    found = imported(module, size)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        module(images[:1])
    graph, fabric = found.fabric.graph, found.fabric
    weighed = costs(graph, size)
    read, held = (
        sum(p.numel() for key, p in module.named_parameters() if key not in found.unread),
        found.origins.values(),
    )
    part = Sampler.of(graph, 0.5, size).draw(random.Random(0))
    small = extract(fabric, part)
    with torch.no_grad():
        same = torch.equal(small(images), fabric(images, part))
    answer: dict[str, Any] = {
        "difference": found.difference,
        "macs": weighed.macs,
        "macs of torch": (counted.get_total_flops() - counted.get_flop_counts()["Global"].get(BETWEEN, 0)) // 2,
        "macs with products": counted.get_total_flops() // 2,
        "kept": len(found.kept),
        "parameters": weighed.parameters,
        "parameters of torch": read,
        "not read": len(found.unread),
        "worked out": len(found.worked_out),
        "constants": sum(t.numel() for key, t in module.named_buffers() if key in held and "running" not in key),
        "edges": len(graph.edges),
        "edges cut": len(graph.edges) - len(part.edges),
        "cut to the bit": same,
    }
    if not re.search(LARGE, name):
        answer["onnx apart"] = _exported(small, size, images)
    return answer


def _exported(network: Any, size: tuple[int, int], images: torch.Tensor) -> float:
    """The largest difference between the answers of a network and of its ONNX file."""
    preprocessing = Preprocessing(size=size, channels=3, fitting="cover", mean=(0.0,) * 3, std=(1.0,) * 3)
    classes = tuple(f"class {i}" for i in range(network.graph.head.classes))
    papers = Passport(graph=network.graph, classes=classes, preprocessing=preprocessing)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "model.onnx"
        write_onnx(program(network, papers), papers, file)
        wanted = network(images).numpy()
        return accept_close(file.name, wanted, run_onnx(file)((images * 255).numpy()))


def judged(row: dict[str, Any]) -> str:
    """The verdict on one network."""
    if "refused" in row or "broken" in row:
        return "refused" if "refused" in row else "broken"
    more, constants = row["parameters"] - row["parameters of torch"], row.get("constants", 0)
    kept = row.get("kept", 0) > 0  # modules whose constants are none of ours, and whose products of responses count
    as_many = more == constants or (kept and 0 <= more < constants) or row.get("worked out", 0) > 0
    equal = row["macs"] == row["macs of torch"] or (kept and row["macs"] == row["macs with products"])
    equal = equal and as_many
    return "equal" if row["difference"] <= 1e-5 and equal and row["cut to the bit"] else "unequal"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--only", default="", help="a pattern that names have to hold")
    words.add_argument("--timm", type=int, default=160, help="how many of timm")
    words.add_argument("--names", nargs="+", default=(), help="these instead")
    words.add_argument("--workers", type=int, default=2)
    said = words.parse_args()
    rows: dict[str, Any] = json.loads(said.json.read_text()) if said.json.is_file() else {}
    wanted = said.names or [name for name in names(said.timm) if re.search(said.only, name)]
    missing = [name for name in wanted if name not in rows]
    with multiprocessing.get_context("spawn").Pool(said.workers, maxtasksperchild=4) as pool:
        for row in pool.imap_unordered(tried, missing):
            rows[row["name"]] = row
            said.json.write_text(json.dumps(rows, indent=1))
            print(row["name"], judged(row), row.get("refused") or row.get("broken") or "", file=sys.stderr, flush=True)
    for source in ("torchvision", "timm"):
        met = Counter(judged(rows[name]) for name in wanted if name.startswith(source) and name in rows)
        print(f"{source}: {met.total()} networks, {dict(met)}")


if __name__ == "__main__":
    main()
