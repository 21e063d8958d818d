"""What plans and kernels gain, each ratio from candidates that take turns in one process.

    python benchmarks/speed.py                        every ratio, how cost grows, ONNX files: about 20 minutes
    python benchmarks/speed.py --quick --json FILE    the ratios alone, under 5 minutes

Baselines are benchmarks/baselines.py: one convolution per edge with zeros inserted (dense), and gathered
neighbours with a grouped convolution (sparse), both in float32 and the usual layout of torch.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines import Gathering, Plain, ZeroInserting
from convfabric.execution.allocation import keep_memory
from convfabric.execution.plans import Plan, plan_for
from convfabric.execution.runners import for_inference, for_training
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.weavers import weave
from growth import growth
from onnx_chains import chains, session, written
from records import RESULTS, write_record

SIZE = (32, 32)
AT_ONCE = 10
"""Calls in a turn of what takes milliseconds, so that each finds its own data in the caches, as in use."""
MNIST_IMAGES = 54_999
"""Those of the training split after a twelfth is held out."""
Call = Callable[[], object]
Row = dict[str, object]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="fewer rounds; no growth, no record")
    words.add_argument("--json", type=Path, help="file for the ratios")
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    torch.set_num_threads(said.threads)
    keep_memory()
    torch.manual_seed(0)
    rounds, batch = 5 if said.quick else 11, 128
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    minutes: dict[str, float] = {}

    def compare(
        name: str, candidates: Mapping[str, Call], images: int, rounds: int = rounds, calls: int = 1
    ) -> Mapping[str, float]:
        times = taking_turns(candidates, rounds, calls)
        before, *_, after = candidates
        ratios[name] = median(times[before]) / median(times[after])
        for candidate, taken in times.items():
            rows.append(row_of(name, candidate, taken, images, median(times[before])))
            print(rows[-1], flush=True)
        return {candidate: median(taken) for candidate, taken in times.items()}

    dense = weave("paper-cifar10-dense", size=SIZE, channels=64)
    sparse = weave("paper-cifar10-sparse", size=SIZE, layers=8, channels=64)
    compare("dense_train_step", training(dense, ZeroInserting(dense), batch), batch, 3 if said.quick else rounds)
    narrow = weave("paper-mnist-sparse", size=SIZE)
    if not said.quick:
        times = compare("mnist_sparse_step", training(narrow, Gathering(narrow), batch), batch, 5)
        minutes = {name: taken * MNIST_IMAGES / batch / 60 for name, taken in times.items()}
    compare("sparse_train_step", training(sparse, Gathering(sparse), batch), batch, 3 if said.quick else 5)
    ratios |= dense_inference(dense, compare)
    compare("sparse_layer_forward", one_layer(64, 32), 32, rounds, AT_ONCE)
    compare("sparse_infer_b1", inference(sparse, Gathering(sparse), 1, compiled=False), 1, rounds, AT_ONCE)
    found = chains(rounds=40 if said.quick else 200, threads=1)
    ratios["onnx_vs_chain"] = max(float(str(row["time per MAC ÷ chain's"])) for row in found.rows)
    for row in found.rows:
        print(row, flush=True)
    print(json.dumps(ratios, indent=1))
    if said.json:
        said.json.write_text(json.dumps(ratios, indent=1))
    if not said.quick:
        sentences = [
            f"{said.threads} threads; medians of {rounds} rounds in which the candidates take turns, the first two "
            f"rounds left out; spread: first and third quartile. Batch 1 and the single layer: {AT_ONCE} calls in a "
            "turn. Images 3×32×32; 8 layers × 6 scales × 64 channels.",
            "Ratio: time of the first candidate of the same name ÷ own time. Share of peak: useful multiply-"
            "accumulates a second ÷ those of the best single 3×3 convolution of 64 or 128 channels in the same run.",
            f"An epoch of {MNIST_IMAGES:,} MNIST images by the sparse fabric of 16 layers × 6 scales × 32 channels, by "
            "the time of a step: " + ", ".join(f"{name} {taken:.1f} minutes" for name, taken in minutes.items()) + ".",
            "Ratios: " + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items()) + ".",
        ]
        print(write_record("speed", sentences, rows, said.results))
        print(write_record("speed-onnx", found.sentences, found.rows, said.results))
        print(write_record("speed-onnx-operations", found.about_operations, found.operations, said.results))
        print(growth(said.results, said.threads, taking_turns))


def taking_turns(candidates: Mapping[str, Call], rounds: int, calls: int = 1) -> dict[str, list[float]]:
    """Seconds a call in each round but the first two: the candidates one after another, each called so many times."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 2):
        for name, call in candidates.items():
            began = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - began) / calls)
    return {name: taken[2:] for name, taken in times.items()}


def row_of(name: str, candidate: str, taken: list[float], images: int, before: float) -> Row:
    low, _, high = quantiles(taken, n=4)
    return {
        "what": name,
        "candidate": candidate,
        "images": images,
        "ms": round(1000 * median(taken), 3),
        "spread ms": f"{1000 * low:.3f} to {1000 * high:.3f}",
        "images/s": round(images / median(taken), 1),
        "ratio": round(before / median(taken), 2),
    }


