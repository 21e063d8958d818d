"""What one operation takes: run between two convolutions, as in a network, and timed by the runtime itself."""

import json
import tempfile
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from statistics import fmean, median
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convfabric.fabric.layers import layer
from convfabric.latency.measurement import opened_session
from convfabric.latency.timing_models import drafted
from convfabric.operators import Size, Work

RUNS, WARM_UP_RUNS = 40, 10
AFTER = 8
"""Channels of the convolution behind the operation."""
KEPT_DRAFTS = 64


class Probe(Protocol):
    """A runtime's way of timing one operation."""

    def __call__(self, work: Work, threads: int, batch: int) -> float:
        """Milliseconds of one operation on a batch."""


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


def probe_onnx(work: Work, threads: int, batch: int) -> float:
    """Milliseconds under ONNX Runtime: the kernels between the two convolutions, changes of layout included."""
    pixels = np.random.default_rng(0).standard_normal((batch, work.channels_in, *work.size_in), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        session = opened_session(_draft(work, batch), threads, str(Path(folder) / "probe"))
        name = session.get_inputs()[0].name
        for _ in range(RUNS + WARM_UP_RUNS):
            session.run(None, {name: pixels})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("kernel_time")]
    each = len(kernels) // (RUNS + WARM_UP_RUNS)
    times = [_between(kernels[i * each : (i + 1) * each]) for i in range(WARM_UP_RUNS, RUNS + WARM_UP_RUNS)]
    return _middle(times) / 1000


@lru_cache(maxsize=KEPT_DRAFTS)
def _draft(work: Work, batch: int) -> bytes:
    return drafted(_Between(work), torch.zeros(batch, work.channels_in, *work.size_in))


def _between(kernels: list[dict[str, Any]]) -> float:
    """Microseconds of what ran after the first convolution and before the last."""
    convolutions = [i for i, event in enumerate(kernels) if "Conv" in event["args"]["op_name"]]
    return float(sum(event["dur"] for event in kernels[convolutions[0] + 1 : convolutions[-1]]))


def probe_torch(work: Work, threads: int, batch: int) -> float:
    """Milliseconds of the layer under torch, float32, channels last."""
    module = layer(work.operator, work.channels_in, work.channels_out).eval().to(memory_format=torch.channels_last)
    example = torch.randn(batch, work.channels_in, *work.size_in).contiguous(memory_format=torch.channels_last)
    usual, times = torch.get_num_threads(), []
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            for _ in range(RUNS + WARM_UP_RUNS):
                began = time.perf_counter()
                module(example, work.size_out)
                times.append((time.perf_counter() - began) * 1000)
    finally:
        torch.set_num_threads(usual)
    return median(times[WARM_UP_RUNS:])


def _middle(times: list[float]) -> float:
    """The mean of the middle half, finer than a median of whole microseconds."""
    ordered, quarter = sorted(times), len(times) // 4
    return fmean(ordered[quarter:-quarter])


PROBES: Mapping[str, Probe] = MappingProxyType({"onnxruntime": probe_onnx, "torch": probe_torch})
"""The runtimes that operations can be timed under."""
