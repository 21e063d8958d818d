"""The steps of the main job over one run folder: train, cut, fine-tune, export, report.

What a step made is handed to the next; what lies on the disk is for going on later.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from convfabric.choice import Budget
from convfabric.cutting.cutter import Cut
from convfabric.cutting.dead_channels import without_dead_channels
from convfabric.cutting.fitness import Judge
from convfabric.data.imageset import ImageSet
from convfabric.environment import is_first_process, machine, process_count, versions
from convfabric.errors import BudgetError, SettingError, StuckError
from convfabric.evaluation.early_exit import exits_of
from convfabric.evaluation.scoring import score
from convfabric.execution.processes import alone_first, by_first, led
from convfabric.exporting.exit_files import export_stages
from convfabric.exporting.exporter import export
from convfabric.exporting.formats import formats_with
from convfabric.exporting.int8 import INT8_FILE, Int8, write_int8
from convfabric.exporting.predictor_script import write_predictor
from convfabric.fabric.archive import (
    GRAPH_FILE,
    Passport,
    load_fabric,
    passport,
    save_fabric,
    write_atomically,
)
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.latency.devices import device_of, measure, times_by_kind
from convfabric.latency.measurement import Latency, calmest
from convfabric.pipeline.announcements import said_gates, said_parts
from convfabric.pipeline.cutters import Cutters, Form, Surveys
from convfabric.pipeline.inputs import KEPT, LEFT_OUT, origin_of, original_of, prepared_for, untrained, woven
from convfabric.pipeline.teachers import teacher_there
from convfabric.pipeline.tried import keep_tried
from convfabric.pipeline.tuning import Tuner
from convfabric.progress import Listener, Say
from convfabric.report.run_page import write_report
from convfabric.runs.folder import TEACHER, begin, remove_network
from convfabric.runs.job import Job
from convfabric.runs.lock import held
from convfabric.runs.record import (
    CutRecord,
    ExportRecord,
    data_record,
    network_record,
    read_record,
    update_record,
)
from convfabric.training.estimate import estimate
from convfabric.training.loop import plan_of, train
from convfabric.training.teachers import Teacher

TURNS = 3
"""Of a file and the whole network, where one may take a share of the other's milliseconds."""
PAUSE = 5.0
"""Seconds before a file that is too slow is measured again: a smaller network would take minutes."""


def train_step(folder: Path, job: Job, data: ImageSet, listener: Listener, *, resume: bool = False) -> Fabric:
    """The trained fabric of a job, kept in the run folder; a finished one is loaded if ``resume``."""
    if resume and (folder / "fabric" / GRAPH_FILE).is_file():
        done = load_fabric(folder / "fabric")[0]
        if done.graph != woven(job, data):
            raise SettingError(f"{folder}: config.yaml says of the network what its fabric was not trained with.")
        return done
    teacher = _taught(folder, job, data, listener)
    if process_count() == 1:
        fabric = untrained(job, data)[0]
        parts = said_parts(fabric.graph, job, data)
        takes = estimate(fabric, data, job.recipe, teacher, job.procedure.accelerator)
        listener.say(f"training the fabric takes {takes}{parts}")
    before = read_record(folder).given_up if resume else ()
    if is_first_process():
        origin = origin_of(job, data)
        update_record(folder, data=data_record(data), begun_with=origin, given_up=before)
        if LEFT_OUT in origin:
            listener.say(f"{LEFT_OUT} of the network: {origin[LEFT_OUT]}")
        if KEPT in origin:
            listener.say(f"{KEPT}, with all their channels, as no operator describes them: {origin[KEPT]}")
    began = time.monotonic()
    fabric = _learning(folder, job, data, listener, teacher, before, resume)
    plan = str(plan_of(job.recipe, fabric))
    fabric = fabric.cpu()
    if is_first_process():
        _keep_fabric(folder, job, data, fabric, time.monotonic() - began, plan)
        if job.recipe.gates != "none":
            listener.say(said_gates(folder, fabric.graph, job, data))
    return fabric


def _learning(
    folder: Path,
    job: Job,
    data: ImageSet,
    listener: Listener,
    teacher: Teacher | None,
    given_up: tuple[str, ...],
    resume: bool,
) -> Fabric:
    """The fabric, trained; where its answers stay no better than chance it is begun anew, see Recipe.begun_anew."""
    fitted = job.recipe.fitted(len(data.splits["train"]), data.task)
    while True:
        (fabric, fresh), recipe = untrained(job, data), fitted.begun_anew(len(given_up))
        shared: Any = {"folder": folder, "device": job.procedure.accelerator, "watch": listener.watch}
        try:
            train(fabric, data, recipe, fresh=fresh, teacher=teacher, resume=resume, **shared)
            return fabric
        except StuckError as stuck:
            then = fitted.begun_anew(len(given_up) + 1)
            said = f"{stuck} It is begun anew with {then.optimiser} at a rate of {then.lr:.2g}"
            given_up, resume = (*given_up, said), False
            listener.say(said)
            if is_first_process():
                (folder / "fabric.state.safetensors").unlink(missing_ok=True)
                update_record(folder, given_up=given_up)