def images_of(batch: int, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, *SIZE).contiguous(memory_format=torch.channels_last)


def training(graph: Graph, plain: Plain, batch: int) -> dict[str, Call]:
    """A step of training: forward, backward, SGD with momentum."""
    fabric = Fabric(graph).to(memory_format=torch.channels_last)
    plan = plan_for(graph, training=True)
    images = images_of(batch, graph.entry.image_channels)
    targets = torch.randint(0, graph.head.classes, (batch,))

    def step(model: nn.Module, images: Tensor, half: bool) -> Call:
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def go() -> None:
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                found = model(images)
                logits = found[-1] if isinstance(found, tuple) else found
            torch.autograd.backward(F.cross_entropy(logits.float(), targets))
            optimiser.step()

        return go

    return {
        "plain": step(plain.train(), images.contiguous(), False),
        "readable": step(for_training(fabric.train(), Plan()), images, plan.bfloat16),
        f"plan: {plan}": step(for_training(fabric.train(), plan), images, plan.bfloat16),
    }


def inference(graph: Graph, plain: Plain, batch: int, compiled: bool) -> dict[str, Call]:
    """Logits of a batch in evaluation mode."""
    fabric = Fabric(graph).eval()
    usual = plan_for(graph, training=False)
    best = Plan(bfloat16=compiled, kernels=usual.kernels, compiled=compiled)
    channels_last, rows = images_of(batch), images_of(batch).contiguous()

    def run(model: nn.Module, images: Tensor) -> Call:
        model.eval()

        def go() -> None:
            with torch.no_grad():
                model(images)

        return go

    found = {"plain": run(plain, rows), f"plan: {usual}": run(for_inference(fabric, usual), channels_last)}
    if compiled:
        found[f"plan: {best}"] = run(for_inference(fabric, best), channels_last)
    return found


def dense_inference(graph: Graph, compare: Callable[..., Mapping[str, float]]) -> dict[str, float]:
    """Both batches, and the share of the machine's best single convolution."""
    times = compare("dense_infer_b32", inference(graph, ZeroInserting(graph), 32, compiled=True) | peaks(), 32)
    best = max(2 * 32 * 9 * c**2 * SIZE[0] * SIZE[1] / times[f"conv {c}, bfloat16"] for c in (64, 128))
    plan = next(value for name, value in times.items() if "compile" in name)
    with tempfile.TemporaryDirectory() as folder:
        alone = inference(graph, ZeroInserting(graph), 1, compiled=True) | exported(graph, Path(folder))
        compare("dense_infer_b1", alone, 1, 15, AT_ONCE)
    naive = times["plain"] / plan
    return {
        "dense_infer_b32": naive,
        "dense_infer_share_of_peak": 2 * 32 * costs(graph, SIZE).macs / plan / best,
    }


def exported(graph: Graph, folder: Path) -> dict[str, Call]:
    """One image through the exported file, as it is deployed."""
    ready = session(written(Fabric(graph).eval(), folder / "model.onnx"), torch.get_num_threads())
    images = images_of(1).contiguous().numpy()
    return {"exported file, ONNX Runtime, float32": lambda: ready.run(None, {"images": images})}


def peaks() -> dict[str, Call]:
    """A single 3×3 convolution of 32 images in bfloat16."""

    def conv(channels: int) -> Call:
        x = torch.rand(32, channels, *SIZE, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        weight = torch.rand(channels, channels, 3, 3, dtype=torch.bfloat16)
        weight = weight.contiguous(memory_format=torch.channels_last)

        def go() -> None:
            with torch.no_grad():
                F.conv2d(x, weight, padding=1)

        return go

    return {f"conv {channels}, bfloat16": conv(channels) for channels in (64, 128)}


def one_layer(channels: int, batch: int) -> dict[str, Call]:
    """The sums of one inner layer of six scales, without norms."""
    graph = weave("paper-cifar10-sparse", size=SIZE, layers=3, channels=channels)
    plain, fabric = Gathering(graph).eval(), Fabric(graph).eval()
    steps = [step for step in graph.walk if step.place.layer == 1]
    rows = {p: torch.rand(batch, channels, SIZE[0] >> p.scale, SIZE[1] >> p.scale) for p in graph.order if p.layer == 0}
    last = {place: x.contiguous(memory_format=torch.channels_last) for place, x in rows.items()}
    sources = list(last)
    wiring: list[int] = []
    kernels: list[Tensor] = []
    for step in steps:
        wiring += [*last[sources[step.place.scale]].shape[2:], channels, 1, len(step.arriving)]
        for _, weights, source in step.arriving:
            wiring += [sources.index(source), len(kernels), step.place.scale - source.scale]
            kernels.append(fabric.edges[weights].get_parameter("weight").detach())

    def gathered() -> None:
        with torch.no_grad():
            for step in steps:
                plain.joined(step, rows, rows[sources[0]])

    def own() -> None:
        torch.ops.convfabric.banded_sums(list(last.values()), kernels, [], wiring, "stored")

    return {"plain": gathered, "own kernel": own}


if __name__ == "__main__":
    main()
