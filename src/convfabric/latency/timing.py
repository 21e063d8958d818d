"""Times ONNX models on the machine that runs it. Needs Python 3.9, numpy and onnxruntime, and nothing else of ours.

    python3 timing.py        times what wanted.json beside it names, and writes times.json there; goes on if stopped

Convfabric runs it here, sends it to a board over ssh, or leaves it in a folder that is carried to one.
"""

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from statistics import mean, median, quantiles
from typing import Any, BinaryIO

import numpy
import onnxruntime

WARM_UP_RUNS = 10
BLOCKS = 3
LEAST_RUNS, FEWEST_RUNS = 25, 5
LONG = 2.0
"""Seconds of a block after which the fewest runs are enough, and of warming up."""
OPERATION_RUNS = 40
"""Of one operation by itself, after those that warm up."""
TURNS, TOGETHER = 3, 10
"""Of the models in a folder."""
QUICKER = {"operation": "ms", "network": "fastest_block_ms"}
"""By what one measurement of the same model is quicker than another."""
WANTED, TIMES = "wanted.json", "times.json"
Answer = dict[str, Any]


def facts() -> dict[str, str]:
    """What identifies this machine and what it runs networks with; different wherever times could be."""
    return {
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": str(onnxruntime.__version__),
        "openvino": _version("openvino"),
    }


def _version(package: str) -> str:
    """The version of a package; nothing where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    """The name of the board, where it has one, and of its processor."""
    names = []
    with_name = _first_line("/proc/device-tree/model").strip("\0 ")
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware"):
            names.append(value.strip())
            break
    return ", ".join(filter(None, [with_name, *names])) or platform.processor() or platform.machine()


def condition() -> dict[str, float]:
    """How this machine is right now, as far as it says: clock in MHz, degrees Celsius, processes that want to run."""
    found = {}
    clocks = [_number(file) for file in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
    degrees = [_number(file) for file in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    for name, numbers, unit in (("clock_mhz", clocks, 1000), ("celsius", degrees, 1000)):
        known = [number for number in numbers if number is not None]
        if known:
            found[name] = max(known) / unit
    if hasattr(os, "getloadavg"):
        found["load"] = os.getloadavg()[0]
    return found


def _lines(file: str) -> list[str]:
    try:
        with open(file, errors="replace") as text:
            return text.readlines()
    except OSError:
        return []


def _first_line(file: str) -> str:
    return "".join(_lines(file)[:1])


def _number(file: str) -> float | None:
    try:
        return float(_first_line(file))
    except ValueError:
        return None


Kernels = list[tuple[str, float]]
"""The kernels of one run, in order: what each does, and its microseconds."""


class OnnxRuntime:
    """A model under ONNX Runtime on the processor."""

    def __init__(self, model: str | bytes, shape: Sequence[int], threads: int) -> None:
        self.model, self.threads = model, threads

    def ready(self, pixels: Any) -> Callable[[], object]:
        """What answers the batch each time it is called."""
        opened = session(self.model, self.threads)
        given = {opened.get_inputs()[0].name: pixels}
        return lambda: opened.run(None, given)

    def profiled(self, pixels: Any, runs: int) -> list[Kernels]:
        """The kernels of so many runs, from the runtime's own profile."""
        with tempfile.TemporaryDirectory() as folder:
            opened = session(self.model, self.threads, os.path.join(folder, "probe"))
            given = {opened.get_inputs()[0].name: pixels}
            for _ in range(runs):
                opened.run(None, given)
            with open(opened.end_profiling()) as file:
                events = json.load(file)
        named = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("kernel_time")]
        kernels = [(str(event["args"]["op_name"]), float(event["dur"])) for event in named]
        each = len(kernels) // runs
        return [kernels[at * each : (at + 1) * each] for at in range(runs)]