def _taught(folder: Path, job: Job, data: ImageSet, listener: Listener) -> Teacher | None:
    """The teacher of a job, if it has one, tuned on its images in a folder of its own within the run's."""
    if not job.procedure.teacher:
        return None
    if found := teacher_there(folder, job, data):
        return found
    tuning, place = job.teaching(len(data.splits["train"]), data.task), folder / TEACHER
    images = prepared_for(original_of(tuning), data)
    listener.say(f"{tuning.procedure.network} is tuned on the images first, to be followed")
    with held(place):
        begin(place, tuning, resume=True)
        fabric = train_step(place, tuning, images, listener, resume=True)
    return Teacher(fabric=fabric, preprocessing=images.preprocessing)


def _keep_fabric(folder: Path, job: Job, data: ImageSet, fabric: Fabric, seconds: float, plan: str) -> None:
    conditions = {"machine": machine(), "versions": versions(), "seed": job.recipe.seed, "data_digest": data.digest}
    write_atomically(folder / "environment.json", json.dumps(conditions, indent=1))
    update_record(folder, data=data_record(data), fabric=network_record(fabric, data, seconds), plan=plan)
    save_fabric(folder / "fabric", fabric, passport(fabric, data))


def extract_step(
    folder: Path,
    job: Job,
    data: ImageSet,
    fabric: Fabric,
    listener: Listener,
    *,
    resume: bool = False,
    cutters: Cutters | None = None,
    share: float = 1.0,
    run: Path | None = None,
    float32: bool = False,
) -> Cut:
    """The network cut from the trained fabric to the job's budget and fine-tuned, kept in a folder.

    That is the run's, unless the fabric is in another run's; of the budget's milliseconds a share may be taken, and
    ``float32`` leaves no other numbers to choose from.
    An earlier network of the folder is removed once the new one is cut; ``resume`` goes on with one that was cut to the
    same budget, and raises SettingError for another.
    """
    tuner = Tuner(run=run or folder, job=job, data=data, whole=fabric, listener=listener)
    if by_first(lambda: resume and (folder / "cut" / GRAPH_FILE).is_file()):
        cut = by_first(lambda: _resumed(folder, job))
    else:
        made = alone_first(lambda: cutters or Cutters(tuner.run, fabric, Surveys(fabric.graph, job, data, listener)))
        cut = _cut_anew(folder, tuner, made, share, float32)
    began = time.monotonic()
    network, tuning = tuner.tuned(folder, cut, resume)
    small, data = replace(cut, network=without_dead_channels(network.cpu())), data.at(cut.size)

    def keep() -> None:
        save_fabric(folder, small.network, passport(small.network, data))
        made = network_record(small.network, data, time.monotonic() - began)
        update_record(folder, network=made, tuning=tuning)

    by_first(keep)
    return small


def _resumed(folder: Path, job: Job) -> Cut:
    cut = read_record(folder).cut
    if cut is None or cut.requested != str(job.budget):
        there = f"the network that is there was cut to {cut.requested if cut else 'an unknown budget'}"
        raise SettingError(f"{folder}: {there}, now {job.budget}; without --resume it is replaced.")
    network, papers = load_fabric(folder / "cut")
    size = papers.preprocessing.size
    return Cut(network=network, predicted_ms=cut.predicted_ms, size=size, precision=cut.precision)


def _cut_anew(folder: Path, tuner: Tuner, cutters: Cutters | None, share: float, float32: bool) -> Cut:
    """The network after pruning, kept so that a run that is resumed goes on with the same one.

    The cutter is the first process's; the others help it to try sub-networks.
    """
    job = tuner.job

    def finalists() -> list[Cut]:
        assert cutters is not None
        return cutters.finalists(job.budget, share, job.procedure.finalists, float32)

    source = by_first(lambda: cutters.first.material.fabric if cutters else None)
    assert source is not None
    found: list[Cut] = led(finalists, Judge.helping(source, tuner.data, job.recipe))
    small = tuner.best_of(found)
    alone_first(lambda: _keep_cut(folder, tuner, cutters, small))
    return replace(small, network=small.network.eval())


def _keep_cut(folder: Path, tuner: Tuner, cutters: Cutters | None, small: Cut) -> None:
    """What was cut in place of an earlier network, and how it came to be."""
    assert cutters is not None
    job, form = tuner.job, Form(small.size, small.precision)
    found = cutters.surveys.at(form)
    budget, data = cutters.surveys.resolved(job.budget), tuner.data.at(small.size)
    _say_exits(tuner.whole.graph, small.network.graph, tuner.listener.say)
    if data is not tuner.data:
        tuner.listener.say(f"its images are brought to {small.size[1]}×{small.size[0]} pixels")
    ceilings = {name: float(value) for name, value in budget.ceilings.items() if isinstance(value, int | float)}
    graph = small.network.graph
    if graph == tuner.whole.graph:
        tuner.listener.say("the whole network is within the budget: nothing is cut")
    cut = CutRecord(
        requested=str(job.budget),
        ceilings=ceilings,
        predicted_ms=small.predicted_ms,
        prediction_error=found.prediction.median_error,
        worth=cutters.first.material.worth,
        edge_ms={edge.name: found.prediction.edge_milliseconds(graph, edge) for edge in graph.edges},
        precision=small.precision,
        target=device_of(found.prediction.table.target).identity(found.prediction.table.target),
    )
    if read_record(folder).exported is not None:
        tuner.listener.say(f"{folder}: the files of the network that was there before are removed")
    remove_network(folder)
    update_record(folder, cut=cut, network=None, tuning=None, exported=None, exits=None)
    keep_tried(folder, tuner.whole.graph, cutters.at(form).material.tried, found.prediction.milliseconds)
    save_fabric(folder / "cut", small.network, passport(small.network, data))


