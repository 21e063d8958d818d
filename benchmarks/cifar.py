"""CIFAR-10 (JPEG): filter groups and low-rank kernels in a NiN, and an MSDNet that stops early.

    python benchmarks/cifar.py priors --data cifar10-jpeg       NiN, root-8 and low-rank, one schedule
    python benchmarks/cifar.py exits --data cifar10-jpeg        MSDNet, its curves, and the time of stopping

The data are re-encoded, so no error here compares with one published for CIFAR-10.
Resumable: started again with the same --work folder it goes on where it stopped.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from convfabric.cutting.surgery import extract
from convfabric.data.imageset import HeldSplit, ImageSet
from convfabric.data.opening import open_data
from convfabric.evaluation.early_exit import answer_early, exit_macs, exits_of
from convfabric.evaluation.exit_thresholds import ALWAYS, NEVER
from convfabric.evaluation.scoring import score
from convfabric.exporting.formats import write_onnx
from convfabric.exporting.program import program
from convfabric.fabric.archive import passport
from convfabric.fabric.module import Fabric
from convfabric.graph.costs import costs
from convfabric.latency.devices import measure
from convfabric.report.plots import exit_curve
from convfabric.training.recipe import Recipe
from convfabric.weavers import weave
from records import RESULTS, write_record
from timed import timed_fabric

PRIORS = {"NiN": "", "NiN root-8": "root-8", "NiN low-rank": "low-rank"}
NAME = "CIFAR-10 (JPEG)"
ROUNDS = 15
Row = dict[str, object]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("what", choices=("priors", "exits"))
    words.add_argument("--data", required=True, help="folder with train/CLASS and test/CLASS")
    words.add_argument("--epochs", type=int, default=1)
    words.add_argument("--seeds", type=int, default=1)
    words.add_argument("--images", type=int, default=0, help="of training; 0 for all")
    words.add_argument("--base", type=int, default=4)
    words.add_argument("--step", type=int, default=2)
    words.add_argument("--work", type=Path, default=Path("runs/cifar"))
    words.add_argument("--device", default="auto")
    words.add_argument("--results", type=Path, default=RESULTS)
    said = words.parse_args()
    data = fewer(open_data(said.data), said.images)
    (priors if said.what == "priors" else exits)(said, data)


def fewer(data: ImageSet, images: int, split: str = "train") -> ImageSet:
    """The data with so many images of a split, drawn with seed 0; 0: all."""
    whole = data.splits[split]
    if not images:
        return data
    assert isinstance(whole, HeldSplit), "a set that is held in memory"
    chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:images]
    part = HeldSplit(whole.images_BCHW[chosen], whole.targets[chosen])
    return replace(data, splits={**data.splits, split: part}, digest=f"{data.digest}-{images}")


def priors(said: argparse.Namespace, data: ImageSet) -> None:
    """Error, parameters, MACs and milliseconds of a NiN and its rewrites, side by side."""
    rows: list[Row] = []
    for seed in range(said.seeds):
        for name, prior in PRIORS.items():
            recipe = Recipe(epochs=said.epochs, seed=seed, lr=0.05, autocast="bfloat16")
            graph = weave("nin", prior=prior)
            fabric, minutes = timed_fabric(graph, data, recipe, said.work / f"{name}-{seed}", said.device)
            found = costs(graph, (32, 32))
            rows.append(
                {
                    "network": name,
                    "seed": seed,
                    "parameters": found.parameters,
                    "M MACs (3×32×32)": round(found.macs / 1e6, 1),
                    "test error %": round(100 * (1 - score(fabric, data, "test").accuracy), 2),
                    "ms, 1 image, ONNX": "",
                    "ms, 32 images, torch": "",
                    "CPU minutes": round(minutes[0], 1),
                }
            )
            rows[-1]["fabric"] = fabric
            print({k: v for k, v in rows[-1].items() if k != "fabric"}, flush=True)
    first = rows[: len(PRIORS)]
    batch = torch.randn(32, 3, 32, 32)
    for row, ms in zip(first, alternated([_run(row["fabric"], batch) for row in first]), strict=True):
        row["ms, 32 images, torch"] = round(ms, 2)
    for row, ms in zip(first, onnx_ms([row["fabric"] for row in first], data, said.work), strict=True):
        row["ms, 1 image, ONNX"] = round(ms, 3)
    shown = [{k: v for k, v in row.items() if k != "fabric"} for row in rows]
    sentences = [
        f"{NAME}, {len(data.splits['train']):,} training images, {said.epochs} epochs, 10,000 test images read once "
        "for each row. Only kernels differ; the schedule is the same.",
        "Milliseconds: one thread; torch in turns, median of " + f"{ROUNDS}; ONNX Runtime the middle one of three "
        "blocks, in turns of whole networks.",
        f"Recipe: {Recipe(epochs=said.epochs, lr=0.05, autocast='bfloat16')}.",
    ]
    print(write_record("cifar10-jpeg-priors", sentences, shown, said.results))


def _run(fabric: object, batch: torch.Tensor) -> Callable[[], object]:
    assert isinstance(fabric, Fabric)
    fabric.eval()
    wide = batch.contiguous(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return fabric(wide)

    return run


def alternated(runs: list[Callable[[], object]]) -> list[float]:
    """The median milliseconds of several things, done in turns, each once before."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(ROUNDS):
        for taken, run in zip(times, runs, strict=True):
            began = time.perf_counter()
            run()
            taken.append(1000 * (time.perf_counter() - began))
    return [median(taken) for taken in times]


