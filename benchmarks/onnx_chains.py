"""ONNX files of extracted trellises beside plain chains of 3×3 convolutions, and where their time goes."""

import json
import random
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import onnxruntime
from torch import nn

from convfabric.data.imageset import Preprocessing
from convfabric.errors import NoRouteError
from convfabric.exporting import program as programs
from convfabric.exporting.formats import write_onnx
from convfabric.exporting.program import program
from convfabric.fabric.archive import Passport
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.costs import costs
from convfabric.weavers import weave

SIZE, CLASSES = (32, 32), 10
SHARE = 0.6
"""Of the edges of the trellis that a random cut keeps."""
Row = dict[str, object]


@dataclass(frozen=True)
class Chains:
    """What was found: one row per network, one per kind of operation, and how."""

    sentences: list[str]
    rows: list[Row]
    about_operations: list[str]
    operations: list[Row]


def chains(rounds: int, threads: int) -> Chains:
    """Three widths of the paper's trellis and the program's own, each cut at random, by turns with its chain."""
    rows: list[Row] = []
    operations: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for channels in (16, 32, 64):
            graph = cut(weave("trellis", size=SIZE, channels=channels, layers=8, scales=4), seed=1)
            row, taken = beside_chain(f"trellis of {channels} channels", graph, channels, Path(folder), rounds, threads)
            rows.append(row)
            operations += taken
        graph = cut(weave("fabric-small", size=SIZE, layers=6), seed=1)
        row, taken = beside_chain("fabric-small (blocks)", graph, 32, Path(folder), rounds, threads)
        return Chains(
            [
                f"ONNX Runtime on the CPU, {threads} thread, batch 1, 3×32×32 images; medians of {rounds} rounds that "
                f"take turns. Each network is a random cut (seed 1) that keeps {SHARE:.0%} of the edges. The chain has "
                "as many 3×3 convolutions of the same width at full resolution as come nearest to its MACs; times are "
                "compared per MAC. as trained: norms as they are in the fabric; file: norms folded, as exported.",
                "fabric-small, for comparison: "
                + ", ".join(f"{name} {value}" for name, value in row.items() if name != "network")
                + ".",
            ],
            rows,
            [
                "Median microseconds of each kind of operation in the exported file, from the runtime's own profile; "
                "'as a chain' is what its MACs would take at the chain's speed.",
            ],
            operations,
        )


def cut(graph: Graph, seed: int) -> Graph:
    """The graph with a random share of its edges, and a route."""
    dice = random.Random(seed)
    while True:
        try:
            return graph.restrict(name for name in sorted(graph.edge_names) if dice.random() < SHARE)
        except NoRouteError:
            continue


def chain_of(channels: int, macs: int) -> Graph:
    """Convolutions at full resolution with a norm and a ReLU each, as many as come nearest to so many MACs."""
    depth = max(1, round(macs / (9 * channels**2 * SIZE[0] * SIZE[1])))
    return weave("trellis", size=SIZE, channels=channels, layers=depth + 1, scales=1)


def beside_chain(
    name: str, graph: Graph, channels: int, folder: Path, rounds: int, threads: int
) -> tuple[Row, list[Row]]:
    """One row for a network and its chain, and rows for the operations of its file."""
    chain, files = chain_of(channels, costs(graph, SIZE).macs), {}
    fabric, plain = Fabric(graph).eval(), Fabric(chain).eval()
    for module in (*fabric.modules(), *plain.modules()):
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
    files["file"] = written(fabric, folder / "file.onnx")
    with patch.object(programs, "as_delivered", lambda unchanged: unchanged):
        files["as trained"] = written(fabric, folder / "trained.onnx")
    files["chain"] = written(plain, folder / "chain.onnx")
    times = taking_turns(files, rounds, threads)
    macs = {"file": costs(graph, SIZE).macs, "chain": costs(chain, SIZE).macs}
    a_mac = times["chain"] / macs["chain"]
    row: Row = {
        "network": name,
        "edges": len(graph.edges),
        "M MACs": round(macs["file"] / 1e6, 1),
        "chain M MACs": round(macs["chain"] / 1e6, 1),
        "as trained ms": round(times["as trained"], 3),
        "file ms": round(times["file"], 3),
        "chain ms": round(times["chain"], 3),
        "time per MAC ÷ chain's": round(times["file"] / macs["file"] / a_mac, 3),
        "as trained ÷ file": round(times["as trained"] / times["file"], 3),
    }
    return row, operations_of(name, graph, files["file"], 1000 * a_mac)


def written(fabric: Fabric, file: Path) -> Path:
    """The exported file of a fabric."""
    looks = Preprocessing(size=SIZE, channels=3, fitting="stretch", mean=(0.5,) * 3, std=(0.25,) * 3)
    papers = Passport(graph=fabric.graph, classes=tuple(map(str, range(CLASSES))), preprocessing=looks, ignore=255)
    write_onnx(program(fabric, papers), papers, file)
    return file


def session(file: Path, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # else it slows whoever comes next
    options.enable_profiling = profile is not None
    if profile:
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def taking_turns(files: dict[str, Path], rounds: int, threads: int) -> dict[str, float]:
    """Median milliseconds of each file."""
    sessions = {name: session(file, threads) for name, file in files.items()}
    images = np.random.default_rng(0).random((1, 3, *SIZE), dtype=np.float32) * 255
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds + 10):
        for name, ready in sessions.items():
            began = time.perf_counter()
            ready.run(None, {"images": images})
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: median(taken[10:]) for name, taken in times.items()}


def operations_of(name: str, graph: Graph, file: Path, a_mac: float) -> list[Row]:
    """Where the time of a file goes; ``a_mac`` is what a multiply-accumulate takes in the chain, in microseconds."""
    profiled = session(file, 1, file.with_suffix(""))
    images = np.zeros((1, 3, *SIZE), dtype=np.float32)
    for _ in range(60):
        profiled.run(None, {"images": images})
    durations: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in json.loads(Path(profiled.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            durations[event["args"]["op_name"], event["name"]].append(event["dur"])
    spent: dict[str, float] = defaultdict(float)
    for (kind, _), taken in durations.items():
        spent[kind] += median(taken)
    macs = {"ConvTranspose": sum_macs(graph, rising=True), "Conv": sum_macs(graph, rising=False)}
    return [
        {
            "network": name,
            "operation": kind,
            "count": len({node for other, node in durations if other == kind}),
            "µs": round(taken, 1),
            "M MACs": round(macs.get(kind, 0) / 1e6, 2),
            "as a chain µs": round(macs.get(kind, 0) * a_mac, 1),
        }
        for kind, taken in sorted(spent.items(), key=lambda item: -item[1])
    ]


def sum_macs(graph: Graph, rising: bool) -> int:
    """MACs of the edges to a finer scale; or of everything else."""
    from convfabric.graph.costs import edge_costs

    up = sum(edge_costs(graph, edge, SIZE).macs for edge in graph.edges if edge.operator.stride < 1)
    return up if rising else costs(graph, SIZE).macs - up