def _say_exits(whole: Graph, smaller: Graph, say: Say) -> None:
    """Which exits are left, where the budget has taken some."""
    if len(smaller.heads) < len(whole.heads):
        kept, all_of = (", ".join(head.name for head in graph.heads) for graph in (smaller, whole))
        say(f"the budget leaves {len(smaller.heads)} of {len(whole.heads)} exits: {kept} of {all_of}")


def export_step(
    folder: Path, job: Job, data: ImageSet, network: Fabric, whole_ms: Callable[[], float] | None = None
) -> ExportRecord:
    """The checked files of a network in a run folder, their latency measured.

    Where the budget is a share of the whole network's milliseconds, ``whole_ms`` measures those in turns with the
    file's, as the machine runs now, and the ceiling is taken from them. Raises BudgetError where the measured median is
    above the ceiling; the files are kept then.
    """
    papers = passport(network, data)
    apart = export(network, papers, data, folder, formats=formats_with(job.procedure.opset))
    if len(network.graph.heads) > 1:
        apart = max(apart, _export_exits(folder, job, network, papers, data))
    write_predictor(folder)
    image = (papers.preprocessing.channels, *papers.preprocessing.size)
    cut = read_record(folder).cut
    most = cut.ceilings.get("latency_ms") if cut else None
    small = _in_int8(folder, job, network, data) if cut and cut.precision == "int8" else None
    file, target = "model.onnx", replace(job.target, precision="float32")
    if small:
        file, target = INT8_FILE, replace(job.target, precision="int8")
    if whole_ms and cut and isinstance(job.budget.latency_ms, str):
        latency, most = _beside(whole_ms, lambda: measure(folder / file, image, target), job.budget.latency_ms)
        update_record(folder, cut=replace(cut, ceilings={**cut.ceilings, "latency_ms": most}))
    else:
        latency = calmest(lambda: measure(folder / file, image, target), most, pause=PAUSE)
    size = (folder / "model.onnx").stat().st_size
    kinds = times_by_kind(folder / file, image, target)
    about: Any = {"latency": latency, "onnx_bytes": size, "precision": target.precision, "operations": kinds}
    exported = ExportRecord(largest_difference=apart, int8=small, **about)
    record = update_record(folder, exported=exported)
    if record.budget_met is False and record.cut:
        allowed = f"{record.cut.ceilings['latency_ms']:.3f} ms allowed"
        allowed += f", {job.budget.latency_ms} of the whole in turns with it" if whole_ms else ""
        raise BudgetError(f"{folder / file}: {latency.median_ms:.3f} ms measured, {allowed}.")
    return exported


def _beside(whole_ms: Callable[[], float], measured: Callable[[], Latency], share: str) -> tuple[Latency, float]:
    """The least of three measurements, and a share of the least of three of the whole between them, milliseconds."""
    turns = [(measured(), whole_ms()) for _ in range(TURNS)]
    latency = min((one for one, _ in turns), key=lambda one: one.median_ms)
    most = Budget(latency_ms=share).resolved({"latency_ms": min(whole for _, whole in turns)}).latency_ms
    assert isinstance(most, float)
    return latency, most


def _in_int8(folder: Path, job: Job, network: Fabric, data: ImageSet) -> Int8 | None:
    """The int8 file of a network, if it costs no more than the job allows; of several exits there is none."""
    if len(network.graph.heads) > 1:
        return None
    return write_int8(folder, data, score(network, data, "val"), job.procedure.int8_loss)


def _export_exits(folder: Path, job: Job, network: Fabric, papers: Passport, data: ImageSet) -> float:
    """Scores of each exit, recorded, and for classification a file of each; the largest difference of logits."""
    exits = exits_of(network, data, data.scored_split)
    update_record(folder, exits=exits)
    if exits.recommended is None:
        return 0.0
    return export_stages(network, papers, data, folder, exits.recommended.limits, opset=job.procedure.opset)


def report_step(folder: Path, data: ImageSet, whole: Graph, network: Fabric) -> Path:
    """``report.html`` of a run folder, from what was recorded and what the network answers."""
    record = read_record(folder).done("data", "fabric", "cut", "network", "tuning", "exported")
    return write_report(folder, record, whole, network, passport(network, data), data)