def onnx_ms(fabrics: list[object], data: ImageSet, work: Path) -> list[float]:
    """The median milliseconds of one image under ONNX Runtime: three turns, the middle one of each network."""
    files = []
    for number, fabric in enumerate(fabrics):
        assert isinstance(fabric, Fabric)
        papers = passport(fabric, data)
        files.append(work / f"timed-{number}.onnx")
        write_onnx(program(fabric.eval().cpu(), papers), papers, files[-1])
    turns = [[measure(file, (3, 32, 32)).median_ms for file in files] for _ in range(3)]
    return [median(times) for times in zip(*turns, strict=True)]


def exits(said: argparse.Namespace, data: ImageSet) -> None:
    """Accuracy and cost of each exit, budgeted batches, and the time that stopping at each exit takes."""
    rows: list[Row] = []
    curve: list[Row] = []
    for seed in range(said.seeds):
        recipe = Recipe(epochs=said.epochs, lr=0.1, seed=seed)
        graph = weave("msdnet", exits=5, base=said.base, step=said.step)
        fabric, minutes = timed_fabric(graph, data, recipe, said.work / f"msdnet-{seed}", said.device)
        exits = exits_of(fabric, data, "test")
        timed = {images: stop_times(fabric, images) for images in ((1, 64) if seed == 0 else ())}
        for number, found in enumerate(exits.each):
            row: Row = {
                "exit": number + 1,
                "seed": seed,
                "M MACs (3×32×32)": round(found.macs / 1e6, 2),
                "test error %": round(100 * (1 - found.score), 2),
            }
            for images in (1, 64):
                stopped, cut = timed[images][number] if images in timed else (0.0, 0.0)
                row |= {
                    f"ms stopping, {images}": round(stopped, 2) if stopped else "",
                    f"ms cut there, {images}": round(cut, 2) if cut else "",
                    f"ratio, {images}": round(stopped / cut, 2) if cut else "",
                }
            rows.append(row | {"CPU minutes": round(minutes[0], 1)})
            print(rows[-1], flush=True)
        assert exits.recommended is not None
        for stop in [*exits.budgeted, exits.recommended]:
            curve.append(
                {
                    "seed": seed,
                    "M MACs, mean": round(stop.macs / 1e6, 2),
                    "test error %": round(100 * (1 - stop.accuracy), 2),
                    "shares leaving %": " ".join(f"{100 * share:.0f}" for share in stop.shares),
                }
            )
    early = curve[-1]
    sentences = [
        f"{NAME}, {len(data.splits['train']):,} training images, {said.epochs} epochs; 10,000 test images. MSDNet with "
        f"5 exits, base {said.base}, step {said.step}; thresholds were chosen on the validation images.",
        "Stopping at an exit is the stepping run with thresholds that every image meets there; cut there is the net "
        f"extracted up to that exit. Torch, one thread, in turns, median of {ROUNDS}; batches of 1 and 64.",
        f"The cheapest thresholds that on val are no worse than the last exit: {early['test error %']} % test error at "
        f"{early['M MACs, mean']} M MACs on average. The curve of budgeted batches is in the other record.",
        f"Recipe: {Recipe(epochs=said.epochs, lr=0.1)}.",
    ]
    written = write_record("cifar10-jpeg-exits", sentences, rows, said.results)
    written.with_suffix(".svg").write_text(exit_curve(exits))
    print(written)
    sentences = [sentences[0], "One row for each p of MSDNet's grid; the last row is the recommended one."]
    print(write_record("cifar10-jpeg-budgeted", sentences, curve, said.results))


def stop_times(fabric: Fabric, images: int) -> list[tuple[float, float]]:
    """Milliseconds of stopping at each exit, and of the network that is cut there."""
    batch = torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    count = len(fabric.graph.heads)
    found = []
    for number in range(count):
        limits = [NEVER] * number + [ALWAYS] * (count - number)
        cut = extract(fabric, fabric.graph.until(number + 1)).to(memory_format=torch.channels_last)
        fabric.to(memory_format=torch.channels_last)
        last = _run_last(cut, batch)
        stopped, whole = alternated([_stopping(fabric, batch, limits), last])
        found.append((stopped, whole))
    assert exit_macs(fabric.graph, (32, 32)) == sorted(exit_macs(fabric.graph, (32, 32)))
    return found


def _stopping(fabric: Fabric, batch: torch.Tensor, limits: list[float]) -> Callable[[], object]:
    fabric.eval()
    return lambda: answer_early(fabric, batch, limits)


def _run_last(cut: Fabric, batch: torch.Tensor) -> Callable[[], object]:
    """The network cut at an exit, without the heads of the exits before it."""
    alone = Fabric(replace(cut.graph, heads=cut.graph.heads[-1:]).restrict(cut.graph.edge_names))
    alone.load_state_dict({k: v for k, v in cut.state_dict().items() if k in alone.state_dict()})
    return _run(alone, batch)


if __name__ == "__main__":
    main()
