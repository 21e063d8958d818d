"""The main command: from images and a budget to a network, once or from several seeds."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from convfabric.cli.console import ProgressBar, answer, refusals, say, tell_doubts
from convfabric.cli.options import (
    AsJson,
    Config,
    Data,
    DataDir,
    Device,
    Download,
    Epochs,
    Force,
    From,
    InOrder,
    LatencyMs,
    Macs,
    MemoryMb,
    Minutes,
    Network,
    Opset,
    Out,
    Params,
    Precision,
    Resume,
    Seed,
    Seeds,
    Settings,
    Size,
    Strict,
    Task,
    Teacher,
    TeacherWeights,
    Threads,
    Weights,
    begun_from,
    job_of_words,
    not_both,
)
from convfabric.environment import command
from convfabric.execution.allocation import keep_imports

if TYPE_CHECKING:
    from convfabric.runs.record import RunRecord


def fit(
    data: Data,
    out: Out = None,
    latency_ms: LatencyMs = None,
    macs: Macs = None,
    params: Params = None,
    memory_mb: MemoryMb = None,
    device: Device = None,
    precision: Precision = None,
    threads: Threads = None,
    opset: Opset = None,
    network: Network = None,
    earlier: From = None,
    weights: Weights = None,
    weights_in_order: InOrder = False,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    size: Size = None,
    task: Task = None,
    seed: Seed = None,
    seeds: Seeds = None,
    data_dir: DataDir = None,
    download: Download = False,
    config: Config = None,
    changes: Settings = None,
    force: Force = False,
    resume: Resume = False,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """From images to a network within a budget: the whole job.

    Trains a fabric, one network that holds very many; cuts the one that fits; fine-tunes, exports and checks it.
    """
    from convfabric.runs.job import default_folder

    not_both(force, resume)
    folder = out or default_folder(data)
    named: dict[str, object] = dict(minutes=minutes, device=device, precision=precision)
    named |= dict(latency_ms=latency_ms, macs=macs, params=params, memory_mb=memory_mb, threads=threads, opset=opset)
    named |= dict(
        network=begun_from(network, earlier), weights=weights, weights_in_order=weights_in_order, epochs=epochs
    )
    named |= dict(teacher=teacher, teacher_weights=teacher_weights)
    named |= dict(size=size, task=task, seed=seed, data_dir=data_dir, download=download, data=data)
    going_on = f"Go on with: {command()} fit {quote(data)} --out {quote(str(folder))} --resume"
    with refusals(going_on, folder), ProgressBar() as shown:
        job = job_of_words(folder, resume, config, changes, **named)
        from convfabric.pipeline.fit import run_job
        from convfabric.pipeline.seeds import fit_seeds, said_spread
        from convfabric.progress import Listener

        keep_imports()
        shared: Any = {"force": force, "resume": resume, "listener": Listener(say=say, watch=shown)}
        if seeds:
            runs = fit_seeds(job, folder, seeds, **shared)
        else:
            record = run_job(job, folder, **shared)
    if seeds:
        answer(as_json, {"runs": [one.as_json(place) for place, one in runs.items()]}, said_spread(runs))
        return tell_doubts([doubt for one in runs.values() for doubt in one.doubts], strict)
    answer(as_json, record.as_json(folder), _fitted_lines(record, folder))
    tell_doubts(record.doubts, strict)


def _fitted_lines(record: "RunRecord", folder: Path) -> list[str]:
    """The result of a finished run, for people."""
    from convfabric.evaluation.baseline import said_beside
    from convfabric.report.words import said_figure, said_macs, said_tuning
    from convfabric.runs.record import parts_of

    data, fabric, cut, network, tuning, exported = parts_of(record)
    small = exported.int8
    rows = [
        ("fabric", f"{said_figure(fabric.score)} on {data.scored_split}, {said_macs(fabric.macs)}"),
        ("after pruning", said_figure(tuning.after_pruning)),
        ("recalibrated", f"{said_figure(tuning.after_recalibration)}, batch norms' statistics taken anew"),
        (said_tuning(tuning), f"{said_figure(network.score)} on {data.scored_split}, {said_macs(network.macs)}"),
        ("beside it", said_beside(network.score)),
        *([("in int8", f"{said_figure(small.score)} on {data.scored_split}, {small}")] if small else []),
        ("model.int8.onnx" if small else "model.onnx", str(exported.latency)),
        ("", f"predicted {cut.predicted_ms:.3f} ms"),
        ("in float32", f"logits of model.onnx within {exported.largest_difference:.1e} of the network's"),
        ("report", str(folder / "report.html")),
    ]
    return [
        *(f"{name:16}{value}" for name, value in rows),
        f"next: python {quote(str(folder / 'predict.py'))} IMAGE...",
    ]
