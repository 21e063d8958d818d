"""Milliseconds of a network under ONNX Runtime, on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import onnxruntime

WARM_UP_RUNS = 10
BLOCKS = 3
LEAST_RUNS, LEAST_SECONDS = 25, 0.4


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long a batch of images takes, all conditions stated."""

    median_ms: float
    quickest_ms: float
    """The median of the quickest block: what the network takes while nothing else is at work."""
    spread_ms: float
    """Between the first and the third quartile."""
    runs: int
    warm_up_runs: int
    threads: int
    batch: int
    size: tuple[int, int]
    """Height and width in pixels."""
    runtime: str

    def __str__(self) -> str:
        blocks = f"{self.runs} runs after {self.warm_up_runs} (middle one of {BLOCKS} blocks)"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        disturbed = " (other work disturbed it)" if self.spread_ms > self.median_ms else ""
        return (
            f"{self.median_ms:.3f} ms median, quartiles {self.spread_ms:.3f} ms apart{disturbed}, {blocks}, "
            f"batch {self.batch}, {threads}, {self.runtime}"
        )


def opened_session(model: Path | bytes, threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    """A session on the CPU with so many threads; with a prefix for files, every kernel is timed."""
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
    model: Path | bytes,
    image: tuple[int, int, int],
    threads: int = 1,
    batch: int = 1,
    seconds: float = LEAST_SECONDS,
) -> Latency:
    """The latency of an ONNX model for float32 images of (channels, height, width), by default one at a time.

    Three blocks of at least 25 runs and 0.4 seconds, each after 10 runs that warm up; the block whose median
    is the middle one is reported, so that a neighbour's burst of work is not taken for the network's.
    """
    session = opened_session(model, threads)
    name = session.get_inputs()[0].name
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *image)).astype(np.float32)
    blocks = sorted((_block(lambda: session.run(None, {name: pixels}), seconds) for _ in range(BLOCKS)), key=median)
    times = blocks[BLOCKS // 2]
    first, _, third = quantiles(times, n=4)
    return Latency(
        median_ms=median(times),
        quickest_ms=median(blocks[0]),
        spread_ms=third - first,
        runs=len(times),
        warm_up_runs=WARM_UP_RUNS,
        threads=threads,
        batch=batch,
        size=image[1:],
        runtime=runtime(),
    )


def runtime() -> str:
    """The runtime and where it runs, as stated beside every latency."""
    return f"ONNX Runtime {onnxruntime.__version__}, CPU"


def _block(run: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each run of one block."""
    for _ in range(WARM_UP_RUNS):
        run()
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < seconds * 1000:
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1000)
    return times
