"""Torch on the processor, after the plan for inference."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch

from convfabric.execution.runners import for_inference
from convfabric.fabric.archive import Passport
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.measurement import Latency, timed
from convfabric.latency.runtimes.runtime import RUNS, WARM_UP_RUNS, TimeOf
from convfabric.latency.target import Target
from convfabric.operators import Work


class TorchRuntime:
    """Torch's own kernels and this package's, float32, channels last."""

    @property
    def version(self) -> str:
        """The installed version."""
        return str(torch.__version__)

    def time_operation(self, work: Work, target: Target) -> float:
        """The layer of an operator, alone."""
        module = layer(work.operator, work.channels_in, work.channels_out).eval().to(memory_format=torch.channels_last)
        example = torch.randn(target.batch, work.channels_in, *work.size_in)
        example, times = example.contiguous(memory_format=torch.channels_last), list[float]()
        with _threads(target.threads), torch.inference_mode():
            for _ in range(RUNS + WARM_UP_RUNS):
                began = time.perf_counter()
                module(example, work.size_out)
                times.append((time.perf_counter() - began) * 1000)
        return median(times[WARM_UP_RUNS:])

    def times_networks(self, papers: Passport, target: Target, seconds: float) -> TimeOf:
        """Graphs after the plan for inference."""
        images = torch.zeros(target.batch, papers.preprocessing.channels, *papers.preprocessing.size)
        images = images.contiguous(memory_format=torch.channels_last)

        def milliseconds(graph: Graph) -> Latency:
            with _threads(target.threads), torch.inference_mode():
                network = for_inference(Fabric(graph).eval())
                said = f"torch {self.version}, CPU"
                return timed(lambda: network(images), target, papers.preprocessing.size, said, seconds)

        return milliseconds


@contextmanager
def _threads(count: int) -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
