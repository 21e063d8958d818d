"""Torch on the processor of this machine, after the plan for inference."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from convfabric.environment import machine
from convfabric.errors import SettingError
from convfabric.execution.runners import for_inference
from convfabric.fabric.archive import Passport
from convfabric.fabric.layers import layer
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.devices.device import TimeOf
from convfabric.latency.measurement import Latency, timed
from convfabric.latency.target import Target
from convfabric.latency.timing import OPERATION_RUNS, WARM_UP_RUNS
from convfabric.operators import Work


class TorchHere:
    """Torch's own kernels and this package's, float32, channels last."""

    waits = False

    def identity(self, target: Target) -> str:
        """Processor, version, threads and batch."""
        threads = f"{target.threads} thread{'s' * (target.threads > 1)}"
        return f"{machine()['processor']}, torch {torch.__version__}, {threads}, batch {target.batch}"

    def time_operations(self, works: Sequence[Work], target: Target) -> list[float]:
        """The layer of each operator, alone."""
        return [self._time_operation(work, target) for work in works]

    def _time_operation(self, work: Work, target: Target) -> float:
        module = layer(work.operator, work.channels_in, work.channels_out).eval().to(memory_format=torch.channels_last)
        example = torch.randn(target.batch, work.channels_in, *work.size_in)
        example, times = example.contiguous(memory_format=torch.channels_last), list[float]()
        with _threads(target.threads), torch.inference_mode():
            for _ in range(OPERATION_RUNS + WARM_UP_RUNS):
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
                said = f"torch {torch.__version__}, CPU"
                return timed(lambda: network(images), target, papers.preprocessing.size, said, seconds)

        return milliseconds

    def time_file(self, model: Path | bytes, image: tuple[int, int, int], target: Target, seconds: float) -> Latency:
        """Raises SettingError: files are for other runtimes."""
        raise SettingError("runtime=torch: ONNX files are timed by onnxruntime.")

    def expect(
        self, works: Sequence[Work], graphs: Sequence[Graph], papers: Passport, target: Target, seconds: float
    ) -> None:
        """Nothing is to be prepared."""

    def doubts(self) -> list[str]:
        """None are known."""
        return []


@contextmanager
def _threads(count: int) -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
