"""The main job: train, cut, fine-tune, export and report, as a readable list of steps."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from convfabric.cutting.cutter import HEADROOM, Cut
from convfabric.data.imageset import ImageSet
from convfabric.data.opening import open_data
from convfabric.environment import is_first_process
from convfabric.errors import BudgetError
from convfabric.execution.processes import alone_first, by_first, join
from convfabric.fabric.archive import GRAPH_FILE, passport
from convfabric.fabric.module import Fabric
from convfabric.latency.devices import device_of
from convfabric.latency.survey import SAMPLE_SECONDS
from convfabric.pipeline.announcements import said_stages, say_data
from convfabric.pipeline.cutters import Cutters, Surveys
from convfabric.pipeline.inputs import check_same_data, opened, woven
from convfabric.pipeline.minutes import paced
from convfabric.pipeline.sizes import sized
from convfabric.pipeline.steps import export_step, extract_step, report_step, train_step
from convfabric.progress import UNHEARD, Listener
from convfabric.runs.folder import CONFIG, begin, check_may_begin, is_finished, job_of
from convfabric.runs.job import Job, default_folder, job_from
from convfabric.runs.lock import held
from convfabric.runs.record import RunRecord, read_record
from convfabric.runs.run import Run
from convfabric.weavers import AUTO

MOST_SMALLER = 2
"""Times that a smaller network is cut where the exported file turns out slower than its budget."""


def fit(
    data: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    force: bool = False,
    resume: bool = False,
    listener: Listener | None = None,
    **settings: Any,
) -> Run:
    """The whole job from Python: ``fit("photos/", latency_ms=5).onnx_path``; returns the finished run.

    ``data`` is what :func:`convfabric.data.opening.open_data` takes, map-style data sets by split included;
    ``settings`` are those of ``config.yaml``. The run folder is ``out``, by default runs/ and the name of the data.
    Raises ConvfabricError of every kind; BudgetError where no network meets the budget.
    """
    named = data if isinstance(data, str | Path) else "datasets"
    job = job_from({"data": str(named), **settings})
    images = None if isinstance(data, str | Path) else open_data(data, job.options)
    folder = default_folder(named) if out is None else Path(out)
    run_job(job, folder, force=force, resume=resume, listener=listener, data=images)
    return Run(folder)


def run_job(
    job: Job,
    folder: Path,
    *,
    force: bool = False,
    resume: bool = False,
    listener: Listener | None = None,
    data: ImageSet | None = None,
) -> RunRecord:
    """Train, cut, fine-tune, export and report; returns the record of the run.

    Raises what the steps raise: nothing is returned that does not meet its budget.
    """
    join(job.procedure.accelerator)
    listener = listener or Listener()
    listener = listener if is_first_process() else UNHEARD
    asked, going_on = job, by_first(lambda: resume and (folder / CONFIG).is_file())
    job = by_first(lambda: _begun(folder, asked, listener, data, going_on, force, resume))
    data = data or opened(job)
    if resume:
        check_same_data(folder, data)
    job = job if going_on else paced(job, data, listener.say, asked)
    _announce(job, data, listener)

    def measured() -> Surveys | None:
        if resume and (folder / "cut" / GRAPH_FILE).is_file():
            return None
        listener.say(said_stages(job))
        return Surveys(woven(job, data), job, data, listener)

    found = alone_first(measured)
    with held(folder):
        begin(folder, job, force=force, resume=resume)
        fabric = train_step(folder, job, data, listener, resume=resume)
        if by_first(lambda: going_on and is_finished(folder)):
            listener.say(
                f"{folder}: this run is finished, nothing is left to do; convfabric curve cuts further networks"
            )
            return by_first(lambda: read_record(folder))
        cutters = alone_first(lambda: Cutters(folder, fabric, found) if found else None)
        cut = network_step(folder, job, data, fabric, listener, resume=resume, cutters=cutters)
        alone_first(lambda: report_step(folder, data.at(cut.size), fabric.graph, cut.network))
        return by_first(lambda: read_record(folder))


def _begun(
    folder: Path, asked: Job, listener: Listener, data: ImageSet | None, going_on: bool, force: bool, resume: bool
) -> Job:
    """The job with all that is chosen for it; raises where its folder may not be used."""
    job = _as_begun(asked, job_of(folder)) if going_on else asked
    check_may_begin(folder, job, force=force, resume=resume)
    if resume and not folder.exists():
        listener.say(f"{folder}: nothing to go on with, so a new run begins")
    return job if going_on else sized(job, listener.say, data)


def _as_begun(job: Job, before: Job) -> Job:
    """The job with what its run had chosen for it, where it says nothing itself."""
    if job.options.size is None:
        job = replace(job, options=replace(job.options, size=before.options.size))
    if job.procedure.minutes and job.recipe.epochs in (0, before.recipe.epochs):
        job = replace(job, recipe=replace(job.recipe, epochs=before.recipe.epochs))
    if job.source.network == AUTO:
        network = before.procedure.network
        job = replace(job, numbers=before.numbers, procedure=replace(job.procedure, network=network))
    return job


def _announce(job: Job, data: ImageSet, listener: Listener) -> None:
    say_data(data, listener.say)
    if not job.budget.ceilings:
        stays = "every edge stays and is fine-tuned; operations are timed for networks that are cut later"
        listener.say(f"no budget was given (see --latency-ms, --macs, --params, --memory-mb): {stays}")


def network_step(
    folder: Path,
    job: Job,
    data: ImageSet,
    fabric: Fabric,
    listener: Listener,
    *,
    resume: bool = False,
    cutters: Cutters | None = None,
    run: Path | None = None,
) -> Cut:
    """The network of a budget, exported: where the file turns out slower than that, a smaller one, twice at most.

    A run that is resumed goes on behind what it had refused. Raises BudgetError where the last is still too slow.
    """
    shared: Any = {"cutters": cutters, "run": run}
    whole_ms = _timed_whole(job, data, fabric)
    share, float32 = by_first(lambda: _instead(folder, 1.0, False) if resume else (1.0, False))
    for smaller in range(MOST_SMALLER + 1):
        first = resume and smaller == 0 and (share, float32) == (1.0, False)
        cut = extract_step(folder, job, data, fabric, listener, resume=first, share=share, float32=float32, **shared)
        listener.say("writing model.onnx and model.pt2, and checking them on validation images")
        try:
            alone_first(partial(export_step, folder, job, data.at(cut.size), cut.network, whole_ms))
            by_first(lambda: _say_otherwise(folder, job, listener))
            return cut
        except BudgetError as over:
            if smaller == MOST_SMALLER:
                raise
            refused = by_first(lambda: _refused_int8(read_record(folder)))
            share, float32 = by_first(partial(_instead, folder, share, float32))
            lost = f"int8 costs more than {job.procedure.int8_loss:g} points. Taking a network in float32."
            listener.say(lost if refused else f"{over} Taking a smaller network.")
    raise AssertionError("the last attempt returns or raises")


def _timed_whole(job: Job, data: ImageSet, fabric: Fabric) -> Callable[[], float] | None:
    """What measures the whole network; None where no share of its milliseconds is allowed, or they come later."""
    device = device_of(job.target)
    if not isinstance(job.budget.latency_ms, str) or device.waits or job.procedure.precision != "float32":
        return None
    timed = device.times_networks(passport(fabric, data), job.target, SAMPLE_SECONDS)
    return lambda: timed(fabric.graph).median_ms


def _instead(folder: Path, share: float, float32: bool) -> tuple[float, bool]:
    """The share of the milliseconds, and whether float32 alone, to cut by now; as before where nothing was refused."""
    record = read_record(folder)
    if record.cut is None or record.exported is None or record.budget_met is not False:
        return share, float32
    return (share, True) if _refused_int8(record) else (share * _overshoot(record), float32)


def _say_otherwise(folder: Path, job: Job, listener: Listener) -> None:
    """Says where the file is in other numbers, or was timed by something else, than what it was chosen for."""
    record = read_record(folder)
    assert record.cut is not None
    assert record.exported is not None
    now = device_of(job.target).identity(replace(job.target, precision=record.exported.precision))
    if _refused_int8(record):
        listener.say(
            f"delivered in float32: int8 costs more than {job.procedure.int8_loss:g} points, or exits are several"
        )
    elif record.cut.target and now != record.cut.target:
        listener.say(f"timed by {now}, and chosen by the milliseconds of {record.cut.target}")


def _refused_int8(record: RunRecord) -> bool:
    """Whether the network was chosen for int8 and could not be delivered so."""
    assert record.cut is not None
    assert record.exported is not None
    return record.cut.precision != record.exported.precision


def _overshoot(record: RunRecord) -> float:
    """By how much the ceiling of milliseconds has to come down, from how far the file was above it."""
    assert record.cut is not None
    assert record.exported is not None
    ratio = record.cut.ceilings["latency_ms"] / record.exported.latency.median_ms
    return HEADROOM * min(0.97, ratio)
