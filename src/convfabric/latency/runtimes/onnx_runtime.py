"""ONNX Runtime on the processor: whole models, and single operations by its own profile."""

import json
import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.execution.folding import folded
from convfabric.fabric.archive import Passport
from convfabric.fabric.deployable import Deployable
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.measurement import LEAST_SECONDS, Latency, middle, timed
from convfabric.latency.runtimes.runtime import RUNS, WARM_UP_RUNS, TimeOf
from convfabric.latency.target import Target
from convfabric.latency.timing_models import drafted
from convfabric.operators import Size, Work

AFTER = 8
"""Channels of the convolution behind an operation that is timed."""
KEPT_DRAFTS = 64


class OnnxRuntime:
    """ONNX Runtime's kernels for processors."""

    @property
    def version(self) -> str:
        """The installed version."""
        return str(onnxruntime.__version__)

    def time_operation(self, work: Work, target: Target) -> float:
        """The kernels between two convolutions, changes of layout included."""
        pixels = np.random.default_rng(0).standard_normal((target.batch, work.channels_in, *work.size_in), np.float32)
        with tempfile.TemporaryDirectory() as folder:
            session = opened_session(_draft(work, target.batch), target.threads, str(Path(folder) / "probe"))
            name = session.get_inputs()[0].name
            for _ in range(RUNS + WARM_UP_RUNS):
                session.run(None, {name: pixels})
            events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("kernel_time")]
        each = len(kernels) // (RUNS + WARM_UP_RUNS)
        runs = range(WARM_UP_RUNS, RUNS + WARM_UP_RUNS)
        return middle([_between(kernels[i * each : (i + 1) * each]) for i in runs]) / 1000

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """Graphs as ONNX models; the model of a graph is written once."""
        image = (papers.preprocessing.channels, *papers.preprocessing.size)

        @cache
        def model(graph: Graph) -> bytes:
            network = Deployable(folded(Fabric(graph).eval()), papers)
            return drafted(network, torch.zeros(target.batch, *image))

        return lambda graph: measure(model(graph), image, target, seconds)


def opened_session(model: Path | bytes, threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    """A session on the processor with so many threads; with a prefix for files, every kernel is timed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    given = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def measure(
    model: Path | bytes, image: tuple[int, int, int], target: Target | None = None, seconds: float = LEAST_SECONDS
) -> Latency:
    """The latency of an ONNX model for float32 images of (channels, height, width), by default one at a time.

    >>> model = drafted(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2))
    >>> measure(model, (1, 2, 2), seconds=0.0).runs
    25
    """
    target = target or Target()
    session = opened_session(model, target.threads)
    name = session.get_inputs()[0].name
    pixels = np.random.default_rng(0).integers(0, 256, (target.batch, *image)).astype(np.float32)
    said = f"ONNX Runtime {onnxruntime.__version__}, CPU"
    return timed(lambda: session.run(None, {name: pixels}), target, image[1:], said, seconds)


class _Between(nn.Module):
    """A 1×1 convolution, the operation, a ReLU and another 1×1: what surrounds it lays out its input and output."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.before = nn.Conv2d(work.channels_in, work.channels_in, 1)
        self.operation = layer(work.operator, work.channels_in, work.channels_out)
        self.after = nn.Conv2d(work.channels_out, AFTER, 1)
        self.size: Size = work.size_out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        response: Tensor = self.after(F.relu(self.operation(F.relu(self.before(x_BCHW)), self.size)))
        return response


@lru_cache(maxsize=KEPT_DRAFTS)
def _draft(work: Work, batch: int) -> bytes:
    return drafted(_Between(work), torch.zeros(batch, work.channels_in, *work.size_in))


def _between(kernels: list[dict[str, Any]]) -> float:
    """Microseconds of what ran after the first convolution and before the last."""
    convolutions = [i for i, event in enumerate(kernels) if "Conv" in event["args"]["op_name"]]
    return float(sum(event["dur"] for event in kernels[convolutions[0] + 1 : convolutions[-1]]))
