"""Milliseconds of an exported file under ONNX Runtime, on this machine."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import onnxruntime

WARM_UP_RUNS = 10
LEAST_RUNS, LEAST_SECONDS = 50, 1.0


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How long one image takes, all conditions stated."""

    median_ms: float
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
        return (
            f"{self.median_ms:.3f} ms median, quartiles {self.spread_ms:.3f} ms apart, {self.runs} runs after "
            f"{self.warm_up_runs}, batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}, {self.runtime}"
        )


def measure(file: Path, image: tuple[int, int, int], threads: int = 1) -> Latency:
    """The latency of an ONNX file for single float32 images of (channels, height, width).

    At least 50 runs and one second of them, after 10 that warm up.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, *image)).astype(np.float32)
    for _ in range(WARM_UP_RUNS):
        session.run(None, {"images": pixels})
    times: list[float] = []
    while len(times) < LEAST_RUNS or sum(times) < LEAST_SECONDS * 1000:
        began = time.perf_counter()
        session.run(None, {"images": pixels})
        times.append((time.perf_counter() - began) * 1000)
    first, _, third = quantiles(times, n=4)
    return Latency(
        median_ms=median(times),
        spread_ms=third - first,
        runs=len(times),
        warm_up_runs=WARM_UP_RUNS,
        threads=threads,
        batch=1,
        size=image[1:],
        runtime=f"ONNX Runtime {onnxruntime.__version__}, CPU",
    )
