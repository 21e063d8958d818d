"""What this device takes for each operation of a network, and how well the sum of them predicts whole sub-networks."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from convfabric.cutting.cutter import latency_of
from convfabric.data.imageset import Preprocessing
from convfabric.errors import SettingError
from convfabric.execution.runners import for_inference
from convfabric.fabric.archive import Passport, load_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.prediction import calibrate, every_operation, simplified
from convfabric.latency.probing import PROBES
from convfabric.latency.table import Conditions, Table, key_of
from convfabric.runs.job import network_from
from convfabric.training.recipe import Recipe

SHOWN = 12
TORCH_RUNS = 30
Facts = dict[str, Any]


def calibrated(
    network: str,
    size: str | None = None,
    changes: Sequence[str] = (),
    *,
    threads: int = 1,
    batch: int = 1,
    runtime: str = "onnxruntime",
    say: Callable[[str], None] = print,
) -> Facts:
    """The table of a network's operations on this device, measured where it was not before, and the prediction.

    ``network`` is a preset, a family or the folder of a run. Returns the conditions, milliseconds by operation, where
    they are kept if they could be, and the errors of the prediction, each measured sub-network left out of the fit in
    turn. Raises SettingError for what is not known.
    """
    if runtime not in PROBES:
        raise SettingError(f"runtime={runtime}: {' and '.join(PROBES)} are known.")
    if threads < 1 or batch < 1:
        raise SettingError(f"threads={threads}, batch={batch}: give at least 1.")
    papers = _papers(network, size, changes)
    graph, image = papers.graph, papers.preprocessing.size
    sampler, table = Sampler.of(graph, Recipe().narrowest, image), _table(runtime, threads, batch)
    say(f"{graph.name} at {image[0]}×{image[1]} on {table.conditions}")
    works = every_operation(sampler, simplified(graph), image)
    fresh = table.measure(works, lambda done, of: say(f"{done} of {of} operations") if done % 100 == 0 else None)
    whole = torch_latency(papers, threads, batch) if runtime == "torch" else _onnx_latency(papers, threads, batch)
    prediction = calibrate(sampler, image, table, whole)
    return {
        "network": graph.name,
        "size": list(image),
        "conditions": str(table.conditions),
        "file": str(table.file) if table.is_kept else None,
        "measured_now": fresh,
        "operations": {key_of(work): table.milliseconds(work) for work in works},
        "whole_ms": whole(graph),
        "predicted_ms": prediction.milliseconds(graph),
        "errors": list(prediction.errors),
        "median_error": prediction.median_error,
        "rank_correlation": prediction.rank,
        "said": str(prediction),
    }


def calibrated_lines(facts: Facts) -> list[str]:
    """The facts for people: the slowest operations first."""
    slowest = sorted(facts["operations"].items(), key=lambda item: -item[1])
    lines = [f"{milliseconds:9.4f} ms  {name}" for name, milliseconds in slowest[:SHOWN]]
    rest = [f"... and {len(slowest) - SHOWN} quicker ones"] if len(slowest) > SHOWN else []
    kept = f"kept in {facts['file']}" if facts["file"] else "not kept: the user's cache cannot be written"
    return [
        f"{len(slowest)} operations, {facts['measured_now']} of them measured now; {kept}",
        *lines,
        *rest,
        f"whole network {facts['whole_ms']:.3f} ms, predicted {facts['predicted_ms']:.3f} ms",
        facts["said"],
        "next: convfabric fit DATA --latency-ms 2",
    ]


def _papers(network: str, size: str | None, changes: Sequence[str]) -> Passport:
    if Path(network).is_dir():
        if size or changes:
            raise SettingError(f"{network}: a run is taken as it is; --set and --size are for networks by name.")
        trained = Path(network) / "fabric"
        return load_fabric(trained if trained.is_dir() else Path(network))[1]
    graph, image = network_from(network, size, changes)
    channels = graph.entry.image_channels
    neutral = Preprocessing(
        size=image, channels=channels, fitting="stretch", mean=(0.5,) * channels, std=(0.25,) * channels
    )
    classes = tuple(str(number) for number in range(graph.head.classes))
    return Passport(graph=graph, classes=classes, preprocessing=neutral)


def _table(runtime: str, threads: int, batch: int) -> Table:
    return Table.opened(Conditions(runtime=runtime, threads=threads, batch=batch))


def _onnx_latency(papers: Passport, threads: int, batch: int) -> Callable[[Graph], float]:
    measured = latency_of(papers, threads, batch)
    return lambda graph: measured(graph).quickest_ms


def torch_latency(papers: Passport, threads: int, batch: int) -> Callable[[Graph], float]:
    """Measures graphs as torch runs them after the plan for inference, with fresh weights; milliseconds."""
    images = torch.zeros(batch, papers.preprocessing.channels, *papers.preprocessing.size)
    images = images.contiguous(memory_format=torch.channels_last)

    def milliseconds(graph: Graph) -> float:
        usual, times = torch.get_num_threads(), []
        torch.set_num_threads(threads)
        try:
            network = for_inference(Fabric(graph).eval())
            with torch.inference_mode():
                for _ in range(TORCH_RUNS):
                    began = time.perf_counter()
                    network(images)
                    times.append((time.perf_counter() - began) * 1000)
        finally:
            torch.set_num_threads(usual)
        return median(times[TORCH_RUNS // 3 :])

    return milliseconds