class OpenVino:
    """A model under OpenVINO on the processor, in float32 unless it is quantised."""

    def __init__(self, model: str | bytes, shape: Sequence[int], threads: int) -> None:
        import openvino

        self.core = openvino.Core()
        self.model = self.core.read_model(model)
        self.model.reshape(list(shape))
        self.said = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}

    def _request(self, **more: object) -> Any:
        return self.core.compile_model(self.model, "CPU", {**self.said, **more}).create_infer_request()

    def ready(self, pixels: Any) -> Callable[[], object]:
        """What answers the batch each time it is called."""
        request = self._request()
        return lambda: request.infer({0: pixels})

    def profiled(self, pixels: Any, runs: int) -> list[Kernels]:
        """The kernels of so many runs, as the runtime counts them."""
        request, found = self._request(PERF_COUNT=True), []
        for _ in range(runs):
            request.infer({0: pixels})
            known = [(str(one.node_type), one.real_time.total_seconds() * 1e6) for one in request.profiling_info]
            found.append([kernel for kernel in known if kernel[1] > 0 or "Conv" in kernel[0]])
        return found


RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVino]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def session(model: str | bytes, threads: int, profile: str = "") -> onnxruntime.InferenceSession:
    """A session on the processor with so many threads; with a prefix for files, every kernel is timed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def network(model: str | bytes, shape: Sequence[int], threads: int, seconds: float, runtime: str) -> Answer:
    """Milliseconds of a whole model for a batch (B, C, H, W) of float32 pixels."""
    pixels = numpy.random.default_rng(0).integers(0, 256, tuple(shape)).astype(numpy.float32)
    return blocks(RUNTIMES[runtime](model, shape, threads).ready(pixels), seconds)


def blocks(run: Callable[[], object], seconds: float) -> Answer:
    """Milliseconds of a call, in three blocks of at least 25 runs and so many seconds, each after 10 that warm up.

    Of what takes long there are fewer. The block whose median is the middle one is reported, so that a neighbour's
    burst is not taken for the network.
    """
    found = sorted((_block(run, seconds) for _ in range(BLOCKS)), key=median)
    first, middle, third = quantiles(found[BLOCKS // 2], n=4)
    return {
        "median_ms": middle,
        "fastest_block_ms": median(found[0]),
        "interquartile_range_ms": third - first,
        "runs": len(found[BLOCKS // 2]),
    }


def _block(run: Callable[[], object], seconds: float) -> list[float]:
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        if time.perf_counter() - began < LONG:
            run()
    while _goes_on(len(times), sum(times) / 1000, seconds):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1000)
    return times


def _goes_on(runs: int, taken: float, seconds: float) -> bool:
    """Whether a block of so many runs, that took so long, has more."""
    return runs < FEWEST_RUNS or taken < min(seconds, LONG) or (runs < LEAST_RUNS and taken < LONG)


def operation(model: str | bytes, shape: Sequence[int], threads: int, runtime: str) -> Answer:
    """Milliseconds of the kernels between the first convolution of a model and the last, changes of layout included."""
    pixels = numpy.random.default_rng(0).standard_normal(tuple(shape), numpy.float32)
    runs = RUNTIMES[runtime](model, shape, threads).profiled(pixels, OPERATION_RUNS + WARM_UP_RUNS)
    return {"ms": _middle([_between(kernels) for kernels in runs[WARM_UP_RUNS:]]) / 1000}


def by_kind(model: str | bytes, shape: Sequence[int], threads: int, runtime: str) -> dict[str, float]:
    """Milliseconds of all kernels of each kind in a model, the mean of the middle half of the runs."""
    pixels = numpy.random.default_rng(0).integers(0, 256, tuple(shape)).astype(numpy.float32)
    runs = RUNTIMES[runtime](model, shape, threads).profiled(pixels, OPERATION_RUNS + WARM_UP_RUNS)[WARM_UP_RUNS:]
    kinds = dict.fromkeys(kind for kernels in runs for kind, _ in kernels)
    return {
        kind: _middle([sum(took for one, took in kernels if one == kind) for kernels in runs]) / 1000 for kind in kinds
    }


def _between(kernels: Kernels) -> float:
    """Microseconds of what ran after the first convolution and before the last."""
    convolutions = [at for at, (kind, _) in enumerate(kernels) if "Conv" in kind]
    return sum(took for _, took in kernels[convolutions[0] + 1 : convolutions[-1]])


def _middle(times: Sequence[float]) -> float:
    """The mean of the middle half, finer than a median of whole microseconds."""
    ordered, quarter = sorted(times), len(times) // 4
    return mean(ordered[quarter:-quarter])


def answer(wanted: Answer, model: str | bytes) -> Answer:
    """The times of one model as it is asked for: kind, shape, threads, seconds and runtime."""
    shape, threads, runtime = wanted["shape"], wanted["threads"], wanted.get("runtime", "onnxruntime")
    if wanted["kind"] == "operation":
        return operation(model, shape, threads, runtime)
    return network(model, shape, threads, wanted["seconds"], runtime)


def serve(asked: BinaryIO, told: BinaryIO) -> None:
    """Answers one line of JSON with one line, each model behind its line, until nothing more is asked."""
    _tell(told, facts())
    for line in iter(asked.readline, b""):
        wanted = json.loads(line)
        try:
            found = answer(wanted, asked.read(wanted["bytes"]))
        except Exception as fault:  # whatever the runtime raises is told, and the next model may run
            found = {"fault": str(fault)[:500]}
        _tell(told, {**found, "condition": condition()})


def _tell(told: BinaryIO, said: Answer) -> None:
    told.write(json.dumps(said).encode() + b"\n")
    told.flush()


def folder(place: str) -> None:
    """Times every model that a folder wants, ten at a time in turns of which the quickest counts, and writes that.

    What could not be run is tried again the next time.
    """
    wanted, known = _wanted(os.path.join(place, WANTED)), _known(os.path.join(place, TIMES))
    missing = [one for one in wanted if one["file"] not in known]
    for first in range(0, len(missing), TOGETHER):
        some = missing[first : first + TOGETHER]
        turns = [[_in_folder(one, place) for one in some] for _ in range(TURNS)]
        for one, *found in zip(some, *turns):
            known[one["file"]] = min(found, key=lambda answer: answer.get(QUICKER[one["kind"]], 0.0))
        _write(os.path.join(place, TIMES), {"facts": facts(), "times": known})
        print(f"{first + len(some)} of {len(missing)} models", flush=True)
    faults = [found["fault"] for found in known.values() if "fault" in found]
    if faults:
        said = f"{len(faults)} of {len(wanted)} could not be run, the first: {faults[0]}"
        sys.exit(f"{said}\nrun it again once that is mended")
    print(f"all {len(wanted)} are timed: carry {os.path.join(place, TIMES)} back to where they came from")


def _wanted(file: str) -> list[Answer]:
    try:
        with open(file) as text:
            return list(json.load(text)["models"])
    except (OSError, ValueError, KeyError, TypeError) as fault:
        sys.exit(f"{file}: not what convfabric writes ({fault}); carry the folder here once more")


def _in_folder(wanted: Answer, place: str) -> Answer:
    try:
        return {**answer(wanted, os.path.join(place, "models", wanted["file"])), "condition": condition()}
    except Exception as fault:  # whatever the runtime raises is told, and the next model may run
        return {"fault": str(fault)[:500]}


def _known(file: str) -> dict[str, Answer]:
    """The times that are there, of this very machine, without what could not be run."""
    try:
        with open(file) as text:
            found = json.load(text)
    except (OSError, ValueError):
        return {}
    if found.get("facts") != facts():
        print(f"the times that are there are of another machine and begun anew: {found.get('facts')}", flush=True)
        return {}
    return {name: times for name, times in found["times"].items() if "fault" not in times}


def _write(file: str, said: Answer) -> None:
    with open(file + ".part", "w") as text:
        json.dump(said, text)
    os.replace(file + ".part", file)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        told = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        serve(sys.stdin.buffer, told)
    else:
        try:
            folder(os.path.dirname(os.path.abspath(__file__)))
        except KeyboardInterrupt:
            sys.exit("stopped: run it again to go on")
